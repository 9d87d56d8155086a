"""A report on the terminal. What comes from the target is untrusted: nothing of it is markup or a control sequence."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gated.conformance.grading.report import ABSENT, FAILURE, Finding, Report, Row

__all__ = ["number", "plain", "print_report", "row_verdict", "shown"]

# Columns from which on the table has room for the place of the largest error.
_WIDE: Final = 130

_STYLES: Final = {"pass": "bold green", "known": "yellow", "fail": "bold red", "error": "bold red"}
_VERDICTS: Final = {
    "pass": "PASS",
    "fail": "FAIL",
    "error": "ERROR: it could not be graded",
}


def plain(text: object) -> str:
    r"""A text on one line, what steers a terminal or the direction of writing shown as an escape, ``\x1b``."""
    return "".join(
        one.encode("unicode_escape").decode("ascii") if unicodedata.category(one) in _STEERING else one
        for one in str(text)
    )


_STEERING: Final = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def shown(value: Any) -> str:
    """A piece of evidence as text."""
    match value:
        case bool() | int():
            return f"{value:,}" if not isinstance(value, bool) else ("yes" if value else "no")
        case float():
            return f"{value:.6g}"
        case str():
            return plain(value)
        case Mapping():
            return ", ".join(f"{plain(key)} = {shown(one)}" for key, one in value.items())
        case Sequence():
            return ", ".join(map(shown, value))
    return plain(value)


def number(error: float) -> str:
    """An error or a bound in ulp, in three digits; enough to tell 0.501 from 0.5 just above one half."""
    return f"{error:.4g}" if 0.5 < error < 0.51 else f"{error:.3g}"


def row_verdict(report: Report, row: Row) -> str:
    """``"pass"``, ``"fail"``, or ``"known"``: all that was found there is in the ledger, or is a note."""
    if not row.failing:
        return "pass"
    found = [one for one in report.findings if one.dtype == row.dtype and one.evidence.get("quantity") == row.quantity]
    excused = found and all(one.known or one.severity != FAILURE for one in found)
    return "known" if excused else "fail"


def print_report(console: Console, report: Report) -> None:
    """Verdict, claim, the table, the findings, and last the diagnosis with its evidence."""
    _say(console, Text(_VERDICTS[report.verdict], style=_STYLES[report.verdict]), f"  {plain(report.target)}")
    _say(console, f"claimed: {plain(report.claim)}; profile {report.profile}")
    where = [
        report.framework,
        report.device,
        f"budget {report.budget}",
        f"seed {report.seed}",
        f"{report.seconds:.1f} s",
    ]
    _say(console, plain(", ".join(part for part in where if part)))
    if report.rows:
        console.print(_table(console, report))
        _say(
            console,
            "Errors in ulp: the largest, and the one nearest its own bound. "
            "inf: nan, infinity or a zero's sign is wrong.",
        )
        for row in report.rows:
            if row.failing:
                _print_regions(console, row)
    for severity, title in ((FAILURE, "Found:"), (ABSENT, "Absent:"), ("note", "Notes:")):
        chosen = [one for one in report.findings if one.severity == severity]
        if chosen:
            _say(console, "")
            _say(console, Text(title, style="bold"))
        for finding in chosen:
            _print_finding(console, finding)
    if report.versions:
        _say(console, "")
        _say(console, plain(", ".join(f"{name} {version}" for name, version in report.versions.items())))
    if report.verdict == "fail" or report.diagnosis:
        _print_diagnosis(console, report)


def _print_diagnosis(console: Console, report: Report) -> None:
    _say(console, "")
    _say(console, Text("Diagnosis:", style="bold"))
    if not report.diagnosis:
        _say(console, "  none: no known mistake gives these results")
    for one in report.diagnosis:
        _say(console, Text(f"  {plain(one.id)}", style="bold"), f"  {plain(one.text)}")
        for name, value in one.evidence.items():
            _say(console, f"      {plain(name)}: {shown(value)}")


def _print_finding(console: Console, finding: Finding) -> None:
    failed = finding.severity == FAILURE and not finding.known
    dtype = f" {finding.dtype}" if finding.dtype else ""
    style = _STYLES["fail"] if failed else _STYLES["known"]
    _say(console, Text(f"  {plain(finding.id)}{dtype}", style=style), f"  {plain(finding.text)}")
    if finding.known:
        _say(console, f"      known: {plain(finding.known)}")


def _print_regions(console: Console, row: Row) -> None:
    for region in row.regions:
        if region.failing:
            at = (
                f", worst at {shown(region.at)}: got {plain(region.computed)}, exact {plain(region.exact)}"
                if region.at
                else ""
            )
            counts = f"{region.failing:,} of {region.inputs:,} failing, up to {number(region.largest)} ulp"
            _say(console, f"  {row.dtype} {plain(row.quantity)}, {plain(region.name)}: {counts}{at}")


def _table(console: Console, report: Report) -> Table:
    table = _frame(console)
    for name in ("dtype", "quantity"):
        table.add_column(name, no_wrap=True)
    for name in ("inputs", "max", "nearest/bound", "failing"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    beside = console.width >= _WIDE or not console.is_terminal
    if beside:
        table.add_column("nearest its bound at", overflow="fold")
    for row in report.rows:
        verdict = row_verdict(report, row)
        bound = number(row.bound)
        cells = (
            row.dtype,
            plain(row.quantity),
            f"{'all ' if row.exhaustive else ''}{row.inputs:,}",
            number(row.largest),
            f"{number(row.error)}/{bound}",
            f"{row.failing:,}",
        )
        where = (
            (f"{shown(row.at)}: {plain(row.computed)}, exact {plain(row.exact)}" if row.at else "")
            if row.inputs
            else ""
        )
        table.add_row(*map(Text, cells), Text(verdict, style=_STYLES[verdict]), *([Text(where)] if beside else []))
    return table


def _frame(console: Console) -> Table:
    if not console.is_terminal:
        return Table(box=box.ASCII2, pad_edge=False, header_style="bold")
    narrow = console.width < _WIDE
    return Table(box=None if narrow else box.SIMPLE_HEAD, pad_edge=False, collapse_padding=narrow, header_style="bold")


def _say(console: Console, *parts: str | Text) -> None:
    """A line of parts that rich takes as they are: no markup, no emoji codes; long ones go on in the next line."""
    line = Text()
    for part in parts:
        line.append_text(part) if isinstance(part, Text) else line.append(part)
    console.print(line, soft_wrap=True)
