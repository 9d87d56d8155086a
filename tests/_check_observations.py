"""Observations of implementations that run in this process: calls of a claim, its results, and which are wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import FORMATS
from gated.conformance.grading.cases import Trial, trials
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.measuring import lined_up
from gated.conformance.grading.observation import Observation
from gated.conformance.grading.profiles import PROFILES

Array = NDArray[Any]
Implementation = Callable[..., tuple[Array, Sequence[Array | None]]]
"""Of the arguments and the cotangent: the value, and the cotangent of each argument."""


def observe(
    claim: Claim, dtype: str, implementation: Implementation, *, profile: str = "field", seed: int = 0
) -> list[Observation]:
    """What is seen of an implementation on the quick cases of a claim."""
    return [_observed(claim, one, implementation, profile) for one in trials(claim, dtype, "quick", seed)]


def _observed(claim: Claim, trial: Trial, implementation: Implementation, profile: str) -> Observation:
    with np.errstate(all="ignore"):
        value, cotangents = implementation(*trial.arguments.values(), trial.cotangent)
    raw: dict[str, Array | None] = {"": value, **dict(zip(claim.arguments, cotangents, strict=True))}
    results, wrong = {}, {}
    for part in trial.parts:
        whole = raw[part.argument]
        result = None if whole is None else lined_up(whole, part, FORMATS[trial.form.name])
        if result is not None:
            results[part.name] = part.quantity.unpack(result)
            errors, bounds = PROFILES[profile].grade(part.quantity, result, trial.form, flushes=False)
            wrong[part.name] = errors > bounds
    return Observation(
        claim, trial.form, trial.arguments, trial.elements, trial.cotangent, trial.parts, results, raw, wrong
    )
