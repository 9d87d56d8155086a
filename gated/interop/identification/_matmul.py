"""Products of float64 matrices on one thread each."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["matmul"]

Float64 = NDArray[np.float64]

_ROWS: Final = 16
_TERMS: Final = 64
_COLUMNS: Final = 256
_OPERATIONS: Final = _ROWS * _TERMS * _COLUMNS
"""OpenBLAS takes one thread for a product of at most 2**18 multiplications."""


def matmul(a: Float64, b: Float64) -> Float64:
    """``a @ b``, by blocks so small that BLAS takes one thread for each.

    The products here have few rows. Where other programs take the cores, the threads of such a product wait for one
    another ten times as long as one thread needs for all of it, and burn the time that they wait.
    """
    (rows, terms), columns = a.shape, b.shape[1]
    if rows * terms * columns <= _OPERATIONS:
        return a @ b
    blocks, whole = terms // _TERMS, terms // _TERMS * _TERMS
    left = a[:, :whole].reshape(rows, blocks, _TERMS).transpose(1, 0, 2)
    right = b[:whole].reshape(blocks, _TERMS, columns)
    product = np.empty((rows, columns))
    for row in range(0, rows, _ROWS):
        down = slice(row, row + _ROWS)
        for column in range(0, columns, _COLUMNS):
            along = slice(column, column + _COLUMNS)
            rest = a[down, whole:] @ b[whole:, along]
            product[down, along] = np.sum(left[:, down] @ right[:, :, along], axis=0) + rest
    return product
