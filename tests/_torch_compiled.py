"""Columns of the table of transforms: compilers, exporters, tensors without numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch._dynamo
import torch._dynamo.testing
from _torch_contract import elementwise
from _torch_derivatives import every, grad, scalar
from _torch_transforms import column
from _torch_truth import LARGER, USUAL, Exact, Tensor, Truth, Variant, check

GROUP = "Compilers"
BACKEND = "aot_eager"


def compiled(fn: Callable[..., Any], **keywords: Any) -> Callable[..., Any]:
    """``fn`` compiled whole, afresh."""
    torch._dynamo.reset()
    return torch.compile(lambda *arguments: fn(*arguments), fullgraph=True, **{"backend": BACKEND, **keywords})


@functools.cache
def larger(variant: Variant) -> Truth:
    """The exact results at larger sizes."""
    return Truth(variant, variant.numbers(0, LARGER))


@column(
    GROUP,
    "dynamic shapes",
    "`dynamic=True`, at two sizes of every axis: one graph, counted; forward, and of elementwise functions backward",
    first=True,
)
def dynamic_shapes(variant: Variant) -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend(BACKEND)
    run = compiled(variant.fn, dynamic=True, backend=counter)
    backward = elementwise(variant.name.split("-")[0])

    def through(sizes: Mapping[str, int], truth: Truth) -> None:
        arguments = variant.leaves(sizes=sizes) if backward else variant.tensors(sizes=sizes)
        value = run(*arguments)
        check(value, truth.value())
        if backward:
            exact = map(_summed, truth.jacobian(), variant.shapes)
            check(grad(value, arguments, torch.ones_like(value)), *exact)

    through(USUAL, variant.truth())
    # Tracing begins anew where a number turns out to be a constant; the second size is to compile nothing.
    before = counter.frame_count
    through(LARGER, larger(variant))
    assert counter.frame_count == before


def _summed(exact: Exact, shape: str) -> Exact:
    """The gradient of the sum of the results, from a Jacobian in an argument of that shape."""
    high, reach = (one.sum(tuple(range(one.ndim - len(shape)))) for one in exact)
    return high, reach


@column(GROUP, "training", "value and gradient of a compiled function by backward", first=True)
def training(variant: Variant) -> None:
    leaves = variant.leaves()
    value = compiled(variant.fn)(*leaves)
    check(value, variant.truth().value())
    check(grad(value, leaves, variant.cotangent), *variant.truth().gradient())


@column(GROUP, "func.grad inside compile", "`torch.func.grad` in a compiled function", first=True)
def func_grad_inside_compile(variant: Variant) -> None:
    gradient = torch.func.grad(scalar(variant), every(variant))
    check(compiled(gradient)(*variant.tensors()), *variant.truth().gradient())


def outside_torch_func(row: str) -> bool:
    """``torch.export`` (torch 2.13) makes constants of what ``torch.func.vjp`` gives, of a sine too."""
    return row not in ("vjp", "jvp")


@column(
    GROUP,
    "export",
    "`torch.export` with a dynamic first axis, run at two sizes: plain aten operations",
    first=True,
    rows=outside_torch_func,
)
def export(variant: Variant) -> None:
    class Module(torch.nn.Module):
        def forward(self, *arguments: Tensor) -> Tensor:
            return variant.fn(*arguments)

    dynamic = [{0: torch.export.Dim.DYNAMIC} if shape.startswith("n") else None for shape in variant.shapes]
    program = torch.export.export(Module(), variant.tensors(), dynamic_shapes=(tuple(dynamic),))
    operations = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    assert {operation.namespace for operation in operations} == {"aten"}
    check(program.module()(*variant.tensors()), variant.truth().value())
    sizes = {**USUAL, "n": 5}
    truth = Truth(variant, variant.numbers(0, sizes))
    check(program.module()(*variant.tensors(sizes=sizes)), truth.value())


def _shapes(variant: Variant, leaves: tuple[Tensor, ...]) -> None:
    """Value, gradient, second gradient, tangent and Hessian have their shapes and dtype."""
    value = variant.fn(*leaves)
    c = torch.ones_like(value)
    assert value.shape == variant.cotangent.shape and value.dtype == leaves[0].dtype
    first = grad(value, leaves, c, create_graph=True)
    second = grad(sum(one.sum() for one in first), leaves, materialize_grads=True)
    tangent = torch.func.jvp(variant.fn, leaves, leaves)[1]
    assert (tangent.shape, tangent.device) == (value.shape, leaves[0].device)
    for results in (first, second):
        for result, leaf in zip(results, leaves, strict=True):
            assert (result.shape, result.dtype, result.device) == (leaf.shape, leaf.dtype, leaf.device)


@column(
    GROUP, "fake tensors", "value, first and second gradient and tangent under `FakeTensorMode`, bfloat16", first=True
)
def fake_tensors(variant: Variant) -> None:
    with torch._subclasses.FakeTensorMode() as mode:
        given = [mode.from_tensor(one) for one in variant.tensors(dtype=torch.bfloat16)]
        _shapes(variant, tuple(one.requires_grad_() for one in given))


@column(GROUP, "meta tensors", "the same on the device `meta`", first=True)
def meta_tensors(variant: Variant) -> None:
    given = [one.to("meta") for one in variant.tensors(dtype=torch.bfloat16)]
    _shapes(variant, tuple(one.requires_grad_() for one in given))
