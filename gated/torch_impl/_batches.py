"""Derivatives of a batch at once, as ``torch.autograd`` asks for them, by ``torch.vmap``.

``torch.autograd.grad(..., is_grads_batched=True)``, ``torch.autograd.functional`` with ``vectorize=True`` and
``gradcheck(..., check_batched_grad=True)`` hand batched tensors to the rules of a Function: an older kind than those of
``torch.vmap``, without rules for views of bits or results in place, and unknown to Function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

__all__ = ["is_batched", "over_batches"]

# Not all dispatch keys are attributes of DispatchKey.
_INSIDE: Final[Any] = torch._C._parse_dispatch_key("VmapMode")
_BATCHED: Final[Any] = torch._C._parse_dispatch_key("Batched")

_Result: TypeAlias = Tensor | tuple[Tensor | None, ...] | None


def is_batched() -> bool:
    """Whether there may be such tensors."""
    inside: bool = torch._C._dispatch_tls_is_dispatch_key_included(_INSIDE)
    return inside


def _is_one(operand: Any) -> bool:
    return isinstance(operand, Tensor) and torch._C._dispatch_keys(operand).has(_BATCHED)


def _levels() -> int:
    """How many batches are one inside another."""
    deeper = torch._C._vmapmode_increment_nesting()
    torch._C._vmapmode_decrement_nesting()
    return deeper - 1


def over_batches(rule: Callable[..., _Result], operands: Sequence[Any]) -> _Result:
    """``rule(*operands)``, for every example of the batches that the operands are of."""
    places = [place for place, operand in enumerate(operands) if _is_one(operand)]
    if not places:
        return rule(*operands)
    there: list[int] = []  # the results that are no None, which torch.vmap does not take
    count: int | None = None  # None: the result is no tuple

    def code(*tensors: Tensor) -> tuple[Tensor, ...]:
        nonlocal count
        arguments = list(operands)
        for place, tensor in zip(places, tensors, strict=True):
            arguments[place] = tensor
        results = rule(*arguments)
        count = len(results) if isinstance(results, tuple) else None
        every = results if isinstance(results, tuple) else (results,)
        there[:] = [place for place, one in enumerate(every) if one is not None]
        return tuple(one for one in every if one is not None)

    mapped, tensors, unwrapped = code, [operands[place] for place in places], []
    for level in range(_levels(), 0, -1):
        # A tensor that is not of this batch gets an axis of size 1, as one of a batch of 1 has it.
        tensors = [torch._remove_batch_dim(tensor, level, 1, 0) for tensor in tensors]
        sizes = [len(tensor) for tensor in tensors]
        dims = tuple(None if size == 1 else 0 for size in sizes)
        tensors = [tensor[0] if size == 1 else tensor for tensor, size in zip(tensors, sizes, strict=True)]
        if any(dim is not None for dim in dims):
            mapped = torch.vmap(mapped, in_dims=dims)
            unwrapped.append(level)
    results = mapped(*tensors)
    for level in reversed(unwrapped):
        results = tuple(torch._add_batch_dim(one, 0, level) for one in results)
    if count is None:
        return results[0] if results else None
    every: list[Tensor | None] = [None] * count
    for place, one in zip(there, results, strict=True):
        every[place] = one
    return tuple(every)
