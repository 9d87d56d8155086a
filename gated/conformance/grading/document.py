"""The JSON form of a report, there and back. Its schema is in schema.py.

Every field is named as in :class:`~gated.conformance.grading.report.Report`; pictures are left out, they are drawn in
the HTML report. JSON has no infinity and no nan: the strings ``"inf"``, ``"-inf"`` and ``"nan"`` stand for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np

from gated.conformance.grading.report import Diagnosis, Finding, Region, Report, Row

__all__ = ["SCHEMA_NAME", "SCHEMA_VERSION", "as_json", "from_json"]

SCHEMA_NAME: Final = "gated-check"
SCHEMA_VERSION: Final = "1"


def as_json(report: Report) -> dict[str, Any]:
    """The report as a JSON object.

    Texts are kept as they are: control characters are escaped by JSON itself. Evidence of any other type than
    numbers, texts, lists and mappings is its ``str``.
    """
    head = {field.name: _value(getattr(report, field.name)) for field in fields(Report) if field.name not in _LISTS}
    return {
        "schema": {"name": SCHEMA_NAME, "version": SCHEMA_VERSION},
        **head,
        "rows": [_record(row) | {"verdict": row.verdict} for row in report.rows],
        "findings": [_record(finding) for finding in report.findings],
        "diagnosis": [_record(one) for one in report.diagnosis],
    }


def from_json(content: Mapping[str, Any]) -> Report:
    """The report of a JSON object that :func:`as_json` made, without pictures.

    Args:
        content: valid by the schema, as :func:`gated.conformance.grading.schema.faults` tells.
    """
    head = {field.name: content[field.name] for field in fields(Report) if field.name not in _LISTS}
    return Report(
        **{**head, "seconds": _number(head["seconds"])},
        rows=[_row(row) for row in content["rows"]],
        findings=[Finding(**finding) for finding in content["findings"]],
        diagnosis=[Diagnosis(**one) for one in content["diagnosis"]],
    )


_LISTS: Final = ("rows", "findings", "diagnosis", "pictures")


def _record(one: Row | Region | Finding | Diagnosis) -> dict[str, Any]:
    return {field.name: _value(getattr(one, field.name)) for field in fields(one)}


def _value(value: Any) -> Any:
    """Anything as what JSON has."""
    match value:
        case Region():
            return _record(value)
        case np.generic() | np.ndarray():
            return _value(value.tolist())
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(key): _value(one) for key, one in value.items()}
        case Sequence() | set() | frozenset():
            return [_value(one) for one in value]
    return str(value)


def _row(content: Mapping[str, Any]) -> Row:
    given = {name: value for name, value in content.items() if name != "verdict"}
    regions = [Region(**{**region, "largest": _number(region["largest"])}) for region in content["regions"]]
    return Row(
        **{**given, **{name: _number(given[name]) for name in ("error", "bound", "largest")}, "regions": regions}
    )


def _number(number: float | str) -> float:
    return float(number)
