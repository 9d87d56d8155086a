"""What the modules of both Flax APIs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gated import contract
from gated.jax_impl._arrays import Array, Beta, checks

__all__ = ["DotGeneral", "Initializer", "Precision", "check_beta", "check_input", "lecun_normal", "like"]

DotGeneral = Callable[..., Any]
Initializer = Callable[..., Any]
Precision = Any
"""What ``jax.lax.dot_general`` takes as its precision."""


def lecun_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **sharding: Any) -> Array:
    """The default of Flax for kernels, as a function with a name: what it is part of can be pickled."""
    return jax.nn.initializers.lecun_normal()(key, shape, dtype, **sharding)


def like(beta: Beta, x: Any) -> Beta:
    """A learnt beta in the dtype of ``x``; a number as it is, and any beside an ``x`` that the function refuses."""
    if contract.is_number(beta) or not isinstance(x, jax.Array):
        return beta
    return beta.astype(x.dtype)  # type: ignore[union-attr]


def check_beta(module: str, learn_beta: bool, param_dtype: Any) -> None:
    """A learnt beta has one of the dtypes of the functions: an integer would lose its fraction in silence."""
    dtype = jnp.dtype(param_dtype)
    if learn_beta and dtype.name not in contract.DTYPES:
        names = f"{', '.join(contract.DTYPES[:-1])} or {contract.DTYPES[-1]}"
        raise TypeError(f"{module}: param_dtype must be {names} where beta is learnt, got {dtype.name}")


def check_input(module: str, x: Any, in_features: int) -> None:
    """What a module with projections checks itself; dtypes are the business of its linear layers."""
    if not isinstance(x, jax.Array):
        checks.array(module, "x", x)  # refuses it
    contract.check_features(module, x.shape, in_features)
