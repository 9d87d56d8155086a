"""A reader of the golden vectors, written from docs/vectors.md: no code of what writes and verifies them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import gated

FOLDER = Path(gated.__file__).parent / "vectors"
DTYPES = ("float16", "bfloat16", "float32", "float64")
ACTIVATIONS = ("sigmoid", "swish", "gelu", "gelu_tanh", "relu")
UNITS = ("glu", "bilinear", "reglu", "geglu", "geglu_tanh", "swiglu", "clamped_swiglu")
FUNCTIONS = (*ACTIVATIONS, *UNITS, "gated_ffn")

# Bits of the significand, and the exponents of the smallest normal number and of the largest binade.
FORMATS = {
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}
WIDTHS = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}


def load(function: str, dtype: str, folder: Path = FOLDER) -> Any:
    return json.loads((folder / f"{function}.{dtype}.json").read_text())


def rows_of(group: Any) -> list[dict[str, str]]:
    return [dict(zip(group["columns"], test, strict=True)) for test in group["tests"]]


def every_test(content: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    for group in content["groups"]:
        for test in rows_of(group):
            yield group, test


def number(bits: str, dtype: str) -> float:
    """The number of a bit pattern in hex."""
    precision, lowest, highest = FORMATS[dtype]
    pattern = int(bits, 16)
    sign = -1.0 if pattern >> (WIDTHS[dtype] - 1) else 1.0
    pattern &= (1 << (WIDTHS[dtype] - 1)) - 1
    exponent, fraction = pattern >> (precision - 1), pattern & ((1 << (precision - 1)) - 1)
    if exponent == highest - lowest + 2:
        return math.nan if fraction else sign * math.inf
    leading = 1 << (precision - 1) if exponent else 0
    return sign * math.ldexp(leading + fraction, max(exponent, 1) - 1 + lowest - precision + 1)


def inputs(group: Any, dtype: str) -> dict[str, list[list[float]]]:
    """The inputs of a group by name: of each test its numbers."""
    names = group["columns"][1 : group["columns"].index("result.bits")]
    return {name: [[number(one, dtype) for one in test[name].split()] for test in rows_of(group)] for name in names}


def quantities(group: Any) -> list[str]:
    return [column.removesuffix(".bits") for column in group["columns"] if column.endswith(".bits")]


def numbers_of(group: Any) -> dict[str, float]:
    """The parameters of a group that are numbers."""
    return {name: float(one["decimal"]) for name, one in group["parameters"].items() if isinstance(one, dict)}


def shape_of(group: Any, name: str) -> tuple[int, ...]:
    """A parameter of a group that is a shape."""
    return tuple(map(int, group["parameters"][name].split()))


@dataclass(frozen=True)
class Expected:
    """What is expected of one number."""

    bits: str
    exact: str
    ulp: str
    most: str
    may: str


def expected(group: Any, test: dict[str, str], quantity: str) -> list[Expected]:
    bits, exact = test[f"{quantity}.bits"].split(" "), test[f"{quantity}.exact"].split(" ")
    ulp = test[f"{quantity}.ulp"].split(" ")
    most = (test.get(f"{quantity}.max") or group["max"][quantity]).split(" ")
    may = dict(one.split(":") for one in test.get("may", "").split()).get(quantity, "")
    most = most * len(bits) if len(most) == 1 else most
    return [Expected(*one, may) for one in zip(bits, exact, ulp, most, strict=True)]


def error(got: float, one: Expected, dtype: str, *, flushes: bool = False) -> float:
    """The error in the unit of the test, by the steps of docs/vectors.md; infinite where the kind is wrong."""
    _, lowest, highest = FORMATS[dtype]
    if one.may == "any":
        return 0.0
    if one.exact in ("nan", "inf", "-inf"):
        exact = float(one.exact)
        return 0.0 if got == exact or (math.isnan(got) and math.isnan(exact)) else math.inf
    if math.isnan(got):
        return math.inf
    negative = math.copysign(1.0, number(one.bits, dtype)) < 0
    exact = Fraction(0) if one.exact.lstrip("<>-").startswith("1e-20000") else Fraction(one.exact)
    if got == 0:
        if one.may != "zero" and (math.copysign(1.0, got) < 0) != negative:
            return math.inf
        if one.may and flushes and abs(exact) < Fraction(2) ** lowest:
            return 0.0
    if math.isinf(got):
        end = Fraction(2) ** (highest + 1)
        if (got < 0) == negative and abs(exact) >= end:
            return 0.0
        place = end if got > 0 else -end
    else:
        place = Fraction(got)
    # Past what a float holds it is far off all the same.
    return float(min(abs(place - exact) / Fraction(2) ** int(one.ulp), 10**300))
