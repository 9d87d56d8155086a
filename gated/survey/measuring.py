"""Grades an entry of the survey under both profiles."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gated.conformance.error import FORMATS
from gated.survey.entries import Entry
from gated.survey.results import PROFILES, Measured, Outcome, Point

if TYPE_CHECKING:
    from gated.conformance.grading.report import Region, Report, Row

__all__ = ["measure"]

_MODEL: Final = "onnx:"


def measure(entry: Entry, *, budget: str = "quick", seed: int = 0, timeout: float = 120.0) -> Outcome:
    """Grades one entry in a child process, once a profile, with the same inputs.

    What cannot be graded (a package that does not import, an operator that is not implemented) is an outcome with the
    reason, not an error.

    Args:
        budget, seed, timeout: as of :func:`gated.conformance.check`.
    """
    from gated.conformance.grading.claim import Claim

    claimed = {name: one for name, one in entry.options.items() if name in _CLAIM}
    about = Outcome(
        key=entry.key,
        package=entry.package,
        name=entry.name,
        function=entry.function,
        claim=Claim.of(entry.function, **claimed).describe(),
        framework=entry.options.get("framework", ""),
        environment=entry.environment,
        versions=_versions(entry),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        budget=budget,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder, _environment(entry.environment):
        reports = _reports(entry, Path(folder), budget=budget, seed=seed, timeout=timeout)
    return _replaced(about, reports)


_CLAIM: Final = ("form", "layout", "axis", "activation", "approximate", "beta", "alpha", "limit", "offset", "bias")


def _reports(entry: Entry, folder: Path, **options: Any) -> dict[str, Report] | str:
    """The report of each profile, or why there is none."""
    from gated.conformance import check
    from gated.conformance.grading.target import TargetError

    target = entry.target
    try:
        if target.startswith(_MODEL):
            from gated.survey.onnx_models import write

            target = str(write(target.removeprefix(_MODEL), folder))
        return {
            profile: check(target, entry.function, profile=profile, **entry.options, **options) for profile in PROFILES
        }
    except (TargetError, LookupError, ModuleNotFoundError) as error:
        return str(error).replace(f"{folder}/", "").strip()


def _replaced(about: Outcome, reports: dict[str, Report] | str) -> Outcome:
    if isinstance(reports, str):
        return replace(about, error=reports)
    contract = reports["contract"]
    if not contract.rows:
        return replace(about, framework=contract.framework, error="; ".join(one.text for one in contract.findings))
    findings = {profile: _ids(report, "failure") for profile, report in reports.items()}
    findings["note"] = sorted({*_ids(reports["field"], "note"), *_ids(reports["field"], "absent")})
    return replace(
        about,
        framework=contract.framework,
        versions={**about.versions, **contract.versions},
        verdicts={profile: report.verdict for profile, report in reports.items()},
        findings=findings,
        rows=[_measured(row, reports) for row in contract.rows],
    )


def _ids(report: Report, severity: str) -> list[str]:
    return sorted({one.id for one in report.findings if one.severity == severity})


def _measured(row: Row, reports: Mapping[str, Report]) -> Measured:
    finite = [region for region in row.regions if math.isfinite(region.largest)]
    worst = max(finite, key=lambda region: region.largest, default=None)
    return Measured(
        dtype=row.dtype,
        quantity=row.quantity,
        inputs=row.inputs,
        exhaustive=row.exhaustive,
        largest=worst.largest if worst else math.inf,
        worst=_point(worst, row) if worst and worst.largest else None,
        classes=[_point(region, row) for region in row.regions if not math.isfinite(region.largest)],
        failing={profile: _failing(report.rows, row) for profile, report in reports.items()},
    )


def _failing(rows: Sequence[Row], row: Row) -> int:
    return sum(one.failing for one in rows if (one.dtype, one.quantity) == (row.dtype, row.quantity))


def _point(region: Region, row: Row) -> Point:
    """The worst point of a region. The report has bit patterns of the row's worst, and nine digits of the others."""
    bits = dict(row.bits)
    if region.at != row.at:
        # Nine digits tell a float32 from its neighbours, a float64 they do not.
        bits = {} if row.dtype == "float64" else {name: _bits(text, row.dtype) for name, text in region.at.items()}
    return Point(region.name, dict(region.at), bits, region.computed, region.exact)


def _bits(text: str, dtype: str) -> str:
    """The bit pattern of a decimal in hex."""
    form = FORMATS[dtype]
    with np.errstate(over="ignore"):
        pattern = np.asarray(float(text)).astype(form.dtype).view(form.bits)
    return f"0x{int(pattern):0{2 * form.bits.itemsize}x}"


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The variables, for the child process, while it is started."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _versions(entry: Entry) -> dict[str, str]:
    """The versions of the packages that it needs, by the names that pip knows them by."""
    distributions = importlib.metadata.packages_distributions()
    names = [name for package in (entry.package, *entry.needs) for name in distributions.get(package, ())[:1]]
    return {name: importlib.metadata.version(name) for name in names}
