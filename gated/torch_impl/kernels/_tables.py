"""Tensors as tables of rows and columns, which is what the kernels take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = ["Table", "table"]


class Table(NamedTuple):
    """Tensors of one shape as tables of ``rows`` x ``columns``."""

    rows: int
    columns: int
    strides: tuple[tuple[int, int], ...]
    """Of each tensor: how many elements apart neighbouring rows are, and neighbouring columns."""


def table(tensors: Sequence[Tensor]) -> Table | None:
    """The tensors, of one shape, as tables; None where two strides for each do not tell where their elements are.

    The axes are taken in the order in which the first tensor lies in memory. Axes that follow on each other in all
    tensors are one: contiguous tensors have one row, halves of contiguous packed arrays have two axes at most.
    """
    first = tensors[0]
    along_first = first.stride()
    axes = sorted(range(first.dim()), key=lambda axis: -along_first[axis])
    merged: list[tuple[int, tuple[int, ...]]] = []
    for axis in axes:
        size, strides = first.shape[axis], tuple(one.stride(axis) for one in tensors)
        if size == 1:
            continue
        if merged and all(outer == inner * size for outer, inner in zip(merged[-1][1], strides, strict=True)):
            size *= merged.pop()[0]
        merged.append((size, strides))
    if len(merged) > 2:
        return None
    (columns, along), (rows, down) = ([*reversed(merged)] + 2 * [(1, (0,) * len(tensors))])[:2]
    if not merged:
        along = (1,) * len(tensors)
    return Table(rows, columns, tuple(zip(down, along, strict=True)))
