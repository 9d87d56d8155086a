"""Numbers of about 106 bits: the unevaluated sum of a float64 and of what rounding left out of it.

The formulas of this package multiply, divide and add a dozen times; with a low part carried along, only the last
rounding, to the dtype of the result, is felt. The products and sums are those of Dekker, "A floating-point technique
for extending the available precision" (1971), and Knuth, "The Art of Computer Programming", volume 2, section 4.2.2.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterable
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Float64", "Pair", "constant", "constants", "exact", "joined"]

Float64 = NDArray[np.float64]

_SPLIT = 134217729.0  # 2^27 + 1


class Pair:
    """``high + low``, elementwise, with ``low`` a few units of roundoff of ``high`` at most.

    For numbers that neither overflow nor underflow in any partial product. Where ``high`` is not finite, it alone
    counts, and where the sum is 0, ``high`` has its sign.
    """

    __slots__ = ("high", "low")

    def __init__(self, high: Float64, low: Float64) -> None:
        self.high = high
        self.low = low

    def __neg__(self) -> Pair:
        return Pair(-self.high, -self.low)

    def __mul__(self, other: Pair) -> Pair:
        high = self.high * other.high
        a, b = _halves(self.high), _halves(other.high)
        # ((a b - high) + a b.low + a.low b) + a.low b.low, in place: what a block needs is to stay in the cache.
        low = a.high * b.high
        low -= high
        low += a.high * b.low
        low += a.low * b.high
        low += a.low * b.low
        low += self.high * other.low
        low += self.low * other.high
        return Pair(high, low)

    def __add__(self, other: Pair) -> Pair:
        high = self.high + other.high
        part = high - self.high
        error = (self.high - (high - part)) + (other.high - part)
        low = error + (self.low + other.low)
        # After cancellation the low parts may be all there is; beside an infinity they are nan.
        return joined(high, np.where(np.isfinite(high), low, 0.0))

    def __radd__(self, other: float) -> Pair:
        return exact(np.asarray(other)) + self

    def __rsub__(self, other: float) -> Pair:
        return exact(np.asarray(other)) + -self

    def __rtruediv__(self, other: float) -> Pair:
        quotient = other / self.high
        back = exact(quotient) * self
        return Pair(quotient, ((other - back.high) - back.low) / self.high)

    def take(self, index: NDArray[np.integer]) -> Pair:
        """The numbers at the places ``index``; past the end, the last."""
        return Pair(np.take(self.high, index, mode="clip"), np.take(self.low, index, mode="clip"))

    def to_float64(self) -> Float64:
        """The nearest float64."""
        total = self.high + self.low
        return np.where(np.isnan(total) | (total == 0), self.high, total)


def exact(x: Float64) -> Pair:
    """``x`` itself: nothing was rounded."""
    return Pair(x, np.zeros_like(x))


def joined(high: Float64, low: Float64) -> Pair:
    """``high + low``, where ``low`` is the smaller one, or both are 0."""
    total = high + low
    return Pair(total, low - (total - high))


def _halves(a: Float64) -> Pair:
    """``a`` as the sum of two numbers of 26 bits each, whose products are exact."""
    high = _SPLIT * a
    high -= high - a
    return Pair(high, a - high)


def constant(digits: str) -> Pair:
    """A number written in decimal, to 34 digits or more if it does not end before."""
    one = constants([Decimal(digits)])
    return Pair(one.high[0], one.low[0])


def constants(numbers: Iterable[Decimal]) -> Pair:
    """Numbers known to 34 digits or more."""
    with decimal.localcontext(prec=60):
        parts = [(float(number), float(number - Decimal(float(number)))) for number in numbers]
    high, low = np.array(parts).T.copy()
    return Pair(high, low)
