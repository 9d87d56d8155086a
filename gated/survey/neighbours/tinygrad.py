"""tinygrad's methods, handed NumPy arrays, with their gradients as targets of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor

__all__ = ["gelu", "gelu_vjp", "quick_gelu", "sigmoid", "sigmoid_vjp", "silu", "silu_vjp"]

Array = NDArray[Any]


def _value(method: Callable[[Tensor], Tensor]) -> Callable[[Array], Array]:
    def value(x: Array) -> Array:
        result: Array = method(Tensor(np.ascontiguousarray(x))).numpy()
        return result

    return value


def _vjp(method: Callable[[Tensor], Tensor]) -> Callable[[Array, Array], Array]:
    def vjp(x: Array, dy: Array) -> Array:
        primal = Tensor(np.ascontiguousarray(x))
        (cotangent,) = method(primal).gradient(primal, gradient=Tensor(np.ascontiguousarray(dy)))
        result: Array = cotangent.numpy()
        return result

    return vjp


silu, silu_vjp = _value(Tensor.silu), _vjp(Tensor.silu)
sigmoid, sigmoid_vjp = _value(Tensor.sigmoid), _vjp(Tensor.sigmoid)
gelu, gelu_vjp = _value(Tensor.gelu), _vjp(Tensor.gelu)
quick_gelu = _value(Tensor.quick_gelu)
