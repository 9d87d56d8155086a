"""Columns of the table of transforms: what surrounds a call in real programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from _torch_derivatives import contracted, grad
from _torch_transforms import column
from _torch_truth import USUAL, Exact, Tensor, U, V, Variant, check
from numpy.typing import NDArray
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

GROUP = "In use"


def checked(variant: Variant, fn: Callable[..., Tensor], leaves: Sequence[Tensor] | None = None) -> None:
    """``fn`` of leaves has the exact value and gradient."""
    leaves = variant.leaves() if leaves is None else leaves
    value = fn(*leaves)
    check(value, variant.truth().value())
    check(grad(value, leaves, variant.cotangent), *variant.truth().gradient())


def projects(variant: Variant) -> bool:
    return "d" in variant.shapes[0]


def outside_torch_func(row: str) -> bool:
    """PyTorch refuses ``torch.func.vjp``, and so this ``vjp``, where saved tensors are exchanged by hooks."""
    return row != "vjp"


def recording(row: str) -> bool:
    """``torch.func.jvp`` of a Python Function switches recording on, even under ``no_grad``."""
    return row != "jvp"


@column(
    GROUP,
    "autocast",
    "CPU autocast to bfloat16: elementwise functions keep their dtype and all bits of their results; projections are "
    "bfloat16, as those of `nn.Linear`, and gradients have the dtypes of their arguments",
)
def autocast(variant: Variant) -> None:
    leaves = variant.leaves(dtype=torch.float32)
    plain = variant.fn(*leaves)
    with torch.autocast("cpu", torch.bfloat16):
        value = variant.fn(*leaves)
    gradients = grad(value, leaves, torch.ones_like(value))
    assert [one.dtype for one in gradients] == [torch.float32] * len(leaves)
    if projects(variant):
        assert value.dtype == torch.bfloat16
    else:
        assert value.dtype == torch.float32 and torch.equal(value, plain)
        assert all(map(torch.equal, gradients, grad(plain, leaves, torch.ones_like(plain))))


def _strided(x: Tensor) -> list[Tensor]:
    """``x`` again with other strides: transposed, stepped over, with its sign in a flag."""
    spaced = x.new_zeros(tuple(2 * size for size in x.shape))
    stepped = spaced[tuple(slice(None, None, 2) for _ in x.shape)]
    stepped.copy_(x)
    transposed = x.mT.contiguous().mT if x.dim() > 1 else x
    flagged = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert flagged.is_neg() and torch.equal(flagged, x)
    return [stepped, transposed, flagged]


@column(GROUP, "strides", "transposed, stepped, expanded (stride 0) and sign-flagged views, of arguments and cotangent")
def strides(variant: Variant) -> None:
    for arguments in zip(*map(_strided, variant.tensors()), strict=True):
        leaves = [one.detach().requires_grad_() for one in arguments]
        checked(variant, variant.fn, leaves)
    value = variant.fn(*(leaves := variant.leaves()))
    for c in _strided(variant.cotangent):
        check(grad(value, leaves, c, retain_graph=True), *variant.truth().gradient())
    ones = grad(value, leaves, torch.ones(()).double().expand(value.shape), retain_graph=True)
    assert all(map(torch.equal, ones, grad(value, leaves, torch.ones_like(value))))
    # One row, repeated without memory of its own and with it.
    rows = [one[:1] if shape.startswith("n") else one for one, shape in zip(leaves, variant.shapes, strict=True)]
    if variant.shapes[0].startswith("n") and not variant.name.startswith(("vjp", "jvp")):
        wide = [
            one.detach().expand(3, *one.shape[1:]).requires_grad_() if shape.startswith("n") else one
            for one, shape in zip(rows, variant.shapes, strict=True)
        ]
        full = [one.detach().contiguous().requires_grad_() for one in wide]
        close = {"rtol": 2.0**-44, "atol": 2.0**-44}  # 256 roundoffs each, of sums of terms below 4
        for one, other in zip(grad(variant.fn(*wide).sum(), wide), grad(variant.fn(*full).sum(), full), strict=True):
            torch.testing.assert_close(one, other, **close)


@column(GROUP, "0-size", "no rows, and no columns: value, gradient, second gradient and tangent have their shapes")
def no_size(variant: Variant) -> None:
    for none in ({"n": 0}, {"p": 0, "h": 0}):
        leaves = variant.leaves(sizes={**USUAL, **none})
        value = variant.fn(*leaves)
        first = grad(value.sum(), leaves, create_graph=True)
        second = grad(sum(one.sum() for one in first), leaves, materialize_grads=True)
        assert [one.shape for one in first] == [one.shape for one in second] == [one.shape for one in leaves]
        assert torch.func.jvp(variant.fn, leaves, leaves)[1].shape == value.shape


@dataclass(frozen=True)
class _Alone(Variant):
    """A variant along whose directions one argument moves alone."""

    place: int = 0

    def numbers(self, seed: int = 0, sizes: Mapping[str, int] = USUAL) -> tuple[NDArray[np.float64], ...]:
        numbers = super().numbers(seed, sizes)
        return numbers if seed == 0 else tuple(one * (place == self.place) for place, one in enumerate(numbers))


def _curved(variant: Variant, which: Sequence[int]) -> list[Exact]:
    """The gradient, in each argument, of the gradients in those of ``which`` times their directions."""
    given = (variant.name, variant.fn, variant.exact, variant.shapes, variant.fixed)
    blocks = [_Alone(*given, place=place).truth().gradient(U) for place in which]
    return [
        (sum(exact for exact, _ in column), sum(reach for _, reach in column)) for column in zip(*blocks, strict=True)
    ]


@column(
    GROUP,
    "any subset requires grad",
    "gradient and second gradient of every subset of the arguments (of more than five: each one, and all but each)",
)
def subsets(variant: Variant) -> None:
    places = range(len(variant.shapes))
    sizes = range(1, len(places) + 1) if len(places) <= 5 else (1, len(places) - 1)
    for which in itertools.chain.from_iterable(itertools.combinations(places, size) for size in sizes):
        arguments = [one.requires_grad_(place in which) for place, one in enumerate(variant.tensors())]
        wanted, truth = [arguments[place] for place in which], variant.truth()
        value = variant.fn(*arguments)
        results = grad(value, wanted, variant.cotangent, create_graph=True)
        check(results, *(truth.gradient()[place] for place in which))
        slope = sum((one * variant.tensors(U)[place]).sum() for one, place in zip(results, which, strict=True))
        # A slope without a graph says that the gradient is constant.
        still = [torch.zeros_like(one) for one in wanted]
        second = grad(slope, wanted, materialize_grads=True) if slope.requires_grad else still
        exact = _curved(variant, which)
        check(second, *(exact[place] for place in which))


@column(GROUP, "inputs never written", "bytes and versions of arguments, cotangents and tangents, through all orders")
def inputs_never_written(variant: Variant) -> None:
    leaves, directions, c = variant.leaves(), variant.tensors(U), variant.cotangent.clone()
    watched = [*leaves, *directions, c]
    before = [(one.detach().clone(), one._version) for one in watched]
    first = grad(variant.fn(*leaves), leaves, c, create_graph=True)
    grad(contracted(first, variant, V), leaves, materialize_grads=True)
    grad(variant.fn(*leaves), leaves, c)
    torch.func.jvp(variant.fn, leaves, directions)
    with forward_ad.dual_level():
        variant.fn(*(forward_ad.make_dual(*pair) for pair in zip(leaves, directions, strict=True)))
    with torch.no_grad():
        variant.fn(*leaves)
    for one, (copy, version) in zip(watched, before, strict=True):
        assert torch.equal(one, copy) and one._version == version


@column(
    GROUP,
    "second backward",
    "with `retain_graph`: the same bits; without: PyTorch's error; after a write to one argument: PyTorch's error, or, "
    "of a bias, which is not kept, the exact gradient",
)
def second_backward(variant: Variant) -> None:
    leaves = variant.leaves()
    value = variant.fn(*leaves)
    results = [grad(value, leaves, variant.cotangent, retain_graph=retain) for retain in (True, True, False)]
    for again in results[1:]:
        assert all(map(torch.equal, results[0], again))
    with pytest.raises(RuntimeError, match="second time"):
        grad(value, leaves, variant.cotangent)
    for place, shape in enumerate(variant.shapes):
        roots = variant.leaves()
        arguments = [one * 1 for one in roots]
        value = variant.fn(*arguments)
        with torch.no_grad():
            arguments[place].mul_(2)
        try:
            results = grad(value, roots, variant.cotangent)
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error), error
        else:
            # The sum that a bias, a vector beside matrices, was added to stands for it.
            assert projects(variant) and len(shape) == 1, (variant.name, place)
            check(results, *variant.truth().gradient())


@column(GROUP, "shared inputs", "one tensor for several arguments, f(x, x); inputs that another operation has saved")
def shared_inputs(variant: Variant) -> None:
    # exp keeps its result, which is the argument: both must be right.
    logs = [one.abs().log().requires_grad_() for one in variant.tensors()]
    signs = [one.sign() for one in variant.tensors()]
    arguments = [log.exp() for log in logs]
    value = variant.fn(*(one * sign for one, sign in zip(arguments, signs, strict=True)))
    through = grad(value, logs, variant.cotangent, retain_graph=True)
    direct = grad(value, arguments, variant.cotangent)
    for one, other, argument in zip(through, direct, arguments, strict=True):
        torch.testing.assert_close(one, other * argument, rtol=2.0**-50, atol=0)  # three roundings
    alike = [place for place, shape in enumerate(variant.shapes) if shape == variant.shapes[0]]
    if len(alike) > 1:
        leaves = list(variant.leaves())
        for place in alike:
            leaves[place] = leaves[0]
        value = variant.fn(*leaves)
        (ours,) = grad(value, leaves[:1], variant.cotangent)
        apart = [one.detach().clone().requires_grad_() for one in leaves]
        parts = grad(variant.fn(*apart), apart, variant.cotangent)
        assert torch.equal(ours, sum(parts[place] for place in alike))


@column(
    GROUP,
    "checkpoint",
    "`torch.utils.checkpoint`, reentrant and not, and double backward through the latter",
    rows=outside_torch_func,
)
def checkpointed(variant: Variant) -> None:
    leaves = variant.leaves()
    value = checkpoint(variant.fn, *leaves, use_reentrant=True)
    value.backward(variant.cotangent)
    check([one.grad for one in leaves], *variant.truth().gradient())
    leaves = variant.leaves()
    value = checkpoint(variant.fn, *leaves, use_reentrant=False)
    first = grad(value, leaves, variant.cotangent, create_graph=True)
    check(first, *variant.truth().gradient())
    slope = contracted(first, variant, U)
    check(grad(slope, leaves, materialize_grads=True), *variant.truth().gradient(U))


@column(
    GROUP,
    "saved-tensor hooks",
    "what is saved is packed as a copy and read back, through double backward",
    rows=outside_torch_func,
)
def saved_tensor_hooks(variant: Variant) -> None:
    leaves, packed = variant.leaves(), 0

    def pack(one: Tensor) -> Tensor:
        nonlocal packed
        packed += 1
        return one.detach().clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one.clone()):
        value = variant.fn(*leaves)
        first = grad(value, leaves, variant.cotangent, create_graph=True)
        second = grad(contracted(first, variant, U), leaves, materialize_grads=True)
    assert packed
    check(first, *variant.truth().gradient())
    check(second, *variant.truth().gradient(U))


@column(
    GROUP,
    "no_grad, inference_mode",
    "the same bits, nothing recorded; inference tensors as arguments",
    rows=recording,
)
def without_gradients(variant: Variant) -> None:
    leaves = variant.leaves()
    value = variant.fn(*leaves)
    with torch.no_grad():
        silent = variant.fn(*leaves)
    with torch.inference_mode():
        inferred = variant.fn(*variant.tensors())
    assert value.requires_grad and not silent.requires_grad and not inferred.requires_grad
    assert torch.equal(value, silent) and torch.equal(value, inferred)


@column(GROUP, "tensor hooks", "hooks on arguments and result see the gradients, and may change the cotangent")
def tensor_hooks(variant: Variant) -> None:
    leaves, seen = variant.leaves(), []
    value = variant.fn(*leaves)
    value.register_hook(lambda c: 2 * c)
    for leaf in leaves:
        leaf.register_hook(seen.append)
    value.backward(0.5 * variant.cotangent)
    check([one.grad for one in leaves], *variant.truth().gradient())
    assert len(seen) == len(leaves)
