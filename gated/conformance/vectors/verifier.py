"""Proves a folder of vectors: files against the schema, values against the oracle, twins, index.

The expected values are computed again from the inputs in the file; nothing is taken on trust but the comments.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gated.conformance.error import FORMATS, Format
from gated.conformance.vectors._numbers import double_hex, from_hex
from gated.conformance.vectors._points import Group, Point
from gated.conformance.vectors._processes import in_processes
from gated.conformance.vectors.catalogue import FUNCTIONS, Function
from gated.conformance.vectors.expected import Row, rows
from gated.conformance.vectors.format import group_record, header, twins
from gated.conformance.vectors.reader import VectorsError, read_index, read_vectors
from gated.conformance.vectors.schema import faults, schema_text
from gated.conformance.vectors.writer import INDEX, SCHEMA, stems

__all__ = ["Failure", "Verified", "verify", "verify_file"]


@dataclass(frozen=True)
class Failure:
    """What is not right in a file.

    Attributes:
        file: its name.
        test: the id of the test, or where in the file.
        field: which column, or what.
    """

    file: str
    test: str
    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.test, self.field) if part)
        return f"{where}: expected {_short(self.expected)}, got {_short(self.got)}"


def _short(text: str) -> str:
    text = text if len(text) <= 120 else text[:117] + "..."
    return text or "nothing"


@dataclass(frozen=True)
class Verified:
    """A file and its twins: how many tests there are, and what is not right."""

    tests: int
    failures: tuple[Failure, ...]


def verify(
    folder: Path,
    functions: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    *,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda stem: None,
) -> tuple[int, list[Failure]]:
    """Verifies the files of all functions and dtypes, or of some.

    Returns:
        How many tests were proven or refuted, and what is not right, in the order of the files.

    Raises:
        VectorsError: the folder, its index or a file cannot be read, or is of another version.
    """
    if not folder.is_dir():
        raise VectorsError(f"{folder}: there is no such folder")
    index = read_index(folder / INDEX)
    failures = list(_schema_failures(folder))
    if not functions and not dtypes:
        failures += _stray_files(folder, index)
    chosen = stems(functions, dtypes)
    found: dict[str, Verified] = {}
    for stem, verified in in_processes(partial(verify_file, folder, index), chosen, jobs):
        found[stem] = verified
        progress(stem)
    for stem in chosen:
        failures += found[stem].failures
    return sum(one.tests for one in found.values()), failures


def _schema_failures(folder: Path) -> Iterator[Failure]:
    path = folder / SCHEMA
    if not path.is_file():
        yield Failure(SCHEMA, "", "file", "a file", "none: it is missing")
    elif path.read_bytes() != schema_text().encode():
        yield Failure(SCHEMA, "", "content", "the schema of this version", "another")


def _stray_files(folder: Path, index: Mapping[str, Any]) -> Iterator[Failure]:
    known = {SCHEMA, INDEX, *index["files"]}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".tsv") and path.name not in known:
            yield Failure(path.name, "", "file", "to be in the index", "a file that is not")
    named = {f"{stem}.{suffix}" for stem in stems() for suffix in ("json", "tsv", "packed.tsv")}
    for name in sorted(set(index["files"]) - named):
        yield Failure(INDEX, name, "name", "the name of a function and a dtype", name)


def verify_file(folder: Path, index: Mapping[str, Any], stem: str) -> Verified:
    """Verifies the JSON file of a function and dtype, and its twins."""
    name = f"{stem}.json"
    entry = index["files"].get(name)
    failures = [] if entry else [Failure(INDEX, name, "sha256", "an entry", "")]
    if not (folder / name).is_file():
        return Verified(0, (*failures, Failure(name, "", "file", "a file", "none: it is missing")))
    data = (folder / name).read_bytes()
    failures += _hash_failures(name, data, entry)
    content = read_vectors(name, data)
    if wrong := faults(content):
        failures += [Failure(name, where, "schema", "what the schema says", message) for where, message in wrong]
        return Verified(0, tuple(failures))
    function, form = (FUNCTIONS[stem.split(".")[0]], FORMATS[stem.split(".")[1]])
    failures += _content_failures(name, content, function, form)
    tests = sum(len(group["tests"]) for group in content["groups"])
    if entry and entry.get("tests") != str(tests):
        failures.append(Failure(INDEX, name, "tests", str(tests), entry.get("tests", "")))
    if (content["function"], content["dtype"]) == (function.name, form.name):
        failures += _twin_failures(folder, index, stem, content)
    return Verified(tests, tuple(failures))


def _hash_failures(name: str, data: bytes, entry: Mapping[str, str] | None) -> Iterator[Failure]:
    got = hashlib.sha256(data).hexdigest()
    if entry and entry["sha256"] != got:
        yield Failure(INDEX, name, "sha256", got, entry["sha256"])


def _content_failures(name: str, content: Mapping[str, Any], function: Function, form: Format) -> Iterator[Failure]:
    if (content["function"], content["dtype"]) != (function.name, form.name):
        got = f"{content['function']} {content['dtype']}"
        yield Failure(name, "", "function and dtype", f"{function.name} {form.name}", got)
        return
    used = {flag for group in content["groups"] for test in group["tests"] for flag in test[-2].split()}
    right = header(function, form, used)
    for field in ("call", "formula", "source", "notes"):
        if content[field] != right[field]:
            yield Failure(name, "", field, str(right[field]), str(content[field]))
    ids = Counter(test[0] for group in content["groups"] for test in group["tests"])
    for identity, count in ids.items():
        if count > 1:
            yield Failure(name, identity, "id", "to be there once", f"{count} times")
    names = Counter(group["name"] for group in content["groups"])
    for group_name, count in names.items():
        if count > 1:
            yield Failure(name, f"group {group_name}", "name", "to be there once", f"{count} times")
    for record in content["groups"]:
        yield from _group_failures(name, record, function, form)


def _group_failures(name: str, record: Mapping[str, Any], function: Function, form: Format) -> Iterator[Failure]:
    where = f"group {record['name']}"
    try:
        group = _parse(record, form)
        right = group_record(function, form, group)
        for field in ("max", "columns"):
            if record[field] != right[field]:
                yield Failure(name, where, field, str(right[field]), str(record[field]))
                return
        made = rows(function, form, group)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        yield Failure(
            name, where, "parameters and inputs", "a call of the function", f"{type(error).__name__}: {error}"
        )
        return
    for row, test in zip(made, record["tests"], strict=True):
        yield from _row_failures(name, row, test)


def _parse(record: Mapping[str, Any], form: Format) -> Group:
    """The points of a group.

    Raises:
        ValueError: a bit pattern is not of the dtype's width, or a parameter's decimal is not its bits.
    """
    names = record["columns"][1 : record["columns"].index("result.bits")]
    points = []
    for test in record["tests"]:
        cells = dict(zip(record["columns"], test, strict=True))
        inputs = {}
        for column in names:
            try:
                inputs[column] = tuple(from_hex(one, form) for one in cells[column].split(" "))
            except ValueError as error:
                raise ValueError(f"test {cells['id']}, {column}: {error}") from None
        points.append(Point(inputs, cells["comment"]))
    parameters: dict[str, float | str] = {}
    for parameter, value in record["parameters"].items():
        if isinstance(value, str):
            parameters[parameter] = value
            continue
        parameters[parameter] = float(value["decimal"])
        if double_hex(float(value["decimal"])) != value["bits"]:
            raise ValueError(f"{parameter}: {value['decimal']} has not the bits {value['bits']}")
    return Group(record["name"], record["kind"], record["about"], tuple(points), parameters)


def _row_failures(name: str, row: Row, test: Sequence[str]) -> Iterator[Failure]:
    for (column, right), got in zip(row.items(), test, strict=True):
        if got != right:
            yield Failure(name, test[0], column, right, got)


def _twin_failures(folder: Path, index: Mapping[str, Any], stem: str, content: Mapping[str, Any]) -> Iterator[Failure]:
    try:
        texts = twins(content)
    except (ArithmeticError, KeyError, ValueError) as error:
        yield Failure(f"{stem}.json", "", "twin", "numbers that a twin can be made of", str(error))
        return
    for name in index["files"]:
        if name.startswith(f"{stem}.") and name != f"{stem}.json" and name.removeprefix(f"{stem}.") not in texts:
            yield Failure(INDEX, name, "name", "no twin: there are no tests for it", name)
    for suffix, text in texts.items():
        name = f"{stem}.{suffix}"
        entry = index["files"].get(name)
        if not entry:
            yield Failure(INDEX, name, "sha256", "an entry", "")
        if not (folder / name).is_file():
            yield Failure(name, "", "file", "a file", "none: it is missing")
            continue
        data = (folder / name).read_bytes()
        yield from _hash_failures(name, data, entry)
        yield from _line_failures(name, text, data.decode("utf-8", errors="replace"))


def _line_failures(name: str, right: str, got: str) -> Iterator[Failure]:
    rights, gots = right.split("\n"), got.split("\n")
    if len(rights) != len(gots):
        yield Failure(name, "", "lines", str(len(rights)), str(len(gots)))
    for number, (one, other) in enumerate(zip(rights, gots, strict=False), start=1):
        if one == other:
            continue
        cells, others = one.split("\t"), other.split("\t")
        if number < 3 or len(cells) != len(others):
            yield Failure(name, f"line {number}", "", one, other)
            continue
        for column, cell, found in zip(rights[1].split("\t"), cells, others, strict=True):
            if cell != found:
                yield Failure(name, cells[0], column, cell, found)
