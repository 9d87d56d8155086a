"""JAX: jitted, and an operation at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gated.jax_impl as implementation

__all__ = ["from_jax", "load", "load_form", "to_jax"]


def to_jax(x: Any) -> Any:
    """A NumPy array as a JAX array, bit for bit; anything else as it is."""
    return jnp.asarray(x) if isinstance(x, np.ndarray) else x


def from_jax(x: Any) -> Any:
    """A JAX array as a NumPy array, bit for bit; anything else as it is."""
    return np.asarray(x) if isinstance(x, jax.Array) else x


class JaxAdapter:
    """:mod:`gated.jax_impl` on one device. float64 is switched on around each call, and only there."""

    name = "jax"
    # XLA flushes subnormal results on the CPU too.
    flushes = True

    def __init__(self, device: jax.Device) -> None:
        self.device = device
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def value_and_cotangents(
        self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        numbers = {i: primal for i, primal in enumerate(primals) if not isinstance(primal, np.ndarray)}
        constants = {name: one for name, one in static.items() if not isinstance(one, np.ndarray)}
        # repr tells -0.0 from 0.0 and 1 from 1.0 from True, which a key of their own would not.
        key = (function, len(primals), repr(numbers), repr(constants))
        with jax.enable_x64(True), jax.default_device(self.device):
            arrays = [to_jax(primal) for primal in primals if isinstance(primal, np.ndarray)]
            keywords = {name: to_jax(one) for name, one in static.items() if isinstance(one, np.ndarray)}
            call = self._compiled.setdefault(key, jax.jit(_call(function, len(primals), numbers, constants)))
            value, cotangents = call(arrays, keywords, to_jax(cotangent))
            return from_jax(value), tuple(from_jax(one) for one in cotangents)


def _call(function: str, count: int, numbers: Mapping[int, Any], constants: Mapping[str, Any]) -> Callable[..., Any]:
    """A call with its pullback as a function of its arrays, to be jitted once and called with many."""
    fn = getattr(implementation, function)

    def call(arrays: Sequence[Any], keywords: Mapping[str, Any], cotangent: Any) -> Any:
        remaining = iter(arrays)
        bound = [numbers[i] if i in numbers else next(remaining) for i in range(count)]
        value, pullback = implementation.vjp(fn, *bound, **constants, **keywords)
        return value, pullback(cotangent)

    return call


class EagerJaxAdapter(JaxAdapter):
    """Without :func:`jax.jit`: each operation is compiled and rounded by itself."""

    name = "jax-eager"

    def value_and_cotangents(
        self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        with jax.disable_jit():
            return super().value_and_cotangents(function, primals, cotangent, static)


def load(device: str | None) -> JaxAdapter:
    """JAX on a platform ("cpu", "cuda", "tpu"), its default if None."""
    return JaxAdapter(_device(device))


def load_form(device: str | None) -> EagerJaxAdapter:
    """As :func:`load`, without jit."""
    return EagerJaxAdapter(_device(device))


def _device(device: str | None) -> jax.Device:
    try:
        return jax.devices(device)[0]
    except RuntimeError as error:
        raise ValueError(f'jax cannot use the device "{device}": {str(error).splitlines()[0]}') from error
