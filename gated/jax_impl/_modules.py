"""What the modules of both Flax APIs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gated import contract
from gated.jax_impl._arrays import Array, Beta, checks

__all__ = ["DotGeneral", "Initializer", "Precision", "check_input", "lecun_normal", "like"]

DotGeneral = Callable[..., Any]
Initializer = Callable[..., Any]
Precision = Any
"""What ``jax.lax.dot_general`` takes as its precision."""


def lecun_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **sharding: Any) -> Array:
    """The default of Flax for kernels, as a function with a name: what it is part of can be pickled."""
    return jax.nn.initializers.lecun_normal()(key, shape, dtype, **sharding)


def like(beta: Beta, x: Array) -> Beta:
    """A learnt beta in the dtype of ``x``; a number as it is."""
    return beta if contract.is_number(beta) else beta.astype(x.dtype)  # type: ignore[union-attr]


def check_input(module: str, x: Any, in_features: int) -> None:
    """What a module with projections checks itself; dtypes are the business of its linear layers."""
    if not isinstance(x, jax.Array):
        checks.array(module, "x", x)  # refuses it
    contract.check_features(module, x.shape, in_features)
