"""The result of grading one entry, as a file: what was measured, with what, and both profiles' verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from gated.conformance.records import Kind, RecordError, from_json, to_json

__all__ = [
    "PROFILES",
    "Measured",
    "Outcome",
    "Point",
    "Program",
    "SurveyError",
    "read_folder",
    "read_outcome",
    "read_programs",
]

PROFILES: Final = ("contract", "field")


class SurveyError(RecordError):
    """A result of the survey that cannot be used."""


_KIND: Final = Kind("gated-survey", 1, "a result of the survey", SurveyError)


@dataclass(frozen=True)
class Point:
    """An input, what was computed there, and what is exact.

    Attributes:
        region: of the inputs: tail, subnormal, infinity, ...
        at: the inputs by name, in decimal.
        bits: the same as bit patterns in hex.
    """

    region: str
    at: Mapping[str, str]
    bits: Mapping[str, str]
    computed: str
    exact: str


@dataclass(frozen=True)
class Program:
    """A reproducer and what it printed."""

    code: str
    printed: str


@dataclass(frozen=True)
class Measured:
    """One quantity in one dtype.

    Attributes:
        largest: the largest error among the regions where no class is wrong, in ulp.
        worst: its point; None where nothing is off, or where a class is wrong in every region.
        classes: a point of each region where a class is wrong: nan for a number, infinity, the sign of a zero.
        failing: the inputs past the bound, by profile.
    """

    dtype: str
    quantity: str
    inputs: int
    exhaustive: bool
    largest: float
    worst: Point | None
    classes: Sequence[Point]
    failing: Mapping[str, int]


@dataclass(frozen=True)
class Outcome:
    """One entry, graded or not.

    Attributes:
        key, package, name, function: as in :class:`gated.survey.entries.Entry`.
        claim: what it was graded as, in words.
        error: why it could not be graded; ``""`` if it was.
        verdicts: by profile.
        findings: by profile, the ids of what counts against it; ``"note"``, those of what is told.
    """

    key: str
    package: str
    name: str
    function: str
    claim: str
    framework: str
    environment: Mapping[str, str]
    versions: Mapping[str, str]
    date: str
    budget: str
    seed: int
    error: str = ""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    findings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows: Sequence[Measured] = ()

    def write(self, folder: Path) -> Path:
        """Writes the file, named after the key."""
        content = asdict(self)
        for row in content["rows"]:
            row["largest"] = to_json(row["largest"])
        path = folder / f"{self.key}.json"
        _KIND.write(path, content)
        return path


def read_outcome(path: Path) -> Outcome:
    """The outcome in a file.

    Raises:
        SurveyError: it cannot be read, is none, or was changed.
    """
    content = _KIND.read(path)
    try:
        content["rows"] = [_measured(row) for row in content["rows"]]
        return Outcome(**content)
    except (KeyError, TypeError) as error:
        raise SurveyError(f"{path}: not the result of a survey of this version: {error}") from error


def _measured(row: dict[str, Any]) -> Measured:
    worst, classes = row["worst"], [Point(**one) for one in row["classes"]]
    changed = {"largest": from_json(row["largest"]), "worst": worst and Point(**worst), "classes": classes}
    return Measured(**{**row, **changed})


def read_folder(folder: Path) -> list[Outcome]:
    """All outcomes in a folder, in the order of the entries.

    Raises:
        SurveyError: one of the files is none, or was changed.
    """
    from gated.survey.entries import ENTRIES

    order = {entry.key: place for place, entry in enumerate(ENTRIES)}
    outcomes = [read_outcome(path) for path in folder.glob("*.json")]
    return sorted(outcomes, key=lambda one: (order.get(one.key, len(order)), one.key))


def read_programs(folder: Path) -> dict[str, Program]:
    """The programs in a folder that have been run, by name.

    Raises:
        OSError: one cannot be read.
    """
    paths = [path for path in sorted(folder.glob("*.py")) if path.with_suffix(".txt").exists()]
    return {
        path.stem: Program(path.read_text(encoding="utf-8"), path.with_suffix(".txt").read_text(encoding="utf-8"))
        for path in paths
    }
