"""What the modules of both Flax APIs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gated import contract
from gated.jax_impl._arrays import Array, Beta

__all__ = ["Initializer", "lecun_normal", "like"]

Initializer = Callable[..., Any]


def lecun_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **sharding: Any) -> Array:
    """The default of Flax for kernels, as a function with a name: what it is part of can be pickled."""
    return jax.nn.initializers.lecun_normal()(key, shape, dtype, **sharding)


def like(beta: Beta, x: Array) -> Beta:
    """A learnt beta in the dtype of ``x``; a number as it is."""
    return beta if contract.is_number(beta) else beta.astype(x.dtype)  # type: ignore[union-attr]
