"""What both kernels do: their operands, the products of their sums, and what comes after the sums on a tile.

A sweep (``_mosaic``, ``_triton``) computes the sums x @ W and x @ V tile by tile, and a function of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gated.jax_impl._arrays import Array, Factor
from gated.jax_impl._rule import gated
from gated.jax_impl.kernels._blocks import Blocks
from gated.jax_impl.kernels._inlined import inlined

__all__ = ["Call", "dot", "product", "pullback"]


class Call(NamedTuple):
    """The operands of a kernel, as matrices: what hangs on columns is (1, d_hidden), numbers are (1, 1)."""

    x: Array
    W: Array
    V: Array
    b: Array | None
    c: Array | None
    beta: Factor | None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows of the result, its columns, and the size of the sums."""
        return self.x.shape[0], self.W.shape[1], self.x.shape[1]


def dot(x: Array, W: Array) -> Array:
    """x @ W in float32: products of float32 at full precision, those of 16 bits are exact."""
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.dot(x, W, precision=precision, preferred_element_type=jnp.float32)


def product(sweep: Callable[..., Any], activation: str, call: Call, blocks: Blocks, interpret: bool) -> Array:
    """activation(x W + b) * (x V + c), in the dtype of x."""

    def finish(gate: Array, value: Array, beside: Any) -> tuple[Array]:
        operands = _operands(gate, value, beside)
        return (inlined(lambda g, v, beta: gated(activation, g, beta, v))(*operands),)

    result: Array
    (result,) = sweep(finish, call, (), (call.x.dtype,), blocks, interpret)
    return result


def pullback(
    sweep: Callable[..., Any],
    activation: str,
    call: Call,
    cotangent: Array,
    with_beta: bool,
    blocks: Blocks,
    interpret: bool,
) -> tuple[Array, ...]:
    """The cotangents of the gate, of the value and, if asked for, of beta elementwise, in float32."""

    def pulled(g: Array, v: Array, beta: Factor | None, ct: Array) -> tuple[Array, ...]:
        def unit(g: Array, v: Array, rounded: Array | None) -> Array:
            moved = beta if beta is None or rounded is None else beta._replace(rounded=rounded)
            return gated(activation, g, moved, v)

        _, pull = jax.vjp(unit, g, v, beta.rounded if with_beta and beta is not None else None)
        return tuple(each for each in pull(ct) if each is not None)

    def finish(gate: Array, value: Array, beside: Any, ct: Array) -> tuple[Array, ...]:
        results: tuple[Array, ...] = inlined(pulled)(*_operands(gate, value, beside), ct.astype(jnp.float32))
        return results

    dtypes = (jnp.dtype("float32"),) * (2 + with_beta)
    results: tuple[Array, ...] = sweep(finish, call, (cotangent,), dtypes, blocks, interpret)
    return results


def _operands(gate: Array, value: Array, beside: Any) -> tuple[Array, Array, Factor | None]:
    """gate + b, value + c and beta on a tile, in float32."""

    def like(each: Array) -> Array:
        return jnp.broadcast_to(each.astype(jnp.float32), gate.shape)

    b, c, beta = jax.tree.map(like, beside)
    return gate if b is None else gate + b, value if c is None else value + c, beta
