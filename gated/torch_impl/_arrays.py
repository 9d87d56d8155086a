"""What a PyTorch tensor is to the contract's checks, and the dtype a call computes in."""

from __future__ import annotations

import math
from typing import Final, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gated import contract

from ._checks import TensorChecks, fixed, is_strided
from ._plain import is_watched

__all__ = ["Beta", "Factor", "WeakNumber", "checks", "compute_dtype", "factor", "is_ordinary_pair", "number", "see"]


class WeakNumber(NamedTuple):
    """A Python number that is being differentiated: a 0-d tensor of float64, weak beside the arrays.

    ``vjp`` and ``jvp`` hand it to the public functions in the place of the number, which must not be rounded on its
    way.
    """

    tensor: Tensor


Beta: TypeAlias = float | Tensor
"""What a caller gives as beta."""

Factor: TypeAlias = float | Tensor | None
"""What the formulas take as beta: a number that fits the compute dtype, a tensor, or None where there is no beta."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


_LARGEST: Final = {
    dtype: torch.finfo(compute_dtype(dtype)).max
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}
"""The allowed dtypes, with the largest number of what they are computed in."""

_NAMES: Final = {
    dtype: str(dtype).removeprefix("torch.") for dtype in vars(torch).values() if type(dtype) is torch.dtype
}


def see(value: object) -> contract.Seen | None:
    """The dtype's name and the shape of a strided tensor; None for anything else."""
    if isinstance(value, Tensor):
        if not is_strided(value):
            return None
        return contract.Seen(_NAMES[value.dtype], tuple(value.shape))
    if isinstance(value, WeakNumber):
        return contract.Seen(_NAMES[value.tensor.dtype], (), weak=True)
    return None


checks = TensorChecks(see)


def is_ordinary_pair(gate: object, value: object, beta: object) -> bool:
    """Whether ``checks.pair`` would accept these, at a glance. Where it says False, the checks have to look."""
    return (
        type(gate) is Tensor
        and type(value) is Tensor
        and type(beta) is float
        and beta == 1.0
        and gate.dtype in _LARGEST
        and value.dtype == gate.dtype
        and value.shape == gate.shape
        and value.device == gate.device
        and is_strided(gate)
        and is_strided(value)
        and not is_watched()  # a transform hides what kind of tensor it has
    )


def number(value: float, dtype: torch.dtype) -> float:
    """A Python number as the formulas take it beside arrays of ``dtype``: infinite above the compute dtype's range."""
    value = float(fixed(value))
    return value if abs(value) <= _LARGEST[dtype] else value * math.inf


def factor(beta: Beta | WeakNumber, dtype: torch.dtype) -> float | Tensor:
    """``beta``, checked before, as the formulas take it beside arrays of ``dtype``."""
    if type(beta) is float:
        return number(beta, dtype)
    if isinstance(beta, WeakNumber):
        return beta.tensor
    return beta if isinstance(beta, Tensor) else number(beta, dtype)
