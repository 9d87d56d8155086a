"""The oracle: closed forms in ball arithmetic (python-flint), each result with a proven error.

A ball is a midpoint with a radius that bounds every rounding on the way. The precision is raised until the radius is
below 2^-120 of the result, so that an error measured against it is right to many digits; where no precision suffices,
:class:`Undecided` is raised rather than a guess returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import flint
import numpy as np
from numpy.typing import NDArray

from gated.conformance.closed_forms import activation_terms

__all__ = ["BallMath", "Undecided", "exact_sums"]

Float64 = NDArray[np.float64]

# e^-ARGUMENT times any four float64 numbers is below every subnormal, on the right side of zero.
_ARGUMENT: Final = 20000
_RELATIVE_BITS: Final = 120


class Undecided(ArithmeticError):
    """No precision that was tried proves the result."""


class BallMath:
    """Balls (``flint.arb``) at flint's current precision."""

    def sigmoid(self, t: flint.arb) -> flint.arb:
        return 1 / (1 + (-_bounded(t, _ARGUMENT)).exp())

    def normal_cdf(self, x: flint.arb) -> flint.arb:
        return (-_bounded(x, 200) / flint.arb(2).sqrt()).erfc() / 2

    def normal_pdf(self, x: flint.arb) -> flint.arb:
        x = _bounded(x, 200)
        return (-x * x / 2).exp() / (2 * flint.arb.pi()).sqrt()

    def positive(self, x: flint.arb) -> flint.arb:
        return flint.arb(1 if x > 0 else 0)

    def tanh_slope(self) -> flint.arb:
        return 2 * (2 / flint.arb.pi()).sqrt()

    def tanh_cubic(self) -> flint.arb:
        return flint.arb(44715) / 1_000_000


def _bounded(t: flint.arb, limit: int) -> flint.arb:
    """t, or the limit of its sign where t is past it: there the result is below or at a number already decided."""
    if t > limit:
        return flint.arb(limit)
    if t < -limit:
        return flint.arb(-limit)
    return t


def exact_sums(
    terms: Callable[..., Sequence[Any]], *inputs: Float64
) -> tuple[Float64, Float64, Float64]:
    """The sums of ``terms(*numbers)`` over arrays of finite float64 numbers.

    Returns:
        high, low: the exact sums as ``high + low``, to at least 100 bits.
        scale: the magnitude of the largest term.
    """
    arrays = np.broadcast_arrays(*inputs)
    shape = arrays[0].shape
    columns = [array.ravel().tolist() for array in arrays]
    results = [_exact_sum(terms, numbers) for numbers in zip(*columns, strict=True)]
    high, low, scale = (np.array(column, np.float64).reshape(shape) for column in (zip(*results) if results else ((), (), ())))
    return high, low, scale


def _exact_sum(terms: Callable[..., Sequence[Any]], numbers: tuple[float, ...]) -> tuple[float, float, float]:
    for precision in (192, 384, 1536, 6144):
        flint.ctx.prec = precision
        parts = [flint.arb(part) for part in terms(*(flint.arb(number) for number in numbers))]
        total = sum(parts[1:], start=parts[0])
        if total == 0:
            # An exact zero has the sign of the product that made it, which balls do not know.
            return 0.0, 0.0, max(_magnitude(part) for part in parts)
        if total.rel_accuracy_bits() >= _RELATIVE_BITS:
            high, low = _as_pair(total)
            return high, low, max(_magnitude(part) for part in parts)
    raise Undecided(f"the sum of the terms at {numbers} is not decided at {precision} bits")


_LARGEST: Final = float(np.finfo(np.float64).max)


def _as_pair(ball: flint.arb) -> tuple[float, float]:
    """The midpoint as high + low, high the nearest float64."""
    middle = ball.mid()
    if abs(middle) > flint.arb(_LARGEST) * (1 + flint.arb(2) ** -48):
        return (np.inf if middle > 0 else -np.inf), 0.0
    high = _to_float(middle)
    return high, _to_float(middle - flint.arb(high))


def _to_float(middle: flint.arb) -> float:
    """The midpoint as a float64, at most one ulp off; the largest number past the end, a signed zero below the range."""
    mantissa, exponent = middle.man_exp()
    bits, power = int(mantissa), int(exponent)
    excess = abs(bits).bit_length() - 64
    if excess > 0:
        bits, power = (bits >> excess if bits > 0 else -(-bits >> excess)), power + excess
    if power + abs(bits).bit_length() < -1080:
        return np.copysign(0.0, bits)
    if power + abs(bits).bit_length() > 1024:
        return float(np.copysign(_LARGEST, bits))
    return float(np.clip(np.ldexp(float(bits), power), -_LARGEST, _LARGEST))


def _magnitude(ball: flint.arb) -> float:
    middle = abs(ball.mid())
    return np.inf if middle > _LARGEST else abs(_to_float(middle))


def unit_terms(activation: str, partial: str) -> Callable[..., list[Any]]:
    """The terms of cotangent * activation(gate, beta) * value, or of its derivative, over balls."""
    m = BallMath()

    def terms(cotangent: Any, gate: Any, value: Any, beta: Any) -> list[Any]:
        return [cotangent * part * value for part in activation_terms(m, activation, partial, gate, beta)]

    return terms
