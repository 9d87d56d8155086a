"""Large CPU tensors, block by block.

torch shares an operation on 32,768 elements or more between its threads. A block has that many for each thread, and
what is computed from it stays in cache. The cuts depend on the shapes and the number of threads alone, so that the
same call gives the same bits again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

__all__ = ["GRAIN", "SMALL", "blocks"]

GRAIN: Final = 2**15
"""Elements from which on a second thread takes part (``at::internal::GRAIN_SIZE``)."""
SMALL: Final = GRAIN - 1
"""Elements that one thread does alone."""
EACH: Final = 3 * 2**15
"""Elements of a block for each thread: 3/8 MiB of float32."""


class _Cut(NamedTuple):
    """How arrays of ``shape`` are cut into blocks: each index of the first ``axis`` axes, and ``step`` of the next."""

    shape: torch.Size
    axis: int
    step: int

    def pieces(self, x: Any) -> list[Any]:
        """The blocks of ``x``, a tensor of the shape or one that broadcasts to it; of anything else, itself."""
        if not isinstance(x, Tensor):
            count = math.prod(self.shape[: self.axis]) * -(-self.shape[self.axis] // self.step)
            return [x] * count
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


def _in_memory_order(operands: Sequence[Any]) -> Sequence[Any]:
    """The operands with their axes in the order in which the first of them lies in memory."""
    strides = operands[0].stride()
    order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    if order == list(range(len(strides))):
        return operands
    return [one.permute(order) if isinstance(one, Tensor) else one for one in operands]


def _cut_up(operands: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    cut = _cut(operands[0].shape, size)
    return zip(*(cut.pieces(one) for one in operands), strict=True)


def blocks(operands: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The operands block by block, the caller working on one before it asks for the next.

    Args:
        operands: the first is a tensor with elements; the others are tensors of as many axes that broadcast to its
            shape, or no tensors.
    """
    if operands[0].numel() <= SMALL:
        yield operands
        return
    ordered = _in_memory_order(operands)
    size = torch.get_num_threads() * EACH
    if ordered[0].numel() <= size:
        yield ordered
        return
    yield from _cut_up(ordered, size)
