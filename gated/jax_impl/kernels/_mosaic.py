"""The kernels for TPUs: a grid of tiles, the sums in VMEM, the innermost axis over d_in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gated.jax_impl._arrays import Array
from gated.jax_impl.kernels._blocks import STRIP, Blocks, ceil_div, fitted
from gated.jax_impl.kernels._tile import Call, dot

__all__ = ["sweep"]


def sweep(
    finish: Callable[..., tuple[Array, ...]],
    call: Call,
    like_gate: tuple[Array, ...],
    dtypes: tuple[Any, ...],
    blocks: Blocks,
    interpret: bool,
) -> tuple[Array, ...]:
    """``finish`` of the sums, the biases and beta, and the arrays like the gate: a result for each of ``dtypes``."""
    m, n, k = call.sizes
    rows, columns, depth = fitted(blocks, "tpu", m, n, k)
    beside, tree = jax.tree.flatten((call.b, call.c, call.beta))
    tile = pl.BlockSpec((rows, columns), lambda i, j, _: (i, j))

    def beside_spec(each: Array) -> pl.BlockSpec:
        tall, wide = each.shape[0] > 1, each.shape[1] > 1
        block = (rows if tall else 1, columns if wide else 1)
        return pl.BlockSpec(block, lambda i, j, _: (i if tall else i * 0, j if wide else j * 0))

    kernel = functools.partial(_kernel, finish, tree, len(beside), len(like_gate), k)
    results = pl.pallas_call(
        kernel,
        grid=(ceil_div(m, rows), ceil_div(n, columns), ceil_div(k, depth)),
        in_specs=[
            pl.BlockSpec((rows, depth), lambda i, _, p: (i, p)),
            pl.BlockSpec((depth, columns), lambda _, j, p: (p, j)),
            pl.BlockSpec((depth, columns), lambda _, j, p: (p, j)),
            *map(beside_spec, beside),
            *(tile for _ in like_gate),
        ],
        out_specs=[tile for _ in dtypes],
        out_shape=[jax.ShapeDtypeStruct((m, n), dtype) for dtype in dtypes],  # type: ignore[no-untyped-call]
        scratch_shapes=[pltpu.VMEM((rows, columns), jnp.float32)] * 2,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
        name="gated_projection" if not like_gate else "gated_projection_pullback",
    )(call.x, call.W, call.V, *beside, *like_gate)
    return tuple(results)


def _kernel(
    finish: Callable[..., tuple[Array, ...]], tree: Any, n_beside: int, n_like: int, size: int, *refs: Any
) -> None:
    x_ref, W_ref, V_ref, *rest = refs
    beside_refs, like_refs = rest[:n_beside], rest[n_beside : n_beside + n_like]
    *out_refs, gate_ref, value_ref = rest[n_beside + n_like :]
    rows, depth = x_ref.shape
    step = pl.program_id(2)

    @pl.when(step == 0)
    def _() -> None:
        gate_ref[...] = jnp.zeros_like(gate_ref)
        value_ref[...] = jnp.zeros_like(value_ref)

    x, W, V = x_ref[...], W_ref[...], V_ref[...]
    if size % depth:  # what lies beyond the arrays is undefined, nan perhaps: on both sides of the products
        left = size - step * depth
        x = jnp.where(lax.broadcasted_iota(jnp.int32, x.shape, 1) < left, x, jnp.zeros_like(x))
        inside = lax.broadcasted_iota(jnp.int32, W.shape, 0) < left
        W, V = jnp.where(inside, W, jnp.zeros_like(W)), jnp.where(inside, V, jnp.zeros_like(V))
    gate_ref[...] += dot(x, W)
    value_ref[...] += dot(x, V)

    @pl.when(step == pl.num_programs(2) - 1)
    def _() -> None:
        def strip(i: Array, _: None) -> None:
            at = pl.ds(i * STRIP, STRIP)

            def of(ref: Any) -> Array:
                piece: Array = ref[at, :] if ref.shape[0] == rows else ref[...]
                return piece

            beside = jax.tree.unflatten(tree, [of(ref) for ref in beside_refs])
            results = finish(gate_ref[at, :], value_ref[at, :], beside, *(of(ref) for ref in like_refs))
            for ref, result in zip(out_refs, results, strict=True):
                ref[at, :] = result.astype(ref.dtype)

        lax.fori_loop(0, rows // STRIP, strip, None)
