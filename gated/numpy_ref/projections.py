"""The projected forms: x @ W + b gates x @ V + c, and the feed-forward block around it.

The letters are those of Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202. Products are taken in float64
over blocks of rows of x, and only the result is rounded to the arrays' dtype: beside the result, a call holds the
weights (a derivative also their cotangents or tangents) and one block of rows in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gated.numpy_ref._arrays import Array, checks, rounded, to_float64
from gated.numpy_ref._wide import Float64
from gated.numpy_ref.units import unit_formula

__all__ = ["gated_ffn", "gated_linear", "glu_linear", "swiglu_linear"]

# Elements of a block of rows: large enough for the matrix product, small beside the weights.
BLOCK = 262_144


def glu_linear(x: Array, W: Array, V: Array, b: Array | None = None, c: Array | None = None) -> Array:
    r"""GLU with its projections: :math:`\sigma(xW + b) \cdot (xV + c)`.

    Source: Shazeer, arXiv:2002.05202, equation 4.

    Args:
        x: (..., d_in), float16, bfloat16, float32 or float64.
        W: (d_in, d_hidden), projects the gate.
        V: (d_in, d_hidden), projects the value.
        b: (d_hidden,), the gate's bias, or None.
        c: (d_hidden,), the value's bias, or None.

    Returns:
        (..., d_hidden), of the dtype of ``x``.

    Raises:
        TypeError: an argument is no array of an allowed dtype, or dtypes differ.
        ValueError: the shapes do not fit.
    """
    checks.projected("glu_linear", x=x, W=W, V=V, b=b, c=c)
    return _linear(x, W, V, b, c, "sigmoid", 1.0)


def swiglu_linear(
    x: Array, W: Array, V: Array, b: Array | None = None, c: Array | None = None, beta: float | Array = 1.0
) -> Array:
    r"""SwiGLU with its projections: :math:`\operatorname{swish}_\beta(xW + b) \cdot (xV + c)`.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Args:
        x: (..., d_in), float16, bfloat16, float32 or float64.
        W: (d_in, d_hidden), projects the gate.
        V: (d_in, d_hidden), projects the value.
        b: (d_hidden,), the gate's bias, or None.
        c: (d_hidden,), the value's bias, or None.
        beta: a Python number, or an array of the dtype of ``x`` that broadcasts to the gate, (..., d_hidden), without
            enlarging it.

    Returns:
        (..., d_hidden), of the dtype of ``x``.

    Raises:
        TypeError: an argument is no array of an allowed dtype, or dtypes differ.
        ValueError: the shapes do not fit, or ``beta`` does not broadcast to the gate.
    """
    checks.projected("swiglu_linear", x=x, W=W, V=V, b=b, c=c, beta=beta)
    return _linear(x, W, V, b, c, "swish", beta)


def gated_linear(
    x: Array,
    W: Array,
    V: Array,
    b: Array | None = None,
    c: Array | None = None,
    *,
    activation: str = "swish",
    beta: float | Array = 1.0,
) -> Array:
    r"""A gated unit with its projections: :math:`\operatorname{activation}(xW + b) \cdot (xV + c)`.

    Source: Shazeer, arXiv:2002.05202, equations 4 and 5.

    Args:
        x: (..., d_in), float16, bfloat16, float32 or float64.
        W: (d_in, d_hidden), projects the gate.
        V: (d_in, d_hidden), projects the value.
        b: (d_hidden,), the gate's bias, or None.
        c: (d_hidden,), the value's bias, or None.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: swish's beta, a Python number, or an array of the dtype of ``x`` that broadcasts to the gate,
            (..., d_hidden), without enlarging it. The other activations have no use for it.

    Returns:
        (..., d_hidden), of the dtype of ``x``.

    Raises:
        TypeError: an argument is no array of an allowed dtype, or dtypes differ.
        ValueError: the shapes do not fit, ``activation`` is unknown, or ``beta`` does not broadcast to the gate.
    """
    checks.projected("gated_linear", x=x, W=W, V=V, b=b, c=c, activation=activation, beta=beta)
    return _linear(x, W, V, b, c, activation, beta)


def gated_ffn(
    x: Array,
    W: Array,
    V: Array,
    W2: Array,
    b: Array | None = None,
    c: Array | None = None,
    b2: Array | None = None,
    *,
    activation: str = "swish",
    beta: float | Array = 1.0,
) -> Array:
    r"""The gated feed-forward block: :math:`(\operatorname{activation}(xW + b) \cdot (xV + c)) \, W_2 + b_2`.

    Source: Shazeer, arXiv:2002.05202, equation 6.

    Args:
        x: (..., d_in), float16, bfloat16, float32 or float64.
        W: (d_in, d_hidden), projects the gate.
        V: (d_in, d_hidden), projects the value.
        W2: (d_hidden, d_out), projects down.
        b: (d_hidden,), the gate's bias, or None.
        c: (d_hidden,), the value's bias, or None.
        b2: (d_out,), the bias of the result, or None.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: swish's beta, a Python number, or an array of the dtype of ``x`` that broadcasts to the gate,
            (..., d_hidden), without enlarging it. The other activations have no use for it.

    Returns:
        (..., d_out), of the dtype of ``x``.

    Raises:
        TypeError: an argument is no array of an allowed dtype, or dtypes differ.
        ValueError: the shapes do not fit, ``activation`` is unknown, or ``beta`` does not broadcast to the gate.
    """
    checks.projected("gated_ffn", x=x, W=W, V=V, W2=W2, b=b, c=c, b2=b2, activation=activation, beta=beta)
    out = np.empty((*x.shape[:-1], W2.shape[1]), x.dtype)
    w2, bias2 = to_float64(W2), bias(b2)
    with np.errstate(all="ignore"):
        for rows, gate, value, beta_rows in projected_rows(x, to_float64(W), to_float64(V), b, c, beta):
            hidden = unit_formula(activation, gate, value, beta_rows).to_float64()
            by_rows(out)[rows] = rounded(hidden @ w2 + bias2, out.dtype)
    return out


def _linear(
    x: Array, W: Array, V: Array, b: Array | None, c: Array | None, activation: str, beta: float | Array
) -> Array:
    out = np.empty((*x.shape[:-1], W.shape[1]), x.dtype)
    with np.errstate(all="ignore"):
        for rows, gate, value, beta_rows in projected_rows(x, to_float64(W), to_float64(V), b, c, beta):
            by_rows(out)[rows] = rounded(unit_formula(activation, gate, value, beta_rows).to_float64(), out.dtype)
    return out


def projected_rows(
    x: Array, w: Float64, v: Float64, b: Array | None, c: Array | None, beta: float | Array
) -> Iterator[tuple[slice, Float64, Float64, Float64]]:
    """Blocks of rows, each with its gate ``x @ W + b``, its value ``x @ V + c`` and its beta, in float64."""
    bias_gate, bias_value = bias(b), bias(c)
    x_rows = by_rows(x)
    for rows in row_blocks(len(x_rows), max(w.shape)):
        part = to_float64(x_rows[rows])
        beta_rows = rows_of(beta, rows, (*x.shape[:-1], w.shape[1]))
        yield rows, part @ w + bias_gate, part @ v + bias_value, beta_rows


def rows_of(a: float | Array, rows: slice, shape: tuple[int, ...]) -> Float64:
    """The rows of ``a`` broadcast to ``shape``, in float64."""
    leading = shape[:-1]
    if not leading:
        return to_float64(np.broadcast_to(np.asarray(a), shape)[np.newaxis])
    index = np.unravel_index(np.arange(*rows.indices(math.prod(leading))), leading)
    return to_float64(np.broadcast_to(np.asarray(a), shape)[index])


def row_blocks(count: int, width: int) -> Iterator[slice]:
    """Slices of ``count`` rows, for matrices of up to ``width`` columns."""
    step = max(16, BLOCK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, start + step)


def bias(offset: Array | None) -> Float64:
    """A bias in float64; -0.0, which adds nothing to any number, where there is none."""
    return np.array(-0.0) if offset is None else to_float64(offset)


def by_rows(a: Array) -> Array:
    """``a`` with all axes but the last made one: a view of an array whose rows follow each other."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
