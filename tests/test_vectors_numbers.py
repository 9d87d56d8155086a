"""The numbers of the golden vectors: mpmath finds the same by other formulas, and the twins say the same again."""

from __future__ import annotations

import csv
import math
import random
from fractions import Fraction
from typing import Any

import mpmath
import pytest
from _vectors import (
    ACTIVATIONS,
    DTYPES,
    FOLDER,
    FORMATS,
    UNITS,
    Expected,
    every_test,
    expected,
    inputs,
    load,
    number,
    numbers_of,
    quantities,
    rows_of,
    shape_of,
)

# mpmath, with formulas of its own


def second_opinion(function: str, given: dict[str, Any], parameters: dict[str, float]) -> dict[str, Any]:
    """The result, by other formulas: tanh for sigmoid, ncdf for erfc; the gradients by mpmath's differentiation."""
    mp = mpmath.mp
    beta = mp.mpf(given["beta"]) if "beta" in given else mp.mpf(parameters.get("beta", 1.0))

    def sigmoid(t: Any) -> Any:
        return (1 + mp.tanh(t / 2)) / 2

    def activation(x: Any, b: Any) -> Any:
        if function in ("sigmoid", "glu"):
            return sigmoid(x)
        if function in ("swish", "swiglu"):
            return x * sigmoid(b * x)
        if function in ("gelu", "geglu"):
            return x * mp.ncdf(x)
        if function in ("relu", "reglu"):
            return max(x, mp.mpf(0))
        if function == "bilinear":
            return x
        inner = mp.sqrt(2 / mp.pi) * (x + mp.mpf(44715) / 10**6 * x**3)
        return x * (1 + mp.tanh(inner)) / 2

    def call(gate: Any, value: Any, b: Any) -> Any:
        if function == "clamped_swiglu":
            limit = mp.mpf(parameters["limit"])
            gate, value = min(gate, limit), min(max(value, -limit), limit)
            return gate * sigmoid(mp.mpf(parameters["alpha"]) * gate) * (value + mp.mpf(parameters["offset"]))
        return activation(gate, b) * value

    gate, value = mp.mpf(given.get("x", given.get("gate", 0))), mp.mpf(given.get("value", 1))
    cotangent = mp.mpf(given["cotangent"])
    found = {"result": call(gate, value, beta)}
    first = "d_x" if "x" in given else "d_gate"
    found[first] = cotangent * mp.diff(lambda g: call(g, value, beta), gate)
    if "value" in given:
        found["d_value"] = cotangent * mp.diff(lambda v: call(gate, v, beta), value)
    if "beta" in given:
        found["d_beta"] = cotangent * mp.diff(lambda b: call(gate, value, b), beta)
    return found


@pytest.mark.parametrize("function", [*ACTIVATIONS, *UNITS])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_mpmath_gives_the_same_decimals(function: str, dtype: str) -> None:
    """Values to 38 digits; derivatives, which mpmath takes as differences, to 18."""
    content = load(function, dtype)
    rng = random.Random(f"{function} {dtype}")
    pool = [(g, t) for g, t in every_test(content) if g["name"] in ("random", "beta", "beta-0.1")]
    tried = 0
    # 1 + tanh cancels in the tail: sigmoid(-1000) is 10^-434.
    with mpmath.workdps(1000 if dtype == "float64" else 80):
        for group, test in rng.sample(pool, 20):
            given = {name: number(test[name], dtype) for name in inputs({**group, "tests": []}, dtype)}
            if not all(map(math.isfinite, given.values())) or given.get("beta") == 0 or given.get("x") == 0:
                continue
            for name, value in second_opinion(function, given, numbers_of(group)).items():
                exact = mpmath.mpf(test[f"{name}.exact"])
                unit = mpmath.mpf(2) ** int(test[f"{name}.ulp"])
                digits = 38 if name == "result" else 18
                assert abs(value - exact) <= mpmath.mpf(10) ** -digits * max(abs(exact), 0 if digits == 38 else unit)
                tried += 1
    assert tried >= 20


@pytest.mark.parametrize("function", [*ACTIVATIONS, *UNITS])
def test_python_s_own_rounding_of_the_decimals_gives_the_bits(function: str) -> None:
    """float() of a decimal is correctly rounded; float64 is the dtype it knows. Its 40 digits may be those of a tie."""
    ties, tried = 0, 0
    for group, test in every_test(load(function, "float64")):
        for quantity in quantities(group):
            for one in expected(group, test, quantity):
                if one.exact.lstrip("<>-") == "1e-20000" or one.ulp == "":
                    continue
                tried += 1
                rounded = number(one.bits, "float64")
                if repr(float(one.exact)) != repr(rounded):
                    place = (
                        int(math.copysign(1, rounded)) * Fraction(2) ** 1024
                        if math.isinf(rounded)
                        else Fraction(rounded)
                    )
                    past = (Fraction(one.exact) - place) / Fraction(2) ** int(one.ulp)
                    assert abs(abs(past) - Fraction(1, 2)) < Fraction(1, 10**20)
                    ties += 1
    assert tried > 500 and ties < tried / 50


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_s_value_is_what_mpmath_says(dtype: str) -> None:
    (group,) = [one for one in load("gated_ffn", dtype)["groups"] if one["name"] == "block-swish-b-c-b2"]
    given = {name: numbers for name, (numbers,) in inputs(group, dtype).items()}
    (test,) = rows_of(group)
    with mpmath.workdps(60):
        mp = mpmath.mp

        def matrix(name: str) -> Any:
            shape = shape_of(group, f"{name}.shape")
            rows, columns = shape if len(shape) == 2 else (1, *shape)
            return mp.matrix(rows, columns) + mp.matrix(
                [given[name][i * columns : (i + 1) * columns] for i in range(rows)]
            )

        x, ones = matrix("x"), mp.matrix([[1], [1]])
        gate, value = x * matrix("W") + ones * matrix("b"), x * matrix("V") + ones * matrix("c")
        hidden = mp.matrix(gate.rows, gate.cols)
        for i in range(gate.rows):
            for j in range(gate.cols):
                hidden[i, j] = gate[i, j] * (1 + mp.tanh(gate[i, j] / 2)) / 2 * value[i, j]
        block = hidden * matrix("W2") + ones * matrix("b2")
        cotangent = matrix("cotangent")
        in_w2 = hidden.T * cotangent
        for name, found in (("result", block), ("d_W2", in_w2), ("d_b2", ones.T * cotangent)):
            for one, exact in zip(expected(group, test, name), list(found), strict=True):
                assert abs(mp.mpf(one.exact) - exact) <= mp.mpf(10) ** -38 * abs(exact)


# The twins


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["relu", "swish", "swiglu", "clamped_swiglu", "gated_ffn"])
def test_a_twin_says_the_same(function: str, dtype: str) -> None:
    """Read as csv; frac is what the decimals say, to 5 digits."""
    rows = {}
    for path in FOLDER.glob(f"{function}.{dtype}*.tsv"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        rows |= {row["id"]: row for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)}
    tests = list(every_test(load(function, dtype)))
    assert set(rows) == {test["id"] for _, test in tests}
    for group, test in tests:
        row = rows[test["id"]]
        for name, value in numbers_of(group).items():
            assert float(row[name]) == value
        for column in group["columns"][1 : group["columns"].index("result.bits")]:
            if column == "beta" and group["kind"] == "elementwise":
                assert repr(float(row["beta"])) == repr(number(test["beta"], dtype))
            else:
                assert row[column] == test[column].replace("0x", "")
        for quantity in quantities(group):
            assert row[f"{quantity}.bits"] == test[f"{quantity}.bits"].replace("0x", "")
            fractions = row[f"{quantity}.frac"].split(" ")
            for frac, one in zip(fractions, expected(group, test, quantity), strict=True):
                check_fraction(frac, one, dtype)
        assert row["flags"] == (test["flags"] or "-")
        if group["kind"] == "elementwise":
            assert row["may"] == (test["may"] or "-")


def check_fraction(frac: str, one: Expected, dtype: str) -> None:
    if one.exact in ("nan", "inf", "-inf"):
        assert frac == "-"
        return
    exact = Fraction(0) if one.exact.lstrip("<>-") == "1e-20000" else Fraction(one.exact)
    if frac in ("inf", "-inf"):
        assert abs(exact) > Fraction(10) ** 400 and (exact > 0) == (frac == "inf")
        return
    rounded = number(one.bits, dtype)
    place = (
        Fraction(2) ** (FORMATS[dtype][2] + 1) * (1 if rounded > 0 else -1)
        if math.isinf(rounded)
        else Fraction(rounded)
    )
    past = (exact - place) / Fraction(2) ** int(one.ulp)
    assert abs(past - Fraction(frac)) <= Fraction(1, 200000)
    # The last of 40 digits may be rounded past a tie.
    assert math.isinf(rounded) or abs(past) <= Fraction(1, 2) + Fraction(1, 10**20)
