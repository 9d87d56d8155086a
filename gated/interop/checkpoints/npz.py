"""NumPy's archives of arrays, without pickles."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from gated.interop.checkpoints.checkpoint import Array, Checkpoint, Spec, chunks, named_dtype
from gated.interop.errors import InteropError

__all__ = ["DAMAGE", "NpzFile", "NpzWriter"]

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest date of a zip file: a member's date would make two writings of one checkpoint differ."""


DAMAGE: Final = (zipfile.BadZipFile, EOFError, RuntimeError, OSError, ValueError, zlib.error)
"""What the reader of archives raises for one that is damaged: it seeks to where the damaged directory says."""


class NpzFile(Checkpoint):
    """An archive as ``numpy.savez`` or ``numpy.savez_compressed`` writes it.

    Raises:
        InteropError: the archive is damaged, or has a member that is no array of numbers.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._specs: dict[str, Spec] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    self._add(archive, name)
        except InteropError:
            raise
        except DAMAGE as error:
            raise InteropError(f"open_checkpoint: {path}: the archive is cut short or damaged: {error}") from error

    def spec(self, key: str) -> Spec:
        return self._specs[key]

    def _keys(self) -> Mapping[str, object]:
        return self._specs

    def _add(self, archive: zipfile.ZipFile, name: str) -> None:
        key = name.removesuffix(".npy")
        if key == name or key in self._specs:
            expected = "named .npy" if key == name else "there once"
            raise InteropError(f"open_checkpoint: {self.path}: every member must be {expected}, got {name!r}")
        with archive.open(name) as member:
            try:
                version = np.lib.format.read_magic(member)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = read[version](member)
            except (ValueError, KeyError) as error:
                raise InteropError(f"open_checkpoint: {self.path}: {name!r} is no array of numbers: {error}") from error
        if dtype.hasobject:
            raise InteropError(
                f"open_checkpoint: {self.path}: {name!r} has Python objects, which are a pickle: refused, since "
                f"reading one runs whatever code it holds"
            )
        native = named_dtype(dtype.name)
        if native is None:
            raise InteropError(
                f"open_checkpoint: {self.path}: {name!r} must have a dtype of numbers, got {dtype}; npz does not "
                f"tell bfloat16 and float8 from other types of their width"
            )
        self._specs[key] = Spec(native, shape)

    def _read(self, key: str) -> Array:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{key}.npy") as member:
                array: Array = np.lib.format.read_array(member, allow_pickle=False)
                # The checksum is compared at the member's end, which the array need not have reached.
                if member.read(1):
                    raise ValueError("there are bytes after the array")
        except InteropError:
            raise
        except DAMAGE as error:
            raise InteropError(f"open_checkpoint: {self.path}: {key!r} is cut short or damaged: {error}") from error
        return array.astype(self._specs[key].dtype, copy=False)


class NpzWriter:
    """Writes an archive, not compressed, as ``numpy.savez`` does.

    Raises:
        InteropError: a dtype that the format does not have.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> None:
        del metadata  # The format has none.
        for key, spec in specs.items():
            if np.dtype(spec.dtype.str) != spec.dtype:
                raise InteropError(
                    f"convert: {key!r} has dtype {spec.dtype.name}, which npz does not have; safetensors and msgpack do"
                )
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def put(self, key: str, array: Array) -> None:
        """Writes one member."""
        header: dict[str, Any] = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
        with self._archive.open(zipfile.ZipInfo(f"{key}.npy", _EPOCH), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for piece in chunks(array):
                member.write(piece.data)

    def close(self) -> None:
        self._archive.close()
