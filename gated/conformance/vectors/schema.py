"""The JSON Schema of the vectors, which is shipped beside them, and the check of a document against it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from gated.conformance.error import FORMATS
from gated.conformance.vectors.catalogue import FUNCTIONS
from gated.conformance.vectors.expected import columns
from gated.conformance.vectors.flags import FLAGS, MAY
from gated.conformance.vectors.format import SCHEMA_NAME, SCHEMA_VERSION
from gated.contract import ACTIVATIONS, LAYOUTS

__all__ = ["faults", "schema", "schema_text"]

_HEX: Final = "0x(?:[0-9a-f]{16}|[0-9a-f]{8}|[0-9a-f]{4})"
_DECIMAL: Final = r"(?:nan|-?inf|-?0|-?[1-9](?:\.[0-9]{1,39})?e-?(?:0|[1-9][0-9]*)|<1e-20000|>-1e-20000)"
_INTEGER: Final = "-?(?:0|[1-9][0-9]*)"
_BOUND: Final = r"(?:0|[0-9]*\.?[0-9]+)"


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$"}


def _list(pattern: str) -> dict[str, Any]:
    return _text(f"{pattern}(?: {pattern})*")


def _record(properties: Mapping[str, Any], *optional: str) -> dict[str, Any]:
    """An object with these fields and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _cell(name: str, *, single: bool) -> dict[str, Any]:
    """The schema of a column's cells."""
    several = _text if single else _list
    match name.rpartition(".")[2]:
        case "id":
            return _text("[0-9a-f]{8}")
        case "exact":
            return several(_DECIMAL)
        case "ulp":
            return _text(f"(?:{_INTEGER})?") if single else several(_INTEGER)
        case "max":
            return several(_BOUND)
        case "may":
            one = f"[a-z_]+:(?:{'|'.join(MAY)})"
            return _text(f"(?:{one}(?: {one})*)?")
        case "flags":
            one = f"(?:{'|'.join(FLAGS)})"
            return _text(f"(?:{one}(?: {one})*)?")
        case "comment":
            return {"type": "string"}
        case _:
            return several(_HEX)


def _tables() -> Iterator[tuple[str, list[str]]]:
    """Every kind of group with every list of columns that it may have."""
    found: set[tuple[str, ...]] = set()
    biases = ("b", "c", "b2")
    blocks = [(*more, "cotangent") for more in ((), biases, ("beta",))]
    for function in FUNCTIONS.values():
        if function.kind == "projected":
            inputs = {"projected": [("x", "W", "V", "W2", *more) for more in blocks]}
        else:
            plain = (*function.arguments, "cotangent")
            inputs = {"elementwise": [plain]}
            if function.takes_beta:
                inputs["elementwise"].append((*function.arguments, "beta", "cotangent"))
            if function.kind == "unit":
                inputs["packed"] = [("x", "cotangent")]
        parameters: tuple[dict[str, float], ...] = ({}, {"alpha": 2.0}) if function.activation == "swish" else ({},)
        for kind, lists in inputs.items():
            for names in lists:
                for given in parameters:
                    for form in FORMATS.values():
                        table = tuple(columns(function, form, kind, names, given))
                        if (kind, *table) not in found:
                            found.add((kind, *table))
                            yield kind, list(table)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12)."""
    number = _record({"bits": _text("0x[0-9a-f]{16}"), "decimal": _text(r"-?[0-9]+\.[0-9]+(?:e[+-][0-9]+)?")})
    shape = _text("[1-9][0-9]*(?: [1-9][0-9]*)*")
    names = ("x", "W", "V", "W2", "b", "c", "b2", "beta", "cotangent")
    parameters = dict.fromkeys(("beta", "alpha", "limit", "offset"), number)
    parameters |= {"layout": {"enum": list(LAYOUTS)}, "axis": _text(_INTEGER), "shape": shape}
    parameters |= {"activation": {"enum": list(ACTIVATIONS)}} | {f"{name}.shape": shape for name in names}
    tables = list(_tables())
    conditions = [
        {
            "if": {"properties": {"kind": {"const": kind}, "columns": {"const": table}}},
            "then": {
                "properties": {
                    "tests": {
                        "items": {
                            "prefixItems": [_cell(name, single=kind == "elementwise") for name in table],
                            "minItems": len(table),
                            "items": False,
                        }
                    }
                }
            },
        }
        for kind, table in tables
    ]
    text: dict[str, Any] = {"type": "string"}
    group = _record(
        {
            "name": _text("[a-z0-9_.+-]+"),
            "kind": {"enum": list(dict.fromkeys(kind for kind, _ in tables))},
            "about": text,
            "parameters": _record(parameters, *parameters),
            "max": {
                "type": "object",
                "patternProperties": {"^(?:result|d_[a-z]+)$": _text(_BOUND)},
                "additionalProperties": False,
            },
            "columns": {"enum": [table for _, table in tables]},
            "tests": {"type": "array", "minItems": 1, "items": {"type": "array"}},
        }
    )
    notes = _record(
        {
            "reading": text,
            "may": _record(dict.fromkeys(MAY, text)),
            "flags": _record(dict.fromkeys(FLAGS, text), *FLAGS),
        }
    )
    call = _record({"name": text, "approximate": {"enum": ["none", "tanh"]}}, "approximate")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{SCHEMA_NAME} {SCHEMA_VERSION}",
        **_record(
            {
                "schema": _record({"name": {"const": SCHEMA_NAME}, "version": {"const": SCHEMA_VERSION}}),
                "generator": _record({"name": text, "version": text}),
                "function": {"enum": list(FUNCTIONS)},
                "dtype": {"enum": list(FORMATS)},
                "call": call,
                "formula": text,
                "source": text,
                "notes": notes,
                "groups": {"type": "array", "minItems": 1, "items": {**group, "allOf": conditions}},
            }
        ),
    }


def schema_text() -> str:
    """The text of ``schema.json``."""
    return json.dumps(schema(), indent=1) + "\n"


@cache
def _validator() -> Any:
    import jsonschema

    content = schema()
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def faults(content: Any, most: int = 20) -> list[tuple[str, str]]:
    """What in a document is not as the schema has it: where, and what."""
    found = []
    for error in _validator().iter_errors(content):
        where = "/".join(str(step) for step in error.absolute_path)
        found.append((where, error.message if len(error.message) < 200 else error.message[:197] + "..."))
        if len(found) == most:
            break
    return found
