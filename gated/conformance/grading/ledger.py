"""The ledger of known deviations: what is found and excused, with its reason, until it is no longer found.

A TOML file of entries::

    [[deviation]]
    id = "wrong-value/float16/value"      # FINDING-ID/DTYPE/QUANTITY; each part a glob, what is left out is any
    reason = "the kernel rounds the activation to float16 before the product"
    link = "https://example.com/issues/1" # optional
    ulp = 1.49                            # the error observed, as the report prints it
    target = "*/kernels.py:swiglu"        # optional: a glob; the entry is for these targets alone
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from gated.conformance.grading.finding_ids import FINDING_IDS
from gated.conformance.grading.report import FAILURE, Finding, Row
from gated.contract import DTYPES

__all__ = ["Deviation", "Ledger", "LedgerError", "key"]

SLACK: Final = 1.005
"""An error may be this many times the entry's: reports print three digits, and rounding to three digits takes up to
0.5% off. Nothing is added for other seeds or machines: who wants that writes a larger number."""

_QUANTITIES: Final = (
    "value",
    *(f"d {name}" for name in ("x", "gate", "value", "beta", "W", "V", "W2", "b", "c", "b2")),
)


class LedgerError(ValueError):
    """A ledger that cannot be used; the text names the file, the entry and the field."""


def key(finding: Finding) -> str:
    """What an entry's id is matched with: ``FINDING-ID/DTYPE/QUANTITY``, ``*`` for what the finding has not."""
    return "/".join((finding.id, finding.dtype or "*", str(finding.evidence.get("quantity", "*"))))


@dataclass(frozen=True)
class Deviation:
    """An entry of a ledger.

    Attributes:
        number: its place in the file, from 1.
        id: the three globs, joined by ``/``.
        ulp: the error observed; None where the finding has none.
        target: a glob over the target's name.
    """

    number: int
    id: str
    reason: str
    link: str = ""
    ulp: float | None = None
    target: str = "*"

    def matches(self, finding: Finding) -> bool:
        """Whether the entry is about the finding, whatever its error."""
        return all(map(fnmatchcase, key(finding).split("/", 2), self._parts))

    def concerns(self, rows: Sequence[Row]) -> bool:
        """Whether a check with these rows could find it: such a dtype was graded, and gradients if it is of one."""
        _, dtype, quantity = self._parts
        graded = {row.quantity for row in rows}
        of_gradients = not fnmatchcase("value", quantity)
        return any(fnmatchcase(row.dtype, dtype) for row in rows) and not (of_gradients and graded == {"value"})

    @property
    def _parts(self) -> list[str]:
        given = self.id.split("/")
        return [*given, *["*"] * (3 - len(given))]


@dataclass(frozen=True)
class Ledger:
    """Known deviations, in the order of the file.

    Attributes:
        name: the file, for texts.
    """

    name: str
    deviations: Sequence[Deviation]

    @classmethod
    def read(cls, path: str | Path) -> Ledger:
        """Reads a file.

        Raises:
            LedgerError: it cannot be read, is not TOML, or an entry has an unknown, missing or wrong field.
        """
        try:
            content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror or error}") from error
        except ValueError as error:
            raise LedgerError(f"{path}: not TOML: {error}") from error
        if unknown := [name for name in content if name != "deviation"]:
            raise LedgerError(f"{path}: expected [[deviation]] entries and nothing else, got {unknown[0]!r}")
        entries = content.get("deviation", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise LedgerError(f"{path}: expected each entry to begin with [[deviation]]")
        return cls(str(path), tuple(_deviation(str(path), number, one) for number, one in enumerate(entries, 1)))

    def apply(self, findings: Sequence[Finding], rows: Sequence[Row], *, target: str | None = None) -> list[Finding]:
        """The findings, those that are known marked so, with one more for each entry that matches none.

        A failure is known where an entry matches it and its error is at most the entry's (times :data:`SLACK`). The
        findings ``wrong-value`` and ``wrong-gradient`` have an error, ``evidence["error"]`` or else that of the row of
        their dtype and quantity; the others have none.

        Args:
            target: the target's name; the entries for other targets are left out. None: all entries are taken.
        """
        entries = [one for one in self.deviations if target is None or fnmatchcase(target, one.target)]
        judged = [self._judge(finding, [one for one in entries if one.matches(finding)], rows) for finding in findings]
        stale = [one for one in entries if one.concerns(rows) and not any(map(one.matches, findings))]
        return [*judged, *map(self._stale, stale)]

    def _judge(self, finding: Finding, entries: Sequence[Deviation], rows: Sequence[Row]) -> Finding:
        if finding.severity != FAILURE or not entries:
            return finding
        error = _error(finding, rows)
        for one in entries:
            if error is None or (one.ulp is not None and error <= one.ulp * SLACK):
                return replace(finding, known=f"{one.reason} ({one.link})" if one.link else one.reason)
        allowed = max((one.ulp for one in entries if one.ulp is not None), default=None)
        has = "no ulp" if allowed is None else f"{allowed:.3g} ulp"
        text = f"{finding.text}; {self.name} has it with {has}, and it is {error:.3g} ulp"
        return replace(finding, text=text)

    def _stale(self, one: Deviation) -> Finding:
        text = f"{self.name}: entry {one.number}, {one.id}: nothing that was found matches it: take it out"
        evidence = {"ledger": self.name, "entry": one.number, "id": one.id, "reason": one.reason}
        return Finding("ledger-stale", FAILURE, text, evidence=evidence)


def _error(finding: Finding, rows: Sequence[Row]) -> float | None:
    """The error of a finding in ulp, None where it has none: a wrong class is wrong by no number."""
    if finding.id not in ("wrong-value", "wrong-gradient"):
        return None
    if "error" in finding.evidence:
        return float(finding.evidence["error"])
    quantity = finding.evidence.get("quantity")
    errors = [row.error for row in rows if row.dtype == finding.dtype and row.quantity == quantity]
    return max(errors, default=math.inf)


def _deviation(path: str, number: int, entry: Mapping[str, Any]) -> Deviation:
    where = f"{path}: entry {number}"
    texts = ("id", "reason", "link", "target")
    if unknown := [name for name in entry if name not in (*texts, "ulp")]:
        raise LedgerError(f"{where}: {unknown[0]} is unknown; expected id, reason, link, ulp, target")
    for name in ("id", "reason"):
        if name not in entry:
            raise LedgerError(f"{where}: {name} is missing")
    for name in texts:
        value = entry.get(name, "-")
        if not isinstance(value, str) or not value.strip():
            raise LedgerError(f"{where}: {name} must be a text that is not empty, got {value!r}")
    link = entry.get("link", "")
    if link and not link.startswith(("https://", "http://")):
        raise LedgerError(f"{where}: link must begin with https:// or http://, got {link!r}")
    ulp = entry.get("ulp")
    if ulp is not None and (isinstance(ulp, bool) or not isinstance(ulp, int | float) or not ulp >= 0):
        raise LedgerError(f"{where}: ulp must be a number of at least 0, or inf, got {ulp!r}")
    _check_id(where, entry["id"])
    return Deviation(
        number, entry["id"], entry["reason"], link, None if ulp is None else float(ulp), entry.get("target", "*")
    )


def _check_id(where: str, globs: str) -> None:
    """A glob that can match nothing is a misspelt one."""
    parts = globs.split("/")
    if len(parts) > 3:
        raise LedgerError(f"{where}: id must be FINDING-ID/DTYPE/QUANTITY, got {globs!r}")
    allowed = (("finding id", tuple(FINDING_IDS)), ("dtype", (*DTYPES, "*")))
    for part, (what, names) in zip(parts, allowed, strict=False):
        if not any(fnmatchcase(name, part) for name in names):
            raise LedgerError(f"{where}: id: {part!r} matches no {what}; these are {', '.join(names)}")
