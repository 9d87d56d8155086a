"""jax.nn, and the plain product that users write."""

from __future__ import annotations

import jax

__all__ = ["gelu_erf", "swiglu_pair"]


def gelu_erf(x: jax.Array) -> jax.Array:
    """``jax.nn.gelu(x, approximate=False)``."""
    return jax.nn.gelu(x, approximate=False)


def swiglu_pair(gate: jax.Array, value: jax.Array) -> jax.Array:
    """``jax.nn.silu(gate) * value``."""
    return jax.nn.silu(gate) * value
