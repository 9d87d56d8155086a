"""The form of the files: a JSON document for each function and dtype, and its flat twins, tab-separated tables.

The schema of the JSON is in :mod:`gated.conformance.vectors.schema`; ``docs/vectors.md`` explains both to readers.
A twin is made of the document alone; for decimals it has the signed distance of the exact value from the rounded one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from gated import __version__
from gated.conformance.error import FORMATS, Format
from gated.conformance.vectors._numbers import Exact, decode, double_hex, from_hex, infinity, sign_bit
from gated.conformance.vectors._points import Group
from gated.conformance.vectors.catalogue import Function
from gated.conformance.vectors.expected import Row, base_bounds, columns, inputs_of
from gated.conformance.vectors.flags import FLAGS, MAY

__all__ = ["SCHEMA_NAME", "SCHEMA_VERSION", "document", "group_record", "header", "json_text", "twins"]

SCHEMA_NAME: Final = "gated-vectors"
SCHEMA_VERSION: Final = "1"

_NOTES: Final = (
    "All numbers are strings: bits are bit patterns in hex, exact is the exact value in decimal, ulp the exponent e of "
    "the unit 2^e in which errors are measured, max the largest error allowed, in that unit. A cell of an array has "
    "its elements in row-major order. d_ is the cotangent of an argument, for the cotangent given. See docs/vectors.md."
)


def header(function: Function, form: Format, used: Collection[str]) -> dict[str, Any]:
    """All of a document but its groups; the notes are of the flags that are ``used``."""
    return {
        "schema": {"name": SCHEMA_NAME, "version": SCHEMA_VERSION},
        "generator": {"name": "gated vectors write", "version": __version__},
        "function": function.name,
        "dtype": form.name,
        "call": {"name": function.call, **function.static},
        "formula": function.formula,
        "source": function.source,
        "notes": {
            "reading": _NOTES,
            "may": dict(MAY),
            "flags": {name: note for name, note in FLAGS.items() if name in used},
        },
    }


def group_record(function: Function, form: Format, group: Group) -> dict[str, Any]:
    """All of a group but its tests."""
    inputs = inputs_of(group)
    return {
        "name": group.name,
        "kind": group.kind,
        "about": group.about,
        "parameters": {name: _parameter(value) for name, value in group.parameters.items()},
        "max": base_bounds(function, form, group.kind, inputs),
        "columns": columns(function, form, group.kind, inputs, group.parameters),
    }


def _parameter(value: float | str) -> Any:
    """A Python number as the bits of a float64 and its shortest decimal; a name or a shape as it is."""
    return value if isinstance(value, str) else {"bits": double_hex(value), "decimal": repr(value)}


def document(function: Function, form: Format, groups: Sequence[tuple[Group, Sequence[Row]]]) -> dict[str, Any]:
    """The document of a function and dtype."""
    records = [
        group_record(function, form, group) | {"tests": [list(row.values()) for row in rows]} for group, rows in groups
    ]
    used = {flag for _, rows in groups for row in rows for flag in row["flags"].split()}
    return header(function, form, used) | {"groups": records}


def json_text(content: Mapping[str, Any]) -> str:
    """The text of a document: a test a line."""
    lines = ["{"]
    for name, value in content.items():
        if name != "groups":
            lines.append(f' "{name}": {_dumps(value)},')
    lines.append(' "groups": [')
    for number, group in enumerate(content["groups"]):
        lines.append("  {")
        lines += [f'   "{name}": {_dumps(value)},' for name, value in group.items() if name != "tests"]
        lines.append('   "tests": [')
        lines += [f"{_dumps(test)}," for test in group["tests"][:-1]]
        lines += [f"{_dumps(test)}" for test in group["tests"][-1:]]
        lines.append("  ]}" + ("," if number + 1 < len(content["groups"]) else ""))
    return "\n".join([*lines, " ]", "}", ""])


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def twins(content: Mapping[str, Any]) -> dict[str, str]:
    """The text of each twin of a document, by what its file's name has after the function and dtype."""
    form = FORMATS[content["dtype"]]
    kinds: dict[str, list[tuple[Mapping[str, Any], list[Row]]]] = {}
    for group in content["groups"]:
        rows = [_flat(group, dict(zip(group["columns"], test, strict=True)), form) for test in group["tests"]]
        kinds.setdefault("packed.tsv" if group["kind"] == "packed" else "tsv", []).append((group, rows))
    texts = {}
    for suffix, groups in kinds.items():
        names = list(dict.fromkeys(name for _, rows in groups for row in rows[:1] for name in row))
        # What the groups differ in comes in the order of the group that has the most.
        names.sort(key=_place(groups))
        version, function = f"{SCHEMA_NAME} {SCHEMA_VERSION}", content["function"]
        title = f"# {version}: {function} {form.name}, the twin of {function}.{form.name}.json"
        table = ["\t".join(row.get(name, "-") or "-" for name in names) for _, rows in groups for row in rows]
        texts[suffix] = "\n".join([title, "\t".join(names), *table, ""])
    return texts


def _place(groups: Sequence[tuple[Mapping[str, Any], Sequence[Row]]]) -> Any:
    longest = max((list(rows[0]) for _, rows in groups if rows), key=len)
    return lambda name: longest.index(name) if name in longest else len(longest)


def _flat(group: Mapping[str, Any], test: Mapping[str, str], form: Format) -> Row:
    """A test as a row of the twin."""
    row: Row = {"id": test["id"]}
    for name, value in group["parameters"].items():
        row[name] = value if isinstance(value, str) else value["decimal"]
    for name, cell in test.items():
        if name in ("id", "comment") or name.endswith((".exact", ".max")):
            continue
        if name == "beta" and group["kind"] == "elementwise":
            # In one column with the betas that are Python numbers.
            row[name] = repr(decode(from_hex(cell, form), form))
        elif name.endswith(".ulp"):
            quantity = name.removesuffix(".ulp")
            row[name] = cell
            row[f"{quantity}.frac"] = fractions_of(test[f"{quantity}.bits"], test[f"{quantity}.exact"], cell, form)
            row[f"{quantity}.max"] = test.get(f"{quantity}.max") or group["max"][quantity]
        else:
            row[name] = cell.replace("0x", "")
    return row


def fractions_of(bits: str, exact: str, ulp: str, form: Format) -> str:
    """What the exact values of a cell are past their rounded ones, in units of 2^ulp."""
    cells = zip(bits.split(" "), exact.split(" "), ulp.split(" "), strict=True)
    return " ".join(_fraction(from_hex(one, form), decimal, unit, form) for one, decimal, unit in cells)


def _fraction(bits: int, decimal: str, ulp: str, form: Format) -> str:
    exact = Exact(decimal)
    if not exact.finite:
        return "-"
    magnitude = bits & (sign_bit(form) - 1)
    # An infinity stands for the number that would follow the largest.
    rounded = Fraction(decode(magnitude, form) if magnitude < infinity(form) else 2 ** (form.highest + 1))
    if exact.beyond:
        return "-inf" if bits & sign_bit(form) else "inf"
    past = (exact.fraction - (-rounded if bits & sign_bit(form) else rounded)) / Fraction(2) ** int(ulp)
    steps = round(past * 100000)
    whole, digits = divmod(abs(steps), 100000)
    text = f"{whole}.{digits:05d}".rstrip("0").rstrip(".")
    return f"-{text}" if steps < 0 else text
