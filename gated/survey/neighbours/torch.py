"""torch: the functional API, and the plain product that users write."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["geglu_pair", "gelu_tanh", "swiglu_pair"]


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """``F.gelu(x, approximate="tanh")``."""
    return F.gelu(x, approximate="tanh")


def swiglu_pair(gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``F.silu(gate) * value``."""
    return F.silu(gate) * value


def geglu_pair(gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``F.gelu(gate) * value``."""
    return F.gelu(gate) * value
