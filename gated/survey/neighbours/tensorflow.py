"""tf.nn."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["gelu_erf", "gelu_tanh", "silu", "swiglu_pair", "swish"]


def silu(x: Any) -> Any:
    """``tf.nn.silu(x)``."""
    return tf.nn.silu(x)


def swish(x: Any, beta: Any) -> Any:
    """``tf.nn.silu(x, beta)``."""
    return tf.nn.silu(x, beta)


def gelu_erf(x: Any) -> Any:
    """``tf.nn.gelu(x)``: the default."""
    return tf.nn.gelu(x)


def gelu_tanh(x: Any) -> Any:
    """``tf.nn.gelu(x, approximate=True)``."""
    return tf.nn.gelu(x, approximate=True)


def swiglu_pair(gate: Any, value: Any) -> Any:
    """``tf.nn.silu(gate) * value``."""
    return tf.nn.silu(gate) * value
