"""Numbers of about 106 bits whose exponent cannot leave the range.

A gated unit multiplies three and more factors, each of which may be as large as 1e308 or as small as exp(-2000); the
product is often an ordinary number where a partial product is not. :class:`Wide` keeps mantissa and exponent apart, so
that the formulas of this package can be written as they stand in the papers, in any order, and are rounded to the
precision and the range of a dtype once, at the end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gated.numpy_ref._pair import Float64, Pair, exact

__all__ = ["Wide", "product", "select", "vanishing", "wide"]

Int32 = NDArray[np.int32]

# What is this far below another number does not show in their sum, nor does a number so small in an exponential.
_NEGLIGIBLE = -1000
# exp of a number of this exponent, at least 2^16 in size, is 0 or infinite for all that follows.
_SATURATED = 20


class Wide:
    """``mantissa * 2**exponent``, elementwise. Infinities, nan and the signs of zeros live in the mantissa.

    The mantissa of a number is its own in [0.5, 1), and that of a product or a sum of a few is not far from it.
    """

    __slots__ = ("exponent", "mantissa")

    def __init__(self, mantissa: Pair, exponent: Int32) -> None:
        self.mantissa = mantissa
        self.exponent = exponent

    def __mul__(self, other: Wide | Pair) -> Wide:
        if isinstance(other, Wide):
            return Wide(self.mantissa * other.mantissa, self.exponent + other.exponent)
        return Wide(self.mantissa * other, self.exponent)

    def __add__(self, other: Wide) -> Wide:
        lowest = np.int32(-(2**30))
        mine = np.where(self.mantissa.high == 0, lowest, self.exponent)
        its = np.where(other.mantissa.high == 0, lowest, other.exponent)
        common = np.maximum(mine, its)
        return Wide(_scaled(self.mantissa, mine - common) + _scaled(other.mantissa, its - common), common)

    def halved(self) -> Wide:
        """Half the number, exactly."""
        return Wide(self.mantissa, self.exponent - 1)

    def to_pair(self) -> Pair:
        """The number as the argument of an exponential: where it is too large or small to matter, another such."""
        return _scaled(self.mantissa, np.minimum(self.exponent, _SATURATED))

    def to_float64(self) -> Float64:
        """The nearest float64, subnormals, zeros and infinities included.

        A subnormal is rounded twice: where 53 bits end in a tie, it may be the other neighbour.
        """
        return np.ldexp(self.mantissa.to_float64(), self.exponent)


def _scaled(x: Pair, exponent: Int32) -> Pair:
    # No power is 0, which times an infinity would be nan.
    power = np.ldexp(1.0, np.maximum(exponent, _NEGLIGIBLE))
    return Pair(x.high * power, x.low * power)


def wide(x: Float64 | Pair) -> Wide:
    """``x`` as it is, exactly; a pair has to be of moderate size."""
    if isinstance(x, Pair):
        return Wide(x, np.zeros_like(x.high, np.int32))
    mantissa, exponent = np.frexp(x)
    return Wide(exact(mantissa), exponent)


def product(a: Float64, b: Float64) -> Wide:
    """``a * b`` without error. 0 * inf counts as 0: the limit along the finite factor."""
    result = wide(a) * wide(b)
    high = result.mantissa.high
    indefinite = np.isnan(high) & ~np.isnan(a) & ~np.isnan(b)
    return Wide(_replaced(result.mantissa, indefinite, 0.0), result.exponent)


def select(condition: NDArray[np.bool_], yes: Wide, no: Wide) -> Wide:
    """``yes`` where the condition holds, ``no`` elsewhere."""
    high = np.where(condition, yes.mantissa.high, no.mantissa.high)
    low = np.where(condition, yes.mantissa.low, no.mantissa.low)
    return Wide(Pair(high, low), np.where(condition, yes.exponent, no.exponent))


def vanishing(growing: Wide, factor: Wide) -> Wide:
    """``growing * factor`` where ``factor`` goes to 0 faster than ``growing`` goes to infinity: inf * 0 is 0."""
    high = growing.mantissa.high
    outrun = np.isinf(high) & (factor.mantissa.high == 0)
    return Wide(_replaced(growing.mantissa, outrun, np.copysign(1.0, high)), growing.exponent) * factor


def _replaced(x: Pair, condition: NDArray[np.bool_], number: Float64 | float) -> Pair:
    """``x``, but ``number`` where the condition holds."""
    return Pair(np.where(condition, number, x.high), np.where(condition, 0.0, x.low))
