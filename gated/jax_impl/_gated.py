"""Where the public functions meet the rule: cast up, broadcast, apply, round once.

``jax.checkpoint`` makes the inputs the only residuals, in the dtype in which they came.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from gated.jax_impl._arrays import Array, Factor, compiled, compute_dtype
from gated.jax_impl._explicit import broadcast_like, is_sharded
from gated.jax_impl._rule import clamped_unit, gated, rectified

__all__ = ["activation_of", "clamped", "packed_unit", "split_packed", "unit"]


@compiled(0)
def activation_of(activation: str, x: Array, beta: Factor | None = None) -> Array:
    """activation(x), in the dtype of ``x``."""

    @jax.checkpoint
    def formula(x: Array, beta: Factor | None) -> Array:
        wide = x.astype(compute_dtype(x))
        y = rectified(wide) if activation == "relu" else gated(activation, wide, _like(beta, wide), None)
        return y.astype(x.dtype)

    result: Array = formula(x, beta)
    return result


@compiled(0)
def unit(activation: str, gate: Array, value: Array, beta: Factor | None = None) -> Array:
    """activation(gate) * value, in the dtype of ``gate``."""
    result: Array = jax.checkpoint(functools.partial(_unit, activation))(gate, value, beta)
    return result


@compiled(0, 1, 2)
def packed_unit(activation: str, axis: int, layout: str, x: Array, beta: Factor | None = None) -> Array:
    """activation(gate) * value of the halves of ``x``, in the dtype of ``x``."""

    @jax.checkpoint
    def formula(x: Array, beta: Factor | None) -> Array:
        return _unit(activation, *split_packed(x, axis, layout), beta)

    result: Array = formula(x, beta)
    return result


@compiled(0, 1, 2, 3)
def clamped(axis: int, layout: str, limit: float, offset: float, x: Array, alpha: Factor | None) -> Array:
    """(g * sigmoid(alpha * g)) * (v + offset), with g = min(gate, limit) and v = clip(value, -limit, limit)."""

    @jax.checkpoint
    def formula(x: Array, alpha: Factor | None) -> Array:
        gate, value = split_packed(x.astype(compute_dtype(x)), axis, layout)
        return clamped_unit(limit, offset, gate, _like(alpha, gate), value).astype(x.dtype)

    result: Array = formula(x, alpha)
    return result


def split_packed(x: Array, axis: int, layout: str) -> tuple[Array, Array]:
    """The gate and the value."""
    n = x.shape[axis] // 2
    if layout != "interleaved" and is_sharded(x, axis):
        # JAX refuses the reshape below where a mesh of explicit axes shards the axis.
        first, last = lax.split(x, (n, n), axis)
    else:
        # Halves along an axis of their own: XLA on the CPU writes their cotangents in one loop, and copies to join two.
        sizes, halves_at = ((n, 2), axis + 1) if layout == "interleaved" else ((2, n), axis)
        pairs = x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])
        first, last = (jnp.squeeze(half, halves_at) for half in lax.split(pairs, (1, 1), halves_at))
    return (last, first) if layout == "gate_last" else (first, last)


def _unit(activation: str, gate: Array, value: Array, beta: Factor | None) -> Array:
    g = gate.astype(compute_dtype(gate))
    v = value.astype(g.dtype)
    return gated(activation, g, _like(beta, g) if activation == "swish" else None, v).astype(gate.dtype)


def _like(beta: Factor | None, x: Array) -> Factor | None:
    """``beta`` with the dtype and the shape of ``x``. Cast first: its cotangent is summed before it is rounded."""
    result: Factor | None = jax.tree.map(lambda part: broadcast_like(part.astype(x.dtype), x), beta)
    return result
