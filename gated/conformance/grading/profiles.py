"""The profiles: what a target is held to. docs/profiles.md derives the bounds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import Format
from gated.conformance.grading.report import FAILURE, NOTE
from gated.conformance.quantities import Quantity

__all__ = ["PROFILES", "Profile"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """What is asked of a target.

    Attributes:
        bounds: the column of the accuracy contract, or ``"field"``.
        strict: the contract's semantics are asked for too: the signs of zeros, the limits at infinity, that integers
            and pairs of different shapes are refused and empty arrays are not. If not, these are notes.
    """

    name: str
    bounds: str
    strict: bool

    @property
    def severity(self) -> str:
        """Of what only the contract asks for."""
        return FAILURE if self.strict else NOTE

    def grade(
        self, quantity: Quantity, result: NDArray[Any], form: Format, *, flushes: bool
    ) -> tuple[Float64, Float64]:
        """The error and the bound of each element in ulp; an error of 0 where none is judged.

        Args:
            result: the whole result, as ``quantity.unpack`` takes it apart.
            flushes: results below the smallest normal number may come back as zeros.
        """
        if not self.strict:
            quantity = dataclasses.replace(quantity, zero_signs=False)
        errors = quantity.errors(result, form, flush=flushes or not self.strict)
        bounds = np.broadcast_to(quantity.bound(self.bounds), errors.shape)
        return np.where(np.isinf(bounds), 0.0, errors), bounds


PROFILES: Final = {
    "contract": Profile("contract", "torch", True),
    "field": Profile("field", "field", False),
}
