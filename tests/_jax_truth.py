"""A function of JAX arrays with its exact results (``_truth.py``), and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _truth import USUAL, Exact, Function, U, V, W, scaled, within

__all__ = ["USUAL", "Array", "Exact", "U", "V", "Variant", "W", "check", "scaled", "times"]

Array = jax.Array


@dataclass(frozen=True)
class Variant(Function):
    """A function of arrays, used while x64 is on."""

    def arrays(self, seed: int = 0, sizes: Mapping[str, int] = USUAL, dtype: Any = jnp.float64) -> tuple[Array, ...]:
        """``numbers`` as arrays."""
        return tuple(jnp.asarray(one, dtype) for one in self.numbers(seed, sizes))

    def structs(self, dtype: Any, sizes: Mapping[str, int] = USUAL) -> tuple[jax.ShapeDtypeStruct, ...]:
        """The arguments without numbers."""
        return tuple(jax.ShapeDtypeStruct(one.shape, dtype) for one in self.numbers(0, sizes))

    @property
    def every(self) -> tuple[int, ...]:
        """The places of all arguments."""
        return tuple(range(len(self.shapes)))

    def scalar(self, *arguments: Array) -> Array:
        """The cotangent times the function."""
        return jnp.sum(self.weights * self.fn(*arguments))

    def gradient(self, *arguments: Array) -> Sequence[Array]:
        """Of the scalar, in every argument."""
        found: Sequence[Array] = jax.grad(self.scalar, self.every)(*arguments)
        return found

    def slope(self, *arguments: Array) -> Array:
        """Of the scalar, along the direction U."""
        return times(self.gradient(*arguments), self.arrays(U))


def times(gradients: Sequence[Array], directions: Sequence[Array]) -> Array:
    """The sum of the products."""
    return sum((jnp.sum(one * along) for one, along in zip(gradients, directions, strict=True)), jnp.zeros(()))


def check(results: Any, *truths: Exact, dtype: str = "float64") -> None:
    """Arrays are within the bound of what is exact."""
    results = [results] if isinstance(results, Array) else list(results)
    within([np.asarray(result) for result in results], truths, dtype)
