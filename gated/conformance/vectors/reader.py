"""Reads the files of vectors: JSON as strict as it can be, and of the version that this code knows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gated.conformance.vectors.format import SCHEMA_NAME, SCHEMA_VERSION

__all__ = ["VectorsError", "read_index", "read_vectors"]


class VectorsError(Exception):
    """A folder or file that cannot be read as vectors of this version."""


def read_vectors(name: str, data: bytes) -> dict[str, Any]:
    """The document in a file's bytes, of this version, not yet held against the schema.

    Raises:
        VectorsError: it is not JSON, has a key twice, or is of another schema or version.
    """
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise VectorsError(f"{name}: not JSON: {error}") from error
    label = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(label, dict) or label.get("name") != SCHEMA_NAME:
        raise VectorsError(f'{name}: expected schema.name to be "{SCHEMA_NAME}", got {_shown(label)}')
    if label.get("version") != SCHEMA_VERSION:
        version = _shown(label.get("version"))
        raise VectorsError(f'{name}: expected schema.version to be "{SCHEMA_VERSION}", got {version}')
    assert isinstance(content, dict)
    return content


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'the key "{key}" is there twice')
        found[key] = value
    return found


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."


def read_index(path: Path) -> dict[str, Any]:
    """The index of a folder.

    Raises:
        VectorsError: there is none, or it is not what :func:`gated.conformance.vectors.writer.index_text` writes.
    """
    if not path.is_file():
        raise VectorsError(f"{path}: the index is missing")
    content = read_vectors(path.name, path.read_bytes())
    if set(content) != {"schema", "generator", "files"} or not isinstance(content["files"], dict):
        raise VectorsError(f"{path.name}: expected the fields schema, generator and files, got {', '.join(content)}")
    for name, entry in content["files"].items():
        fields = {"sha256", "tests"} if name.endswith(".json") else {"sha256"}
        if not isinstance(entry, dict) or set(entry) != fields or not all(isinstance(v, str) for v in entry.values()):
            raise VectorsError(
                f"{path.name}: expected the texts {', '.join(sorted(fields))} of {name}, got {_shown(entry)}"
            )
    return content
