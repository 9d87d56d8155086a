"""Balls as unevaluated sums of two float64 numbers: exact results for arrays."""

from __future__ import annotations

from typing import Final

import flint
import numpy as np

__all__ = ["RELATIVE_BITS", "as_pair", "magnitude"]

RELATIVE_BITS: Final = 120
"""The accuracy that a ball must have before its midpoint is taken for the exact result."""

_LARGEST: Final = float(np.finfo(np.float64).max)


def as_pair(ball: flint.arb) -> tuple[float, float]:
    """The midpoint as high + low, high within an ulp of it."""
    middle = ball.mid()
    if abs(middle) > flint.arb(_LARGEST) * (1 + flint.arb(2) ** -48):
        return (np.inf if middle > 0 else -np.inf), 0.0
    high: float = _to_float(middle)
    return high, _to_float(middle - flint.arb(high))


def magnitude(ball: flint.arb) -> float:
    """The magnitude of the midpoint to within an ulp, inf past the largest number."""
    middle = abs(ball.mid())
    return np.inf if middle > _LARGEST else abs(_to_float(middle))


def _to_float(middle: flint.arb) -> float:
    """The midpoint as a float64, at most an ulp off; the largest number past the end, a signed zero below all."""
    mantissa, exponent = middle.man_exp()
    bits, power = int(mantissa), int(exponent)
    excess = abs(bits).bit_length() - 64
    if excess > 0:
        bits, power = (bits >> excess if bits > 0 else -(-bits >> excess)), power + excess
    if power + abs(bits).bit_length() < -1080:
        return float(np.copysign(0.0, bits))
    if power + abs(bits).bit_length() > 1024:
        return float(np.copysign(_LARGEST, bits))
    return float(np.clip(np.ldexp(float(bits), power), -_LARGEST, _LARGEST))
