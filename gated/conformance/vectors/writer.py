"""Writes the vectors: for each function and dtype a JSON file and its twins, then the schema and the index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from gated import __version__
from gated.conformance.error import FORMATS
from gated.conformance.vectors._arrays import packed_groups, projected_groups
from gated.conformance.vectors._points import Group
from gated.conformance.vectors._processes import in_processes
from gated.conformance.vectors.catalogue import FUNCTIONS
from gated.conformance.vectors.expected import rows
from gated.conformance.vectors.format import SCHEMA_NAME, SCHEMA_VERSION, document, json_text, twins
from gated.conformance.vectors.schema import schema_text
from gated.conformance.vectors.selection import elementwise_groups

__all__ = ["INDEX", "SCHEMA", "file_texts", "groups_of", "index_text", "stems", "write"]

INDEX: Final = "index.json"
SCHEMA: Final = "schema.json"


def stems(functions: Sequence[str] = (), dtypes: Sequence[str] = ()) -> list[str]:
    """The names of the files without their suffixes, all or those of some functions and dtypes."""
    return [f"{function}.{dtype}" for function in functions or FUNCTIONS for dtype in dtypes or FORMATS]


def groups_of(stem: str) -> Iterator[Group]:
    """The groups of points of a file."""
    name, dtype = stem.split(".")
    function, form = FUNCTIONS[name], FORMATS[dtype]
    if function.kind == "projected":
        yield from projected_groups(form)
        return
    yield from elementwise_groups(function, form)
    if function.kind == "unit":
        yield from packed_groups(function, form)


def file_texts(stem: str) -> dict[str, str]:
    """The texts of the JSON file and of its twins, by file name."""
    name, dtype = stem.split(".")
    function, form = FUNCTIONS[name], FORMATS[dtype]
    content = document(function, form, [(group, rows(function, form, group)) for group in groups_of(stem)])
    return {f"{stem}.json": json_text(content)} | {f"{stem}.{suffix}": text for suffix, text in twins(content).items()}


def write(
    folder: Path,
    functions: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    *,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda stem: None,
) -> list[Path]:
    """Writes the files of all functions and dtypes, or of some, and the schema and the index of the whole folder.

    The same version writes the same bytes on every machine.

    Returns:
        What was written, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = stems(functions, dtypes)
    made: dict[str, dict[str, str]] = {}
    for stem, texts in in_processes(file_texts, chosen, jobs):
        made[stem] = texts
        progress(stem)
    written = []
    for stem in chosen:
        for name, text in made[stem].items():
            written.append(_put(folder / name, text))
    written.append(_put(folder / SCHEMA, schema_text()))
    written.append(_put(folder / INDEX, index_text(folder)))
    return written


def _put(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("ascii"))
    return path


def index_text(folder: Path) -> str:
    """The text of the index: every file of vectors in the folder with its SHA-256, the JSON files with their tests."""
    files: dict[str, dict[str, str]] = {}
    for stem in stems():
        for suffix in ("json", "tsv", "packed.tsv"):
            path = folder / f"{stem}.{suffix}"
            if not path.exists():
                continue
            content = path.read_bytes()
            files[path.name] = {"sha256": hashlib.sha256(content).hexdigest()}
            if suffix == "json":
                files[path.name]["tests"] = str(sum(len(group["tests"]) for group in json.loads(content)["groups"]))
    index: dict[str, Any] = {
        "schema": {"name": SCHEMA_NAME, "version": SCHEMA_VERSION},
        "generator": {"name": "gated vectors write", "version": __version__},
        "files": files,
    }
    return json.dumps(index, indent=1) + "\n"
