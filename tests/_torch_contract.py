"""Columns of the table of transforms: the conformance cases through each transform, held to the accuracy contract."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from _torch_transforms import column
from _torch_truth import Tensor, Variant
from torch.autograd import forward_ad

import gated.torch_impl as G
from gated.conformance.backends.torch import from_torch, to_torch
from gated.conformance.calls import UNARY, UNITS
from gated.conformance.cases import cases
from gated.conformance.quantities import Case
from gated.conformance.runner import Row, measure
from gated.contract import ARRAY_PARAMETERS, DTYPES
from gated.torch_impl import nn as gated_nn
from gated.torch_impl._forms import Form

__all__ = ["SIZE", "graded"]

GROUP = "The accuracy contract"
SIZE = 128
"""About how many inputs a case has beside the specials, of which pairs get all combinations."""

Results = tuple[Tensor, Sequence[Tensor]]
Way = Callable[[Callable[..., Tensor], Sequence[Tensor], Tensor, Case], Results]
"""Gives the value of a function and the cotangents of its arguments, through a transform."""


# Rows as functions of the arguments of a case


def _projected_module(kind: type[gated_nn.GatedLinear], *arguments: Tensor, activation: str, **keywords: Any) -> Tensor:
    names = ARRAY_PARAMETERS["gated_ffn" if kind is gated_nn.GatedFFN else "gated_linear"][1:]
    x, *tensors = arguments
    given = dict(zip(names, tensors, strict=False))
    sizes = [*given["W"].shape, *(given["W2"].shape[1:] if "W2" in given else ())]
    module = kind(*sizes, activation=activation, bias=True, learn_beta=activation == "swish", dtype=x.dtype, **keywords)
    children = {"W": "gate_proj.weight", "V": "up_proj.weight", "W2": "down_proj.weight"}
    children |= {"b": "gate_proj.bias", "c": "up_proj.bias", "b2": "down_proj.bias", "beta": "beta"}
    parameters = {children[name]: one.T if one.dim() == 2 else one for name, one in given.items()}
    if activation != "swish":
        parameters.pop("beta", None)  # the functions take one and ignore it
    return torch.func.functional_call(module, parameters, (x,))


_MODULES: Mapping[str, tuple[str, Callable[..., Tensor]]] = {
    "nn.Swish": ("swish", lambda x: gated_nn.Swish()(x)),
    "nn.GLU": ("glu", lambda x, **keywords: gated_nn.GLU(**keywords)(x)),
    "nn.SwiGLU": ("swiglu", lambda x, **keywords: gated_nn.SwiGLU(**keywords)(x)),
    "nn.GatedLinear": ("gated_linear", functools.partial(_projected_module, gated_nn.GatedLinear)),
    "nn.GatedFFN": ("gated_ffn", functools.partial(_projected_module, gated_nn.GatedFFN)),
    "nn.GatedFFN-all": ("gated_ffn", functools.partial(_projected_module, gated_nn.GatedFFN, recompute="all")),
}


@functools.cache
def _cases(function: str, dtype: str) -> list[Case]:
    return list(cases(function, dtype, size=SIZE))


def _calls(name: str, dtype: str) -> Iterator[tuple[Case, Callable[..., Tensor]]]:
    """The cases of a row whose arguments are all arrays, for autograd has no gradient in a number; the row's calls."""
    function, fn = _MODULES.get(name) or (name, getattr(G, name))
    scalar_beta = name in ("nn.Swish", "nn.SwiGLU")
    for case in _cases(function, dtype):
        if not all(isinstance(one, np.ndarray) for one in case.primals) or (scalar_beta and len(case.primals) > 1):
            continue
        call = functools.partial(fn, **case.static)
        yield case, call if name in _MODULES else _by_name(call, ARRAY_PARAMETERS[function])


def _by_name(fn: Callable[..., Tensor], names: Sequence[str]) -> Callable[..., Tensor]:
    """``fn`` with its arguments by place, also those that it takes by keyword alone."""
    return lambda *tensors: fn(**dict(zip(names, tensors, strict=False)))


class Through:
    """An adapter of the conformance runner: the call of a case through a transform."""

    name, flushes = "torch", False

    def __init__(self, way: Way, fn: Callable[..., Tensor], case: Case) -> None:
        self.way, self.fn, self.case = way, fn, case

    def value_and_cotangents(
        self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        value, cotangents = self.way(self.fn, [to_torch(one) for one in primals], to_torch(cotangent), self.case)
        return from_torch(value), tuple(from_torch(one) for one in cotangents)


def graded(variant: Variant, way: Way, dtypes: Sequence[str] = DTYPES) -> None:
    """The row's cases are within the contract."""
    name = variant.name if variant.name in _MODULES else variant.name.split("-")[0]
    for dtype in dtypes:
        row = Row(name, dtype, "torch")
        for case, fn in _calls(name, dtype):
            measure(Through(way, fn, case), case, dtype, row)
        assert row.verdict == "within", (name, dtype, row.worst)


def functions(row: str) -> bool:
    return row not in ("vjp", "jvp")


def elementwise(row: str) -> bool:
    return row in (*UNARY, *UNITS, "nn.Swish", "nn.GLU", "nn.SwiGLU")


def by_backward(fn: Callable[..., Tensor], primals: Sequence[Tensor], c: Tensor, case: Case) -> Results:
    leaves = [one.requires_grad_() for one in primals]
    value = fn(*leaves)
    return value.detach(), torch.autograd.grad(value, leaves, c, materialize_grads=True)


def by_duals(fn: Callable[..., Tensor], primals: Sequence[Tensor], c: Tensor, case: Case) -> Results:
    """The tangents along the cotangent in one argument at a time: the derivatives of elementwise functions.

    Of a packed array gate and value move apart. The one at rest has a tangent of zero, which times an infinite
    derivative is nan, and added to a zero of either sign makes one of its own: there backward's derivative stands.
    """
    value, cotangents = by_backward(fn, [one.clone() for one in primals], c, case)

    def along(place: int, direction: Tensor) -> Tensor:
        with forward_ad.dual_level():
            moved = list(primals)
            moved[place] = forward_ad.make_dual(primals[place], direction)
            tangent = forward_ad.unpack_dual(fn(*moved)).tangent
        return torch.zeros_like(c) if tangent is None else tangent

    results = []
    for place, cotangent in enumerate(cotangents):
        if cotangent.shape == c.shape:
            results.append(along(place, c))
            continue
        form = Form("identity", case.static["axis"] % c.dim(), case.static["layout"])
        of_gate, of_value = (along(place, form.join(*pair)) for pair in ((c, 0 * c), (0 * c, c)))
        in_gate, in_value = form.split(cotangent, None)
        of_gate = torch.where(in_value.isfinite() & (of_gate != 0), of_gate, in_gate)
        of_value = torch.where(in_gate.isfinite() & (of_value != 0), of_value, in_value)
        results.append(form.join(of_gate, of_value))
    return value, results


def by_vmap(fn: Callable[..., Tensor], primals: Sequence[Tensor], c: Tensor, case: Case) -> Results:
    """The pullback of each example of a batch of two that are alike."""

    def pulled(c: Tensor, *primals: Tensor) -> tuple[Tensor, ...]:
        value, pull = torch.func.vjp(fn, *primals)
        return value, *pull(c)

    batches = [torch.stack([one, one], -1) for one in (c, *primals)]
    results = torch.vmap(pulled, in_dims=-1, out_dims=-1, randomness="same")(*batches)
    for one in results:
        assert from_torch(one[..., 0]).tobytes() == from_torch(one[..., 1]).tobytes()
    return results[0][..., 0], [one[..., 0] for one in results[1:]]


@column(GROUP, "backward in four dtypes", "value and gradient by `autograd.grad`", first=True, rows=functions)
def backward(variant: Variant) -> None:
    graded(variant, by_backward)


@column(
    GROUP,
    "forward mode in four dtypes",
    "the tangents by dual tensors; of elementwise functions, whose tangents are their derivatives",
    first=True,
    rows=elementwise,
)
def forward(variant: Variant) -> None:
    graded(variant, by_duals)


@column(GROUP, "vmap of vjp in four dtypes", "the gradients of the examples of a batch", first=True, rows=functions)
def vmap_of_vjp(variant: Variant) -> None:
    graded(variant, by_vmap)
