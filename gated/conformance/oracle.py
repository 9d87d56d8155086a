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

__all__ = ["BallMath", "Undecided", "exact_projection", "exact_sums", "unit_terms"]

Float64 = NDArray[np.float64]

# e^-ARGUMENT times any four float64 numbers is below every subnormal, on the right side of zero.
_ARGUMENT: Final = 20000
_RELATIVE_BITS: Final = 120


class Undecided(ArithmeticError):  # noqa: N818 - it says what happened
    """No precision that was tried proves the result."""


class _Straddles(ArithmeticError):  # noqa: N818 - likewise
    """A ball around zero: more precision will tell its sign."""


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
        if not (x > 0 or x <= 0):
            raise _Straddles
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


def exact_sums(terms: Callable[..., Sequence[Any]], *inputs: Float64) -> tuple[Float64, Float64, Float64]:
    """The sums of ``terms(*numbers)`` over arrays of finite float64 numbers.

    Returns:
        high, low: the exact sums as ``high + low``: to some 100 bits, or to the smallest subnormal number. An exact
            zero is +0.0, a sum below all numbers a zero of its sign.
        scale: the magnitude of the largest term.
    """
    arrays = np.broadcast_arrays(*inputs)
    shape = arrays[0].shape
    columns = [array.ravel().tolist() for array in arrays]
    results = [_exact_sum(terms, numbers) for numbers in zip(*columns, strict=True)]
    high, low, scale = np.array(results, np.float64).reshape(-1, 3).T.reshape(3, *shape)
    return high, low, scale


def _exact_sum(terms: Callable[..., Sequence[Any]], numbers: tuple[float, ...]) -> tuple[float, float, float]:
    for precision in (192, 384, 1536, 6144):
        flint.ctx.prec = precision
        parts = [flint.arb(part) for part in terms(*(flint.arb(number) for number in numbers))]
        total = sum(parts[1:], start=parts[0])
        if total == 0:
            return 0.0, 0.0, max(_magnitude(part) for part in parts)
        if total.rel_accuracy_bits() >= _RELATIVE_BITS:
            high, low = _as_pair(total)
            return high, low, max(_magnitude(part) for part in parts)
    raise Undecided(f"the sum of the terms at {numbers} is not decided at {precision} bits")


_LARGEST: Final = float(np.finfo(np.float64).max)


def _as_pair(ball: flint.arb) -> tuple[float, float]:
    """The midpoint as high + low, high within an ulp of it."""
    middle = ball.mid()
    if abs(middle) > flint.arb(_LARGEST) * (1 + flint.arb(2) ** -48):
        return (np.inf if middle > 0 else -np.inf), 0.0
    high: float = _to_float(middle)
    return high, _to_float(middle - flint.arb(high))


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


def _magnitude(ball: flint.arb) -> float:
    middle = abs(ball.mid())
    return np.inf if middle > _LARGEST else abs(_to_float(middle))


def unit_terms(activation: str, partial: str, offset: float = 0.0) -> Callable[..., list[Any]]:
    """The terms of cotangent * activation(gate, beta) * (value + offset), or of its derivative, over balls."""
    m = BallMath()

    def terms(cotangent: Any, gate: Any, value: Any, beta: Any) -> list[Any]:
        return [cotangent * part * (value + offset) for part in activation_terms(m, activation, partial, gate, beta)]

    return terms


def exact_projection(
    arguments: dict[str, Float64], cotangent: Float64, *, activation: str, beta: Float64
) -> dict[str, tuple[Float64, Float64]]:
    """The value (key ``"value"``) and every cotangent of a projected form, each as (high, low), by products of balls.

    Args:
        arguments: ``x`` (rows, d_in), ``W``, ``V`` and, where there are any, ``W2``, ``b``, ``c``, ``b2``.
        cotangent: of the shape of the result.
        beta: 0-d, or (d_hidden,).

    Raises:
        Undecided: no precision that was tried proves every number.
    """
    for precision in (256, 1024, 4096):
        flint.ctx.prec = precision
        try:
            exact = _projection(arguments, cotangent, activation, beta)
        except _Straddles:
            continue
        entries = [entry for matrix in exact.values() for entry in matrix.entries()]
        if all(entry == 0 or entry.rel_accuracy_bits() >= _RELATIVE_BITS for entry in entries):
            shapes = {name: array.shape for name, array in arguments.items()}
            shapes |= {"value": cotangent.shape, "beta": beta.shape}
            return {name: _as_pairs(exact[name], shape) for name, shape in shapes.items()}
    raise Undecided(f"a projected form is not decided at {precision} bits")


def _projection(
    arguments: dict[str, Float64], cotangent: Float64, activation: str, beta: Float64
) -> dict[str, flint.arb_mat]:
    """The value and every cotangent as matrices of balls, at flint's current precision."""
    m = BallMath()
    x, w, v, dy = (_ball_matrix(a) for a in (arguments["x"], arguments["W"], arguments["V"], cotangent))
    gate = _add_row(x * w, arguments.get("b"))
    value = _add_row(x * v, arguments.get("c"))
    rows, width = gate.nrows(), gate.ncols()
    betas = [flint.arb(one) for one in np.broadcast_to(beta, (width,)).tolist()]

    def apply(partial: str) -> flint.arb_mat:
        entries = [
            sum(activation_terms(m, activation, partial, gate[i, j], betas[j]), start=flint.arb(0))
            for i in range(rows)
            for j in range(width)
        ]
        return flint.arb_mat(rows, width, entries)

    activated = apply("value")
    hidden = _hadamard(activated, value)
    result, dh = hidden, dy
    exact: dict[str, flint.arb_mat] = {}
    if "W2" in arguments:
        w2 = _ball_matrix(arguments["W2"])
        result = _add_row(hidden * w2, arguments.get("b2"))
        dh = dy * w2.transpose()
        exact["W2"] = hidden.transpose() * dy
        exact["b2"] = _column_sums(dy)
    dgate = _hadamard(_hadamard(dh, apply("x")), value)
    dvalue = _hadamard(dh, activated)
    dbeta = _column_sums(_hadamard(_hadamard(dh, apply("beta")), value))
    return exact | {
        "value": result,
        "x": dgate * w.transpose() + dvalue * v.transpose(),
        "W": x.transpose() * dgate,
        "V": x.transpose() * dvalue,
        "b": _column_sums(dgate),
        "c": _column_sums(dvalue),
        "beta": dbeta if beta.ndim else flint.arb_mat(1, 1, [sum(dbeta.entries(), start=flint.arb(0))]),
    }


def _ball_matrix(a: Float64) -> flint.arb_mat:
    rows, columns = a.shape
    return flint.arb_mat(rows, columns, [flint.arb(one) for one in a.ravel().tolist()])


def _add_row(a: flint.arb_mat, row: Float64 | None) -> flint.arb_mat:
    if row is None:
        return a
    return a + flint.arb_mat(a.nrows(), a.ncols(), [flint.arb(one) for one in row.tolist()] * a.nrows())


def _hadamard(a: flint.arb_mat, b: flint.arb_mat) -> flint.arb_mat:
    return flint.arb_mat(a.nrows(), a.ncols(), [p * q for p, q in zip(a.entries(), b.entries(), strict=True)])


def _column_sums(a: flint.arb_mat) -> flint.arb_mat:
    ones = flint.arb_mat(1, a.nrows(), [flint.arb(1)] * a.nrows())
    return ones * a


def _as_pairs(a: flint.arb_mat, shape: tuple[int, ...]) -> tuple[Float64, Float64]:
    pairs = [_as_pair(one) for one in a.entries()]
    high, low = zip(*pairs, strict=True)
    return np.array(high).reshape(shape), np.array(low).reshape(shape)
