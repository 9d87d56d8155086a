"""Output that takes its name only when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gated.interop.checkpoints.safetensors import INDEX_SUFFIX
from gated.interop.errors import InteropError

__all__ = ["check_destination", "replacing"]


def check_destination(path: Path, sources: Sequence[Path], force: bool, *, folder: bool) -> None:
    """Refuses a destination that cannot be written, or where something would be lost.

    Args:
        path: the destination.
        sources: the files that are read.
        force: whether what is there may be replaced.
        folder: whether a folder is to be written.

    Raises:
        InteropError: the destination is a source, is there without ``force``, is a folder that holds anything but
            safetensors files, is a folder where a file is written, or a file where a folder is.
    """
    parent = path.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InteropError(f"convert: {path} must be in a folder that can be written, got {parent}")
    if not path.exists():
        return
    inside = [one for one in sources if _is_within(one, path)]
    if inside:
        raise InteropError(f"convert: {path} must be another path than the source, got {inside[0]}")
    if path.is_dir() != folder or not (path.is_dir() or path.is_file()):
        raise InteropError(f"convert: {path} must be a {'folder' if folder else 'file'}, and there is something else")
    if not force:
        raise InteropError(f"convert: {path} is there already; force=True (--force) replaces it")
    if folder:
        others = [one.name for one in sorted(path.iterdir()) if not one.name.endswith((".safetensors", INDEX_SUFFIX))]
        if others:
            raise InteropError(
                f"convert: {path} must hold safetensors files alone to be replaced, got {', '.join(others[:3])}"
            )


@contextmanager
def replacing(path: Path, force: bool) -> Iterator[Path]:
    """A name beside ``path`` for a file or folder, which takes the name ``path`` unless an error ends the block.

    After an error it is removed, and ``path`` is as it was.

    Raises:
        InteropError: without ``force``, something has taken the name meanwhile.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        _flush(temporary)
        if not force and path.exists():
            raise InteropError(f"convert: {path} is there already, since a moment; force=True (--force) replaces it")
        _rename(temporary, path)
    finally:
        _remove(temporary)


def _rename(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        temporary.replace(path)
    else:
        # A folder that holds something cannot be replaced in one step.
        old = temporary.with_suffix(".old")
        path.rename(old)
        try:
            temporary.rename(path)
        except BaseException:
            old.rename(path)
            raise
        shutil.rmtree(old)
    _sync(path.absolute().parent)


def _flush(path: Path) -> None:
    """To the disk itself: a name that is there after a power cut must have its content."""
    if path.is_dir():
        for one in path.iterdir():
            _sync(one)
    _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_within(source: Path, path: Path) -> bool:
    """Whether the source is the file, or in the folder. In caches of models, files of a folder are links out of it."""
    names = (source.resolve(), source.parent.resolve() / source.name)
    return source.samefile(path) or any(one.is_relative_to(path.resolve()) for one in names)
