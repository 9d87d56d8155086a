"""Whether a tensor is distributed. Asking costs next to nothing, and imports nothing: some builds of torch have no
``torch.distributed``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["check_distribution", "dtensor_rules", "is_distributed"]

_PLAIN: Final = (Tensor, nn.Parameter)


def is_distributed(x: object) -> bool:
    """Whether ``x`` is a DTensor, and not hidden in a transform. Who has one has imported its module."""
    if type(x) in _PLAIN:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def _within(x: Tensor) -> Tensor:
    """``x`` without what the transforms of ``torch.func`` have wrapped it in."""
    # Within a compiler a wrapper and what it wraps are one, and the question cannot be traced.
    if torch._C._are_functorch_transforms_active() and not torch.compiler.is_compiling():
        while torch._C._functorch.is_functorch_wrapped_tensor(x):
            x = torch._C._functorch.get_unwrapped(x)
    return x


def check_distribution(function: str, name: str, value: Tensor, model_name: str, model: Tensor) -> None:
    """Refuses a tensor that is not distributed where ``model`` is, on one mesh; a plain beta counts as replicated.

    Raises:
        TypeError: one is a DTensor and the other is not.
        ValueError: their meshes differ.
    """
    value, model = _within(value), _within(model)
    distributed = is_distributed(value)
    if distributed != is_distributed(model):
        if distributed:
            raise TypeError(f"{function}: {name} must be a plain tensor, as {model_name} is, got a DTensor")
        if name != "beta":
            raise TypeError(f"{function}: {name} must be a DTensor, as {model_name} is, got a plain tensor")
    elif distributed:
        mesh, wanted = (getattr(one, "device_mesh", None) for one in (value, model))
        if mesh != wanted:
            raise ValueError(f"{function}: {name} must be on the mesh of {model_name}, {wanted}, got {mesh}")


def dtensor_rules() -> ModuleType:
    """:mod:`gated.torch_impl._dtensor`, which is imported where there is a DTensor."""
    from . import _dtensor

    return _dtensor
