"""Matching: whether a target's results are those of a hypothesis, on inputs where the claimed function gives others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.grading.predictions import Prediction

__all__ = ["LEAST", "NEARLY_ALL", "Match", "compare", "merged"]

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

NEARLY_ALL: Final = 0.97
"""The share of the telling inputs that a hypothesis must match, and that the truth must not."""

LEAST: Final = 8
"""Telling inputs without which there is no match; fewer where there are not more results."""


@dataclass(frozen=True)
class Match:
    """A hypothesis held against one quantity of one observation.

    Attributes:
        telling: inputs where the hypothesis and the truth differ by more than both tolerances.
        matched: those of them on which the target is the hypothesis's.
        true: those on which it is the truth's.
        failing: the inputs looked at on which the target is wrong.
        failing_matched: those of them that are the hypothesis's.
        largest: the largest distance from the hypothesis on the matched ones, in its own tolerance.
        example: one input that tells, with what was computed and what either predicts.
    """

    telling: int
    matched: int
    true: int
    failing: int
    failing_matched: int
    largest: float
    example: Mapping[str, str]
    least: int = LEAST

    @property
    def holds(self) -> bool:
        """Whether the target computes the hypothesis, and not the claimed function."""
        enough = self.telling >= self.least
        return enough and self.matched >= NEARLY_ALL * self.telling and self.true <= (1 - NEARLY_ALL) * self.telling

    @property
    def share(self) -> float:
        """Of the failing results, those that the hypothesis explains."""
        return self.failing_matched / self.failing if self.failing else 1.0

    def evidence(self) -> dict[str, Any]:
        """What shows it."""
        return {
            "inputs that tell": self.telling,
            "match the hypothesis": self.matched,
            "match the claimed function": self.true,
            "largest distance in its tolerance": round(self.largest, 3),
            "at": dict(self.example),
        }


def compare(
    got: Float64,
    wrong: Mask,
    truth: Prediction,
    hypothesis: Prediction,
    operands: Mapping[str, Float64],
) -> Match:
    """Holds results against a hypothesis and the truth; all arrays are flat and of one size.

    Args:
        wrong: where the results are past their bound.
        operands: what the example names.
    """
    with np.errstate(all="ignore"):
        apart = np.abs(hypothesis.value - truth.value)
        telling = np.isfinite(got) & np.isfinite(hypothesis.error) & np.isfinite(truth.error)
        telling &= apart > hypothesis.error + truth.error
        distance = np.abs(got - hypothesis.value)
        near = distance <= hypothesis.error
        true = np.abs(got - truth.value) <= truth.error
        judged = wrong & np.isfinite(hypothesis.error) & np.isfinite(hypothesis.value)
        shares = np.where(telling & near, distance / np.where(hypothesis.error > 0, hypothesis.error, 1.0), 0.0)
        spread = np.where(
            telling & near, apart / np.maximum(np.abs(hypothesis.value) + np.abs(truth.value), 1e-300), -1.0
        )
    example: dict[str, str] = {}
    if np.any(telling & near):
        # One where the two are far apart, of ordinary size.
        size = sum(np.abs(np.log2(np.maximum(np.abs(one), 1e-300))) for one in operands.values()) if operands else 0.0
        index = int(
            np.argmax(np.where(spread > 0.1 * spread.max(), -np.asarray(size) - np.zeros_like(spread), -np.inf))
        )
        example = {name: f"{one[index]:.9g}" for name, one in operands.items()}
        example |= {
            "computed": f"{got[index]:.9g}",
            "claimed function": f"{truth.value[index]:.9g}",
            "hypothesis": f"{hypothesis.value[index]:.9g}",
        }
    return Match(
        int(telling.sum()),
        int(np.sum(telling & near)),
        int(np.sum(telling & true)),
        int(judged.sum()),
        int(np.sum(judged & near)),
        float(shares.max(initial=0.0)),
        example,
        min(LEAST, max(1, got.size)),
    )


def merged(matches: Sequence[Match]) -> Match:
    """Several quantities or observations as one; the example is the first's."""
    first = next((one for one in matches if one.example), matches[0])
    return Match(
        sum(one.telling for one in matches),
        sum(one.matched for one in matches),
        sum(one.true for one in matches),
        sum(one.failing for one in matches),
        sum(one.failing_matched for one in matches),
        max(one.largest for one in matches),
        first.example,
        min(one.least for one in matches),
    )
