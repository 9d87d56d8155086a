"""Targets of JAX and Flax, right and wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx


def product(gate, value):
    return gate * value


@jax.custom_vjp
def reverse_only(gate, value):
    return gate * value


reverse_only.defvjp(lambda gate, value: (gate * value, (gate, value)), lambda kept, dy: (dy * kept[1], dy * kept[0]))

donates = jax.jit(lambda gate, value: gate * value, donate_argnums=0)


def gives_numpy(gate, value):
    return np.asarray(gate) * np.asarray(value)


def plain_number(gate, value):
    """A constant of the default dtype, which 64-bit mode makes a float64 and which then promotes float32."""
    return gate * value * jnp.asarray(np.float64(1.0))


class Scaled(nnx.Module):
    """gate * value * a parameter that is 2."""

    def __init__(self, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.full((1,), 2.0, jnp.float32))

    def __call__(self, gate, value):
        return gate * value * self.scale[...]


class NnxBilinear(nnx.Module):
    """A feed-forward block without an activation."""

    def __init__(self, rngs: nnx.Rngs):
        linear = {"use_bias": False, "rngs": rngs}
        self.gate_proj, self.up_proj = nnx.Linear(3, 5, **linear), nnx.Linear(3, 5, **linear)
        self.down_proj = nnx.Linear(5, 2, **linear)

    def __call__(self, x):
        return self.down_proj(self.gate_proj(x) * self.up_proj(x))


class LinenBilinear(linen.Module):
    """A feed-forward block without an activation, with biases."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2, name="wo")(linen.Dense(5, name="wi_0")(x) * linen.Dense(5, name="wi_1")(x))


class LinenScaled(linen.Module):
    """gate * value * a parameter that is 2."""

    @linen.compact
    def __call__(self, gate, value):
        return gate * value * self.param("scale", lambda key: jnp.full((1,), 2.0, jnp.float32))
