"""Exact results at chosen points, by the oracle where operands are finite and by rule where they are not."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance import inputs
from gated.conformance.error import FORMATS
from gated.conformance.limits import activation_sign, special_products
from gated.conformance.oracle import exact_sums, unit_terms

__all__ = ["PARTIAL", "Exact", "exact_points", "signed", "table"]

Float64 = NDArray[np.float64]

PARTIAL: Final = {"value": "value", "d x": "x", "d beta": "beta", "d gate": "x", "d value": "value"}
"""Which partial of the activation each quantity has as its factor."""


@dataclass(frozen=True)
class Exact:
    """Exact results ``high + low``, and the largest terms, where an ulp is taken."""

    high: Float64
    low: Float64
    scale: Float64

    def __getitem__(self, index: NDArray[np.integer[Any]] | int) -> Exact:
        return Exact(self.high[index], self.low[index], self.scale[index])


def signed(activation: str, partial: str) -> bool:
    """Whether the sign of a zero counts: the derivatives of swish and gelu in x are sums, whose zeros have none."""
    return partial != "x" or activation in ("sigmoid", "identity")


def exact_points(activation: str, partial: str, x: Float64) -> Exact:
    """An activation with beta = 1, or its partial derivative, at each x."""
    finite = np.isfinite(x)
    ones = np.ones_like(x)
    with np.errstate(invalid="ignore"):
        high = special_products(activation, partial, ones, x, ones, ones)
    low, scale = np.zeros_like(x), np.ones_like(x)
    if finite.any():
        inside = x[finite]
        one = np.ones_like(inside)
        sums, low[finite], scale[finite] = exact_sums(unit_terms(activation, partial), one, inside, one, one)
        # Balls do not know the sign of an exact zero.
        signs = activation_sign(activation, partial, inside)
        high[finite] = np.where(sums == 0, np.copysign(sums, signs), sums)
    return Exact(high, low, scale)


@functools.cache
def table(activation: str, partial: str, dtype: str) -> Exact:
    """An activation with beta = 1, or its partial derivative, at every number of a 16-bit format, by bit pattern."""
    with np.errstate(invalid="ignore"):  # signalling nans
        return exact_points(activation, partial, inputs.all_patterns(FORMATS[dtype]).astype(np.float64))
