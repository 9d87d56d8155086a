"""One quantity of an observation made ready for symptoms, and the type of a symptom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import Format
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.observation import Observation, Part
from gated.conformance.grading.predictions import Elementwise

__all__ = ["Outcome", "Results", "Symptom"]

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NEARLY_ALL: Final = 0.95
_HARDLY_ANY: Final = 0.1


@dataclass(frozen=True)
class Results:
    """One quantity of an observation, flat, in float64, with the operands of each element (clamped and offset)."""

    observation: Observation
    part: Part

    @property
    def form(self) -> Format:
        return self.observation.form

    @property
    def claim(self) -> Claim:
        return self.observation.claim

    @property
    def elementwise(self) -> bool:
        """Whether each number is of one element."""
        return self.claim.form != "projected" and self.part.quantity.high.shape == self.observation.cotangent.shape

    @cached_property
    def got(self) -> Float64:
        with np.errstate(invalid="ignore"):
            return np.asarray(self.observation.results[self.part.name]).astype(np.float64).ravel()

    @cached_property
    def exact(self) -> Float64:
        return np.asarray(self.part.quantity.high, np.float64).ravel()

    @cached_property
    def wrong(self) -> Mask:
        return self.observation.wrong[self.part.name].ravel()

    @cached_property
    def operands(self) -> tuple[Float64, Float64, Float64, Float64]:
        """Gate, value, beta and cotangent; 1 for what has no part in the quantity."""
        with np.errstate(all="ignore"):
            return self._operands()

    def _operands(self) -> tuple[Float64, Float64, Float64, Float64]:
        elements = Elementwise(self.observation)
        gate, value = elements.operands(self.claim.layout)
        if math.isfinite(self.claim.limit):
            gate, value = np.minimum(gate, self.claim.limit), np.clip(value, -self.claim.limit, self.claim.limit)
        value = value + self.claim.offset
        one = np.ones_like(gate)
        cotangent = one if self.part.name == "value" else elements.cotangent
        return gate, one if self.part.name == "d value" else value, elements.beta, cotangent

    @property
    def partial(self) -> str:
        """Which partial of the activation is a factor."""
        return {"d x": "x", "d gate": "x", "d beta": "beta"}.get(self.part.name, "value")

    @cached_property
    def argument(self) -> Float64:
        """That of the sigmoid or its like."""
        gate, _, beta, _ = self.operands
        with np.errstate(all="ignore"):
            return beta * gate if self.claim.activation == "swish" else gate

    @cached_property
    def finite(self) -> Mask:
        """All operands are, and the exact result."""
        finite = np.isfinite(self.exact)
        for one in self.operands:
            finite = finite & np.isfinite(one)
        return finite

    @cached_property
    def infinite(self) -> Mask:
        """An operand is, and none is nan."""
        some, absent = np.zeros(self.got.shape, bool), np.zeros(self.got.shape, bool)
        for one in self.operands:
            some, absent = some | np.isinf(one), absent | np.isnan(one)
        return some & ~absent

    @cached_property
    def normal(self) -> Mask:
        """The exact result is in the range, or is no zero and failing."""
        size = np.abs(self.exact)
        lost = (size > 4 * self.form.smallest_subnormal) & self.wrong
        return self.finite & ((size >= 2 * self.form.smallest_normal) | lost)


@dataclass(frozen=True)
class Outcome:
    """What a symptom predicts.

    Attributes:
        telling: the inputs on which it predicts something else than the truth.
        matched: where the target is as predicted.
        text: what it means.
        predicted: the results, where it predicts numbers.
        least: telling inputs without which it does not hold.
    """

    telling: Mask
    matched: Mask
    text: str
    predicted: Float64 | None = None
    least: int = 4

    def holds(self, wrong: Mask) -> bool:
        """Whether the target is as predicted, and wrong there."""
        telling = int(self.telling.sum())
        return (
            telling >= self.least
            and int(np.sum(self.matched & self.telling)) >= _NEARLY_ALL * telling
            and int(np.sum(self.telling & ~wrong)) <= _HARDLY_ANY * telling
        )


@dataclass(frozen=True)
class Symptom:
    """An explanation of some failures: a stable id, and the outcomes that it may have for a quantity.

    Attributes:
        applies: to which quantities.
        outcomes: the first that holds is told.
    """

    id: str
    applies: Callable[[Results], bool]
    outcomes: Callable[[Results], Iterator[Outcome]]
