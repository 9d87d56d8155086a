"""How this backend sees an array, and the dtype it computes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gated.contract import Checks, Seen, is_number

__all__ = ["Array", "Beta", "DType", "beta_operand", "checks", "compiled", "compute_dtype", "see"]

Array = jax.Array
DType = np.dtype[Any]
Beta = float | jax.Array
"""A Python number or an array."""


def see(value: object) -> Seen | None:
    """JAX arrays, tracers among them; NumPy arrays and lists are none."""
    if isinstance(value, jax.Array):
        return Seen(value.dtype.name, value.shape, value.aval.weak_type)
    return None


checks = Checks(see)


def compute_dtype(x: Array) -> DType:
    """float64 for float64; float32 for the others, whose results are rounded once, at the end."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def beta_operand(beta: Beta, x: Array) -> Array | None:
    """``beta`` as the formulas take it: an array, or None for the number 1, by which nothing need be multiplied.

    A number goes to the compute dtype of ``x``, past its 16 bits.
    """
    if not is_number(beta):
        return beta  # type: ignore[return-value]
    if beta == 1:
        return None
    with np.errstate(over="ignore"):
        return jnp.asarray(np.asarray(float(beta)).astype(compute_dtype(x)))


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compiled(*static: int) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """``jax.jit`` with static positions, typed: a call outside of any jit is one fused computation too."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        return jax.jit(function, static_argnums=static)

    return decorate
