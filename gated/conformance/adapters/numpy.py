"""NumPy: any callable of arrays. Gradients by a second callable."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from gated.conformance.adapters.base import Adapter, Array, Function, WrongTypeError, arranged, as_function
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.target import TargetError

__all__ = ["ADAPTERS", "NumpyAdapter"]


class NumpyAdapter(Adapter):
    """Arrays as they are, bfloat16 being ``ml_dtypes.bfloat16``."""

    framework = "numpy"
    packages = ("numpy", "scipy", "ml_dtypes")
    # NumPy has no bfloat16 of its own: a callable is handed one where --dtypes asks for it.
    dtypes = ("float16", "float32", "float64")

    def __init__(self, device: str | None) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise TargetError(f'--device: numpy has "cpu" only, got "{device}"')

    def prepare(self, target: Any, claim: Claim) -> Function:
        if isinstance(target, type):
            raise TargetError(f"numpy: the target must be a function of arrays, got the class {target.__name__}")
        return as_function(target)

    def put(self, array: Array, arrangement: str) -> Array:
        return arranged(array, arrangement)

    def get(self, result: Any) -> Array:
        if not isinstance(result, np.ndarray):
            raise WrongTypeError(f"{type(result).__qualname__}, where numpy.ndarray is expected")
        if result.dtype.kind not in "biufc" and not hasattr(ml_dtypes, result.dtype.name):
            raise WrongTypeError(f"an array of {result.dtype}, where one of numbers is expected")
        return np.array(result, order="C", subok=False)


ADAPTERS = {"numpy": NumpyAdapter}
