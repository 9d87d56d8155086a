"""What the vectors are made with: bit patterns, decimals, bisection, near ties, random streams, flags."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import any_bits

from gated.conformance.error import FORMATS, Format
from gated.conformance.oracle import Rounded, correctly_rounded
from gated.conformance.vectors import FUNCTIONS, _numbers, expected
from gated.conformance.vectors._near_ties import double_rounded
from gated.conformance.vectors._points import Group, Point, binade_of
from gated.conformance.vectors._streams import Stream
from gated.conformance.vectors._thresholds import boundary
from gated.conformance.vectors.flags import FLAGS, flags, leeway
from gated.conformance.vectors.schema import faults
from gated.conformance.vectors.writer import file_texts, groups_of

forms = st.sampled_from(list(FORMATS.values()))


@st.composite
def patterns(draw: st.DrawFn) -> tuple[int, Format]:
    form = draw(forms)
    return draw(any_bits(form).one()), form


def viewed(bits: int, form: Format) -> float:
    """The number as NumPy sees it."""
    with np.errstate(invalid="ignore"):
        return float(np.array(bits, form.bits).view(form.dtype).astype(np.float64))


# Bit patterns


@given(patterns())
def test_a_bit_pattern_is_the_number_that_numpy_sees(one: tuple[int, Format]) -> None:
    bits, form = one
    assert repr(_numbers.decode(bits, form)) == repr(viewed(bits, form)).replace("-nan", "nan")


@given(patterns())
def test_there_and_back(one: tuple[int, Format]) -> None:
    bits, form = one
    number = _numbers.decode(bits, form)
    expected_bits = _numbers.canonical_nan(form) if math.isnan(number) else bits
    assert _numbers.bits_of(number, form) == expected_bits
    assert _numbers.unorder(_numbers.order(bits, form), form) == bits
    assert _numbers.from_hex(_numbers.as_hex(bits, form), form) == bits


@given(forms, st.floats(allow_nan=False))
def test_the_nearest_number_is_numpy_s_cast(form: Format, x: float) -> None:
    with np.errstate(over="ignore"):
        cast = np.float64(x).astype(form.dtype)
    assert _numbers.bits_of(x, form) == int(cast.view(form.bits))


@given(patterns(), patterns())
def test_the_order_is_that_of_the_numbers(one: tuple[int, Format], other: tuple[int, Format]) -> None:
    form = one[1]
    a, b = one[0], other[0] & (2 ** _numbers.width(form) - 1)
    x, y = _numbers.decode(a, form), _numbers.decode(b, form)
    if x < y:
        assert _numbers.order(a, form) < _numbers.order(b, form)


@given(patterns())
def test_a_binade_holds_its_number(one: tuple[int, Format]) -> None:
    bits, form = one
    exponent, number = binade_of(bits, form), viewed(bits, form)
    assert exponent == (None if number == 0 or not math.isfinite(number) else math.frexp(number)[1] - 1)


# Decimals


@given(st.integers(10**44, 10**45 - 1), st.integers(-400, 400), st.booleans())
def test_a_decimal_is_shortened_by_at_most_half_its_last_digit(digits: int, exponent: int, negative: bool) -> None:
    text = f"{'-' if negative else ''}{str(digits)[0]}.{str(digits)[1:]}e{exponent:+d}"
    short = _numbers.shorten(text)
    assert abs(Fraction(short) - Fraction(text)) <= Fraction(10) ** (exponent - 39) / 2
    mantissa = short.lstrip("-").partition("e")[0]
    assert len(mantissa.replace(".", "")) <= 40 and mantissa[0] in "123456789"
    assert "." not in mantissa or mantissa[-1] not in "0."


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("9." + 44 * "9" + "e-1", "1e0"),
        ("9." + 30 * "9" + 14 * "8" + "e-1", "9." + 30 * "9" + 8 * "8" + "9e-1"),
        ("5." + 44 * "0" + "e-1", "5e-1"),
        ("1.5e+10", "1.5e10"),
        ("<1e-20000", "<1e-20000"),
        ("-0", "-0"),
        ("nan", "nan"),
    ],
)
def test_decimals_are_shortened(long: str, short: str) -> None:
    assert _numbers.shorten(long) == short


@given(st.floats(1e-300, 1e300))
def test_a_bound_is_rounded_up_to_four_digits(bound: float) -> None:
    text = _numbers.up_to_digits(bound)
    assert Decimal(text) >= Decimal(bound) * (1 - Decimal("1e-12"))
    assert Decimal(text) <= Decimal(bound) * (1 + Decimal("1e-3"))
    assert len(text.strip("0.").replace(".", "").rstrip("0")) <= 4


@pytest.mark.parametrize(
    ("bound", "text"), [(0.51, "0.51"), (5.0, "5"), (8.000001, "8.001"), (0.0, "0"), (1e5, "100000")]
)
def test_bounds_are_written_plainly(bound: float, text: str) -> None:
    assert _numbers.up_to_digits(bound) == text


@pytest.mark.parametrize(
    ("text", "below", "fraction"),
    [
        ("1.5e-3", True, Fraction(3, 2000)),
        ("-2e0", False, Fraction(-2)),
        ("0", False, Fraction(0)),
        ("<1e-20000", True, Fraction(0)),
        (">-1e-20000", True, Fraction(0)),
        ("-3.5e-9000", True, Fraction(0)),
    ],
)
def test_an_exact_value_is_compared_without_its_thousand_digits(text: str, below: bool, fraction: Fraction) -> None:
    exact = _numbers.Exact(text)
    assert (exact.below(Fraction(1)), exact.fraction) == (below, fraction)
    assert _numbers.Exact("2e9000").beyond and not _numbers.Exact("2e9000").below(Fraction(10) ** 350)


# Near ties


def once(value: Fraction, precision: int) -> Fraction:
    """Rounded to nearest, ties to even, with no limit to the exponent."""
    exponent = 0
    while value >= 2**precision:
        value, exponent = value / 2, exponent + 1
    while value < 2 ** (precision - 1):
        value, exponent = value * 2, exponent - 1
    return round(value) * Fraction(2) ** exponent


@settings(max_examples=30, deadline=None)
@given(st.integers(2**190, 2**191 - 1), st.integers(185, 200), st.sampled_from([(8, 12), (8, 13), (11, 16)]))
def test_all_that_is_rounded_otherwise_by_way_of_a_wider_format_is_found(
    digits: int, scale: int, precisions: tuple[int, int]
) -> None:
    factor, (precision, wider) = Fraction(digits, 2**scale), precisions
    significands = range(2 ** (precision - 1), 2**precision)
    brute = {n for n in significands if once(once(factor * n, wider), precision) != once(factor * n, precision)}
    assert set(double_rounded(factor, precision, wider)) == brute


# Bisection


@given(forms, st.floats(0.1, 100.0))
def test_a_boundary_is_where_the_condition_changes(form: Format, where: float) -> None:
    pair = boundary(lambda bits: _numbers.decode(bits, form) <= where, 0.0625, 1000.0, form)
    assert pair is not None
    assert pair[1] - pair[0] == 1
    assert _numbers.decode(pair[0], form) <= where < _numbers.decode(pair[1], form)


def test_without_a_change_there_is_no_boundary() -> None:
    form = FORMATS["float16"]
    assert boundary(lambda bits: True, -1.0, 1.0, form) is None
    assert boundary(lambda bits: False, -1.0, 1.0, form) is None
    # -0.0 comes just before +0.0.
    assert boundary(lambda bits: bits >= 0x8000, -1.0, 1.0, form) == (0x8000, 0x0000)


# Streams


def test_a_stream_is_for_ever() -> None:
    """SHA-256 of "a/b/0", "a/b/1", ...: the first 64 bits, scaled."""
    stream = Stream("a", "b")
    assert [stream.below(1000) for _ in range(6)] == [620, 158, 984, 291, 649, 600]
    assert [stream.between(-2, 2) for _ in range(4)] == [2, 0, -2, -2]


@given(forms, st.integers(0, 2**32), st.data())
def test_a_number_is_in_the_binade_that_is_asked_for(form: Format, label: int, data: st.DataObject) -> None:
    stream = Stream(str(label))
    exponent = data.draw(st.integers(form.lowest - form.precision + 1, form.highest))
    bits = stream.in_binade(exponent, form)
    assert binade_of(bits, form) == exponent
    assert _numbers.decode(stream.in_binade(exponent, form, sign=-1), form) < 0
    assert math.isfinite(_numbers.decode(stream.pattern(form), form))
    reach = 10 if form.name == "float16" else 16
    assert 2.0**-reach <= abs(_numbers.decode(stream.cotangent(form), form)) < 2.0**reach


# Flags and choices, against tables


def flagged(name: str, dtype: str, inputs: dict[str, float], parameters: Mapping[str, Any] | None = None) -> set[str]:
    function, form = FUNCTIONS[name], FORMATS[dtype]
    inputs = {"cotangent": 1.0} | inputs
    quantities = expected.quantities_of(function, "elementwise", tuple(inputs))
    rounded = expected._elementwise(function, form, parameters or {}, inputs, quantities)
    return set(flags(function, form, inputs, parameters or {}, rounded))


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("name", "dtype", "inputs", "parameters", "found"),
    [
        ("swish", "float32", {"x": 1.0}, {}, set()),
        ("swish", "float32", {"x": 0.0}, {}, {"zero"}),
        ("swish", "float32", {"x": -20.0}, {}, {"tail"}),
        ("swish", "float32", {"x": -16.0}, {}, set()),
        ("swish", "float32", {"x": -91.2}, {}, {"tail", "hidden-subnormal"}),
        ("swish", "float32", {"x": -100.0}, {}, {"tail", "subnormal"}),
        ("swish", "float32", {"x": -INF}, {}, {"limit", "zero"}),
        ("swish", "float32", {"x": NAN}, {}, {"nan"}),
        ("swish", "bfloat16", {"x": -1.28125}, {}, {"cancellation"}),
        ("swish", "float32", {"x": 3.0, "beta": 0.0}, {}, {"beta-zero"}),
        ("swish", "float32", {"x": 30.0, "beta": -1.0}, {}, {"beta-negative", "tail"}),
        ("swish", "float32", {"x": 0.25, "beta": 10.0}, {}, {"beta-large"}),
        ("swish", "float32", {"x": 0.25}, {"beta": 10.0}, {"beta-large"}),
        ("sigmoid", "float16", {"x": -8.5}, {}, {"tail"}),
        ("gelu", "float64", {"x": -9.0}, {}, {"tail"}),
        ("gelu", "float64", {"x": -37.7}, {}, {"tail", "hidden-subnormal", "subnormal"}),
        ("relu", "float16", {"x": -3.0}, {}, {"zero"}),
        ("glu", "float16", {"gate": 3.0, "value": INF}, {}, {"infinite-value"}),
        ("swiglu", "float16", {"gate": 60000.0, "value": 2.0}, {}, {"overflow"}),
        ("swiglu", "float32", {"gate": -95.0, "value": 2.0**60}, {}, {"tail", "hidden-subnormal", "subnormal"}),
        ("clamped_swiglu", "float32", {"gate": 8.0, "value": 1.0}, {}, {"clamped", "zero"}),
        ("clamped_swiglu", "float32", {"gate": 7.0, "value": -7.0}, {}, set()),
    ],
)
def test_flags(name: str, dtype: str, inputs: dict[str, float], parameters: dict[str, float], found: set[str]) -> None:
    if name == "clamped_swiglu":
        parameters = {"alpha": 1.702, "limit": 7.0, "offset": 1.0}
    # Rounding twice is a matter of chance.
    assert flagged(name, dtype, inputs, parameters) - {"double-rounding"} == found
    assert found <= set(FLAGS)


def choice(name: str, dtype: str, inputs: dict[str, float], quantity: str, parameters: Mapping[str, Any]) -> str:
    function, form = FUNCTIONS[name], FORMATS[dtype]
    rounded: Rounded = correctly_rounded(
        function.call, quantity, form, inputs, static={**function.static, **parameters}
    )
    return leeway(function, form, inputs, parameters, quantity, rounded, 8.0)


# The derivative of swish is 0 at -1.2784645427610738 (nearest below: 2^-53 or so of its terms).
ROOT = -1.2784645427610738
CLAMP = {"alpha": 1.702, "limit": 7.0, "offset": 1.0}


@pytest.mark.parametrize(
    ("name", "dtype", "inputs", "quantity", "parameters", "may"),
    [
        ("swish", "float32", {"x": -0.0}, "result", {}, ""),
        ("swish", "float32", {"x": -INF}, "d_x", {}, "zero"),
        ("swish", "float32", {"x": -100.0}, "result", {}, "flush"),
        ("swish", "float32", {"x": -100.0}, "d_x", {}, "zero"),
        ("swish", "float32", {"x": -90.0}, "result", {}, ""),
        ("swish", "float32", {"x": -90.0}, "d_x", {}, ""),
        ("swish", "float64", {"x": ROOT}, "d_x", {}, "zero"),
        ("swish", "float64", {"x": ROOT}, "d_beta", {}, ""),
        ("sigmoid", "float32", {"x": -100.0}, "d_x", {}, "flush"),
        ("sigmoid", "float32", {"x": -1000.0}, "d_x", {}, "flush"),
        ("relu", "float32", {"x": -1.0}, "d_x", {}, "zero"),
        ("relu", "float32", {"x": -1.0}, "result", {}, ""),
        ("reglu", "float32", {"gate": -1.0, "value": 2.0}, "d_gate", {}, "zero"),
        ("reglu", "float32", {"gate": -1.0, "value": 2.0}, "d_value", {}, ""),
        ("swiglu", "float64", {"gate": ROOT, "value": INF}, "d_gate", {}, "any"),
        ("swiglu", "float64", {"gate": -1.25, "value": INF}, "d_gate", {}, ""),
        # In the tail the terms do not cancel, however small they are.
        ("swiglu", "float32", {"gate": -200.0, "value": INF}, "d_gate", {}, ""),
        ("swiglu", "float64", {"gate": -1e9, "value": INF}, "d_gate", {}, ""),
        ("swiglu", "float64", {"gate": ROOT, "value": 1.7e308, "cotangent": 64.0}, "d_gate", {}, "any"),
        ("swiglu", "float32", {"gate": ROOT, "value": 3e38, "cotangent": 64.0}, "d_gate", {}, "zero"),
        ("clamped_swiglu", "float32", {"gate": 8.0, "value": 1.0}, "d_gate", CLAMP, "zero"),
        ("clamped_swiglu", "float32", {"gate": 1.0, "value": 8.0}, "d_value", CLAMP, "zero"),
        ("clamped_swiglu", "float32", {"gate": 0.0, "value": 1.0}, "d_value", CLAMP, ""),
    ],
)
def test_choices(
    name: str, dtype: str, inputs: dict[str, float], quantity: str, parameters: dict[str, float], may: str
) -> None:
    form = FORMATS[dtype]
    inputs = {key: _numbers.decode(_numbers.bits_of(one, form), form) for key, one in inputs.items()}
    assert choice(name, dtype, inputs, quantity, parameters) == may


# Ids


def test_an_id_depends_on_its_own_inputs_alone() -> None:
    function, form = FUNCTIONS["relu"], FORMATS["float16"]
    points = [Point({"x": (bits,), "cotangent": (0x3C00,)}) for bits in (0x3C00, 0x4000)]
    both = expected.rows(function, form, Group("a", "elementwise", "", tuple(points)))
    alone = expected.rows(function, form, Group("b", "elementwise", "other", tuple(points[1:])))
    assert alone[0]["id"] == both[1]["id"] != both[0]["id"]


def test_a_parameter_makes_another_id() -> None:
    function, form = FUNCTIONS["swish"], FORMATS["float16"]
    point = Point({"x": (0x3C00,), "cotangent": (0x3C00,)})
    groups = [Group("a", "elementwise", "", (point,), {"beta": beta}) for beta in (1.0, 2.0)]
    assert len({expected.rows(function, form, group)[0]["id"] for group in groups}) == 2


def test_the_same_file_comes_of_every_hash_seed(tmp_path: Path) -> None:
    """Nothing hangs on the order of a set: the seed of str hashes is another in each process."""
    import os
    import subprocess
    import sys

    code = (
        "from gated.conformance.vectors.writer import *; import sys; sys.stdout.write(str(file_texts('swish.float16')))"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert made[0] == made[1]
    assert json.loads(file_texts("swish.float16")["swish.float16.json"])["function"] == "swish"


def test_the_document_is_checked_by_the_schema_before_anything_else() -> None:
    content = json.loads(file_texts("relu.float16")["relu.float16.json"])
    assert faults(content) == []
    content["groups"][0]["tests"][0][1] = 1.0
    assert faults(content) == [("groups/0/tests/0/1", "1.0 is not of type 'string'")]
    assert {group.name for group in groups_of("relu.float16")} == {group["name"] for group in content["groups"]}
