"""The gated forms on the CPU in eager mode: block by block, so that what is computed in stays in cache.

What the plain arithmetic of :mod:`gated.torch_impl._arithmetic` cannot do, the scaled arithmetic of
:mod:`gated.torch_impl._forms` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from . import _forms as exact
from ._arithmetic import Arithmetic, arithmetic
from ._arrays import Factor
from ._forms import IN_BETA, IN_VALUE, IN_X, Form
from ._memory import new_like
from ._threads import block_size, shared

__all__ = ["evaluate", "is_plain", "pullback"]

_NAMES: Final = (IN_X, IN_VALUE, IN_BETA)
_TENSORS: Final = (Tensor, nn.Parameter)


def is_plain(*operands: object) -> bool:
    """Whether the operands are ordinary CPU tensors (or no tensors), which may be computed with outside autograd."""
    for operand in operands:
        if isinstance(operand, Tensor) and not (type(operand) in _TENSORS and operand.is_cpu):
            return False
    return not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state()
        or torch.compiler.is_compiling()
    )


class _Cut(NamedTuple):
    """How arrays of ``shape`` are cut into blocks: each index of the first ``axis`` axes, and ``step`` of the next."""

    shape: torch.Size
    axis: int
    step: int

    @property
    def blocks(self) -> int:
        return math.prod(self.shape[: self.axis]) * -(-self.shape[self.axis] // self.step)

    def pieces(self, x: Any) -> list[Any]:
        """The blocks of ``x``, a tensor of the shape or one that broadcasts to it; of anything else, itself."""
        if not isinstance(x, Tensor):
            return [x] * self.blocks
        parts = [x]
        for size in self.shape[: self.axis]:
            parts = [row for part in parts for row in (part.unbind() if len(part) == size else [part[0]] * size)]
        size = self.shape[self.axis]
        if len(parts[0]) == size:
            return [piece for part in parts for piece in torch.split(part, self.step)]
        return [part for part in parts for _ in range(0, size, self.step)]


def _cut(shape: torch.Size, size: int) -> _Cut:
    """Blocks of at most ``size`` elements, but for a last axis that is longer. There must be more than that."""
    axis, inner = -1, math.prod(shape)
    while inner > size:
        axis += 1
        inner //= shape[axis]
    return _Cut(shape, axis, max(1, size // inner))


def _memory_order(x: Tensor) -> list[int] | None:
    """The axes of ``x`` in the order in which it lies in memory; None for the order they have."""
    strides = x.stride()
    order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    return None if order == list(range(len(strides))) else order


def _permuted(x: Any, order: list[int] | None) -> Any:
    return x if order is None or not isinstance(x, Tensor) else x.permute(order)


def evaluate(form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
    """P"""
    gate, value = form.split(x, value)
    result = new_like(gate)
    size = block_size()
    full_beta = beta.expand(gate.shape) if isinstance(beta, Tensor) else beta
    operands = (gate, value, full_beta, result)

    def compute(plain: Arithmetic | None, g: Tensor, v: Tensor | None, b: Factor, out: Tensor) -> None:
        if plain is None or not plain.value(g, v, b, out):
            out.copy_(exact.evaluate(form._replace(axis=None), g, v, b))

    if gate.numel() <= size:
        if gate.numel():
            compute(arithmetic(form, x.dtype, beta, once=True), *operands)
        return result
    order = _memory_order(gate)
    ordered = [_permuted(one, order) for one in operands]
    cut = _cut(ordered[0].shape, size)
    pieces = [cut.pieces(one) for one in ordered]

    def task(blocks: range) -> None:
        plain = arithmetic(form, x.dtype, beta, once=False)
        for i in blocks:
            compute(plain, *[one[i] for one in pieces])

    shared(task, cut.blocks, gate.numel())
    return result


def pullback(
    form: Form, wanted: str, cotangent: Tensor, x: Tensor, value: Tensor | None, beta: Factor
) -> tuple[Tensor, ...]:
    """The cotangent times the derivatives of P that are ``wanted``, in the order x, value, beta; each in the dtype and
    the shape of its argument."""
    gate, factor = form.split(x, value)
    results: dict[str, Tensor] = {}
    outs: list[Tensor | None] = [None, None, None]
    summed: tuple[int, ...] | None = None
    if IN_X in wanted:
        results[IN_X] = new_like(x)
        outs[:2] = form.split(results[IN_X], None)
    if IN_VALUE in wanted:
        assert value is not None
        results[IN_VALUE] = outs[1] = new_like(value)
    if IN_BETA in wanted:
        assert isinstance(beta, Tensor)
        results[IN_BETA] = torch.zeros_like(beta)
        if form.activation == "swish" and beta.shape == gate.shape:
            outs[2] = results[IN_BETA]
        elif form.activation == "swish":
            summed = (1,) * (gate.dim() - beta.dim()) + beta.shape
    full_beta = beta.expand(gate.shape) if isinstance(beta, Tensor) else beta
    operands = (gate, cotangent, factor, full_beta, *outs)

    def compute(plain: Arithmetic | None, sums: Tensor | None, operands: Sequence[Any]) -> None:
        g, c, v, b, *parts = operands
        if sums is not None:
            parts[2] = torch.empty(g.shape, dtype=torch.float64, device="cpu")
        if plain is None or not plain.gradient(c, g, v, b, parts):
            _exact_gradient(form, c, g, v, b, parts)
        if sums is not None:
            sums.add_(parts[2].sum_to_size(sums.shape))

    def new_sums() -> Tensor | None:
        return None if summed is None else torch.zeros(summed, dtype=torch.float64, device="cpu")

    size = block_size()
    if gate.numel() <= size:
        all_sums = [new_sums()]
        if gate.numel():
            compute(arithmetic(form, x.dtype, beta, once=True), all_sums[0], operands)
    else:
        order = _memory_order(gate)
        ordered = [_permuted(one, order) for one in operands]
        cut = _cut(ordered[0].shape, size)
        pieces = [cut.pieces(one) for one in ordered]

        def task(blocks: range) -> Tensor | None:
            plain = arithmetic(form, x.dtype, beta, once=False)
            sums = new_sums()
            sums_pieces = cut.pieces(_permuted(sums, order))
            for i in blocks:
                compute(plain, sums_pieces[i], [one[i] for one in pieces])
            return sums

        all_sums = shared(task, cut.blocks, gate.numel())
    if summed is not None:
        total = torch.stack([sums for sums in all_sums if sums is not None]).sum(0)
        results[IN_BETA].copy_(total.view(results[IN_BETA].shape))
    return tuple(results[name] for name in wanted)


def _exact_gradient(
    form: Form, c: Tensor, gate: Tensor, value: Tensor | None, beta: Factor, results: Sequence[Tensor | None]
) -> None:
    there = [(name, result) for name, result in zip(_NAMES, results, strict=True) if result is not None]
    wanted = "".join(name for name, _ in there)
    if isinstance(beta, Tensor):
        beta = beta.to(torch.float64)  # terms of a sum are not to be rounded to 16 bits
    parts = exact.pullback(form._replace(axis=None), wanted, c, gate, value, beta)
    for (_, result), part in zip(there, parts, strict=True):
        result.copy_(part)
