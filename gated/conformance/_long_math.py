"""The closed forms in the platform's long double: fast, some 60 bits, and not proven. For ranking inputs only."""

from __future__ import annotations

import functools
from typing import Any, Final

import flint
import numpy as np
from numpy.typing import NDArray

from gated.conformance._pairs import as_pair
from gated.conformance.balls import BallMath

__all__ = ["HAS_LONG_DOUBLE", "LongMath"]

HAS_LONG_DOUBLE: Final = bool(np.finfo(np.longdouble).nmant >= 63)
"""Whether a long double has the bits to tell errors of float64: not on Windows, nor on Apple's processors."""

_FARTHEST: Final = 64.0
_SPACING: Final = 1 / 32
# (1/64)^11 / 11! of a function whose derivatives are at most 1 and fall with t.
_DEGREE: Final = 11


class LongMath:
    """Long double arrays, as :class:`gated.conformance.closed_forms.Math`."""

    bound: Final = 11000.0

    def sigmoid(self, t: Any) -> Any:
        t = np.clip(t, -self.bound, self.bound)
        e = np.exp(-np.abs(t))
        return np.where(t < 0, e, 1) / (1 + e)

    def normal_cdf(self, x: Any) -> Any:
        t = np.minimum(np.abs(x), _FARTHEST)
        tail = self.normal_pdf(t) * _mills_ratio(t)
        return np.where(x < 0, tail, 1 - tail)

    def normal_pdf(self, x: Any) -> Any:
        x = np.clip(x, -_FARTHEST, _FARTHEST)
        return np.exp(-x * x / 2) * _constants()["density at 0"]

    def positive(self, x: Any) -> Any:
        return np.where(x > 0, np.longdouble(1), np.longdouble(0))

    def tanh_slope(self) -> Any:
        return _constants()["tanh slope"]

    def tanh_cubic(self) -> Any:
        return _constants()["tanh cubic"]


def _long(ball: flint.arb) -> Any:
    high, low = as_pair(ball)
    return np.longdouble(high) + np.longdouble(low)


@functools.cache
def _constants() -> dict[str, Any]:
    m = BallMath()
    with flint.ctx.workprec(256):
        balls = {"density at 0": m.normal_pdf(flint.arb(0)), "tanh slope": m.tanh_slope(), "tanh cubic": m.tanh_cubic()}
        return {name: _long(ball) for name, ball in balls.items()}


@functools.cache
def _nodes() -> NDArray[Any]:
    """Mills' ratio R(t) = Phi(-t) / phi(t) at the multiples of the spacing."""
    m = BallMath()
    with flint.ctx.workprec(256):
        points = [flint.arb(k) * _SPACING for k in range(round(_FARTHEST / _SPACING) + 1)]
        return np.array([_long(m.normal_cdf(-t) / m.normal_pdf(t)) for t in points])


def _mills_ratio(t: Any) -> Any:
    """Taylor's series at the nearest node, from R' = t R - 1: R^(k+1) = t R^(k) + k R^(k-1)."""
    index = np.rint(np.asarray(t, np.float64) / _SPACING).astype(np.intp)
    node = index * np.longdouble(_SPACING)
    h = t - node
    last, current = _nodes()[index], node * _nodes()[index] - 1
    total, power = last, h
    for k in range(1, _DEGREE + 1):
        total = total + current * power
        last, current, power = current, node * current + k * last, power * h / (k + 1)
    return total
