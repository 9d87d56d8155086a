"""PyTorch: in eager form, and through ``torch.compile``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch

import gated.torch_impl as implementation

__all__ = ["from_torch", "load", "load_form", "to_torch"]


def to_torch(x: Any, device: torch.device | str = "cpu") -> Any:
    """A NumPy array as a tensor, bit for bit; anything else as it is."""
    if not isinstance(x, np.ndarray):
        return x
    # torch takes no bfloat16 from NumPy: the bits travel as int16. The copy makes the array writable.
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16).to(device)
    return torch.from_numpy(x.copy()).to(device)


def from_torch(x: Any) -> Any:
    """A tensor as a NumPy array, bit for bit; anything else as it is."""
    if not isinstance(x, torch.Tensor):
        return x
    x = x.detach().cpu()
    if x.dtype == torch.bfloat16:
        return x.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


class TorchAdapter:
    """:mod:`gated.torch_impl` on one device."""

    name = "torch"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.flushes = device.type != "cpu"

    def value_and_cotangents(
        self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        value, pullback = implementation.vjp(
            getattr(implementation, function),
            *(to_torch(primal, self.device) for primal in primals),
            **{name: to_torch(one, self.device) for name, one in static.items()},
        )
        cotangents = pullback(to_torch(cotangent, self.device))
        return from_torch(value), tuple(from_torch(one) for one in cotangents)


class CompiledTorchAdapter(TorchAdapter):
    """Functions compiled whole by ``torch.compile``, differentiated as users do: by autograd, of every tensor."""

    name = "torch-compiled"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._compiled: dict[Any, Callable[..., torch.Tensor]] = {}

    def value_and_cotangents(
        self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        if not all(isinstance(one, np.ndarray) for one in primals):
            raise TypeError(f"{function}: a compiled function has cotangents of tensors only")
        key = (function, len(primals), repr(sorted(static.items())))
        if key not in self._compiled:
            bound = functools.partial(getattr(implementation, function), **static)
            self._compiled[key] = torch.compile(bound, fullgraph=True, dynamic=False)
        tensors = [to_torch(primal, self.device).requires_grad_() for primal in primals]
        value = self._compiled[key](*tensors)
        cotangents = torch.autograd.grad(value, tensors, to_torch(cotangent, self.device))
        return from_torch(value), tuple(from_torch(one) for one in cotangents)


def load(device: str | None) -> TorchAdapter:
    """PyTorch on a device by torch's name for it, the CPU if None."""
    return TorchAdapter(_device(device))


def load_form(device: str | None) -> CompiledTorchAdapter:
    """As :func:`load`, compiled."""
    return CompiledTorchAdapter(_device(device))


def _device(device: str | None) -> torch.device:
    try:
        chosen = torch.device(device or "cpu")
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'torch cannot use the device "{device}": {reason}') from error
    return chosen
