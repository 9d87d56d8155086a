"""The kernels for GPUs, by Triton: a program a tile, the sums in registers, a loop over d_in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from gated.jax_impl._arrays import Array
from gated.jax_impl.kernels._blocks import GPU_STAGES, Blocks, ceil_div, fitted, gpu_warps, rounded_up
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
    rows, columns, depth = fitted(blocks, "gpu", m, n, k)
    whole = rounded_up(k, depth)  # the interpreter pads to blocks; Triton reads what the masks admit
    beside, tree = jax.tree.flatten((call.b, call.c, call.beta))
    tile = pl.BlockSpec((rows, columns), lambda i, j: (i, j))

    def beside_spec(each: Array) -> pl.BlockSpec:
        tall, wide = each.shape[0] > 1, each.shape[1] > 1
        block = (rows if tall else 1, columns if wide else 1)
        return pl.BlockSpec(block, lambda i, j: (i if tall else i * 0, j if wide else j * 0))

    kernel = functools.partial(_kernel, finish, tree, len(beside), len(like_gate), (m, n, k), (rows, columns, depth))
    results = pl.pallas_call(
        kernel,
        grid=(ceil_div(m, rows), ceil_div(n, columns)),
        in_specs=[
            pl.BlockSpec((rows, whole), lambda i, j: (i, j * 0)),
            pl.BlockSpec((whole, columns), lambda i, j: (i * 0, j)),
            pl.BlockSpec((whole, columns), lambda i, j: (i * 0, j)),
            *map(beside_spec, beside),
            *(tile for _ in like_gate),
        ],
        out_specs=[tile for _ in dtypes],
        out_shape=[jax.ShapeDtypeStruct((m, n), dtype) for dtype in dtypes],  # type: ignore[no-untyped-call]
        compiler_params=plt.CompilerParams(num_warps=gpu_warps(Blocks(rows, columns, depth)), num_stages=GPU_STAGES),
        interpret=interpret,
        name="gated_projection" if not like_gate else "gated_projection_pullback",
    )(call.x, call.W, call.V, *beside, *like_gate)
    return tuple(results)


def _kernel(
    finish: Callable[..., tuple[Array, ...]],
    tree: Any,
    n_beside: int,
    n_like: int,
    sizes: tuple[int, int, int],
    blocks: tuple[int, int, int],
    *refs: Any,
) -> None:
    x_ref, W_ref, V_ref, *rest = refs
    beside_refs, like_refs, out_refs = rest[:n_beside], rest[n_beside : n_beside + n_like], rest[n_beside + n_like :]
    (m, n, k), (rows, columns, depth) = sizes, blocks
    in_rows = (pl.program_id(0) * rows + jnp.arange(rows, dtype=jnp.int32) < m)[:, None]
    in_columns = (pl.program_id(1) * columns + jnp.arange(columns, dtype=jnp.int32) < n)[None, :]

    def step(p: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        along = pl.ds(p * depth, depth)
        inside = p * depth + jnp.arange(depth, dtype=jnp.int32) < k
        x = plt.load(x_ref.at[:, along], mask=in_rows & inside[None, :], other=0.0)
        W, V = (plt.load(ref.at[along, :], mask=inside[:, None] & in_columns, other=0.0) for ref in (W_ref, V_ref))
        return sums[0] + dot(x, W), sums[1] + dot(x, V)

    zeros = jnp.zeros((rows, columns), jnp.float32)
    gate, value = lax.fori_loop(0, ceil_div(k, depth), step, (zeros, zeros))

    def of(ref: Any) -> Array:
        tall, wide = ref.shape[0] > 1, ref.shape[1] > 1
        mask = jnp.broadcast_to((in_rows if tall else True) & (in_columns if wide else True), ref.shape)
        loaded: Array = plt.load(ref, mask=mask, other=0.0)
        return loaded

    beside = jax.tree.unflatten(tree, [of(ref) for ref in beside_refs])
    results = finish(gate, value, beside, *(of(ref) for ref in like_refs))
    for ref, result in zip(out_refs, results, strict=True):
        plt.store(ref, result.astype(ref.dtype), mask=in_rows & in_columns)
