"""Tiles of tables in memory, for Triton kernels.

An array is a table of rows and columns with strides of its own, and a program works on one tile of ROWS x COLUMNS.
Offsets have 64 bits throughout. A WHOLE table is one of full tiles: its loads and stores need no masks.
"""

import triton
import triton.language as tl

__all__ = ["corner", "load", "load_couples", "number", "store", "store_couples", "wide"]


@triton.jit
def number(first, second, dtype: tl.constexpr):
    """A Python number as high + low of the dtype, from two words: Triton would take a Python float as a float32."""
    if dtype == tl.float64:
        word = (first.to(tl.int64) << 32) | (second.to(tl.int64) & 0xFFFFFFFF)
        return word.to(tl.float64, bitcast=True), tl.full([], 0.0, tl.float64)
    else:
        return first.to(tl.float32, bitcast=True), second.to(tl.float32, bitcast=True)


@triton.jit
def wide(x):
    """``x`` in its compute dtype."""
    return x if x.dtype == tl.float64 else x.to(tl.float32)


@triton.jit
def corner(first_column, across, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The first row and column of this program's tile, of ``across`` tiles side by side."""
    program = tl.program_id(0)
    return (program // across).to(tl.int64) * ROWS, first_column + (program % across).to(tl.int64) * COLUMNS


@triton.jit
def _places(array, row_stride, column_stride, row, column, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    down = tl.arange(0, ROWS).to(tl.int64) * row_stride
    along = tl.arange(0, COLUMNS).to(tl.int64) * column_stride
    return (array + (row * row_stride + column * column_stride)) + (down[:, None] + along[None, :])


@triton.jit
def _inside(row, column, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    return (row + tl.arange(0, ROWS) < rows)[:, None] & (column + tl.arange(0, COLUMNS) < columns)[None, :]


@triton.jit
def load(
    array, row_stride, column_stride, row, column, rows, columns,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The tile of an array at its corner (row, column); zeros outside the table."""
    places = _places(array, row_stride, column_stride, row, column, ROWS, COLUMNS)
    if WHOLE:
        return tl.load(places)
    else:
        return tl.load(places, mask=_inside(row, column, rows, columns, ROWS, COLUMNS), other=0.0)


@triton.jit
def store(
    array, row_stride, column_stride, row, column, rows, columns, tile,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes a tile, rounded to the array's dtype."""
    places = _places(array, row_stride, column_stride, row, column, ROWS, COLUMNS)
    narrow = tile.to(array.dtype.element_ty)
    if WHOLE:
        tl.store(places, narrow)
    else:
        tl.store(places, narrow, mask=_inside(row, column, rows, columns, ROWS, COLUMNS))


# Couples: gates and values that alternate in memory, by loads and stores as wide as those of one array


@triton.jit
def load_couples(
    array, row_stride, row, column, rows, columns,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The tiles of gates and of values at (row, column)."""
    both = load(array, row_stride, 1, row, 2 * column, rows, 2 * columns, WHOLE, ROWS, 2 * COLUMNS)
    return tl.split(tl.reshape(both, (ROWS, COLUMNS, 2)))


@triton.jit
def store_couples(
    array, row_stride, row, column, rows, columns, gates, values,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes tiles of gates and of values."""
    narrow: tl.constexpr = array.dtype.element_ty
    both = tl.reshape(tl.join(gates.to(narrow), values.to(narrow)), (ROWS, 2 * COLUMNS))
    store(array, row_stride, 1, row, 2 * column, rows, 2 * columns, both, WHOLE, ROWS, 2 * COLUMNS)
