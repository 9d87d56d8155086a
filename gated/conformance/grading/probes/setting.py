"""What the probes of a dtype share: the target, a plain call, and how far two replies may be apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import Format, ulp_exponent
from gated.conformance.grading.cases import Trial
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Facts, Reply, Request, Runner
from gated.conformance.grading.measuring import lined_up
from gated.conformance.grading.observation import Part
from gated.conformance.grading.profiles import Profile
from gated.conformance.grading.report import Finding

__all__ = ["Setting", "apart", "fitting", "in_words", "whole"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """What all probes of a dtype share."""

    claim: Claim
    form: Format
    profile: Profile
    facts: Facts
    runner: Runner
    trial: Trial
    gradients: bool
    required: frozenset[str]

    def finding(self, kind: str, severity: str, text: str, **evidence: Any) -> Finding:
        return Finding(kind, severity, text, self.form.name, evidence)

    def request(self, trial: Trial, **options: Any) -> Request:
        """The request of a trial: with its gradient, where there is one."""
        task = "gradient" if self.gradients else "value"
        return Request(task, tuple(trial.arguments.values()), trial.cotangent if self.gradients else None, **options)

    def ask(self, *requests: Request) -> list[Reply]:
        return self.runner.run(requests)

    def distances(self, trial: Trial, reply: Reply, other: Reply, backward: int = -1) -> dict[str, Float64]:
        """By part, how far two replies are apart, in twice the bound."""
        distances = {}
        for part in trial.parts:
            first, second = fitting(trial, part, reply, 0), fitting(trial, part, other, backward)
            if first is not None and second is not None:
                a, b = part.quantity.unpack(first), part.quantity.unpack(second)
                distances[part.name] = apart(a, b, self.room(part))
        return distances

    def room(self, part: Part) -> Float64:
        """What two results that are both within their bounds may be apart; infinity where none is judged."""
        high, scale = part.quantity.high, part.quantity.scale
        at = np.abs(high) if scale is None else np.maximum(np.abs(high), scale)
        bound = np.broadcast_to(part.quantity.bound(self.profile.bounds), high.shape)
        with np.errstate(all="ignore"):
            ulp = np.ldexp(1.0, ulp_exponent(np.minimum(at, self.form.largest), self.form))
            room: Float64 = np.maximum(2 * bound * ulp, self.form.smallest_normal)
            return room


def apart(first: Array, second: Array, room: Float64) -> Float64:
    """How far apart the elements of two results are, in their room; 0 where none is judged or they are the same."""
    with np.errstate(all="ignore"):
        a, b = first.astype(np.float64), second.astype(np.float64)
        distance = np.abs(a - b) / room
    # A difference that is not one of value (zeros' signs, kinds of nan) is none.
    same = (a == b) | (np.isnan(a) & np.isnan(b)) | np.isinf(room)
    return np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))


def whole(trial: Trial, part: Part, reply: Reply, backward: int = 0) -> Array | None:
    """The result that a part is of, as it came."""
    if not part.argument:
        return reply.value
    if not reply.cotangents:
        return None
    return reply.cotangents[backward][list(trial.arguments).index(part.argument)]


def fitting(trial: Trial, part: Part, reply: Reply, backward: int = 0) -> Array | None:
    """The same in the dtype of the trial; None where it does not fit."""
    found = whole(trial, part, reply, backward)
    return None if found is None else lined_up(found, part, trial.form)


def in_words(name: str) -> str:
    """A part's name in a sentence."""
    return "value" if name == "value" else f"gradient ({name})"
