"""Result files: JSON objects that say which format and version they are of, and carry a SHA-256 of their content.

JSON has no infinity: null stands for it. :func:`to_json` and :func:`from_json` take a number there and back.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Kind", "RecordError", "from_json", "read_bytes", "to_json"]


class RecordError(ValueError):
    """A file that cannot be used; the text names the file and what is wrong."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        format: its name in the file.
        version: of the format.
        what: what such a file is, for errors: ``"the result of a sweep"``.
        error: what is raised where a file cannot be used.
    """

    format: str
    version: int
    what: str
    error: type[RecordError]

    def head(self) -> dict[str, Any]:
        """What every such file begins with."""
        return {"format": self.format, "version": self.version}

    def check(self, path: Path, content: Any) -> None:
        """Refuses what does not begin so.

        Raises:
            RecordError: as :attr:`error`; it is of another format or version.
        """
        if not isinstance(content, dict) or content.get("format") != self.format:
            raise self.error(f"{path}: not {self.what}")
        if content.get("version") != self.version:
            raise self.error(f"{path}: version {content.get('version')!r}, expected {self.version}")

    def write(
        self, path: Path, content: Mapping[str, Any], *, text: Callable[[Mapping[str, Any]], str] | None = None
    ) -> None:
        """Writes the content, head first and checksum last.

        Args:
            text: lays it out as JSON; by default indented.
        """
        whole = {**self.head(), **content}
        whole["sha256"] = _digest(whole)
        path.write_text((text or _indented)(whole) + "\n", encoding="utf-8")

    def read(self, path: Path) -> dict[str, Any]:
        """The content of a file, without head and checksum.

        Raises:
            RecordError: as :attr:`error`; the file cannot be read, is none of this kind and version, or was changed.
        """
        raw = read_bytes(path, self.error)
        try:
            content = json.loads(raw)
        except ValueError as error:
            raise self.error(f"{path}: not JSON, or cut short: {error}") from error
        self.check(path, content)
        if content.pop("sha256", None) != _digest(content):
            raise self.error(f"{path}: its content is not what its sha256 says: it was changed")
        return {name: one for name, one in content.items() if name not in self.head()}


def read_bytes(path: Path, error: type[RecordError]) -> bytes:
    """The bytes of a file.

    Raises:
        RecordError: as ``error``; the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as cause:
        raise error(f"{path}: {cause.strerror or cause}") from cause


def to_json(number: Any) -> Any:
    """The number, None for infinity; what is no number as it is."""
    return None if number == math.inf else number


def from_json(number: Any) -> Any:
    """What :func:`to_json` was given."""
    return math.inf if number is None else number


def _indented(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False)


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
