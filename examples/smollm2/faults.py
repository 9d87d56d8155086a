"""Mistakes that ports make in the feed-forward block, to see what the tokens show of them and what the bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

__all__ = ["FAULTS", "break_layers"]


def _gate_order(block: Any, x: Tensor) -> Tensor:
    return block.down_proj(silu(block.up_proj(x)) * block.gate_proj(x))


def _gelu(block: Any, x: Tensor) -> Tensor:
    return block.down_proj(gelu(block.gate_proj(x)) * block.up_proj(x))


def _beta(block: Any, x: Tensor) -> Tensor:
    gate = block.gate_proj(x)
    return block.down_proj(gate * torch.sigmoid(1.001 * gate) * block.up_proj(x))


def _bfloat16(block: Any, x: Tensor) -> Tensor:
    """The hidden features alone: the products stay in the dtype of x."""
    return block.down_proj((silu(block.gate_proj(x)) * block.up_proj(x)).bfloat16().to(x.dtype))


FAULTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "gate-order": _gate_order,
    "gelu": _gelu,
    "beta": _beta,
    "bfloat16": _bfloat16,
}
"""The halves swapped, gelu for silu, a beta of 1.001, hidden features rounded to bfloat16."""


class Broken(nn.Module):
    """A block with one of the faults."""

    def __init__(self, block: nn.Module, fault: str) -> None:
        super().__init__()
        self.block, self.fault = block, FAULTS[fault]

    def forward(self, x: Tensor) -> Tensor:
        """What it gives instead."""
        return self.fault(self.block, x)


def break_layers(model: Any, fault: str, layers: list[int]) -> None:
    """Puts a broken block in the place of that of each of the layers."""
    for number in layers:
        layer = model.model.layers[number]
        layer.mlp = Broken(layer.mlp, fault)
