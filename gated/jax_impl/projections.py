"""The projected forms: x @ W + b gates x @ V + c, and the feed-forward block around it.

The letters are those of Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202. Matrix products accumulate in
float32 (float64 for float64), at the highest precision the device has for float32 operands. For float16 and bfloat16
the gate and the value stay in float32 until the unit's one rounding, and so do their cotangents; kept for the backward
pass they are in bfloat16 where x is (``_residuals.py``).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax

from gated.jax_impl._arrays import Array, Beta, DType, Factor, beta_operand, checks, compiled, compute_dtype
from gated.jax_impl._explicit import dot_general, varying_like
from gated.jax_impl._gated import unit
from gated.jax_impl._residuals import keeping
from gated.jax_impl.kernels import fused

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
        TypeError: an argument is no JAX array of an allowed dtype, or dtypes differ.
        ValueError: the shapes do not fit.
    """
    checks.projected("glu_linear", x=x, W=W, V=V, b=b, c=c)
    return _linear("sigmoid", x, W, V, b, c, None)


def swiglu_linear(
    x: Array, W: Array, V: Array, b: Array | None = None, c: Array | None = None, beta: Beta = 1.0
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
            enlarging it; differentiable.

    Returns:
        (..., d_hidden), of the dtype of ``x``.

    Raises:
        TypeError: an argument is no JAX array of an allowed dtype, or dtypes differ.
        ValueError: the shapes do not fit, or ``beta`` does not broadcast to the gate.
    """
    checks.projected("swiglu_linear", x=x, W=W, V=V, b=b, c=c, beta=beta)
    return _linear("swish", x, W, V, b, c, beta_operand(beta, x))


def gated_linear(
    x: Array,
    W: Array,
    V: Array,
    b: Array | None = None,
    c: Array | None = None,
    *,
    activation: str = "swish",
    beta: Beta = 1.0,
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
        beta: of swish, else without effect: a Python number, or an array of the dtype of ``x`` that broadcasts to the
            gate, (..., d_hidden), without enlarging it; differentiable.

    Returns:
        (..., d_hidden), of the dtype of ``x``.

    Raises:
        TypeError: an argument is no JAX array of an allowed dtype, or dtypes differ.
        ValueError: the shapes do not fit, ``beta`` does not broadcast to the gate, or ``activation`` is unknown.
    """
    checks.projected("gated_linear", x=x, W=W, V=V, b=b, c=c, activation=activation, beta=beta)
    return _linear(activation, x, W, V, b, c, beta_operand(beta, x))


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
    beta: Beta = 1.0,
) -> Array:
    r"""The feed-forward block: :math:`\bigl(\operatorname{activation}(xW + b) \cdot (xV + c)\bigr) W_2 + b_2`.

    Source: Shazeer, arXiv:2002.05202, equation 6, with biases.

    Args:
        x: (..., d_in), float16, bfloat16, float32 or float64.
        W: (d_in, d_hidden), projects the gate.
        V: (d_in, d_hidden), projects the value.
        W2: (d_hidden, d_out), projects down.
        b: (d_hidden,), the gate's bias, or None.
        c: (d_hidden,), the value's bias, or None.
        b2: (d_out,), the bias of the result, or None.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: of swish, else without effect: a Python number, or an array of the dtype of ``x`` that broadcasts to the
            gate, (..., d_hidden), without enlarging it; differentiable.

    Returns:
        (..., d_out), of the dtype of ``x``.

    Raises:
        TypeError: an argument is no JAX array of an allowed dtype, or dtypes differ.
        ValueError: the shapes do not fit, ``beta`` does not broadcast to the gate, or ``activation`` is unknown.
    """
    checks.projected("gated_ffn", x=x, W=W, V=V, W2=W2, b=b, c=c, b2=b2, activation=activation, beta=beta)
    return _ffn(activation, x, W, V, W2, b, c, b2, beta_operand(beta, x))


@compiled(0)
def _linear(
    activation: str, x: Array, W: Array, V: Array, b: Array | None, c: Array | None, beta: Factor | None
) -> Array:
    kernel = fused(x)
    if kernel is not None:
        return kernel(activation, x, W, V, b, c, beta)
    gate, value = _gate_and_value(x, W, V, b, c)
    return keeping(functools.partial(_product, activation, x.dtype), x.dtype, gate, value, beta)


@compiled(0)
def _ffn(
    activation: str,
    x: Array,
    W: Array,
    V: Array,
    W2: Array,
    b: Array | None,
    c: Array | None,
    b2: Array | None,
    beta: Factor | None,
) -> Array:
    if fused(x) is not None:
        return _affine(_linear(activation, x, W, V, b, c, beta), W2, b2).astype(x.dtype)
    gate, value = _gate_and_value(x, W, V, b, c)
    return keeping(functools.partial(_down, activation, x.dtype), x.dtype, gate, value, beta, W2, b2)


def _gate_and_value(x: Array, W: Array, V: Array, b: Array | None, c: Array | None) -> tuple[Array, Array]:
    # Once for both: inside shard_map the two gradients of a replicated x are then summed before they are sent.
    x = varying_like(x, W)
    return _affine(x, W, b), _affine(x, V, c)


def _product(activation: str, dtype: DType, gate: Array, value: Array, beta: Factor | None) -> Array:
    return unit(activation, gate, value, beta).astype(dtype)


def _down(
    activation: str, dtype: DType, gate: Array, value: Array, beta: Factor | None, W2: Array, b2: Array | None
) -> Array:
    return _affine(_product(activation, dtype, gate, value, beta), W2, b2).astype(dtype)


def _affine(x: Array, W: Array, b: Array | None) -> Array:
    """x @ W + b in the compute dtype of ``x``."""
    dtype = compute_dtype(x)
    last = (((x.ndim - 1,), (0,)), ((), ()))
    # A weakly typed W is the one that has another dtype: it gives way to x.
    y = dot_general(x, W.astype(x.dtype), last, precision=lax.Precision.HIGHEST, preferred_element_type=dtype)
    # Of the rank of y: users may have JAX refuse to promote ranks.
    return y if b is None else y + jnp.expand_dims(b.astype(dtype), range(y.ndim - 1))
