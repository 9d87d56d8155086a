"""PyTorch: functions, modules and their classes, subclasses of ``autograd.Function``; in eager form and compiled."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch.autograd import forward_ad

from gated.conformance.adapters._projections import BIAS_OF, beside_x, layers_of
from gated.conformance.adapters.base import (
    AbsentError,
    Adapter,
    Array,
    Function,
    WrongTypeError,
    aligned,
    as_function,
    instance,
)
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Request
from gated.conformance.grading.target import TargetError, one_line

__all__ = ["ADAPTERS", "CompiledTorchAdapter", "TorchAdapter"]


class TorchAdapter(Adapter):
    """Eager PyTorch, differentiated by ``torch.autograd.grad``."""

    framework = "torch"
    packages = ("torch", "triton")
    gradient_source = "torch.autograd"
    absent = (
        "does not have a formula",
        "is not implemented",
        "not implemented for",
        "once_differentiable",
        "you must implement",
        "trying to use forward ad with",
        "does not currently support",
        "does not support",
    )

    def __init__(self, device: str | None) -> None:
        super().__init__()
        try:
            self._device = torch.device(device or "cpu")
            torch.empty(0, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise TargetError(f'--device: torch cannot use "{device}": {one_line(error)}') from error
        self.device = str(self._device)
        self.flushes = self._device.type != "cpu"
        self._module: torch.nn.Module | None = None
        self._made: dict[torch.dtype, Function] = {}

    # Targets

    def prepare(self, target: Any, claim: Claim) -> Function:
        if inspect.isclass(target) and issubclass(target, torch.autograd.Function):
            self.kind = "autograd.Function"
            return as_function(target.apply)
        if inspect.isclass(target):
            target = instance(target)
        if not isinstance(target, torch.nn.Module):
            return as_function(target)
        self.kind = "module"
        module = target.to(self._device)
        if any(True for _ in (*module.parameters(), *module.buffers())):
            if claim.form == "projected":
                weighted = _Weighted(module, claim)
                module, self.sizes = weighted, weighted.sizes
            self._module = module
        return module

    def for_dtype(self, dtype: np.dtype[Any]) -> Function:
        if self._module is None:
            return self.function
        # A module has the dtype of its inputs: parameters and buffers keep their values, rounded.
        wanted = getattr(torch, dtype.name, None)
        if wanted is None or not wanted.is_floating_point:
            return self.function
        if wanted not in self._made:
            self._made[wanted] = copy.deepcopy(self._module).to(wanted)
        return self._made[wanted]

    # Arrays

    def put(self, array: Array, arrangement: str) -> torch.Tensor:
        if arrangement == "reversed":
            raise AbsentError("torch has no negative strides")
        plain = self._plain(array)
        if arrangement == "strided" and array.ndim:
            room = plain.new_empty((*array.shape[:-1], 2 * array.shape[-1]))[..., ::2]
        elif arrangement == "transposed" and array.ndim > 1:
            room = plain.mT.contiguous().mT
        elif arrangement == "unaligned":
            room = plain.new_empty(array.size + 1)[1:].view(array.shape)
        else:
            return plain
        return room.copy_(plain)

    def _plain(self, array: Array) -> torch.Tensor:
        own = aligned(array.shape, array.dtype)
        own[...] = array
        # torch takes no bfloat16 from NumPy: the bits travel as int16.
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(own.view(np.int16)).view(torch.bfloat16).to(self._device)
        return torch.from_numpy(own).to(self._device)

    def get(self, result: Any) -> Array:
        if not isinstance(result, torch.Tensor):
            raise WrongTypeError(f"{type(result).__qualname__}, where torch.Tensor is expected")
        if result.layout != torch.strided:
            raise WrongTypeError(f"a tensor of layout {result.layout}, where {torch.strided} is expected")
        here = result.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if here.dtype == torch.bfloat16:
            return here.view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
        try:
            return here.numpy().copy()
        except TypeError:
            raise WrongTypeError(f"a tensor of {here.dtype}, which NumPy does not have") from None

    # Derivatives

    def differentiate(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, backwards: int
    ) -> Iterator[Any]:
        for one in arguments:
            one.requires_grad_()
        value = function(*arguments)
        yield value
        for _ in range(backwards):
            yield self._cotangents(value, arguments, cotangent, retain_graph=True)

    def _cotangents(self, value: Any, arguments: Sequence[Any], cotangent: Any, **options: bool) -> Sequence[Any]:
        if not value.requires_grad:  # it depends on none of them
            return [None] * len(arguments)
        return torch.autograd.grad(value, arguments, cotangent, allow_unused=True, **options)

    def double(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, directions: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        for one in (*arguments, cotangent):
            one.requires_grad_()
        value = function(*arguments)
        first = self._cotangents(value, arguments, cotangent, create_graph=True)
        pairs = zip(first, directions, strict=True)
        live = [(one, along) for one, along in pairs if one is not None and one.requires_grad]
        outputs, along = map(list, zip(*live, strict=True)) if live else ([], [])
        second = torch.autograd.grad(outputs, (*arguments, cotangent), along, allow_unused=True) if live else ()
        # They are linear in the cotangent: where not even that is reached, the backward pass left no graph.
        if all(one is None for one in second):
            raise AbsentError("the cotangents have no graph: they cannot be differentiated again")
        return value, second

    def forward(self, function: Function, arguments: Sequence[Any], directions: Sequence[Any]) -> tuple[Any, Any]:
        dual: Any = forward_ad  # torch gives it no types
        with dual.dual_level():
            duals = [dual.make_dual(one, along) for one, along in zip(arguments, directions, strict=True)]
            value, tangent = dual.unpack_dual(function(*duals))
        return value, tangent


class _Weighted(torch.nn.Module):
    """A module that holds its weights, as a function of weights that are handed over."""

    def __init__(self, module: torch.nn.Module, claim: Claim) -> None:
        super().__init__()
        self.module = module
        self._claim = claim
        linear = {path: one for path, one in module.named_modules() if isinstance(one, torch.nn.Linear)}
        biased = {path: one.bias is not None for path, one in linear.items()}
        self._paths = layers_of(claim, biased, type(module).__name__)
        self.sizes: dict[str, tuple[int, ...]] = {}
        for name, path in self._paths.items():
            self.sizes[name] = (linear[path].in_features, linear[path].out_features)
            if claim.bias:
                self.sizes[BIAS_OF[name]] = (linear[path].out_features,)

    def forward(self, *arrays: torch.Tensor) -> Any:
        """The module's result on x, with the weights and biases of the other arguments."""
        given = dict(zip(self._claim.arguments, arrays, strict=True))
        # A linear layer of torch has the transposed matrix.
        state = {f"{path}.weight": given[name].mT for name, path in self._paths.items()}
        if self._claim.bias:
            state |= {f"{path}.bias": given[BIAS_OF[name]] for name, path in self._paths.items()}
        return torch.func.functional_call(self.module, state, beside_x(self._claim, arrays))


class CompiledTorchAdapter(TorchAdapter):
    """As eager, through ``torch.compile(fullgraph=True, dynamic=False)``: shapes and dtypes are compiled one by one."""

    framework = "torch-compiled"

    def __init__(self, device: str | None) -> None:
        super().__init__(device)
        self._compiled: dict[int, tuple[Function, Callable[..., Any]]] = {}

    def for_dtype(self, dtype: np.dtype[Any]) -> Function:
        function = super().for_dtype(dtype)
        # The function is kept beside, so that its id stays its own.
        kept = self._compiled.setdefault(
            id(function), (function, torch.compile(function, fullgraph=True, dynamic=False))
        )
        return kept[1]

    def forward(self, function: Function, arguments: Sequence[Any], directions: Sequence[Any]) -> tuple[Any, Any]:
        value, tangent = super().forward(function, arguments, directions)
        if tangent is None:
            raise AbsentError("a compiled function drops tangents")
        return value, tangent

    def settings(self, request: Request) -> AbstractContextManager[Any]:
        # A target is compiled for more shapes and dtypes than torch thinks sane for one function.
        config: Any = torch._dynamo.config
        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
        return config.patch({limit: 10_000})  # type: ignore[no-any-return]


ADAPTERS = {"torch": TorchAdapter, "torch-compiled": CompiledTorchAdapter}
