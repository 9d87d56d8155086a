"""keras.ops, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["gelu_erf", "gelu_tanh", "swiglu_pair"]


def gelu_erf(x: Any) -> Any:
    """``keras.ops.gelu(x, approximate=False)``."""
    return keras.ops.gelu(x, approximate=False)


def gelu_tanh(x: Any) -> Any:
    """``keras.ops.gelu(x)``: the default."""
    return keras.ops.gelu(x)


def swiglu_pair(gate: Any, value: Any) -> Any:
    """``keras.ops.silu(gate) * value``."""
    return keras.ops.silu(gate) * value
