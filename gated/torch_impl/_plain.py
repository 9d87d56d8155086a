"""Plain tensor code as one differentiable operation, for use inside a ``jvp`` rule.

Forward AD is switched off while a ``jvp`` rule runs: an outer forward level sees the Functions that the rule calls,
and none of its plain operations; their tangents would be silently zero (pytorch#197867). :func:`plain` makes plain
code a Function, whose derivatives are plain code again: ``torch.func`` applied to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _len_torch_dispatch_stack
from torch._functorch import eager_transforms
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import Function, forward_ad
from torch.utils._pytree import tree_map

from ._batches import is_batched, over_batches

__all__ = ["TypedFunction", "is_transformed", "is_watched", "jvp", "plain", "solid"]

_Code: TypeAlias = Callable[..., tuple[Tensor, ...]]


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` or forward-mode differentiation is under way."""
    active: bool = _are_functorch_transforms_active() or forward_ad._current_level >= 0
    return active


def is_watched() -> bool:
    """Whether a compiler, a tracer, a transform or a mode wants to see each operation, as an ordinary one of torch."""
    return bool(
        torch.compiler.is_compiling()  # first: a compiler cannot look into the others
        or _len_torch_dispatch_stack()
        or _are_functorch_transforms_active()
        or _get_tracing_state()
    )


def _for_batches(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule of a Function, ``backward`` or ``jvp``, that meets batches."""

    @functools.wraps(rule)
    def ruled(ctx: Any, *operands: Any) -> Any:
        return over_batches(functools.partial(rule, ctx), operands) if is_batched() else rule(ctx, *operands)

    return ruled


def solid(result: Tensor) -> Tensor:
    """A result of a Function of which each element has its own memory: forward AD lays the tangent out likewise.

    Zeros that are no more than a flag, which transforms give as tangents, make such zeros of a product.
    """
    return result.clone() if result._is_zerotensor() else result.contiguous()


def jvp(fn: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """``torch.func.jvp``, also where forward AD is under way outside ``torch.func``, which that refuses.

    There the pullback, which is linear, is transposed: c J is linear in c, and its transpose applied to t is J t.
    """
    if forward_ad._current_level < 0 or eager_transforms.JVP_NESTING:
        return torch.func.jvp(fn, primals, tangents)[:2]
    values, pull = torch.func.vjp(fn, *primals)[:2]
    transposed = torch.func.vjp(pull, tree_map(torch.zeros_like, values))[1]
    return values, transposed(tangents)[0]


class TypedFunction(Function):
    """An autograd Function that takes all its operands by place, and whose rules hold for batches too."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("backward", "jvp"):
            setattr(cls, name, staticmethod(_for_batches(getattr(cls, name))))

    @classmethod
    def apply(cls, *operands: Any) -> Any:
        """The function of the operands, differentiable."""
        if _are_functorch_transforms_active():
            return super().apply(*operands)  # type: ignore[no-untyped-call]
        # Function.apply does this too, after it has bound the operands to their names: of a small tensor that takes
        # longer than all else.
        return super(Function, cls).apply(*unwrap_dead_wrappers(operands))  # type: ignore[misc]


def _some(code: _Code, tensors: Sequence[Tensor], moving: Sequence[int]) -> _Code:
    """``code`` as a function of its arguments at the places ``moving``, the others being constant."""

    def of_some(*moved: Tensor) -> tuple[Tensor, ...]:
        arguments = list(tensors)
        for place, one in zip(moving, moved, strict=True):
            arguments[place] = one
        return code(*arguments)

    return of_some


class _Plain(TypedFunction):
    """code(*tensors)"""

    @staticmethod
    def forward(code: _Code, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(solid(result) for result in code(*tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.code, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        code, kept = ctx.code, ctx.saved_tensors
        moving = [place for place, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        known = [place for place, cotangent in enumerate(cotangents) if cotangent is not None]

        def pulled(*arguments: Tensor) -> tuple[Tensor, ...]:
            tensors, given = arguments[: len(kept)], arguments[len(kept) :]
            of_some = _some(lambda *all_: tuple(code(*all_)[place] for place in known), tensors, moving)
            pull = torch.func.vjp(of_some, *(tensors[place] for place in moving))[1]
            return tuple(pull(given))

        results: list[Tensor | None] = [None] * len(kept)
        if known and moving:
            for place, one in zip(moving, _Plain.apply(pulled, *kept, *(cotangents[p] for p in known)), strict=True):
                results[place] = one
        return None, *results

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        code, kept = ctx.code, ctx.saved_tensors
        moving = [place for place, tangent in enumerate(tangents) if tangent is not None]

        def pushed(*arguments: Tensor) -> tuple[Tensor, ...]:
            tensors, given = arguments[: len(kept)], arguments[len(kept) :]
            of_some = _some(code, tensors, moving)
            return tuple(jvp(of_some, tuple(tensors[place] for place in moving), given)[1])

        return tuple(_Plain.apply(pushed, *kept, *(tangents[place] for place in moving)))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], code: _Code, *tensors: Tensor) -> tuple[tuple[Tensor, ...], Any]:
        results = _Plain.apply(torch.vmap(code, in_dims=in_dims[1:]), *tensors)
        return results, (0,) * len(results)


def plain(code: Callable[..., Sequence[Tensor]], *operands: Any) -> tuple[Tensor, ...]:
    """``code(*operands)`` as one operation, differentiable in the operands that are tensors."""
    places = [place for place, operand in enumerate(operands) if isinstance(operand, Tensor)]
    # What is no tensor is kept; a tensor must not be, since a closure would hide it from autograd.
    template = [None if isinstance(operand, Tensor) else operand for operand in operands]

    def of_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
        arguments = list(template)
        for place, tensor in zip(places, tensors, strict=True):
            arguments[place] = tensor
        return tuple(code(*arguments))

    return tuple(_Plain.apply(of_tensors, *(operands[place] for place in places)))
