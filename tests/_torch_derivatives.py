"""Columns of the table of transforms: every order and mode of differentiation, torch.func and batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from _torch_transforms import column
from _torch_truth import Exact, Tensor, U, V, Variant, W, check
from torch.autograd import forward_ad

ORDERS, FUNC = "Orders and modes", "torch.func and batches"
grad = torch.autograd.grad


def contracted(gradients: Sequence[Tensor], variant: Variant, seed: int) -> Tensor:
    """The sum of the products with a direction."""
    pairs = zip(gradients, variant.tensors(seed), strict=True)
    return sum((one * direction).sum() for one, direction in pairs)


def scalar(variant: Variant) -> Callable[..., Tensor]:
    """The cotangent times the function."""
    c = variant.cotangent
    return lambda *primals: (c * variant.fn(*primals)).sum()


def every(variant: Variant) -> tuple[int, ...]:
    """The places of all arguments."""
    return tuple(range(len(variant.shapes)))


def total(exact: Exact, c: Tensor) -> Exact:
    """The cotangent times what is exact."""
    return np.array(np.sum(exact[0] * c.numpy())), np.array(np.sum(exact[1] * np.abs(c.numpy())))


# Orders and modes


@column(ORDERS, "backward", "`autograd.grad` of the value, in every argument, against the exact gradient")
def backward(variant: Variant) -> None:
    leaves, truth = variant.leaves(), variant.truth()
    value = variant.fn(*leaves)
    check(value, truth.value())
    check(grad(value, leaves, variant.cotangent), *truth.gradient())


@column(ORDERS, "double backward", "the gradient along a direction, differentiated in every argument and the cotangent")
def double_backward(variant: Variant) -> None:
    leaves, c, truth = variant.leaves(), variant.cotangent.clone().requires_grad_(), variant.truth()
    first = grad(variant.fn(*leaves), leaves, c, create_graph=True)
    *second, in_c = grad(contracted(first, variant, U), [*leaves, c], materialize_grads=True)
    check(second, *truth.gradient(U))
    check(in_c, truth.along(U))


@column(ORDERS, "third order", "backward three times")
def third_order(variant: Variant) -> None:
    leaves = variant.leaves()
    result: Sequence[Tensor] = grad(variant.fn(*leaves), leaves, variant.cotangent, create_graph=True)
    for seed in (U, V):
        slope = contracted(result, variant, seed)
        result = grad(slope, leaves, create_graph=True, materialize_grads=True)
    check(result, *variant.truth().gradient(U, V))


@column(ORDERS, "forward mode", "dual tensors: the tangent along a direction")
def forward_mode(variant: Variant) -> None:
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(variant.tensors(), variant.tensors(U), strict=True)]
        value, tangent = forward_ad.unpack_dual(variant.fn(*duals))
    check([value, tangent], variant.truth().value(), variant.truth().along(U))


@column(ORDERS, "forward over reverse", "dual tensors through backward, with and without `create_graph`")
def forward_over_reverse(variant: Variant) -> None:
    for create_graph in (False, True):
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(*pair) for pair in zip(variant.leaves(), variant.tensors(U), strict=True)]
            first = grad(variant.fn(*duals), duals, variant.cotangent, create_graph=create_graph)
            tangents = [forward_ad.unpack_dual(one).tangent for one in first]
        # No tangent is a tangent of zero: of a gradient that is constant.
        given = [torch.zeros_like(one) if t is None else t for one, t in zip(first, tangents, strict=True)]
        check(given, *variant.truth().gradient(U))


@column(ORDERS, "reverse over forward", "backward through a tangent, in every argument and every direction")
def reverse_over_forward(variant: Variant) -> None:
    leaves, directions = variant.leaves(), variant.leaves(U)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(leaves, directions, strict=True)]
        tangent = forward_ad.unpack_dual(variant.fn(*duals)).tangent
        results = grad(tangent, [*leaves, *directions], variant.cotangent, materialize_grads=True)
    check(results, *variant.truth().gradient(U), *variant.truth().gradient())


@column(
    ORDERS, "forward over forward", "`func.jvp` of `func.jvp` (in a plain custom Function silently 0, pytorch#197867)"
)
def forward_over_forward(variant: Variant) -> None:
    def first(*primals: Tensor) -> Tensor:
        return torch.func.jvp(variant.fn, primals, variant.tensors(U))[1]

    value, tangent = torch.func.jvp(first, variant.tensors(), variant.tensors(V))
    check([value, tangent], variant.truth().along(U), variant.truth().along(U, V))


@column(
    ORDERS, "third order, mixed", "all eight nestings of reverse and forward mode, along three directions", first=True
)
def third_order_mixed(variant: Variant) -> None:
    places = every(variant)

    def reverse(fn: Callable[..., Tensor], seed: int) -> Callable[..., Tensor]:
        return lambda *primals: contracted(torch.func.grad(fn, places)(*primals), variant, seed)

    def forward(fn: Callable[..., Tensor], seed: int) -> Callable[..., Tensor]:
        return lambda *primals: torch.func.jvp(fn, primals, variant.tensors(seed))[1]

    for modes in itertools.product((reverse, forward), repeat=3):
        fn = scalar(variant)
        for mode, seed in zip(modes, (U, V, W), strict=True):
            fn = mode(fn, seed)
        check(fn(*variant.tensors()), total(variant.truth().along(U, V, W), variant.cotangent))


# gradcheck counts on finite differences of step 1e-6: it says nothing that the columns above do not prove, but that the
# Functions keep its rules: undefined gradients, batches, determinism, no results that overlap in memory.


@column(ORDERS, "gradcheck", "with forward mode, undefined gradients, and batches in both modes")
def gradcheck(variant: Variant) -> None:
    batches = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(variant.fn, variant.leaves(), check_forward_ad=True, **batches)


@column(ORDERS, "gradgradcheck", "forward over reverse and reverse over reverse, and batches", first=True)
def gradgradcheck(variant: Variant) -> None:
    modes = {"check_fwd_over_rev": True, "check_rev_over_rev": True, "check_batched_grad": True}
    assert torch.autograd.gradgradcheck(variant.fn, variant.leaves(), fast_mode=True, **modes)


# torch.func


@column(FUNC, "func.grad", "in every argument")
def func_grad(variant: Variant) -> None:
    check(torch.func.grad(scalar(variant), every(variant))(*variant.tensors()), *variant.truth().gradient())


@column(FUNC, "func.vjp", "the pullback, called twice")
def func_vjp(variant: Variant) -> None:
    value, pull = torch.func.vjp(variant.fn, *variant.tensors())
    check(value, variant.truth().value())
    for _ in range(2):
        check(pull(variant.cotangent), *variant.truth().gradient())


@column(FUNC, "func.jvp", "value and tangent")
def func_jvp(variant: Variant) -> None:
    results = torch.func.jvp(variant.fn, variant.tensors(), variant.tensors(U))
    check(results, variant.truth().value(), variant.truth().along(U))


@column(FUNC, "func.linearize", "the linear function, applied to two directions", first=True)
def func_linearize(variant: Variant) -> None:
    value, linear = torch.func.linearize(variant.fn, *variant.tensors())
    check(value, variant.truth().value())
    for seed in (U, V):
        check(linear(*variant.tensors(seed)), variant.truth().along(seed))


@column(FUNC, "func.jacrev", "every element of the Jacobian, at once and in chunks")
def func_jacrev(variant: Variant) -> None:
    for chunk_size in (None, 2):
        found = torch.func.jacrev(variant.fn, every(variant), chunk_size=chunk_size)(*variant.tensors())
        check(found, *variant.truth().jacobian())


@column(FUNC, "func.jacfwd", "every element of the Jacobian")
def func_jacfwd(variant: Variant) -> None:
    check(torch.func.jacfwd(variant.fn, every(variant))(*variant.tensors()), *variant.truth().jacobian())


@column(FUNC, "func.hessian", "forward over reverse, and the three other orders; each block times a direction")
def func_hessian(variant: Variant) -> None:
    places, directions = every(variant), variant.tensors(U)
    modes = (torch.func.jacfwd, torch.func.jacrev)
    for outer, inner in itertools.product(modes, repeat=2):
        blocks = outer(inner(scalar(variant), places), places)(*variant.tensors())
        check(_times(blocks, directions), *variant.truth().gradient(U))


def _times(blocks: Sequence[Sequence[Tensor]], directions: Sequence[Tensor]) -> list[Tensor]:
    return [
        sum(torch.tensordot(block, one, one.dim()) for block, one in zip(row, directions, strict=True))
        for row in blocks
    ]  # fmt: skip


@column(FUNC, "autograd.functional", "`jacobian` and `hessian`, plain and vectorized, in both modes, and `hvp`")
def autograd_functional(variant: Variant) -> None:
    functional, primals, truth = torch.autograd.functional, variant.tensors(), variant.truth()
    kinds: list[dict[str, Any]] = [
        {},
        {"vectorize": True},
        {"vectorize": True, "strategy": "forward-mode"},
    ]
    for kind in kinds:
        check(functional.jacobian(variant.fn, primals, **kind), *truth.jacobian())
        if "strategy" in kind:
            kind = {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}
        blocks = functional.hessian(scalar(variant), primals, **kind)
        check(_times(blocks, variant.tensors(U)), *truth.gradient(U))
    check(functional.hvp(scalar(variant), primals, variant.tensors(U))[1], *truth.gradient(U))


@column(FUNC, "batched gradients", "`autograd.grad(is_grads_batched=True)`, twice differentiable")
def batched_gradients(variant: Variant) -> None:
    leaves, truth, c = variant.leaves(), variant.truth(), variant.cotangent
    rows = torch.stack([c, -2 * c, 0 * c])
    first = grad(variant.fn(*leaves), leaves, rows, is_grads_batched=True, create_graph=True)
    for one, exact in zip(first, truth.gradient(), strict=True):
        for row, factor in zip(one, (1, -2, 0), strict=True):
            check(row, _scaled(exact, factor))
    slope = contracted([one[1] for one in first], variant, U)
    for one, exact in zip(grad(slope, leaves, materialize_grads=True), truth.gradient(U), strict=True):
        check(one, _scaled(exact, -2))


def _scaled(exact: Exact, factor: int) -> Exact:
    return exact[0] * factor, exact[1] * abs(factor)


# vmap


BATCH = (0, 4)
"""The seeds of the two examples of a batch."""


def _batches(variant: Variant) -> list[tuple[int, ...]]:
    """Which arguments are batched: all, and each alone."""
    places = every(variant)
    return [places, *((place,) for place in places if len(places) > 1)]


def _batched(variant: Variant, which: Sequence[int], dim: int) -> tuple[list[Tensor], list[int | None]]:
    """The arguments with a batch at the places, along the first or the last axis."""
    examples = [variant.tensors(seed) for seed in BATCH]
    given = [
        torch.stack(pair, dim) if place in which else pair[0]
        for place, pair in enumerate(zip(*examples, strict=True))
    ]  # fmt: skip
    return given, [dim if place in which else None for place in every(variant)]


def _truths(variant: Variant, which: Sequence[int]) -> list[Any]:
    seeds = [[seed if place in which else BATCH[0] for place in every(variant)] for seed in BATCH]
    return [variant.truth(*one) for one in seeds]


@column(FUNC, "vmap", "over all arguments and over each alone, along the first and the last axis, and nested")
def vmap(variant: Variant) -> None:
    for which in _batches(variant):
        truths = [truth.value() for truth in _truths(variant, which)]
        for dim in (0, -1):
            given, dims = _batched(variant, which, dim)
            mapped = torch.vmap(variant.fn, in_dims=tuple(dims))
            check(list(mapped(*given)), *truths)
            twice = torch.vmap(mapped, in_dims=tuple(0 if place in which else None for place in every(variant)))
            deeper = [torch.stack([one, one]) if place in which else one for place, one in enumerate(given)]
            if dim == 0 and which == every(variant):
                for row in twice(*deeper):
                    check(list(row), *truths)


@column(FUNC, "vmap of grad", "the gradient and the Hessian along a direction, of each example", first=True)
def vmap_of_grad(variant: Variant) -> None:
    places = every(variant)

    def second(*primals: Tensor) -> tuple[Tensor, ...]:
        return torch.func.jvp(torch.func.grad(scalar(variant), places), primals, variant.tensors(U))

    for which in _batches(variant):
        given, dims = _batched(variant, which, 0)
        mapped = torch.vmap(second, in_dims=tuple(dims))(*given)
        for example, truth in enumerate(_truths(variant, which)):
            for one, exact in zip(mapped, (truth.gradient(), truth.gradient(U)), strict=True):
                check([result[example] for result in one], *exact)


@column(FUNC, "grad of vmap", "the gradient of a sum over a batch, by `func.grad` and by backward")
def grad_of_vmap(variant: Variant) -> None:
    places = every(variant)
    for which in _batches(variant):
        given, dims = _batched(variant, which, 0)

        def loss(*batched: Tensor, dims: Sequence[int | None] = dims) -> Tensor:
            return (torch.vmap(variant.fn, in_dims=tuple(dims))(*batched) * variant.cotangent).sum()

        leaves = [one.clone().requires_grad_() for one in given]
        gradients = [truth.gradient() for truth in _truths(variant, which)]
        for found in (torch.func.grad(loss, places)(*given), grad(loss(*leaves), leaves)):
            for place, one in enumerate(found):
                exact = [gradient[place] for gradient in gradients]
                if place in which:
                    check(list(one), *exact)
                else:
                    check(one, (exact[0][0] + exact[1][0], exact[0][1] + exact[1][1]))
