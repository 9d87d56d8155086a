"""What a projected form keeps for its backward pass: the gate and the value, in 16 bits where those have the range."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from gated.jax_impl._arrays import Array, DType

__all__ = ["keeping"]


def keeping(formula: Callable[..., Array], dtype: DType, gate: Array, value: Array, *rest: Any) -> Array:
    """``formula(gate, value, *rest)``, for x of ``dtype``; of the intermediates the gate and the value alone are kept.

    bfloat16's are kept in bfloat16, and the derivatives are those at the rounded gate and value. That rounding is
    within the bound of the projected forms, and float32 would take twice the memory. All others are kept as they came:
    a gate or a value beyond the range of float16 has finite derivatives all the same.
    """
    if dtype != jnp.bfloat16:
        result: Array = jax.checkpoint(formula)(gate, value, *rest)
        return result
    # jax.checkpoint keeps the inputs that the derivatives read: of the gate and the value, the rounded ones.
    kept = (gate.astype(dtype), value.astype(dtype))
    result = jax.checkpoint(functools.partial(_formula, formula))((gate, value), kept, rest)
    return result


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _formula(formula: Callable[..., Array], pair: Any, kept: Any, rest: Any) -> Array:
    return formula(*pair, *rest)


@functools.partial(_formula.defjvp, symbolic_zeros=True)
def _formula_jvp(
    formula: Callable[..., Array], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Array, Array]:
    pair, kept, rest = primals
    d_pair, _, d_rest = tangents
    out = _formula(formula, pair, kept, rest)
    points, tree = jax.tree.flatten((*(k.astype(g.dtype) for k, g in zip(kept, pair, strict=True)), *rest))
    directions = jax.tree.leaves((*d_pair, *d_rest))
    moving = [i for i, each in enumerate(directions) if not isinstance(each, SymbolicZero)]

    def along(*moved: Array) -> Array:
        given = dict(zip(moving, moved, strict=True))
        return formula(*jax.tree.unflatten(tree, [given.get(i, point) for i, point in enumerate(points)]))

    if not moving:
        return out, jnp.zeros_like(out)
    return out, jax.jvp(along, [points[i] for i in moving], [directions[i] for i in moving])[1]
