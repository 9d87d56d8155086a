"""The exponential of a :class:`~gated.numpy_ref._pair.Pair`, to a small fraction of a unit of roundoff."""

from __future__ import annotations

import decimal
from decimal import Decimal
from functools import cache

import numpy as np

from gated.numpy_ref._pair import Pair, constants, joined
from gated.numpy_ref._wide import Wide

__all__ = ["exp"]

# 2^(k / STEPS) is tabulated for one octave.
_STEPS = 32
_STEPS_OVER_LN2 = 46.16624130844683
# (ln 2) / STEPS in two parts: the first has 21 trailing zero bits, so that k * high is exact for |k| < 2^21.
_STEP_HIGH = 0.02166084938653512
_STEP_LOW = 5.9631716539705866e-12
# exp(-LIMIT) times four of the largest float64 numbers and a cotangent of 2^1024 is still 0 in float64.
_LIMIT = 6000.0


@cache
def _powers() -> Pair:
    """2^(j / STEPS) for j from 0 to STEPS - 1."""
    with decimal.localcontext(prec=60):
        return constants([Decimal(2) ** (Decimal(j) / _STEPS) for j in range(_STEPS)])


def exp(t: Pair) -> Wide:
    """exp(t) for t <= 0, however far down; exactly 0 only at -inf.

    With t = k (ln 2) / 32 + r and |r| <= (ln 2) / 64, it is 2^(k / 32) (1 + expm1(r)), the first factor from a table.
    expm1(r) is at most 0.011: what is off by an ulp in it, in r or in the product is off by 2^-6 in the result's.
    """
    bounded = np.maximum(t.high, -_LIMIT)
    k = np.rint(bounded * _STEPS_OVER_LN2)
    # A high part beyond the bound has a low part beyond any meaning; it is left out there.
    low = np.where(t.high < -_LIMIT, 0.0, t.low)
    r = (bounded - k * _STEP_HIGH) + (low - k * _STEP_LOW)
    steps = np.where(np.isnan(k), 0.0, k).astype(np.int32)
    power = _powers().take(steps & (_STEPS - 1))
    present = t.high != -np.inf
    return Wide(joined(power.high * present, (power.high * np.expm1(r) + power.low) * present), steps >> 5)
