"""Wrong implementations in JAX: functions, rules by hand, Flax modules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from jax import lax


def gelu_by_default(x):
    """jax.nn.gelu's default is the tanh form."""
    return jax.nn.gelu(x)


def geglu_erf(x):
    value, gate = jnp.split(x, 2, axis=-1)
    return jax.nn.gelu(gate, approximate=False) * value


def swiglu_gate_first(x):
    gate, value = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * value


def reglu_other(x):
    gate, value = jnp.split(x, 2, axis=-1)
    return gate * jax.nn.relu(value)


def swish_scaled(x, beta):
    return jax.nn.silu(beta * x)


def swish_beta_outside(x, beta):
    return beta * jax.nn.silu(x)


def silu_by_exp(x):
    return x * jnp.exp(x) / (1 + jnp.exp(x))


def swiglu_of_product(gate, value):
    return jax.nn.silu(gate * value)


def clamped_no_clamp(x):
    gate, value = x[..., ::2], x[..., 1::2]
    return gate * jax.nn.sigmoid(1.702 * gate) * (value + 1)


def clamped_as_halves(x):
    gate, value = jnp.split(x, 2, axis=-1)
    gate, value = jnp.minimum(gate, 7), jnp.clip(value, -7, 7)
    return gate * jax.nn.sigmoid(1.702 * gate) * (value + 1)


def swiglu_plain(x):
    value, gate = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * value


def silu_single(x):
    return jax.nn.silu(x.astype(jnp.float32)).astype(x.dtype)


def swish_stopped(x):
    return x * lax.stop_gradient(jax.nn.sigmoid(x))


def swiglu_gate_stopped(gate, value):
    return lax.stop_gradient(jax.nn.silu(gate)) * value


def linear_no_bias(x, W, V, b, c):
    del b, c
    return jax.nn.silu(x @ W) * (x @ V)


def linear_swapped(x, W, V):
    return jax.nn.sigmoid(x @ V) * (x @ W)


def linear_transposed(x, W, V):
    return jax.nn.silu(x @ W.T) * (x @ V.T)


def _slope(x):
    s = jax.nn.sigmoid(x)
    return s + x * s * (1 - s)


@jax.custom_vjp
def swiglu_rule_swapped(gate, value):
    return jax.nn.silu(gate) * value


def _swapped(residuals, dy):
    gate, value = residuals
    return dy * jax.nn.silu(gate), dy * value * _slope(gate)


swiglu_rule_swapped.defvjp(lambda gate, value: (jax.nn.silu(gate) * value, (gate, value)), _swapped)


@jax.custom_vjp
def silu_rule_in_single(x):
    """float32 inside, and the rule forgets to go back: the gradient is wider than its input."""
    return jax.nn.silu(x.astype(jnp.float32)).astype(x.dtype)


silu_rule_in_single.defvjp(
    lambda x: (silu_rule_in_single(x), x.astype(jnp.float32)),
    lambda wide, dy: (dy.astype(jnp.float32) * _slope(wide),),
)


@jax.custom_vjp
def swish_rule_mean(x, beta):
    """The gradient of a scalar beta is averaged over the batch."""
    return x * jax.nn.sigmoid(beta * x)


def _mean(residuals, dy):
    x, beta = residuals
    s = jax.nn.sigmoid(beta * x)
    return dy * (s + beta * x * s * (1 - s)), jnp.mean(dy * x * x * s * (1 - s))


swish_rule_mean.defvjp(lambda x, beta: (x * jax.nn.sigmoid(beta * x), (x, beta)), _mean)


@jax.custom_vjp
def swish_rule_unsummed(x, beta):
    """The gradient of a vector beta comes back in the shape of x."""
    return x * jax.nn.sigmoid(beta * x)


def _unsummed(residuals, dy):
    x, beta = residuals
    s = jax.nn.sigmoid(beta * x)
    return dy * (s + beta * x * s * (1 - s)), dy * x * x * s * (1 - s)


swish_rule_unsummed.defvjp(lambda x, beta: (x * jax.nn.sigmoid(beta * x), (x, beta)), _unsummed)


class Geglu(nn.Module):
    """Linen, the tanh form, where erf was claimed."""

    @nn.compact
    def __call__(self, x):
        value, gate = jnp.split(x, 2, axis=-1)
        return nn.gelu(gate) * value


class Swiglu(nnx.Module):
    """NNX, with the gate in the other half."""

    def __call__(self, x):
        gate, value = jnp.split(x, 2, axis=-1)
        return nnx.silu(gate) * value
