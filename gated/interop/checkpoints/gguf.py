"""GGUF files, read by the package gguf. Blocks of quantised numbers are weights only once they are dequantised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import ml_dtypes
import numpy as np

from gated.contract import missing_framework
from gated.interop.checkpoints.checkpoint import Array, Checkpoint, Segment, Spec, read_bytes
from gated.interop.errors import InteropError

__all__ = ["GGUFFile"]

_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I8": np.dtype(np.int8),
    "I16": np.dtype(np.int16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
}
"""The types of GGUF that are one number an element."""


class _Tensor(NamedTuple):
    type: Any
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class GGUFFile(Checkpoint):
    """A GGUF file; arrays have the order of axes that ``gguf.GGUFReader`` gives their data, (out, in) for weights.

    Args:
        path: the file.
        dequantise: whether a quantised tensor is read as float32; else asking for one is an error.

    Raises:
        InteropError: the file is damaged, cut short, or big-endian.
        ModuleNotFoundError: the package ``gguf`` is not installed.
    """

    def __init__(self, path: Path, *, dequantise: bool = False) -> None:
        super().__init__(path)
        try:
            import gguf
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(missing_framework("open_checkpoint", "gguf", "cli")) from error
        self._dequantise = dequantise
        self._quants = gguf.quants
        size = path.stat().st_size
        try:
            reader = gguf.GGUFReader(path)
        except Exception as error:  # the reader indexes past the end in many ways
            raise InteropError(f"open_checkpoint: {path}: the file is damaged or cut short: {error}") from error
        if reader.byte_order != "I":
            raise InteropError(f"open_checkpoint: {path}: the file must be in this machine's byte order")
        self._tensors: dict[str, _Tensor] = {}
        for one in reader.tensors:
            shape = tuple(int(length) for length in reversed(one.shape))
            self._tensors[one.name] = _Tensor(one.tensor_type, shape, int(one.data_offset), int(one.n_bytes))
            if (end := int(one.data_offset) + int(one.n_bytes)) > size:
                raise InteropError(
                    f"open_checkpoint: {path}: the file is cut short: {one.name!r} ends at byte {end}, "
                    f"the file at byte {size}"
                )

    def spec(self, key: str) -> Spec:
        tensor = self._tensors[key]
        if tensor.type.name in _DTYPES:
            return Spec(_DTYPES[tensor.type.name], tensor.shape)
        if not self._dequantise:
            raise InteropError(
                f"open_checkpoint: {self.path}: {key!r} is quantised, {tensor.type.name}: its numbers can be had as "
                f"float32, rounded as they are, with dequantise=True (--dequantise)"
            )
        return Spec(np.dtype(np.float32), tensor.shape)

    def _keys(self) -> Mapping[str, object]:
        return self._tensors

    def _read(self, key: str) -> Array:
        spec, tensor = self.spec(key), self._tensors[key]
        data = read_bytes(self.path, [Segment(tensor.offset, tensor.nbytes)])
        if tensor.type.name in _DTYPES:
            return data.view(spec.dtype).reshape(spec.shape)
        try:
            rows = self._quants.quant_shape_to_byte_shape(tensor.shape, tensor.type)
            return np.asarray(self._quants.dequantize(data.reshape(rows), tensor.type), np.float32).reshape(spec.shape)
        except Exception as error:  # gguf raises several types for a quantisation that it does not know
            raise InteropError(
                f"open_checkpoint: {self.path}: {key!r}, {tensor.type.name}, cannot be dequantised: {error}"
            ) from error
