"""How the reference sees an array, walks over it in blocks, and rounds into its dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gated.contract import Checks, Seen
from gated.numpy_ref._pair import Float64
from gated.numpy_ref._wide import Wide

__all__ = ["Array", "Kernel", "blocks", "checks", "elementwise", "rounded", "see", "summed", "to_float64"]

Array = NDArray[Any]
Kernel = Callable[..., Wide]
"""A formula on blocks: float64 arrays of one shape in, :class:`Wide` numbers out."""

# Elements worked on at a time: the temporaries of a block (some twenty arrays) stay in the cache of a core.
BLOCK = 16_384

Index = tuple[slice, ...]


def see(value: object) -> Seen | None:
    """NumPy arrays and scalars; a masked array is none, since its mask would be lost in silence."""
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, np.ma.MaskedArray):
        return Seen(value.dtype.name, value.shape)
    return None


checks = Checks(see)


def blocks(shape: tuple[int, ...], size: int = BLOCK) -> Iterator[Index]:
    """Slices that cover an array of ``shape`` once, each of at most ``size`` elements."""
    if not shape:
        yield ()
        return
    row = math.prod(shape[1:])
    if row > size:
        for i in range(shape[0]):
            for rest in blocks(shape[1:], size):
                yield (slice(i, i + 1), *rest)
        return
    step = max(1, size // max(1, row))
    for start in range(0, shape[0], step):
        yield (slice(start, start + step), *(slice(None),) * (len(shape) - 1))


def to_float64(x: object) -> Float64:
    """``x`` in float64, exactly: every allowed dtype is part of it."""
    with np.errstate(invalid="ignore"):  # a signalling nan
        return np.asarray(x).astype(np.float64)


def rounded(x: Float64, dtype: np.dtype[Any]) -> Array:
    """``x`` rounded once to ``dtype``, ties to even."""
    with np.errstate(all="ignore"):
        return np.asarray(_rounded(x, dtype))


def _rounded(x: Float64, dtype: np.dtype[Any]) -> Array:
    if dtype == ml_dtypes.bfloat16:
        # The cast goes through float32, and two roundings to nearest are not one. Rounding the first to odd (Boldo and
        # Melquiond, "Emulation of FMA and correctly rounded sums", 2008) makes the second right.
        return _float32_to_odd(x).astype(dtype)
    return x.astype(dtype)


def _float32_to_odd(x: Float64) -> NDArray[np.float32]:
    nearest = np.asarray(x, np.float32)
    beyond = np.abs(nearest.astype(np.float64)) > np.abs(x)
    truncated = np.where(beyond, np.nextafter(nearest, np.float32(0)), nearest)
    inexact = (truncated.astype(np.float64) != x) & np.isfinite(x)
    odd: NDArray[np.float32] = (truncated.view(np.uint32) | inexact.astype(np.uint32)).view(np.float32)
    return odd


def elementwise(kernel: Kernel, *inputs: object, like: Array, out: Array | None = None) -> Array:
    """``kernel`` over the inputs, broadcast to the shape of ``like``, rounded once into its dtype.

    Args:
        out: where the result goes; a new array if None.
    """
    if out is None:
        out = np.empty(like.shape, like.dtype)
    views = [np.broadcast_to(np.asarray(each), like.shape) for each in inputs]
    with np.errstate(all="ignore"):
        for index in blocks(like.shape):
            result = kernel(*(to_float64(view[index]) for view in views))
            out[index] = rounded(result.to_float64(), out.dtype)
    return out


def summed(kernel: Kernel, *inputs: object, over: tuple[int, ...], shape: tuple[int, ...]) -> Float64:
    """``kernel`` over the inputs, broadcast to the shape ``over``, summed down to ``shape`` in float64."""
    views = [np.broadcast_to(np.asarray(each), over) for each in inputs]
    total = np.zeros((1,) * (len(over) - len(shape)) + shape)
    collapsed = tuple(axis for axis, size in enumerate(total.shape) if size == 1)
    with np.errstate(all="ignore"):
        for index in blocks(over):
            terms = np.broadcast_to(
                kernel(*(to_float64(view[index]) for view in views)).to_float64(), views[0][index].shape
            )
            kept = tuple(slice(None) if axis in collapsed else one for axis, one in enumerate(index))
            total[kept] += np.sum(terms, axis=collapsed, keepdims=True)
    return total.reshape(shape)
