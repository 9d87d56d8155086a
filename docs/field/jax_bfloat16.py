"""The derivative of jax.nn.silu near its zero."""

import jax
import jax.numpy as jnp


def slope(x):
    """The derivative of silu at x."""
    _, pullback = jax.vjp(jax.nn.silu, x)
    return pullback(jnp.ones_like(x))[0]


for x in (-1.2578125, -1.28125, -1.3046875):
    narrow, wide = slope(jnp.bfloat16(x)), slope(jnp.float32(x))
    print(f"silu'({x}) in bfloat16: {float(narrow):.3g}, in float32: {float(wide):.3g}")
