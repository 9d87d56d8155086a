"""Keras: functions of ``keras.ops`` and ``keras.activations``, layers and their classes, on the backend that is set.

A tensor of Keras is one of its backend's (``KERAS_BACKEND``), which hands over, differentiates and reads.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from gated.conformance.adapters.base import Adapter, Array, Function, as_function, instance
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Request
from gated.conformance.grading.target import TargetError

__all__ = ["ADAPTERS", "KerasAdapter"]

_FLOATS = ("float16", "bfloat16", "float32", "float64")


class KerasAdapter(Adapter):
    """The adapter of the backend, with layers made for each dtype."""

    framework = "keras"

    def __init__(self, device: str | None) -> None:
        super().__init__()
        from gated.conformance.adapters import FRAMEWORKS, load

        backend = keras.backend.backend()
        if backend not in FRAMEWORKS:
            raise TargetError(f"keras: KERAS_BACKEND must be tensorflow, torch, jax or numpy, is {backend}")
        self._inner = load(backend, device)
        self.packages = ("keras", *self._inner.packages)
        self.dtypes, self.flushes, self.device = _FLOATS, self._inner.flushes, self._inner.device
        self.gradient_source = self._inner.gradient_source
        self.absent = self._inner.absent
        self._layer: Any = None
        self._made: dict[str, Function] = {}

    def prepare(self, target: Any, claim: Claim) -> Function:
        if inspect.isclass(target) and issubclass(target, keras.Layer):
            self.kind, self._layer = "module", target
            return self.for_dtype(np.dtype(np.float32))
        if isinstance(target, keras.Layer):
            # It casts its inputs to this dtype.
            self.kind, self.dtypes = "module", (target.compute_dtype,)
        return as_function(target)

    def for_dtype(self, dtype: np.dtype[Any]) -> Function:
        if self._layer is None or dtype.name not in _FLOATS:
            return self.function
        if dtype.name not in self._made:
            self._made[dtype.name] = instance(self._layer, dtype=dtype.name)
        return self._made[dtype.name]

    def settings(self, request: Request) -> AbstractContextManager[Any]:
        return self._inner.settings(request)

    def put(self, array: Array, arrangement: str) -> Any:
        return self._inner.put(array, arrangement)

    def get(self, result: Any) -> Array:
        return self._inner.get(result)

    def differentiate(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, backwards: int
    ) -> Iterator[Any]:
        return self._inner.differentiate(function, arguments, cotangent, backwards)

    def double(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, directions: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        return self._inner.double(function, arguments, cotangent, directions)

    def forward(self, function: Function, arguments: Sequence[Any], directions: Sequence[Any]) -> tuple[Any, Any]:
        return self._inner.forward(function, arguments, directions)


ADAPTERS = {"keras": KerasAdapter}
