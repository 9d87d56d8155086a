"""x-transformers' GLU, its projection an identity."""

from __future__ import annotations

from typing import Any

from torch import nn
from x_transformers.x_transformers import GLU

__all__ = ["geglu", "swiglu"]


def _between(activation: nn.Module) -> Any:
    block = GLU(8, 8, activation)
    block.proj = nn.Identity()
    return block.eval()


swiglu = _between(nn.SiLU())
geglu = _between(nn.GELU())
