"""The journal of a sweep: a line of JSON for each unit of work that is done, so that a sweep can stop and go on.

The first line says what is swept, by what and with which versions. Every line ends with a checksum of itself. A line
that was cut short can only be the last one of a sweep that was killed while it wrote: its unit was not recorded, and
is done again. :func:`merge` adds complete journals up to one result file and refuses anything less.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gated.conformance.records import Kind, RecordError, from_json, read_bytes, to_json
from gated.conformance.sweeps.catalogue import SWEEPS, Sweep
from gated.conformance.sweeps.tally import Tally

__all__ = ["Header", "Journal", "JournalError", "Result", "by_result", "merge", "read_result"]

# Numbers of a curve in a result file: the largest error of each share of the inputs, in order of the bit patterns.
_POINTS: Final = 4096


class JournalError(RecordError):
    """A journal or result file that cannot be used."""


_JOURNAL: Final = Kind("gated-sweep", 1, "the journal of a sweep", JournalError)
_RESULT: Final = Kind("gated-sweep-result", 1, "the result of a sweep", JournalError)


@dataclass(frozen=True)
class Header:
    """What a sweep measures: all journals that add up to one result have the same, but for the shard."""

    sweep: str
    backend: str
    device: str
    versions: Mapping[str, str]
    code: str
    """The digest of the backend's code (:mod:`gated.conformance.source`): what the result is of."""
    shard: tuple[int, int] = (1, 1)

    @property
    def units(self) -> list[int]:
        """The units of the shard: shard I of N has those that leave I - 1 when divided by N."""
        index, count = self.shard
        return list(range(index - 1, SWEEPS[self.sweep].units, count))

    def name(self) -> str:
        """The file's name, without its suffix."""
        whole = self.shard == (1, 1)
        part = "" if whole else f".shard-{self.shard[0]}-of-{self.shard[1]}"
        return f"{self.sweep}.{self.backend}{part}"


class Journal:
    """A journal that is written to: what is in it already, and lines added to it.

    Raises:
        JournalError: the file is of another sweep or of other versions, or damaged before its last line.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header
        self.dropped = ""
        self.done: set[int] = set()
        if path.exists() and path.stat().st_size:
            self._resume()
        else:
            path.write_bytes(_line({**_JOURNAL.head(), "header": asdict(header)}))

    def _resume(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            raise JournalError(f"{self.path}: its first line was cut short: remove the file to begin anew")
        header, lines = _parse(self.path, whole)
        if header != self.header:
            raise JournalError(f"{self.path}: {_difference(header, self.header)}: remove the file to begin anew")
        self.done = {line["unit"] for line in lines}
        if len(whole) < len(content):
            self.dropped = f"{self.path}: the last line was cut short; its unit is done again"
            with self.path.open("r+b") as file:
                file.truncate(len(whole))

    @property
    def remaining(self) -> list[int]:
        """The units still to be done."""
        return [unit for unit in self.header.units if unit not in self.done]

    def add(self, unit: int, seconds: float, tallies: Mapping[str, Tally]) -> None:
        """Records a unit, for good: the line is on the disk when this returns."""
        if unit in self.done:
            raise ValueError(f"unit {unit} is recorded already")
        quantities = {name: tally.as_json() for name, tally in tallies.items()}
        with self.path.open("ab") as file:
            file.write(_line({"unit": unit, "seconds": round(seconds, 3), "quantities": quantities}))
            file.flush()
            os.fsync(file.fileno())
        self.done.add(unit)


@dataclass(frozen=True)
class Result:
    """A whole sweep of a backend.

    Attributes:
        header: what was measured.
        date: of the merge, YYYY-MM-DD.
        seconds: the time the units took, added up: core seconds.
        tallies: by quantity.
        curves: by quantity, the largest error of each 4096th of the inputs, in the order of their bit patterns.
    """

    header: Header
    date: str
    seconds: float
    tallies: Mapping[str, Tally]
    curves: Mapping[str, Sequence[float]]

    @property
    def sweep(self) -> Sweep:
        """The sweep."""
        return SWEEPS[self.header.sweep]

    def write(self, folder: Path) -> Path:
        """Writes the result file, named after sweep and backend."""
        content = {
            "header": asdict(self.header),
            "date": self.date,
            "inputs": self.sweep.inputs,
            "core_seconds": round(self.seconds),
            "quantities": {name: tally.as_json() for name, tally in self.tallies.items()},
            # Four digits are enough to draw.
            "curves": {name: [to_json(float(f"{one:.4g}")) for one in curve] for name, curve in self.curves.items()},
        }
        path = folder / f"{self.header.name()}.json"
        _RESULT.write(path, content, text=_pretty)
        return path


def by_result(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Journals by the result that they are a part of, from their names."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(paths):
        groups.setdefault(re.sub(r"\.shard-\d+-of-\d+$", "", path.stem), []).append(path)
    return groups


def merge(paths: Iterable[Path], *, today: datetime.date | None = None) -> Result:
    """Adds the journals of all shards of one sweep up.

    Raises:
        JournalError: a file is damaged or cut short, of another sweep, backend, version or split than the first, or a
            unit is missing or recorded twice.
    """
    header: Header | None = None
    lines: dict[int, dict[str, Any]] = {}
    for path in paths:
        content = read_bytes(path, JournalError)
        if not content.endswith(b"\n"):
            raise JournalError(f"{path}: the last line was cut short: run its sweep again to complete it")
        found, units = _parse(path, content)
        header = header or found
        if difference := _difference(header, found, but_shard=True):
            raise JournalError(f"{path}: {difference}")
        for line in units:
            if line["unit"] in lines:
                raise JournalError(f"{path}: unit {line['unit']} is recorded twice")
            lines[line["unit"]] = line
    if header is None:
        raise JournalError("no journal to merge")
    sweep = SWEEPS[header.sweep]
    if missing := [unit for unit in range(sweep.units) if unit not in lines]:
        raise JournalError(
            f"{sweep.name} of {header.backend} is not complete: {len(missing)} of {sweep.units} units are missing, "
            f"the first is {missing[0]}"
        )
    ordered = [lines[unit] for unit in range(sweep.units)]
    tallies = {name: [Tally.from_json(line["quantities"][name]) for line in ordered] for name in sweep.quantities}
    return Result(
        header=Header(**{**asdict(header), "shard": (1, 1)}),
        date=(today or datetime.datetime.now(datetime.UTC).date()).isoformat(),
        seconds=sum(line["seconds"] for line in ordered),
        tallies={name: Tally.sum(parts) for name, parts in tallies.items()},
        curves={name: _curve([part.error for part in parts]) for name, parts in tallies.items()},
    )


def _curve(errors: list[float]) -> list[float]:
    step = max(1, len(errors) // _POINTS)
    return [max(errors[i : i + step]) for i in range(0, len(errors), step)]


def read_result(path: Path) -> Result:
    """Reads a result file.

    Raises:
        JournalError: it is no result file, of another version, or its content is not what was written.
    """
    content = _RESULT.read(path)
    return Result(
        header=_header(path, content["header"]),
        date=content["date"],
        seconds=content["core_seconds"],
        tallies={name: Tally.from_json(one) for name, one in content["quantities"].items()},
        curves={name: [from_json(one) for one in curve] for name, curve in content["curves"].items()},
    )


def _parse(path: Path, content: bytes) -> tuple[Header, list[dict[str, Any]]]:
    """The header and the lines of units of a journal whose last line is whole."""
    first, *rest = content.splitlines()
    head = _checked(path, 1, first)
    _JOURNAL.check(path, head)
    header = _header(path, head["header"])
    lines = [_checked(path, number, line) for number, line in enumerate(rest, 2)]
    known = set(header.units)
    seen: set[int] = set()
    for number, line in enumerate(lines, 2):
        unit = line.get("unit")
        if unit not in known or unit in seen:
            problem = "recorded twice" if unit in seen else "not one of the shard's"
            raise JournalError(f"{path}: line {number}: unit {unit!r} is {problem}")
        seen.add(unit)
    return header, lines


def _header(path: Path, content: Mapping[str, Any]) -> Header:
    header = Header(**{**content, "shard": tuple(content["shard"])})
    if header.sweep not in SWEEPS:
        raise JournalError(f"{path}: there is no sweep {header.sweep!r}")
    return header


def _difference(expected: Header, found: Header, *, but_shard: bool = False) -> str:
    """What the second header has other than the first, "" if nothing."""
    for name, one in asdict(expected).items():
        other = getattr(found, name)
        if name == "shard" and but_shard:
            if one[1] != other[1]:
                return f"a shard of {other[1]}, not of {one[1]}"
        elif one != other:
            return f"{name} {other!r}, not {one!r}"
    return ""


def _line(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return f'{text[:-1]},"crc32":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def _checked(path: Path, number: int, line: bytes) -> dict[str, Any]:
    text, mark, end = line.partition(b',"crc32":"')
    body = text + b"}"
    if not mark or end != f'{zlib.crc32(body):08x}"}}'.encode():
        raise JournalError(f"{path}: line {number} is damaged or was cut short")
    content: dict[str, Any] = json.loads(body)
    return content


def _pretty(content: Mapping[str, Any]) -> str:
    """Indented JSON with each curve on lines of its own."""
    short = {**content, "curves": {name: f"@{name}@" for name in content["curves"]}}
    text = json.dumps(short, indent=1)
    for name, curve in content["curves"].items():
        rows = [json.dumps(curve[i : i + 32], separators=(",", ":"))[1:-1] for i in range(0, len(curve), 32)]
        text = text.replace(f'"@{name}@"', "[\n" + ",\n".join(rows) + "\n]")
    return text
