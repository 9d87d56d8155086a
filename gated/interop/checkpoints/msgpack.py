"""Flax's msgpack files: nested maps whose leaves are arrays. https://github.com/msgpack/msgpack/blob/master/spec.md has
the encoding, flax/serialization.py what its extension types 1 and 3 hold: shape, dtype and bytes, in msgpack again.

The file is walked from header to header: the package msgpack would take all of it into memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from gated.interop.checkpoints.checkpoint import Array, Checkpoint, Segment, Spec, is_shape, named_dtype, read_bytes
from gated.interop.checkpoints.placed import PlacedWriter
from gated.interop.errors import InteropError

__all__ = ["MsgpackFile", "MsgpackWriter"]

CHUNKED: Final = "__msgpack_chunked_array__"
LIMIT: Final = 1 << 30
"""The bytes above which Flax divides an array, since an object of msgpack has less than 2**32."""

_ARRAY, _SCALAR = 1, 3
_FIXED: Final = (1, 2, 4, 8, 16)
_DEPTH: Final = 64


class _Leaf(NamedTuple):
    """An array: its bytes are in the segments, in order."""

    spec: Spec
    segments: tuple[Segment, ...]


class _Other(NamedTuple):
    """What is no array, map or list."""

    kind: str
    value: object = None


class MsgpackFile(Checkpoint):
    """A file of ``flax.serialization``; the keys are those of the nested maps, joined by dots, with lists numbered.

    Raises:
        InteropError: the file is cut short or is no msgpack file of nested maps.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            reader = _Reader(file, size)
            try:
                tree = reader.value()
                if not isinstance(tree, dict) or file.tell() != size:
                    raise _DamagedError(f"it must be one map, got {file.tell()} of {size} bytes")
                self._found = dict(_flat(tree))
            except (_DamagedError, UnicodeDecodeError) as error:
                raise InteropError(f"open_checkpoint: {path}: the file is cut short or damaged: {error}") from error

    def spec(self, key: str) -> Spec:
        found = self._found[key]
        if isinstance(found, _Other):
            raise InteropError(f"open_checkpoint: {self.path}: {key!r} must be an array, got {found.kind}")
        return found.spec

    def _keys(self) -> Mapping[str, object]:
        return self._found

    def _read(self, key: str) -> Array:
        spec, found = self.spec(key), self._found[key]
        assert isinstance(found, _Leaf)
        return read_bytes(self.path, found.segments).view(spec.dtype).reshape(spec.shape)


class MsgpackWriter(PlacedWriter):
    """Writes a file that ``flax.serialization.msgpack_restore`` reads; dots in keys are steps into nested maps.

    Raises:
        InteropError: a key is another's beginning, so that it would be both an array and a map.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> None:
        del metadata  # The format has none.
        places: dict[str, list[Segment]] = {key: [] for key in specs}
        literals: list[tuple[int, bytes]] = []
        offset = 0
        for key, piece in _encoded(_nested(specs)):
            if isinstance(piece, bytes):
                literals.append((offset, piece))
                offset += len(piece)
            else:
                places[key].append(Segment(offset, piece))
                offset += piece
        super().__init__(path, literals, places)


# Reading


class _DamagedError(Exception):
    """The bytes are no msgpack, or end early."""


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def value(self, depth: int = 0) -> Any:
        """A dict, a list, a :class:`_Leaf`, or an :class:`_Other`."""
        if depth > _DEPTH:
            raise _DamagedError(f"maps must be nested less than {_DEPTH} deep")
        kind, count = self._head()
        if kind == "map":
            return self._map(count, depth)
        if kind == "list":
            return [self.value(depth + 1) for _ in range(count)]
        if kind in ("text", "bytes"):
            data = self._take(count)
            return _Other(kind, data.decode() if kind == "text" else data)
        if kind != "extension":
            return _Other(kind, count)
        return self._extension(count)

    def _map(self, count: int, depth: int) -> Any:
        found: dict[str, Any] = {}
        for _ in range(count):
            name = self.value(depth + 1)
            if not isinstance(name, _Other) or not isinstance(name.value, (str, int)):
                raise _DamagedError("keys of maps must be texts or whole numbers")
            if str(name.value) in found:
                raise _DamagedError(f"the key {name.value!r} is there twice")
            found[str(name.value)] = self.value(depth + 1)
        return _joined(found) if CHUNKED in found else found

    def _extension(self, count: int) -> _Leaf | _Other:
        code = self._take(1)[0]
        end = self._file.tell() + count
        if code not in (_ARRAY, _SCALAR):
            self._skip(count)
            return _Other("a complex number" if code == 2 else f"extension type {code}")
        if self._head() != ("list", 3):
            raise _DamagedError("an array must be of shape, dtype and bytes")
        sizes, name = self.value(_DEPTH - 1), self.value(_DEPTH)
        kind, nbytes = self._head()
        shape = tuple(getattr(one, "value", None) for one in sizes) if isinstance(sizes, list) else None
        title = name.value.decode() if isinstance(name.value, bytes) else name.value
        dtype = named_dtype(title) if isinstance(title, str) else None
        if not is_shape(shape) or dtype is None:
            raise _DamagedError(f"an array must have a shape and a dtype of numbers, got {shape} and {title!r}")
        spec = Spec(dtype, tuple(shape))
        if kind not in ("bytes", "text") or nbytes != spec.nbytes:
            raise _DamagedError(f"an array {dtype} {shape} must have {spec.nbytes} bytes, got {nbytes}")
        start = self._file.tell()
        self._skip(nbytes)
        if self._file.tell() != end:
            raise _DamagedError(f"an array must end at byte {end}, got {self._file.tell()}")
        return _Leaf(spec, (Segment(start, nbytes),))

    def _head(self) -> tuple[str, int]:
        """The kind of what follows, and its count, its length in bytes, or the number that it is."""
        first = self._take(1)[0]
        for low, high, kind in _SHORT:
            if low <= first <= high:
                return kind, first - low
        if first >= 0xE0:
            return "a whole number", first - 0x100
        if first not in _LONG:
            raise _DamagedError(f"byte {self._file.tell() - 1} is no beginning of a value: {first:#x}")
        kind, layout = _LONG[first]
        if isinstance(layout, int):
            return kind, layout
        number = struct.unpack(layout, self._take(struct.calcsize(layout)))[0]
        return kind, number

    def _take(self, count: int) -> bytes:
        # Compared before it is read: a damaged count would ask for gigabytes.
        self._room(count)
        return self._file.read(count)

    def _skip(self, count: int) -> None:
        self._room(count)
        self._file.seek(count, 1)

    def _room(self, count: int) -> None:
        if (end := self._file.tell() + count) > self._size:
            raise _DamagedError(f"expected {end} bytes or more, got {self._size}")


_SHORT: Final = ((0x00, 0x7F, "a whole number"), (0x80, 0x8F, "map"), (0x90, 0x9F, "list"), (0xA0, 0xBF, "text"))
"""First bytes that hold a count besides the kind."""

_LONG: Final[Mapping[int, tuple[str, int | str]]] = {
    0xC0: ("None", 0),
    0xC2: ("a bool", 0),
    0xC3: ("a bool", 1),
    **{0xC4 + index: ("bytes", layout) for index, layout in enumerate((">B", ">H", ">I"))},
    **{0xC7 + index: ("extension", layout) for index, layout in enumerate((">B", ">H", ">I"))},
    **{0xCA + index: ("a number", layout) for index, layout in enumerate((">f", ">d"))},
    **{0xCC + index: ("a whole number", layout) for index, layout in enumerate((">B", ">H", ">I", ">Q"))},
    **{0xD0 + index: ("a whole number", layout) for index, layout in enumerate((">b", ">h", ">i", ">q"))},
    **{0xD4 + index: ("extension", 1 << index) for index in range(5)},
    **{0xD9 + index: ("text", layout) for index, layout in enumerate((">B", ">H", ">I"))},
    **{0xDC + index: ("list", layout) for index, layout in enumerate((">H", ">I"))},
    **{0xDE + index: ("map", layout) for index, layout in enumerate((">H", ">I"))},
}
"""First bytes after which the count, length or number has a layout of ``struct``, or is the int given."""


def _joined(found: Mapping[str, Any]) -> _Leaf:
    """The array that Flax has divided into chunks, each a flat array."""
    try:
        shape = tuple(int(found["shape"][str(axis)].value) for axis in range(len(found["shape"])))
        pieces = [found["chunks"][str(index)] for index in range(len(found["chunks"]))]
        spec = Spec(pieces[0].spec.dtype, shape)
        segments = tuple(segment for piece in pieces for segment in piece.segments)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _DamagedError(f"{CHUNKED} must come with shape and chunks") from error
    alike = is_shape(shape) and all(piece.spec.dtype == spec.dtype for piece in pieces)
    if not alike or sum(one.nbytes for one in segments) != spec.nbytes:
        raise _DamagedError(f"the chunks of an array {spec.dtype} {shape} must have {spec.nbytes} bytes in all")
    return _Leaf(spec, segments)


def _flat(tree: Any, before: str = "") -> Iterator[tuple[str, _Leaf | _Other]]:
    """The leaves by their keys joined with dots."""
    if isinstance(tree, (_Leaf, _Other)):
        yield before, tree
        return
    steps = tree.items() if isinstance(tree, dict) else ((str(index), one) for index, one in enumerate(tree))
    for name, value in steps:
        yield from _flat(value, f"{before}.{name}" if before else name)


# Writing


def _nested(specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Maps in maps, with key and spec at the leaves."""
    tree: dict[str, Any] = {}
    for key, spec in specs.items():
        *steps, last = key.split(".")
        node: Any = tree
        for step in steps:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise InteropError(f"convert: {key!r} must not begin with the key of another array, {node[0]!r}")
        if last in node:
            raise InteropError(f"convert: {key!r} must not be the beginning of other keys")
        node[last] = key, spec
    return tree


def _encoded(node: Any) -> Iterator[tuple[str, bytes | int]]:
    """Pieces of the file: bytes, or, by the key of an array, how many of its bytes stand here."""
    if isinstance(node, dict):
        yield "", _count(len(node), 0x80, 16, 0xDE)
        for name, value in node.items():
            yield "", _text(name)
            yield from _encoded(value)
        return
    key, spec = node
    if spec.nbytes <= LIMIT:
        yield from _array(key, spec.dtype, spec.shape)
        return
    step = max(1, LIMIT // spec.dtype.itemsize)
    size = math.prod(spec.shape)
    starts = range(0, size, step)
    yield "", _count(3, 0x80, 16, 0xDE) + _text(CHUNKED) + b"\xc3" + _text("shape")
    yield "", _count(len(spec.shape), 0x80, 16, 0xDE)
    yield "", b"".join(_text(str(axis)) + _whole(length) for axis, length in enumerate(spec.shape))
    yield "", _text("chunks") + _count(len(starts), 0x80, 16, 0xDE)
    for index, start in enumerate(starts):
        yield "", _text(str(index))
        yield from _array(key, spec.dtype, (min(step, size - start),))


def _array(key: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[tuple[str, bytes | int]]:
    nbytes = Spec(dtype, shape).nbytes
    inner = b"\x93" + _count(len(shape), 0x90, 16, 0xDC) + b"".join(map(_whole, shape)) + _text(dtype.name)
    inner += _sized(nbytes, 0xC4)
    size = len(inner) + nbytes
    # A length of 1, 2, 4, 8 or 16 has a first byte of its own, and Flax's packer takes the shortest form.
    head = bytes([0xD4 + _FIXED.index(size)]) if size in _FIXED else _sized(size, 0xC7)
    yield "", head + bytes([_ARRAY]) + inner
    yield key, nbytes


def _text(text: str) -> bytes:
    data = text.encode()
    return (bytes([0xA0 + len(data)]) if len(data) < 32 else _sized(len(data), 0xD9)) + data


def _sized(size: int, first: int) -> bytes:
    """The head of a kind whose lengths of one, two and four bytes begin at ``first``."""
    width = 0 if size < 1 << 8 else 1 if size < 1 << 16 else 2
    return bytes([first + width]) + size.to_bytes(1 << width, "big")


def _count(count: int, short: int, limit: int, first: int) -> bytes:
    """The head of a map or list: in one byte below ``limit``, else two or four bytes after ``first``."""
    if count < limit:
        return bytes([short + count])
    width = 0 if count < 1 << 16 else 1
    return bytes([first + width]) + count.to_bytes(2 << width, "big")


def _whole(number: int) -> bytes:
    if number < 1 << 7:
        return bytes([number])
    width = next(width for width in range(4) if number < 1 << (8 << width))
    return bytes([0xCC + width]) + number.to_bytes(1 << width, "big")
