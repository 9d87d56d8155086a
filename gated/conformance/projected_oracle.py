"""The oracle of the projected forms: products of matrices of balls, for small cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from gated.conformance._pairs import RELATIVE_BITS, as_pair
from gated.conformance.balls import PRECISIONS, BallMath, BoundedBallMath, Straddles, decide
from gated.conformance.closed_forms import activation_terms
from gated.conformance.error import Format
from gated.conformance.rounding import rounded_sum

__all__ = ["correctly_rounded_projection", "exact_projection"]

Float64 = NDArray[np.float64]


def exact_projection(
    arguments: Mapping[str, Float64], cotangent: Float64, *, activation: str, beta: Float64
) -> dict[str, tuple[Float64, Float64]]:
    """The value (key ``"value"``) and every cotangent of a projected form, each as (high, low), by products of balls.

    Args:
        arguments: ``x`` (rows, d_in), ``W``, ``V`` and, where there are any, ``W2``, ``b``, ``c``, ``b2``; finite.
        cotangent: of the shape of the result.
        beta: 0-d, or (d_hidden,).

    Raises:
        Undecided: no precision that was tried proves every number.
    """

    def pairs() -> dict[str, tuple[Float64, Float64]]:
        exact = _projection(BoundedBallMath(), arguments, cotangent, activation, beta)
        entries = [entry for matrix in exact.values() for entry in matrix.entries()]
        if not all(entry == 0 or entry.rel_accuracy_bits() >= RELATIVE_BITS for entry in entries):
            raise Straddles
        return {name: _as_pairs(exact[name], shape) for name, shape in _shapes(arguments, cotangent, beta).items()}

    return decide(pairs, lambda: "a projected form", (256, 1024, 4096))


def correctly_rounded_projection(
    arguments: Mapping[str, Float64],
    cotangent: Float64,
    form: Format,
    activation: str,
    beta: Float64 | float = 1.0,
    *,
    precisions: Sequence[int] = PRECISIONS,
) -> dict[str, NDArray[Any]]:
    """The value (key ``"value"``) and every cotangent of a projected form, each element correctly rounded.

    The cotangent of beta is that of swish's beta; of any other activation it is 0. An exact zero is given as +0: its
    terms may be of either sign. The unit of an error is the ulp of the result.

    Args:
        arguments: as for :func:`exact_projection`, numbers of ``form``.
        beta: a number, or an array of shape (d_hidden,).
        precisions: in bits, tried in order.

    Returns:
        For each name an array of objects (:class:`gated.conformance.rounding.Rounded`) of the argument's shape.

    Raises:
        ValueError: an argument is not finite.
        Undecided: no precision that was tried proves every number.
    """
    beta = np.asarray(beta, np.float64)
    given = {**arguments, "cotangent": cotangent, "beta": beta}
    if infinite := [name for name, array in given.items() if not np.all(np.isfinite(array))]:
        raise ValueError(
            f"correctly_rounded_projection: arguments must be finite, got {', '.join(infinite)} that is not"
        )

    def rounded() -> dict[str, NDArray[Any]]:
        exact = _projection(BallMath(), arguments, cotangent, activation, beta)
        results = {}
        for name, shape in _shapes(arguments, cotangent, beta).items():
            entries = [rounded_sum([entry], form) for entry in exact[name].entries()]
            results[name] = np.array(entries, object).reshape(shape)
        return results

    return decide(rounded, lambda: "a projected form", precisions)


def _shapes(arguments: Mapping[str, Float64], cotangent: Float64, beta: Float64) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in ({**arguments, "value": cotangent, "beta": beta}).items()}


def _projection(
    m: BallMath, arguments: Mapping[str, Float64], cotangent: Float64, activation: str, beta: Float64
) -> dict[str, flint.arb_mat]:
    """The value and every cotangent as matrices of balls, at flint's current precision."""
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
    pairs = [as_pair(one) for one in a.entries()]
    high, low = zip(*pairs, strict=True)
    return np.array(high).reshape(shape), np.array(low).reshape(shape)
