"""The JSON Schema of the report of ``gated check --json``, and the check of a document against it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from gated.conformance.grading.document import SCHEMA_NAME, SCHEMA_VERSION
from gated.conformance.grading.finding_ids import FINDING_IDS
from gated.conformance.grading.report import ABSENT, FAILURE, NOTE
from gated.contract import ARRAY_PARAMETERS, DTYPES, LAYOUTS

__all__ = ["faults", "schema", "schema_text"]

_ID: Final = "^[a-z0-9]+(-[a-z0-9]+)*$"


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12): no field is optional, none may be added but in evidence."""
    text = {"type": "string"}
    name = {"type": "string", "minLength": 1}
    count = {"type": "integer", "minimum": 0}
    ulp = {
        "anyOf": [{"type": "number", "minimum": 0}, {"const": "inf"}],
        "description": "in ulp; inf: the class is wrong",
    }
    texts = {"type": "object", "additionalProperties": text}
    inputs = {**texts, "description": "by argument: the inputs, in decimal"}
    evidence = {"type": "object", "additionalProperties": {"$ref": "#/$defs/evidence"}}
    region = _record(
        {
            "name": name,
            "inputs": count,
            "failing": count,
            "largest": ulp,
            "at": inputs,
            "computed": text,
            "exact": text,
        }
    )
    row = _record(
        {
            "dtype": {"enum": list(DTYPES)},
            "quantity": {"type": "string", "pattern": "^(value|d [A-Za-z0-9]+)$"},
            "inputs": count,
            "exhaustive": {"type": "boolean", "description": "whether these are all inputs that there are"},
            "failing": {**count, "description": "how many inputs have results past their bound"},
            "error": {**ulp, "description": "the error nearest its bound, in ulp; inf: the class is wrong"},
            "bound": {**ulp, "description": "the bound of that error, in ulp; inf: nothing was judged"},
            "largest": {**ulp, "description": "the largest error whatever its bound, in ulp"},
            "at": inputs,
            "bits": {**texts, "description": "by argument: the inputs, as bit patterns in hex"},
            "computed": text,
            "exact": text,
            "regions": {"type": "array", "items": region},
            "verdict": {"enum": ["pass", "fail"], "description": "fail: inputs are past their bound, known or not"},
        }
    )
    finding = _record(
        {
            "id": {"enum": list(FINDING_IDS)},
            "severity": {"enum": [FAILURE, NOTE, ABSENT]},
            "text": name,
            "dtype": {"enum": ["", *DTYPES], "description": "empty: of no one dtype"},
            "evidence": evidence,
            "known": {**text, "description": "why it is no failure, by the ledger; empty: the ledger does not have it"},
        }
    )
    diagnosis = _record({"id": {"type": "string", "pattern": _ID}, "text": name, "evidence": evidence})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{SCHEMA_NAME} {SCHEMA_VERSION}",
        "description": "What `gated check --json` writes. The strings inf, -inf and nan stand for numbers.",
        **_record(
            {
                "schema": _record({"name": {"const": SCHEMA_NAME}, "version": {"const": SCHEMA_VERSION}}),
                "verdict": {"enum": ["pass", "fail", "error"], "description": "error: it could not be graded"},
                "target": text,
                "function": {"enum": list(ARRAY_PARAMETERS)},
                "form": {"enum": ["unary", "packed", "pair", "projected"]},
                "layout": {"enum": ["", *LAYOUTS]},
                "profile": {"enum": ["contract", "field"]},
                "claim": {**name, "description": "the claim in words"},
                "framework": {**text, "description": "empty where the target could not be loaded"},
                "device": text,
                "budget": {"enum": ["quick", "full", "exhaustive"]},
                "seed": count,
                "versions": texts,
                "seconds": {"type": "number", "minimum": 0},
                "rows": {"type": "array", "items": row},
                "findings": {"type": "array", "items": finding},
                "diagnosis": {"type": "array", "items": diagnosis},
            }
        ),
        "allOf": [_needs("error", {"minItems": 1}), _needs("fail", {"contains": _OPEN}), _needs("pass", _NONE_OPEN)],
        "$defs": {
            "evidence": {
                "anyOf": [
                    {"type": ["string", "number", "boolean", "null"]},
                    {"type": "array", "items": {"$ref": "#/$defs/evidence"}},
                    {"type": "object", "additionalProperties": {"$ref": "#/$defs/evidence"}},
                ]
            }
        },
    }


_OPEN: Final = {"properties": {"severity": {"const": FAILURE}, "known": {"const": ""}}}
"""A failure that the ledger does not have."""
_NONE_OPEN: Final = {"not": {"contains": _OPEN}}


def _record(properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object with all of these fields and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _needs(verdict: str, findings: Mapping[str, Any]) -> dict[str, Any]:
    """The findings that a verdict needs."""
    return {"if": {"properties": {"verdict": {"const": verdict}}}, "then": {"properties": {"findings": dict(findings)}}}


def schema_text() -> str:
    """The text of ``docs/check.schema.json``."""
    return json.dumps(schema(), indent=1) + "\n"


@cache
def _validator() -> Any:
    import jsonschema

    content = schema()
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def faults(content: Any, most: int = 20) -> list[tuple[str, str]]:
    """What in a document is not as the schema has it: where, and what. Needs the package jsonschema."""
    found = []
    for error in _validator().iter_errors(content):
        where = "/".join(str(step) for step in error.absolute_path)
        found.append((where, error.message if len(error.message) < 200 else error.message[:197] + "..."))
        if len(found) == most:
            break
    return found
