"""Opening a checkpoint, whatever its name says: by its first bytes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Final

from gated.interop.checkpoints.checkpoint import Checkpoint
from gated.interop.checkpoints.gguf import GGUFFile
from gated.interop.checkpoints.msgpack import MsgpackFile
from gated.interop.checkpoints.npz import DAMAGE, NpzFile
from gated.interop.checkpoints.safetensors import INDEX_SUFFIX, SafetensorsFile, ShardedSafetensors
from gated.interop.errors import InteropError

__all__ = ["READ", "open_checkpoint"]

READ: Final = "safetensors (also sharded, by its index), GGUF, npz without objects, or Flax's msgpack"

_PICKLES: Final = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
"""Names of pickles, for those of the first protocols, which have no bytes that tell them."""


def open_checkpoint(path: str | os.PathLike[str], *, dequantise: bool = False) -> Checkpoint:
    """The arrays of a checkpoint by key, read from disk one at a time, when asked for.

    They are NumPy arrays, with the types of ``ml_dtypes`` where NumPy has none. No pickle is read, whatever its name.

    Args:
        path: a file of safetensors, GGUF, npz or Flax's msgpack; the index of sharded safetensors; or a folder that has
            one index or one safetensors file.
        dequantise: whether quantised tensors of GGUF are read as float32; else asking for one is an error.

    Raises:
        InteropError: the file is a pickle, of no known format, damaged, or cut short.
        ModuleNotFoundError: for GGUF, the package ``gguf`` is not installed.
        OSError: the file cannot be read.
    """
    file = _file(Path(path))
    if file.name.endswith(".json"):
        return ShardedSafetensors(file)
    with file.open("rb") as stream:
        start = stream.read(16)
    if start[:4] == b"GGUF":
        return GGUFFile(file, dequantise=dequantise)
    if start[:2] == b"PK":
        return _archive(file)
    # The length of the header, of less than 4 GB, and its first byte.
    if start[4:9] == b"\0\0\0\0{":
        return SafetensorsFile(file)
    # The opcode PROTO and the protocol, or the name of a pickle. A map of no entries, 0x80, is no checkpoint.
    if start[:1] == b"\x80" or file.suffix.lower() in _PICKLES:
        raise _pickle(file)
    # HDF5, which Keras writes, begins like a map of nine entries.
    if start and start[:4] != b"\x89HDF" and (0x81 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)):
        return MsgpackFile(file)
    if file.suffix == ".safetensors":
        raise InteropError(f"open_checkpoint: {file}: the file is cut short or damaged: it has no header")
    raise InteropError(f"open_checkpoint: {file} must be {READ}, got a file that begins with {start[:8]!r}")


def _file(path: Path) -> Path:
    """The file, or the one of a folder that says where its arrays are."""
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*{INDEX_SUFFIX}")) or sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise InteropError(f"open_checkpoint: {path} must have one index or one safetensors file, got {names}")
    return found[0]


def _archive(path: Path) -> Checkpoint:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGE as error:
        raise InteropError(f"open_checkpoint: {path}: the archive is cut short or damaged: {error}") from error
    # torch.save puts its pickle in an archive, beside the bytes of the tensors.
    if any(name.endswith(".pkl") for name in names):
        raise _pickle(path)
    return NpzFile(path)


def _pickle(path: Path) -> InteropError:
    return InteropError(
        f"open_checkpoint: {path} is a pickle, or has the name of one: refused, since reading a pickle runs whatever "
        f"code it holds; expected {READ}. Where it is trusted, save its state dict with safetensors.torch.save_file"
    )
