"""The projected forms: x @ W + b gates x @ V + c, and the feed-forward block around it.

The letters are those of Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202. Products are taken and summed in
float64, a tile of gates at a time (:mod:`gated.numpy_ref._projection_tiles`), and only the result is rounded to the
arrays' dtype: beside it a call holds a few blocks of float64 numbers, whatever the size of x and of the weights.
"""

from __future__ import annotations

import numpy as np

from gated.numpy_ref._arrays import Array, checks, rounded, to_float64
from gated.numpy_ref._projection_tiles import Tiles, bias, by_rows
from gated.numpy_ref.units import unit_formula

__all__ = ["gated_ffn", "gated_linear", "glu_linear", "swiglu_linear"]


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
    tiles = Tiles(x, W, V, W2, b, c, b2, activation, beta)
    out = np.empty((*x.shape[:-1], W2.shape[1]), x.dtype)
    with np.errstate(all="ignore"):
        for rows in tiles.row_blocks:
            y = np.zeros(by_rows(out)[rows].shape)
            for columns in tiles.column_blocks:
                hidden = unit_formula(activation, *tiles.gates(rows, columns)).to_float64()
                y += hidden @ to_float64(W2[columns])
            by_rows(out)[rows] = rounded(y + bias(b2), out.dtype)
    return out


def _linear(
    x: Array, W: Array, V: Array, b: Array | None, c: Array | None, activation: str, beta: float | Array
) -> Array:
    tiles = Tiles(x, W, V, None, b, c, None, activation, beta)
    out = np.empty(tiles.shape, x.dtype)
    with np.errstate(all="ignore"):
        for rows in tiles.row_blocks:
            for columns in tiles.column_blocks:
                hidden = unit_formula(activation, *tiles.gates(rows, columns)).to_float64()
                by_rows(out)[rows, columns] = rounded(hidden, out.dtype)
    return out
