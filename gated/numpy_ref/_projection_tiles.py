"""The gates of a projected form a tile at a time: a block of the rows of x by a block of the hidden columns.

What a tile needs is converted to float64 on the fly, so that a call holds blocks in float64, however large x and the
weights are: rows of x and of the result, columns of W and V, rows of W2, and the formula's arrays of the tile's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gated.numpy_ref._arrays import BLOCK, Array, to_float64
from gated.numpy_ref._pair import Float64

__all__ = ["Operand", "Tiles", "bias", "by_rows", "rows_of", "slices"]

Operand = Array | float

# Elements of the rows of x or y, of the columns of W or V and of the rows of W2 that belong to a tile. They bound its
# sides where d_in or d_out is large; a single row or column that is longer than this is held whole.
STRIP = 262_144


@dataclass(frozen=True)
class Tiles:
    """The arguments of a projected form; ``W2`` is None for the forms without a down projection."""

    x: Array
    W: Array
    V: Array
    W2: Array | None
    b: Array | None
    c: Array | None
    b2: Array | None
    activation: str
    beta: Operand

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the gate."""
        return (*self.x.shape[:-1], self.W.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """The number of rows, all axes of x but the last made one, and of hidden columns."""
        *leading, hidden = self.shape
        return math.prod(leading), hidden

    @property
    def steps(self) -> tuple[int, int]:
        """The rows and the columns of a tile: at most BLOCK gates, square where there are enough of both."""
        all_rows, all_columns = self.size
        rows = max(math.isqrt(BLOCK), BLOCK // max(1, all_columns))
        columns = max(math.isqrt(BLOCK), BLOCK // max(1, all_rows))
        fitting = max(1, STRIP // max(1, self.x.shape[-1], 0 if self.W2 is None else self.W2.shape[1]))
        return min(rows, fitting), min(columns, fitting)

    @property
    def row_blocks(self) -> Iterator[slice]:
        """The blocks of rows."""
        return slices(slice(0, self.size[0]), self.steps[0])

    @property
    def column_blocks(self) -> Iterator[slice]:
        """The blocks of hidden columns."""
        return slices(slice(0, self.size[1]), self.steps[1])

    def gates(self, rows: slice, columns: slice) -> tuple[Float64, Float64, Float64]:
        """The gates x W + b of a tile, its values x V + c and its beta."""
        x = rows_of(self.x, rows)
        gate = x @ to_float64(self.W[:, columns]) + bias(self.b, columns)
        value = x @ to_float64(self.V[:, columns]) + bias(self.c, columns)
        return gate, value, rows_of(np.broadcast_to(np.asarray(self.beta), self.shape), rows, columns)


def slices(whole: slice, step: int) -> Iterator[slice]:
    """``whole`` in slices of up to ``step``."""
    for start in range(whole.start, whole.stop, step):
        yield slice(start, min(start + step, whole.stop))


def rows_of(a: Array, rows: slice, columns: slice = slice(None)) -> Float64:
    """Rows and columns of ``a`` in float64, all axes but the last made one; by index, as a reshape may copy all."""
    a = np.atleast_2d(a)
    index: tuple[Any, ...] = np.unravel_index(np.arange(rows.start, rows.stop), a.shape[:-1])
    return to_float64(a[(*index, columns)])


def bias(offset: Array | None, columns: slice = slice(None)) -> Float64:
    """A bias in float64; -0.0, which adds nothing to any number, where there is none."""
    return np.array(-0.0) if offset is None else to_float64(offset[columns])


def by_rows(a: Array) -> Array:
    """A new array with all axes but the last made one, as a view."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
