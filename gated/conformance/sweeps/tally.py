"""What a unit of work found, for each quantity; units add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gated.conformance.records import from_json, to_json

__all__ = ["Tally"]


@dataclass
class Tally:
    """The largest error among the inputs seen, and how many are past a bound.

    Attributes:
        error: the largest error in ulp; inf: a wrong class (nan, an infinity, the sign of a zero).
        at: the input it is at: a number's bit pattern; for a pair, the gate's times 2^16 plus the value's.
        share: the largest error as a share of the bound at its element.
        share_at: the input that is at.
        failing: inputs past their bound.
        past_half: inputs past half an ulp by more than the errors can be off: for certain not rounded to the nearest
            number (of a derivative: by the ulp of its largest term).
        unsure: how far any of the errors can be off, in ulp: proven.
    """

    error: float = 0.0
    at: int = 0
    share: float = 0.0
    share_at: int = 0
    failing: int = 0
    past_half: int = 0
    unsure: float = 0.0

    def add(
        self,
        errors: NDArray[np.float64],
        at: NDArray[np.integer[Any]],
        bounds: NDArray[np.float64] | float,
        unsure: float = 0.0,
    ) -> None:
        """Takes in the errors of the inputs ``at``, none of which is off by more than ``unsure``."""
        if not errors.size:
            return
        top = int(np.argmax(errors))
        self._largest(float(errors[top]), int(at[top]))
        shares = errors / bounds
        nearest = int(np.argmax(shares))
        self._nearest(float(shares[nearest]), int(at[nearest]))
        self.failing += int(np.count_nonzero(errors > bounds))
        self.past_half += int(np.count_nonzero(errors > 0.5 + unsure))
        self.unsure = max(self.unsure, unsure)

    def _largest(self, error: float, at: int) -> None:
        if error > self.error:
            self.error, self.at = error, at

    def _nearest(self, share: float, at: int) -> None:
        if share > self.share:
            self.share, self.share_at = share, at

    @classmethod
    def sum(cls, tallies: Iterable[Tally]) -> Self:
        """Of all the inputs of all tallies; the first of equals is kept."""
        total = cls()
        for one in tallies:
            total._largest(one.error, one.at)
            total._nearest(one.share, one.share_at)
            total.failing += one.failing
            total.past_half += one.past_half
            total.unsure = max(total.unsure, one.unsure)
        return total

    def as_json(self) -> dict[str, Any]:
        """For JSON."""
        return {name: to_json(one) for name, one in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What :meth:`as_json` gave."""
        return cls(**{name: from_json(one) for name, one in content.items()})
