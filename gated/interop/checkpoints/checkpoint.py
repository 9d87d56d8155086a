"""A checkpoint on disk: arrays by key, each read when it is asked for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gated.interop.errors import InteropError

__all__ = ["CHUNK", "Array", "Checkpoint", "Segment", "Spec", "chunks", "is_shape", "named_dtype", "read_bytes"]

Array = NDArray[Any]

CHUNK: Final = 1 << 24
"""The bytes that are copied at once where an array is not contiguous."""

_NUMPY = map(np.dtype, "?bhilqBHILQefdgFDG")
_ML = (np.dtype(one) for one in vars(ml_dtypes).values() if isinstance(one, type) and issubclass(one, np.generic))
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {dtype.name: dtype for dtype in (*_NUMPY, *_ML)}
"""The dtypes of numbers by name. Strings, dates, records and objects are no weights, and no file may name them."""

_MOST_AXES: Final = 64
"""Of an array of NumPy."""


class Spec(NamedTuple):
    """What is known of an array before it is read."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The array's size."""
        return math.prod(self.shape) * self.dtype.itemsize


class Segment(NamedTuple):
    """Consecutive bytes of a file."""

    offset: int
    nbytes: int


class Checkpoint(Mapping[str, Array], ABC):
    """Arrays by key, in the file's order. Asking for one reads it from the file, every time anew.

    Attributes:
        path: the file, or the index of the files.
        files: all files that hold arrays.
        metadata: texts that a safetensors file holds besides its arrays; empty for other formats.
    """

    def __init__(self, path: Path, files: tuple[Path, ...] = (), metadata: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.files = files or (path,)
        self.metadata = dict(metadata or {})

    @abstractmethod
    def spec(self, key: str) -> Spec:
        """The dtype and shape of an array, which is not read.

        Raises:
            InteropError: the format has this entry, and it is no array that can be read.
        """

    def shard(self, key: str) -> str | None:
        """The name of the file that holds an array; None for a checkpoint that is not sharded."""
        return None

    @abstractmethod
    def _keys(self) -> Mapping[str, object]:
        """Something by each key."""

    @abstractmethod
    def _read(self, key: str) -> Array: ...

    def __getitem__(self, key: str) -> Array:
        if key not in self._keys():
            raise KeyError(key)
        return self._read(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())


def named_dtype(name: str) -> np.dtype[Any] | None:
    """NumPy's or ml_dtypes' dtype of numbers with this name; None where there is none."""
    return _DTYPES.get(name)


def is_shape(found: object) -> TypeGuard[list[int] | tuple[int, ...]]:
    """Whether an array can have this shape."""
    if not isinstance(found, (list, tuple)) or len(found) > _MOST_AXES:
        return False
    return all(type(one) is int and one >= 0 for one in found) and math.prod(max(one, 1) for one in found) < 1 << 56


def read_bytes(path: Path, segments: Iterable[Segment]) -> Array:
    """Bytes of a file, in memory of their own: pages of a mapped file would count as the process's.

    Raises:
        InteropError: the file ends before.
    """
    segments = tuple(segments)
    found = np.empty(sum(one.nbytes for one in segments), np.uint8)
    first = 0
    with path.open("rb") as file:
        for offset, nbytes in segments:
            file.seek(offset)
            got = file.readinto(found[first : first + nbytes].data)
            if got < nbytes:
                raise InteropError(
                    f"open_checkpoint: {path}: the file is cut short: expected {nbytes} bytes at byte {offset}, "
                    f"got {got}"
                )
            first += nbytes
    return found


def chunks(array: Array) -> Iterator[Array]:
    """The bytes of an array in row-major order, some at a time, so that no copy is larger than about ``CHUNK``.

    Arrays of one shape and dtype are divided alike.
    """
    if array.ndim == 0 or array.nbytes <= CHUNK:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return
    rows = CHUNK * len(array) // array.nbytes
    if rows == 0:
        for row in array:
            yield from chunks(row)
        return
    for first in range(0, len(array), rows):
        yield np.ascontiguousarray(array[first : first + rows]).reshape(-1).view(np.uint8)
