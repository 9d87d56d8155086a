"""Balls as unevaluated sums of two float64 numbers: exact results for arrays."""

from __future__ import annotations

import math
from typing import Final

import flint
import numpy as np

from gated.conformance.rounding import shifted

__all__ = ["RELATIVE_BITS", "as_pair", "magnitude"]

RELATIVE_BITS: Final = 120
"""The accuracy that a ball must have before its midpoint is taken for the exact result."""

_LARGEST: Final = float(np.finfo(np.float64).max)


def as_pair(ball: flint.arb) -> tuple[float, float]:
    """The midpoint as high + low, high the float64 nearest to it."""
    middle = ball.mid()
    if abs(middle) > flint.arb(_LARGEST) * (1 + flint.arb(2) ** -48):
        return (np.inf if middle > 0 else -np.inf), 0.0
    high: float = _to_float(middle)
    return high, _to_float(middle - flint.arb(high))


def magnitude(ball: flint.arb) -> float:
    """The magnitude of the midpoint, rounded to nearest; inf past the largest number."""
    middle = abs(ball.mid())
    return np.inf if middle > _LARGEST else abs(_to_float(middle))


def _to_float(middle: flint.arb) -> float:
    """The midpoint rounded to float64 once, ties to even; the largest number past the end, a signed zero below all."""
    mantissa, exponent = middle.man_exp()
    bits, power = abs(int(mantissa)), int(exponent)
    sign = -1.0 if mantissa < 0 else 1.0
    top = power + bits.bit_length()
    if top < -1080:
        return math.copysign(0.0, sign)
    if top > 1024:
        return sign * _LARGEST
    # In units of the last place: of 53 bits, or of the smallest subnormal number.
    unit = max(top - 53, -1074)
    if unit > power:
        bits, power = shifted(bits, power - unit), unit
    return sign * (math.ldexp(bits, power) if bits.bit_length() + power <= 1024 else _LARGEST)
