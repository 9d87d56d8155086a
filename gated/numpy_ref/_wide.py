"""Numbers with the precision of float64 and an exponent that cannot leave the range.

A gated unit multiplies three and more factors, each of which may be as large as 1e308 or as small as exp(-2000); the
product is often an ordinary number where a partial product is not. :class:`Wide` keeps mantissa and exponent apart, so
that the formulas of this package can be written as they stand in the papers, in any order, and are rounded to the range
of a dtype once, at the end.

:class:`Pair` is the argument of an exponential as an unevaluated sum ``high + low``: exp turns the rounding error of
its argument, half an ulp of t, into t half-ulps of its result, so products like beta * x keep their low part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Float64", "Pair", "Wide", "add", "exact_product", "exp", "multiply", "select", "vanishing", "wide"]

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

_LOG2_E = 1.4426950408889634
# ln 2 in two parts: the first has 21 trailing zero bits, so that k * high is exact for |k| < 2^21.
_LN2_HIGH = 0.6931471803691238
_LN2_LOW = 1.9082149292705877e-10
_SPLIT = 134217729.0  # 2^27 + 1
_LARGEST = np.finfo(np.float64).max
# exp(-LIMIT) times four of the largest float64 numbers and a cotangent of 2^1024 is still 0 in float64.
_LIMIT = 6000.0


class Wide:
    """``mantissa * 2**exponent``, elementwise. Infinities and nan live in the mantissa."""

    __slots__ = ("exponent", "mantissa")

    def __init__(self, mantissa: Float64, exponent: Int32) -> None:
        self.mantissa = mantissa
        self.exponent = exponent

    def __mul__(self, other: Wide | float) -> Wide:
        if isinstance(other, Wide):
            return Wide(self.mantissa * other.mantissa, self.exponent + other.exponent)
        return Wide(self.mantissa * other, self.exponent)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Float64) -> Wide:
        """Division by numbers near 1: the mantissa does not leave the range."""
        return Wide(self.mantissa / divisor, self.exponent)

    def __add__(self, other: Wide) -> Wide:
        lowest = np.int32(-(2**30))
        mine = np.where(self.mantissa == 0, lowest, self.exponent)
        its = np.where(other.mantissa == 0, lowest, other.exponent)
        common = np.maximum(mine, its)
        total = np.ldexp(self.mantissa, mine - common) + np.ldexp(other.mantissa, its - common)
        return Wide(total, common)

    def to_float64(self) -> Float64:
        """The nearest float64, subnormals, zeros and infinities included."""
        return np.ldexp(self.mantissa, self.exponent)


def wide(x: Float64) -> Wide:
    """``x`` as it is, exactly."""
    return Wide(*np.frexp(x))


def select(condition: NDArray[np.bool_], yes: Wide, no: Wide) -> Wide:
    """``yes`` where the condition holds, ``no`` elsewhere."""
    return Wide(
        np.where(condition, yes.mantissa, no.mantissa),
        np.where(condition, yes.exponent, no.exponent),
    )


def vanishing(growing: Wide, factor: Wide) -> Wide:
    """``growing * factor`` where ``factor`` goes to 0 faster than ``growing`` goes to infinity: inf * 0 is 0."""
    outrun = np.isinf(growing.mantissa) & (factor.mantissa == 0)
    sign = np.copysign(1.0, growing.mantissa)
    return Wide(np.where(outrun, sign, growing.mantissa), growing.exponent) * factor


class Pair(NamedTuple):
    """The unevaluated sum ``high + low``, where ``low`` is what rounding left out of ``high``."""

    high: Float64
    low: Float64


def exact_product(a: Float64, b: Float64) -> Pair:
    """``a * b`` without error (Dekker, "A floating-point technique for extending the available precision", 1971).

    0 * inf counts as 0: the limit along the finite factor.
    """
    mantissa_a, exponent_a = np.frexp(a)
    mantissa_b, exponent_b = np.frexp(b)
    high_a, low_a = _split(mantissa_a)
    high_b, low_b = _split(mantissa_b)
    product = mantissa_a * mantissa_b
    error = ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b
    high = np.ldexp(product, exponent_a + exponent_b)
    low = np.ldexp(error, exponent_a + exponent_b)
    indefinite = np.isnan(high) & ~np.isnan(a) & ~np.isnan(b)
    high = np.where(indefinite, 0.0, high)
    # A finite product beyond the range stays finite: only an infinite factor takes a function to its limit.
    high = np.where(np.isfinite(a) & np.isfinite(b), np.clip(high, -_LARGEST, _LARGEST), high)
    return Pair(high, np.where(np.isfinite(low) & (np.abs(high) < _LARGEST), low, 0.0))


def _split(a: Float64) -> tuple[Float64, Float64]:
    scaled = _SPLIT * a
    high = scaled - (scaled - a)
    return high, a - high


def multiply(a: Pair, b: Pair) -> Pair:
    """``a * b`` to about 106 bits, for finite numbers far from the ends of the range."""
    high, low = exact_product(a.high, b.high)
    return _renormalised(high, low + (a.high * b.low + a.low * b.high))


def add(a: float, b: Pair) -> Pair:
    """``a + b`` to about 106 bits (Knuth's two-sum)."""
    high = a + b.high
    part = high - a
    low = (a - (high - part)) + (b.high - part)
    return _renormalised(high, low + b.low)


def _renormalised(high: Float64, low: Float64) -> Pair:
    total = high + low
    return Pair(total, low - (total - high))


def exp(t: Pair) -> Wide:
    """exp(t) for t <= 0, however far down; exactly 0 only at -inf."""
    bounded = np.maximum(t.high, -_LIMIT)
    k = np.rint(bounded * _LOG2_E)
    # A high part beyond the bound has an error beyond any meaning; it is left out there.
    low = np.where(t.high < -_LIMIT, 0.0, t.low)
    rest = ((bounded - k * _LN2_HIGH) - k * _LN2_LOW) + low
    mantissa = np.where(t.high == -np.inf, 0.0, np.exp(rest))
    return Wide(mantissa, np.where(np.isnan(k), 0.0, k).astype(np.int32))
