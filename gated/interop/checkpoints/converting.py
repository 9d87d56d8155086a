"""Writing a planned conversion: each block and array in turn, then read back and compared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from gated.interop.checkpoints.checkpoint import Array, Checkpoint, chunks
from gated.interop.checkpoints.msgpack import MsgpackWriter
from gated.interop.checkpoints.npz import NpzWriter
from gated.interop.checkpoints.opening import open_checkpoint
from gated.interop.checkpoints.placed import Writer
from gated.interop.checkpoints.planning import Block, Plan
from gated.interop.checkpoints.replacing import check_destination, replacing
from gated.interop.checkpoints.safetensors import SafetensorsWriter
from gated.interop.checkpoints.sharding import ShardedWriter, shards
from gated.interop.conversion import Reference, convert, to_reference
from gated.interop.errors import InteropError

__all__ = ["write_conversion"]

_WRITERS: Final[Mapping[str, Callable[..., Writer]]] = {
    ".safetensors": SafetensorsWriter,
    ".npz": NpzWriter,
    ".msgpack": MsgpackWriter,
}


def write_conversion(
    plan: Plan,
    destination: str | os.PathLike[str],
    *,
    shard_size: int | None = None,
    force: bool = False,
    advance: Callable[[str], None] = lambda _: None,
) -> None:
    """Writes the checkpoint that ``plan`` describes, reads it back, and compares it bit for bit.

    It is written under a temporary name beside ``destination``, which it takes when all is compared: until then what
    ``destination`` held is there, and after an error nothing else is.

    Args:
        plan: of :func:`plan_conversion`.
        destination: a file that ends in ``.safetensors``, ``.npz`` or ``.msgpack``; or a folder of safetensors files,
            which has no ending or a ``/`` at its end: with the files of the source if that has several, else as
            ``shard_size`` says.
        shard_size: for a folder: the bytes that a file may have, unless a single array is larger.
        force: whether ``destination`` is replaced where it is there.
        advance: called with a prefix or key after each is written, and again after each is compared.

    Raises:
        InteropError: ``destination`` has another ending, holds what would be lost, or is the source; the format has no
            such dtype; or what is read back differs.
        OSError: the disk is full, or cannot be written.
    """
    writer, folder = _writer(plan, os.fspath(destination), shard_size)
    # A link is followed: what it leads to is replaced, and it leads there still.
    path = Path(destination).resolve()
    check_destination(path, plan.checkpoint.files, force, folder=folder)
    _check_room(path, plan.nbytes)
    with replacing(path, force) as temporary:
        with closing(writer(temporary, plan.specs, plan.checkpoint.metadata)) as output:
            _write(plan, output, advance)
        _compare(plan, open_checkpoint(temporary), advance)


def _writer(plan: Plan, path: str, shard_size: int | None) -> tuple[Callable[..., Writer], bool]:
    """What writes the destination, and whether that is a folder."""
    suffix = Path(path).suffix
    if path.endswith("/") or Path(path).is_dir() or not suffix:
        return partial(ShardedWriter, shards=shards(plan, shard_size)), True
    if suffix not in _WRITERS:
        gguf = ", and GGUF is read, not written" if suffix == ".gguf" else ""
        raise InteropError(
            f"convert: the destination must end in {', '.join(_WRITERS)}, or for a folder of safetensors in / or "
            f"nothing, got {path}{gguf}"
        )
    if shard_size is not None:
        raise InteropError(f"convert: shard_size (--shard-size) goes with a folder, got the file {path}")
    return _WRITERS[suffix], False


def _check_room(path: Path, needed: int) -> None:
    """Refuses before an hour of writing, not after."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise InteropError(f"convert: {path}: the disk must have {needed} bytes free, got {free}")


def _write(plan: Plan, output: Writer, advance: Callable[[str], None]) -> None:
    for block in plan.blocks:
        for key, array in _converted(plan, block).items():
            output.put(key, array)
        advance(block.prefix)
    for key in plan.copied:
        output.put(key, plan.checkpoint[key])
        advance(key)


def _converted(plan: Plan, block: Block) -> dict[str, Array]:
    return convert(
        plan.checkpoint,
        plan.source,
        plan.target,
        prefix=block.prefix,
        target_prefix=block.target_prefix,
        experts=plan.experts,
    )


def _compare(plan: Plan, written: Checkpoint, advance: Callable[[str], None]) -> None:
    """The reference arrays of each block are the same in both files, and so are the copied ones."""
    if set(written) != set(plan.specs):
        raise InteropError(f"convert: {written.path}: read back, the file has other keys than were written")
    for block in plan.blocks:
        _compare_block(plan, written, block)
        advance(block.prefix)
    for key in plan.copied:
        if not _same(plan.checkpoint[key], written[key]):
            raise InteropError(f"convert: {key!r} differs, read back from the file")
        advance(key)


def _compare_block(plan: Plan, written: Checkpoint, block: Block) -> None:
    before = to_reference(plan.checkpoint, plan.source, prefix=block.prefix, experts=plan.experts)
    experts = len(before.W) if plan.target.experts_folded else None
    after = to_reference(written, plan.target, prefix=block.target_prefix, experts=experts)
    for letter, one, other in zip(Reference._fields, before, after, strict=True):
        if (one is None) != (other is None) or (one is not None and not _same(one, other)):
            raise InteropError(f"convert: {letter} of {block.target_prefix!r} differs, read back from the file")


def _same(one: Array, other: Array) -> bool:
    """Whether two arrays have one dtype, one shape and the same bits."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(np.array_equal(a, b) for a, b in zip(chunks(one), chunks(other), strict=True))
