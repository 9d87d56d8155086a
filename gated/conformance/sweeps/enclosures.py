r"""Exact values over runs of consecutive float32 numbers: polynomials with a proven error.

The activations that are swept are built from one increasing curve A and its derivative:

=========== ====================== ==================
activation  A(x)                   value, derivative
=========== ====================== ==================
sigmoid     sigmoid(x)             A,  A'
swish       sigmoid(x)             x A,  A + x A'
gelu        Phi(x)                 x A,  A + x A'
gelu_tanh   sigmoid(w(x))          x A,  A + x A'
=========== ====================== ==================

2^16 consecutive bit patterns lie in one binade: x = c + h t with t = j / 2^15, j = -2^15 ... 2^15 - 1, all of them
float64 numbers. There A is its Taylor polynomial in t plus a remainder of at most the next coefficient over the whole
run (Lagrange). Ball arithmetic encloses the coefficients and that remainder; what float64 adds when the polynomial is
evaluated by Horner's rule is bounded by running error analysis (N. Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., section 5.1). The sum of the three is the proven error, and is far below what an ulp of float32
needs: no point needs an oracle of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import flint
import numpy as np
from numpy.typing import NDArray

__all__ = ["CURVES", "RUN", "Run", "Segment", "run"]

Float64 = NDArray[np.float64]

RUN: Final = 1 << 16
"""Bit patterns in a run."""
_HALF: Final = RUN >> 1
_T: Final[Float64] = np.arange(-_HALF, _HALF) / _HALF
# A' has its digits also where A is 1 - e^-140.
_PRECISION: Final = 384
_DEGREE: Final = 22
# A remainder this far below the largest coefficient is lost in the rounding of float64.
_NEGLIGIBLE: Final = 2.0**-56
# What is below this, also times x, is nothing beside the smallest subnormal number of float32, 2^-149.
_NOTHING: Final = 2.0**-200
_U: Final = 2.0**-53


@dataclass(frozen=True)
class Segment:
    """A polynomial in t, and how far it can be from the curve where float64 evaluates it."""

    coefficients: tuple[float, ...]
    error: float

    def __call__(self) -> Float64:
        """The values at the numbers of the run, lowest magnitude first."""
        *rest, leading = self.coefficients
        total = np.full(RUN, leading)
        for coefficient in reversed(rest):
            total *= _T
            total += coefficient
        return total


@dataclass(frozen=True)
class Run:
    """A curve A and its derivative over 2^16 consecutive bit patterns of one sign."""

    x: Float64
    curve: Segment
    slope: Segment


class _Curve:
    """A curve.

    Attributes:
        own_slope: A' is a result of its own, however small, and not a term beside A.
    """

    def __init__(self, *, own_slope: bool = False) -> None:
        self.own_slope = own_slope


class _Sigmoid(_Curve):
    """A(x) = sigmoid(x)"""

    def series(self, x: flint.arb, length: int) -> list[flint.arb]:
        """Taylor coefficients at x (a number, or a ball that holds the whole run)."""
        with _cap(length):
            t = flint.arb_series([x, 1], prec=length)
            # Whichever exponential is at most about 1: its ball stays narrow.
            e = (-t).exp() if x.mid() > 0 else t.exp()
            series = 1 / (1 + e) if x.mid() > 0 else e / (1 + e)
        return _coefficients(series, length)

    def tail(self, near: flint.arb, far: flint.arb) -> flint.arb:
        """A bound on both 1 - A(|x|), A(-|x|) and A'(x) for near <= |x| <= far."""
        return (-near).exp()


class _NormalCdf(_Curve):
    """A(x) = Phi(x), from A' = phi"""

    def series(self, x: flint.arb, length: int) -> list[flint.arb]:
        with _cap(length):
            t = flint.arb_series([x, 1], prec=length)
            density = (-t * t / 2).exp() / (2 * flint.arb.pi()).sqrt()
        slopes = _coefficients(density, length)
        first = (-x / flint.arb(2).sqrt()).erfc() / 2
        return [first, *(slope / (k + 1) for k, slope in enumerate(slopes[: length - 1]))]

    def tail(self, near: flint.arb, far: flint.arb) -> flint.arb:
        # phi(x) >= 1 - Phi(x) for x >= 1.
        return (-near * near / 2).exp()


class _TanhCdf(_Curve):
    """A(x) = sigmoid(w), w = 2 sqrt(2 / pi) (x + 0.044715 x^3)"""

    def series(self, x: flint.arb, length: int) -> list[flint.arb]:
        with _cap(length):
            t = flint.arb_series([x, 1], prec=length)
            w = _tanh_slope() * (t + _tanh_cubic() * t * t * t)
            e = (-w).exp() if x.mid() > 0 else w.exp()
            series = 1 / (1 + e) if x.mid() > 0 else e / (1 + e)
        return _coefficients(series, length)

    def tail(self, near: flint.arb, far: flint.arb) -> flint.arb:
        w = _tanh_slope() * (near + _tanh_cubic() * near**3)
        slope = _tanh_slope() * (1 + 3 * _tanh_cubic() * far * far)
        return (-w).exp() * slope


def _tanh_slope() -> flint.arb:
    return 2 * (2 / flint.arb.pi()).sqrt()


def _tanh_cubic() -> flint.arb:
    return flint.arb(44715) / 1_000_000


class _cap:  # noqa: N801 - used as a function
    """flint's precision, and its cap on the length of series, for a block of code."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __enter__(self) -> None:
        self._before = flint.ctx.cap
        flint.ctx.cap = self._length

    def __exit__(self, *exception: object) -> None:
        flint.ctx.cap = self._before


def _coefficients(series: Any, length: int) -> list[flint.arb]:
    return [flint.arb(series[k]) for k in range(length)]


CURVES: Final[dict[str, Any]] = {
    "sigmoid": _Sigmoid(own_slope=True),
    "swish": _Sigmoid(),
    "gelu": _NormalCdf(),
    "gelu_tanh": _TanhCdf(),
}


def run(activation: str, index: int) -> Run:
    """The run of the bit patterns ``index * 2^16`` to ``index * 2^16 + 2^16 - 1``, which must be finite numbers.

    Raises:
        ArithmeticError: no polynomial of the degrees that are tried is close enough.
    """
    curve = CURVES[activation]
    bits = np.uint32(index << 16) + np.arange(RUN, dtype=np.uint32)
    x = bits.view(np.float32).astype(np.float64)
    before = flint.ctx.prec
    flint.ctx.prec = _PRECISION
    try:
        return _tail(curve, x) or _taylor(curve, x)
    finally:
        flint.ctx.prec = before


def _tail(curve: Any, x: Float64) -> Run | None:
    """The run as a constant, where A is 0 or 1 to far more than float32 can tell."""
    near, far = flint.arb(float(abs(x[0]))), flint.arb(float(abs(x[-1])))
    if near < 1:
        return None
    bound = curve.tail(near, far)
    # On the right, A + x A' is held against 1; else a result is held against the smallest subnormal number.
    if not bound * far < (2.0**-80 if x[0] > 0 and not curve.own_slope else _NOTHING):
        return None
    error = _above(bound)
    return Run(x, Segment((0.0 if x[0] < 0 else 1.0,), error), Segment((0.0,), error))


def _taylor(curve: Any, x: Float64) -> Run:
    centre = float(x[_HALF])
    h = (float(x[1]) - float(x[0])) * _HALF
    whole = flint.arb(centre, abs(h))
    at, over = (curve.series(point, _DEGREE + 3) for point in (flint.arb(centre), whole))
    scaled = [coefficient * flint.arb(h) ** k for k, coefficient in enumerate(at)]
    remainders = [abs(coefficient) * flint.arb(abs(h)) ** k for k, coefficient in enumerate(over)]
    # A' in t: the coefficients (k + 1) a_(k + 1), over h.
    slopes = [(k + 1) * coefficient / flint.arb(h) for k, coefficient in enumerate(scaled[1:])]
    slope_remainders = [(k + 1) * one / flint.arb(abs(h)) for k, one in enumerate(remainders[1:])]
    return Run(x, _segment(scaled, remainders), _segment(slopes, slope_remainders))


def _segment(coefficients: list[flint.arb], remainders: list[flint.arb]) -> Segment:
    """The shortest of the polynomials whose remainder is lost in the rounding."""
    sizes = [_above(abs(one)) for one in coefficients]
    floor = max(sizes[0] * _NEGLIGIBLE, 2.0**-1000)
    for degree in range(_DEGREE + 1):
        remainder = _above(remainders[degree + 1])
        if remainder <= floor:
            break
    else:
        raise ArithmeticError(f"a remainder of {remainder:.3g} beside {sizes[0]:.3g}")
    kept = tuple(float(one.mid()) for one in coefficients[: degree + 1])
    radii = sum(_above(abs(one - flint.arb(value))) for one, value in zip(coefficients, kept, strict=False))
    # Horner: the coefficient of t^k takes part in 2 k + 1 roundings; 1.01 covers the second order.
    rounding = 1.01 * _U * sum((2 * k + 1) * sizes[k] for k in range(degree + 1))
    return Segment(kept, (remainder + radii + rounding) * (1 + 2.0**-40))


def _above(ball: flint.arb) -> float:
    """A float64 that is at least every number of the ball (not negative)."""
    bound = ball.upper()
    return float(np.nextafter(float(bound.mid()) * (1 + 2.0**-40), np.inf))
