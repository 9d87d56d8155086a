"""How this backend sees an array, and the dtype it computes in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gated.contract import Checks, Seen, is_number

__all__ = ["Array", "Beta", "DType", "Factor", "beta_operand", "checks", "compiled", "compute_dtype", "number", "see"]

Array = jax.Array
DType = np.dtype[Any]
Beta = float | jax.Array
"""A Python number or an array."""


class Factor(NamedTuple):
    """The number ``rounded * (1 + rest)``: beta as the formulas take it. A rest of None is 0.

    What is differentiated is ``rounded``; ``rest`` is a constant, a ratio so that it cannot underflow.
    """

    rounded: Array
    rest: Array | None = None


def see(value: object) -> Seen | None:
    """JAX arrays, tracers among them, and numbers in two parts; NumPy arrays and lists are none."""
    if isinstance(value, Factor):
        value = value.rounded
    if isinstance(value, jax.Array):
        return Seen(value.dtype.name, value.shape, value.aval.weak_type)
    if _is_typed_int(value):
        return Seen(value.dtype.name, (), weak=True)  # type: ignore[attr-defined]
    return None


def _is_typed_int(value: object) -> TypeGuard[int]:
    """A Python int to which JAX added a dtype, as ``jax.vjp`` does, which has no derivative in it."""
    return isinstance(value, int) and hasattr(value, "aval")


checks = Checks(see)


def compute_dtype(x: Array) -> DType:
    """float64 for float64; float32 for the others, whose results are rounded once, at the end."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def beta_operand(beta: Beta | Factor, x: Array) -> Factor | None:
    """``beta`` as the formulas take it, or None for the number 1, by which nothing need be multiplied.

    A number keeps its value past the compute dtype of ``x``; an array has no more than its own.
    """
    if isinstance(beta, Factor):
        return beta
    if is_number(beta) or _is_typed_int(beta):
        return None if beta == 1 else number(beta, x)
    return Factor(beta)  # type: ignore[arg-type]


def number(value: float, x: Array) -> Factor:
    """A Python number beside ``x``: a weak array of a value that the compute dtype has, and the rest.

    Both are arrays, so one trace serves all numbers.
    """
    value = float(value)
    if compute_dtype(x) == np.float64:
        return Factor(jnp.asarray(value))
    largest = float(np.finfo(np.float32).max)
    rounded = float(np.float32(max(-largest, min(value, largest)))) if math.isfinite(value) else value
    rest = (value - rounded) / rounded if math.isfinite(value) and value else 0.0
    return Factor(jnp.asarray(rounded), jnp.asarray(np.float32(rest)))


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compiled(*static: int) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """``jax.jit`` with static positions, typed: a call outside of any jit is one fused computation too."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        return jax.jit(function, static_argnums=static)

    return decorate
