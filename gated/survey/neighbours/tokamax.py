"""tokamax's gated linear unit, by its XLA implementation: the kernels need a GPU or TPU."""

from __future__ import annotations

import jax
import tokamax

__all__ = ["geglu_linear", "swiglu_linear"]


def swiglu_linear(x: jax.Array, W: jax.Array, V: jax.Array) -> jax.Array:
    """``tokamax.gated_linear_unit(x, (W, V), activation=jax.nn.swish)``."""
    gated: jax.Array = tokamax.gated_linear_unit(x, (W, V), activation=jax.nn.swish, implementation="xla")
    return gated


def geglu_linear(x: jax.Array, W: jax.Array, V: jax.Array) -> jax.Array:
    """``tokamax.gated_linear_unit(x, (W, V), activation=jax.nn.gelu)``: the tanh form."""
    gated: jax.Array = tokamax.gated_linear_unit(x, (W, V), activation=jax.nn.gelu, implementation="xla")
    return gated
