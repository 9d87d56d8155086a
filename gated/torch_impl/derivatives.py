"""Derivatives of the public functions in one call, the same in every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from gated import contract

from . import activations, projections, units
from ._arrays import WeakNumber, checks, compute_dtype, see
from ._checks import check_device
from ._distributed import dtensor_rules, is_distributed
from ._plain import jvp as forward_jvp

__all__ = ["jvp", "vjp"]

Primal: TypeAlias = Tensor | float | None

_NAMES: Final[Mapping[object, str]] = {
    getattr(module, name): name for module in (activations, units, projections) for name in module.__all__
}


def _may_be_primal(parameter: str, primal: object, dtype: str) -> bool:
    """Whether the kind and dtype of a primal are those of its parameter, beside arrays of ``dtype``."""
    if isinstance(primal, Tensor):
        seen = see(primal)
        return seen is not None and seen.dtype in contract.DTYPES
    if primal is None:
        return parameter in ("b", "c", "b2")
    return parameter == "beta" and contract.is_number(primal) and contract.number_fits(primal, dtype)


class _Bound:
    """A public function as a function of those of its primals that can move: its tensors, and a number beta."""

    def __init__(self, name: str, fn: Callable[..., Tensor], primals: Sequence[Any], static: Mapping[str, Any]) -> None:
        self.fn, self.static = fn, static
        self.names = contract.binding(name, _NAMES[fn], len(primals), static)
        self.primals = dict(zip(self.names, primals, strict=True))
        first = see(primals[0])
        dtype = "float32" if first is None else first.dtype
        if not all(_may_be_primal(parameter, primal, dtype) for parameter, primal in self.primals.items()):
            fn(**self.primals, **static)  # refuses it, in its own words; torch.func would in others
        self.tensors: dict[str, Tensor] = {}
        for parameter, primal in self.primals.items():
            if primal is not None:
                self.tensors[parameter] = primal if isinstance(primal, Tensor) else self.number(primal)

    def number(self, value: float) -> Tensor:
        """A Python number as a 0-d tensor beside the first primal, unrounded where its device has float64."""
        first = next(iter(self.tensors.values()))
        dtype = compute_dtype(first.dtype) if first.device.type == "mps" else torch.float64
        result = torch.tensor(float(value), dtype=dtype, device=first.device)
        return dtensor_rules().replicated_beside(first, result) if is_distributed(first) else result

    def __call__(self, *tensors: Tensor) -> Tensor:
        moved: dict[str, Any] = dict(zip(self.tensors, tensors, strict=True))
        if "beta" in moved and contract.is_number(self.primals["beta"]):
            moved["beta"] = WeakNumber(moved["beta"])
        return self.fn(**{**self.primals, **moved}, **self.static)


def vjp(
    fn: Callable[..., Tensor], *primals: Any, **static: Any
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor | None, ...]]]:
    r"""The value of a function and its pullback, :math:`c \mapsto c \cdot \partial \mathrm{fn}`.

    Args:
        fn: one of the 16 public functions of this backend.
        *primals: the arguments to differentiate in, in the order of ``gated.contract.ARRAY_PARAMETERS``; ``beta``
            stands last. None stands for an absent bias; a number for beta.
        **static: the other arguments, by keyword; they are constants.

    Returns:
        The value, and the pullback: it takes a cotangent of the value's shape and dtype and returns one cotangent a
        primal, of the primal's shape and dtype (for a number, 0-d and of the value's dtype; for None, None). It may be
        called more than once.

    Raises:
        TypeError: ``fn`` is no public function of this backend, or the primals are not what it takes.
        ValueError: as ``fn`` raises it.
    """
    checks.differentiable("vjp", fn, _NAMES)
    bound = _Bound("vjp", fn, primals, static)
    value, pull = torch.func.vjp(bound, *bound.tensors.values())[:2]
    seen = see(value)
    assert seen is not None

    def pullback(cotangent: Tensor) -> tuple[Tensor | None, ...]:
        checks.cotangent(cotangent, seen)
        check_device("vjp", "the cotangent", cotangent, "the value", value)
        results = dict(zip(bound.tensors, pull(cotangent), strict=True))
        if contract.is_number(bound.primals.get("beta")):
            results["beta"] = results["beta"].to(value.dtype)
        return tuple(results.get(name) for name in bound.names)

    return value, pullback


def jvp(
    fn: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any], **static: Any
) -> tuple[Tensor, Tensor]:
    r"""The value of a function and its derivative along tangents, :math:`\partial \mathrm{fn} \cdot t`.

    Args:
        fn: one of the 16 public functions of this backend.
        primals: a tuple or list of the arguments to differentiate in, in the order of
            ``gated.contract.ARRAY_PARAMETERS``; ``beta`` stands last.
        tangents: one a primal: of its shape and dtype; for a number, a number; for None, None.
        **static: the other arguments, by keyword; they are constants.

    Returns:
        The value, and the tangent of the value, of its shape and dtype.

    Raises:
        TypeError: ``fn`` is no public function of this backend, or primals or tangents are not what it takes.
        ValueError: a tangent is not of its primal's shape; or as ``fn`` raises it.
    """
    checks.differentiable("jvp", fn, _NAMES)
    checks.tangents(primals, tangents)
    bound = _Bound("jvp", fn, primals, static)
    for name, tangent, primal in zip(bound.names, tangents, primals, strict=True):
        checks.tangent(name, tangent, primal)
    by_name = dict(zip(bound.names, tangents, strict=True))
    directions = tuple(
        direction if isinstance(direction := by_name[name], Tensor) else bound.number(direction)
        for name in bound.tensors
    )
    return forward_jvp(bound, tuple(bound.tensors.values()), directions)
