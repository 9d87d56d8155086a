"""The report of a check: rows, findings, diagnosis. The JSON form is its dictionary; schema.py publishes the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["ABSENT", "FAILURE", "NOTE", "Diagnosis", "Finding", "Picture", "Region", "Report", "Row"]

FAILURE: Final = "failure"
NOTE: Final = "note"
ABSENT: Final = "absent"


@dataclass(frozen=True)
class Region:
    """The inputs of one region of a row: ordinary, tail, cancellation, subnormal, overflow, infinity, nan, zero."""

    name: str
    inputs: int
    failing: int
    largest: float
    """The largest error in ulp; inf where a class is wrong."""
    at: Mapping[str, str]
    """The inputs there, in decimal."""
    computed: str
    exact: str


@dataclass(frozen=True)
class Row:
    """One quantity in one dtype."""

    dtype: str
    quantity: str
    """``"value"``, or ``"d x"``, ``"d gate"``, ``"d value"``, ``"d beta"``, ``"d W"``, ..."""
    inputs: int
    exhaustive: bool
    """Whether these are all inputs that there are."""
    failing: int
    error: float
    """The error nearest its bound, in ulp."""
    bound: float
    largest: float
    """The largest error, whatever its bound."""
    at: Mapping[str, str]
    bits: Mapping[str, str]
    """The inputs of ``error``, as bit patterns in hex."""
    computed: str
    exact: str
    regions: Sequence[Region] = ()

    @property
    def verdict(self) -> str:
        """``"pass"`` or ``"fail"``."""
        return "fail" if self.failing else "pass"


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        id: stable: see docs/check.md for the list.
        severity: ``"failure"``, ``"note"`` (told, not held against the target) or ``"absent"``.
        dtype: ``""`` where it is of no one dtype.
        evidence: what shows it: numbers, inputs, texts.
    """

    id: str
    severity: str
    text: str
    dtype: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    known: str = ""
    """The reason and link of the ledger's entry, where it is a known deviation: then it is no failure."""


@dataclass(frozen=True)
class Diagnosis:
    """What the target computes instead, with the match that shows it."""

    id: str
    text: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """Errors against an input, for the HTML report: the largest of each of some thousand bins of the line of floats."""

    dtype: str
    quantity: str
    axis: str
    """The input that is drawn along the horizontal: ``"x"`` or ``"gate"``."""
    inputs: Sequence[float]
    errors: Sequence[float]
    """In ulp; inf where the class is wrong."""
    bounds: Sequence[float]
    computed: Sequence[str]
    exact: Sequence[str]


@dataclass
class Report:
    """The outcome of one check."""

    verdict: str
    """``"pass"``, ``"fail"``, or ``"error"``: it could not be graded."""
    target: str
    function: str
    form: str
    layout: str
    profile: str
    claim: str
    """The claim in words."""
    framework: str
    device: str
    budget: str
    seed: int
    rows: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    diagnosis: list[Diagnosis] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"
