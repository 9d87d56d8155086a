"""The contract's checks, and those of what only a tensor has: how it lies in memory, and on which device."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from gated import contract

from ._distributed import check_distribution

__all__ = ["TensorChecks", "check_device", "fixed", "is_strided"]

_STRIDED: Final = torch.strided


def is_strided(x: Tensor) -> bool:
    """Whether the elements of ``x`` lie in memory by strides, as those of no sparse, nested or mkldnn tensor do."""
    return x.layout is _STRIDED and not x.is_nested


def fixed(value: Any) -> Any:
    """A Python number that a compiler has made symbolic, as the number it is: what is compiled holds for it alone."""
    if not contract.is_number(value) or not torch.compiler.is_compiling():
        return value
    from torch.fx.experimental.symbolic_shapes import guard_scalar  # it takes 0.4 s to import

    return guard_scalar(value)


def _check_strided(function: str, name: str, value: object) -> None:
    if isinstance(value, Tensor) and not is_strided(value):
        came = "a nested tensor" if value.is_nested else f"layout {value.layout}"
        raise TypeError(f"{function}: {name} must be a strided tensor, got {came}") from None


def check_device(function: str, name: str, value: object, model_name: str, model: object) -> None:
    """Refuses a tensor that is not on the device, or the devices, of ``model``, a tensor too; anything else passes."""
    if not (isinstance(value, Tensor) and isinstance(model, Tensor)):
        return
    if value.device != model.device:
        raise TypeError(f"{function}: {name} must be on the device of {model_name}, {model.device}, got {value.device}")
    check_distribution(function, name, value, model_name, model)


class TensorChecks(contract.Checks):
    """The checks of the PyTorch backend: every tensor of a call is strided and on one device, a 0-d beta too.

    The beta of functions that have none is an int here: a float would be a variable to a compiler.

    ``see`` must not see a tensor that is not strided. The contract refuses that as no array, and here it gets its own
    reason.
    """

    def array(self, function: str, name: str, value: object) -> contract.Seen:
        try:
            return super().array(function, name, value)
        except TypeError:
            _check_strided(function, name, value)
            raise

    def _beta_kind(self, function: str, beta: object, first: str, expected: contract.Seen) -> tuple[int, ...]:
        try:
            return super()._beta_kind(function, fixed(beta), first, expected)
        except TypeError:
            _check_strided(function, "beta", beta)
            raise

    def swish(self, function: str, x: object, beta: object) -> contract.Seen:
        seen = super().swish(function, x, beta)
        check_device(function, "beta", beta, "x", x)
        return seen

    def packed(
        self,
        function: str,
        x: object,
        *,
        axis: object,
        layout: object,
        beta: object = 1,
        approximate: object = "none",
    ) -> int:
        position = super().packed(function, x, axis=axis, layout=layout, beta=beta, approximate=approximate)
        check_device(function, "beta", beta, "x", x)
        return position

    def clamped(
        self, function: str, x: object, *, alpha: object, limit: object, offset: object, axis: object, layout: object
    ) -> int:
        alpha, limit, offset = fixed(alpha), fixed(limit), fixed(offset)
        return super().clamped(function, x, alpha=alpha, limit=limit, offset=offset, axis=axis, layout=layout)

    def pair(self, function: str, gate: object, value: object, *, activation: object, beta: object) -> contract.Seen:
        seen = super().pair(function, gate, value, activation=activation, beta=beta)
        check_device(function, "value", value, "gate", gate)
        check_device(function, "beta", beta, "gate", gate)
        return seen

    def projected(
        self,
        function: str,
        *,
        x: object,
        W: object,
        V: object,
        b: object,
        c: object,
        activation: object = "swish",
        beta: object = 1,
        W2: object = None,
        b2: object = None,
    ) -> contract.Seen:
        others = {"W": W, "V": V, "b": b, "c": c, "W2": W2, "b2": b2}
        seen = super().projected(function, x=x, **others, activation=activation, beta=beta)
        for name, other in (others | {"beta": beta}).items():
            check_device(function, name, other, "x", x)
        return seen

    def tangent(self, name: str, tangent: object, primal: object) -> None:
        super().tangent(name, tangent, primal)
        check_device("jvp", f"the tangent of {name}", tangent, name, primal)
