"""Writing a file whose arrays have their places before any of them is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gated.interop.checkpoints.checkpoint import Array, Segment, chunks

__all__ = ["PlacedWriter", "Writer"]


class Writer(Protocol):
    """Writes arrays to a file. Each key is put once; ``close`` follows the last."""

    def put(self, key: str, array: Array) -> None:
        """Writes one array."""

    def close(self) -> None:
        """Completes the file, if need be, and closes it."""


class PlacedWriter:
    """Writes ``literals``, bytes at their offsets, and then each array into its segments, in any order."""

    def __init__(
        self, path: Path, literals: Iterable[tuple[int, bytes]], places: Mapping[str, Sequence[Segment]]
    ) -> None:
        self._places = places
        self._file = path.open("wb")
        try:
            for offset, text in literals:
                self._file.seek(offset)
                self._file.write(text)
        except BaseException:
            self._file.close()
            raise

    def put(self, key: str, array: Array) -> None:
        """Writes the array's bytes, in row-major order, into the segments of its key."""
        segments = iter(self._places[key])
        room = 0
        for piece in chunks(array):
            done = 0
            while done < piece.size:
                if room == 0:
                    offset, room = next(segments)
                    self._file.seek(offset)
                step = min(room, piece.size - done)
                self._file.write(piece[done : done + step].data)
                done, room = done + step, room - step

    def close(self) -> None:
        self._file.close()
