"""What moving weights needs of an array, for NumPy, PyTorch and JAX, without importing a framework that is not in use.

An array of a framework exists only where that framework has been imported, so ``sys.modules`` has it. Nothing here
computes: bits are moved, in any dtype. In NumPy and PyTorch :func:`permute`, an index, and a :func:`reshape` that
splits an axis give views; :func:`stack` copies.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["Array", "dtype_name", "framework", "permute", "reshape", "stack"]

Array = Any
"""``numpy.ndarray``, ``torch.Tensor`` or ``jax.Array``."""

_KINDS: Final = {"torch": "Tensor", "jax": "Array", "numpy": "ndarray"}


def framework(value: object) -> str | None:
    """``"numpy"``, ``"torch"`` or ``"jax"``, whose array ``value`` is; None for anything else."""
    for name, kind in _KINDS.items():
        module = sys.modules.get(name)
        # A package that another has put in sys.modules half-loaded has no array type yet.
        if module is not None and isinstance(value, getattr(module, kind, ())):
            return name
    return None


def dtype_name(array: Array) -> str:
    """The dtype's name as NumPy and JAX spell it: ``"bfloat16"``, also of ``torch.bfloat16``."""
    return str(array.dtype).removeprefix("torch.")


def permute(array: Array, axes: Sequence[int]) -> Array:
    """The array with its axes in the order ``axes``."""
    if framework(array) == "torch":
        return array.permute(*axes)
    return array.transpose(tuple(axes))


def reshape(array: Array, shape: Sequence[int]) -> Array:
    """The array with the same elements in row-major order, in another shape."""
    return array.reshape(tuple(shape))


def stack(arrays: Sequence[Array], axis: int) -> Array:
    """The arrays, of one shape and dtype, along a new axis."""
    name = framework(arrays[0])
    if name == "jax":
        return _jax_stack(sys.modules["jax"], tuple(arrays), axis)
    library: Any = sys.modules[name or "numpy"]
    return library.stack(tuple(arrays), axis)


def _jax_stack(jax: Any, arrays: tuple[Array, ...], axis: int) -> Array:
    """On the CPU, XLA concatenates floats of 8 and 16 bits by way of wider ones, and signalling nans come out quiet.

    Their bits are therefore concatenated as integers, and the derivative, which has no such bits to keep, as floats.
    """
    dtype = arrays[0].dtype
    if not jax.numpy.issubdtype(dtype, jax.numpy.floating) or dtype.itemsize > 2:
        return jax.numpy.stack(arrays, axis)
    word = f"uint{jax.numpy.finfo(dtype).bits}"

    def as_words(*arrays: Array) -> Array:
        words = [jax.lax.bitcast_convert_type(array, word) for array in arrays]
        return jax.lax.bitcast_convert_type(jax.numpy.stack(words, axis), dtype)

    def derivative(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        return stacked(*primals), jax.numpy.stack(tangents, axis)

    stacked: Any = jax.custom_jvp(as_words)
    stacked.defjvp(derivative)
    return stacked(*arrays)
