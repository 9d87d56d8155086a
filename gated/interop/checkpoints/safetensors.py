"""Safetensors files, one or sharded with an index. https://huggingface.co/docs/safetensors, "Format", has the layout:
the length of a JSON header in 8 bytes, the header, and the arrays in row-major order without gaps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

from gated.interop.checkpoints.checkpoint import Array, Checkpoint, Segment, Spec, is_shape, named_dtype, read_bytes
from gated.interop.checkpoints.placed import PlacedWriter
from gated.interop.errors import InteropError

__all__ = ["INDEX_SUFFIX", "SafetensorsFile", "SafetensorsWriter", "ShardedSafetensors"]

INDEX_SUFFIX: Final = ".safetensors.index.json"

_NAMES: Final[Mapping[str, str]] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
_CODES: Final = {name: code for code, name in _NAMES.items()}
_HEADER_LIMIT: Final = 100_000_000
"""Of the format, in bytes."""


class SafetensorsFile(Checkpoint):
    """A file of arrays.

    Raises:
        InteropError: the file is cut short, or its header is not what the format has.
    """

    def __init__(self, path: Path) -> None:
        header, start = _header(path)
        super().__init__(path, metadata=_metadata(path, header.pop("__metadata__", {})))
        size = path.stat().st_size - start
        self._found: dict[str, tuple[int, Spec]] = {}
        end = 0
        for key, entry in sorted(header.items(), key=lambda item: _first(path, *item)):
            first, last, spec = _entry(path, key, entry)
            if first != end or last != first + spec.nbytes:
                raise InteropError(
                    f"open_checkpoint: {path}: {key!r} {spec.dtype} {spec.shape} must have the bytes {end} to "
                    f"{end + spec.nbytes}, got {first} to {last}"
                )
            end = last
            self._found[key] = start + first, spec
        if end != size:
            what = "the file is cut short" if end > size else "there is something after the arrays"
            raise InteropError(f"open_checkpoint: {path}: {what}: expected {end} bytes of arrays, got {size}")

    def spec(self, key: str) -> Spec:
        return self._found[key][1]

    def _keys(self) -> Mapping[str, object]:
        return self._found

    def _read(self, key: str) -> Array:
        offset, spec = self._found[key]
        return read_bytes(self.path, [Segment(offset, spec.nbytes)]).view(spec.dtype).reshape(spec.shape)


class ShardedSafetensors(Checkpoint):
    """The files of an index, as one.

    Raises:
        InteropError: the index is not what the format has, or disagrees with the files.
    """

    def __init__(self, path: Path) -> None:
        places = _weight_map(path)
        self._shards = {name: SafetensorsFile(path.parent / name) for name in sorted(set(places.values()))}
        for name, shard in self._shards.items():
            for key in shard:
                if places.get(key) != name:
                    raise InteropError(
                        f"open_checkpoint: {path}: {key!r}, which is in {name}, must be so in weight_map, "
                        f"got {places.get(key)!r}"
                    )
        for key, name in places.items():
            if key not in self._shards[name]:
                raise InteropError(f"open_checkpoint: {path}: {key!r} must be in {name}, which has no such key")
        metadata: dict[str, str] = {}
        for shard in self._shards.values():
            metadata |= shard.metadata
        super().__init__(path, (path, *(shard.path for shard in self._shards.values())), metadata)
        # In the order of the files, not of the index, which is sorted by text: layer 10 before layer 2.
        self._places = {key: name for name, shard in self._shards.items() for key in shard}

    def spec(self, key: str) -> Spec:
        return self._shards[self._places[key]].spec(key)

    def shard(self, key: str) -> str:
        return self._places[key]

    def _keys(self) -> Mapping[str, object]:
        return self._places

    def _read(self, key: str) -> Array:
        return self._shards[self._places[key]][key]


class SafetensorsWriter(PlacedWriter):
    """Writes a file of arrays that come in any order.

    Raises:
        InteropError: a dtype that the format does not have.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> None:
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        places: dict[str, tuple[int, int]] = {}
        offset = 0
        # The widest first: with a header of a multiple of 8 bytes, every array is then aligned.
        for key, spec in sorted(specs.items(), key=lambda item: -item[1].dtype.itemsize):
            if spec.dtype.name not in _CODES:
                raise InteropError(f"convert: {key!r} has dtype {spec.dtype.name}, which safetensors does not have")
            header[key] = {
                "dtype": _CODES[spec.dtype.name],
                "shape": list(spec.shape),
                "data_offsets": [offset, offset + spec.nbytes],
            }
            places[key] = offset, spec.nbytes
            offset += spec.nbytes
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        start = 8 + len(text)
        shifted = {key: [Segment(start + first, nbytes)] for key, (first, nbytes) in places.items()}
        super().__init__(path, [(0, len(text).to_bytes(8, "little") + text)], shifted)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and the byte after it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _HEADER_LIMIT):
            raise InteropError(
                f"open_checkpoint: {path}: the file is cut short or damaged: expected a header of {length} bytes, "
                f"got {max(size - 8, 0)} bytes in all"
            )
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InteropError(f"open_checkpoint: {path}: the header must be JSON: {error}") from error
    if not isinstance(header, dict):
        raise InteropError(f"open_checkpoint: {path}: the header must be a JSON object, got {type(header).__name__}")
    return header, 8 + length


def _metadata(path: Path, found: object) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise InteropError(f"open_checkpoint: {path}: __metadata__ must be texts by key, got {found!r}")
    return found


def _first(path: Path, key: str, entry: object) -> tuple[int, int]:
    first, last, _ = _entry(path, key, entry)
    return first, last


def _entry(path: Path, key: str, entry: object) -> tuple[int, int, Spec]:
    """The first byte of an array, the byte after it, and what it is."""
    content = entry if isinstance(entry, dict) else {}
    code, shape, offsets = (content.get(name) for name in ("dtype", "shape", "data_offsets"))
    if not is_shape(shape) or not _are_offsets(offsets):
        raise InteropError(f"open_checkpoint: {path}: {key!r} must have dtype, shape and data_offsets, got {entry!r}")
    dtype = named_dtype(_NAMES[code]) if isinstance(code, str) and code in _NAMES else None
    if dtype is None:
        raise InteropError(f"open_checkpoint: {path}: {key!r} must have a dtype of {', '.join(_NAMES)}, got {code!r}")
    return offsets[0], offsets[1], Spec(dtype, tuple(shape))


def _are_offsets(found: object) -> TypeGuard[list[int]]:
    return isinstance(found, list) and len(found) == 2 and all(type(one) is int and one >= 0 for one in found)


def _weight_map(path: Path) -> dict[str, str]:
    """The file of each key, by its name beside the index."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InteropError(f"open_checkpoint: {path}: the index must be JSON: {error}") from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(one, str) for one in places.values()):
        raise InteropError(f"open_checkpoint: {path}: the index must have weight_map, the file of each key")
    for name in set(places.values()):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InteropError(
                f"open_checkpoint: {path}: weight_map must name safetensors files beside the index, got {name!r}"
            )
        if not (path.parent / name).is_file():
            raise InteropError(f"open_checkpoint: {path}: weight_map names {name}, and there is no such file")
    return places
