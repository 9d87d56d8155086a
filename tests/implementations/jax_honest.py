"""Sound implementations in JAX, plain as users have them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

gelu_erf = partial(jax.nn.gelu, approximate=False)


def swiglu(x):
    value, gate = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * value


@jax.jit
def swiglu_pair(gate, value):
    return jax.nn.silu(gate) * value


def gated_linear(x, W, V, b, c):
    highest = jax.lax.Precision.HIGHEST
    gate, value = jnp.matmul(x, W, precision=highest) + b, jnp.matmul(x, V, precision=highest) + c
    return jax.nn.silu(gate) * value


class Geglu(nn.Module):
    """Linen; flax's gelu is jax.nn's, tanh by default."""

    @nn.compact
    def __call__(self, x):
        value, gate = jnp.split(x, 2, axis=-1)
        return nn.gelu(gate) * value


class Swiglu(nnx.Module):
    """NNX, gate first."""

    def __call__(self, x):
        gate, value = jnp.split(x, 2, axis=-1)
        return nnx.silu(gate) * value
