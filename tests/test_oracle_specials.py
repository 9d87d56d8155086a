"""The oracle's rules against tables written out: limits at infinity, nan, the signs of zeros, clamps, and bad calls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import any_bits, every_dtype

pytest.importorskip("flint")

from gated.conformance.error import FORMATS, Format
from gated.conformance.limits import special_products
from gated.conformance.oracle import QUANTITIES, correctly_rounded

INF: Final = math.inf
NAN: Final = math.nan
E: Final = "a zero of either sign"


def value_of(bits: int, form: Format) -> float:
    return float(np.array(bits).astype(form.bits).view(form.dtype))


def expect(
    function: str,
    quantity: str,
    inputs: Mapping[str, float],
    expected: float | str,
    dtype: str = "float32",
    **static: Any,
) -> None:
    """The bits and the decimal are those of ``expected``."""
    form = FORMATS[dtype]
    got = correctly_rounded(function, quantity, form, inputs, static=static)
    number = value_of(got.bits, form)
    where = (function, quantity, inputs, static, got)
    if isinstance(expected, str):
        assert number == 0, where
        return
    if math.isnan(expected):
        quiet = {"float16": 0x7E00, "bfloat16": 0x7FC0, "float32": 0x7FC00000, "float64": 0x7FF8000000000000}
        assert (got.bits, got.decimal, got.ulp_exponent) == (quiet[dtype], "nan", None), where
        return
    assert number == expected and math.copysign(1, number) == math.copysign(1, expected), where
    if math.isinf(expected):
        assert got.decimal == ("inf" if expected > 0 else "-inf") and got.ulp_exponent is None, where
    elif expected == 0:
        # Zero, or below all decimals.
        assert got.decimal in (("0", "<1e-20000") if math.copysign(1, expected) > 0 else ("-0", ">-1e-20000")), where
        assert got.ulp_exponent == form.lowest - form.precision + 1, where


# Activations, cotangent 1: x, beta -> result, d_x, d_beta, d_x_x, d_x_beta, d_beta_beta

SWISH = (
    (INF, 1.0, INF, 1.0, E, E, E, E),
    (-INF, 1.0, -0.0, E, E, E, E, E),
    (INF, -2.0, 0.0, E, E, E, E, E),
    (-INF, -2.0, -INF, 1.0, E, E, E, E),
    # At z = 0 swish is x / 2 + beta x^2 / 4, also where the other factor of z is infinite.
    (INF, 0.0, INF, 0.5, INF, E, INF, E),
    (-INF, -0.0, -INF, 0.5, INF, E, -INF, E),
    (0.0, INF, 0.0, 0.5, E, INF, E, E),
    (-0.0, -INF, -0.0, 0.5, E, -INF, E, E),
    (2.0, INF, 2.0, 1.0, E, E, E, E),
    (-2.0, INF, -0.0, E, E, E, E, E),
    (2.0, -INF, 0.0, E, E, E, E, E),
    (-INF, INF, -0.0, E, E, E, E, E),
    (INF, INF, INF, 1.0, E, E, E, E),
    (0.0, 1.0, 0.0, 0.5, 0.0, 0.5, E, E),
    (-0.0, 2.0, -0.0, 0.5, 0.0, 1.0, E, E),
    (3.0, 0.0, 1.5, 0.5, 2.25, E, 1.5, E),
    (-3.0, -0.0, -1.5, 0.5, 2.25, E, -1.5, E),
    (NAN, 1.0, NAN, NAN, NAN, NAN, NAN, NAN),
    (1.0, NAN, NAN, NAN, NAN, NAN, NAN, NAN),
    (0.0, NAN, NAN, NAN, NAN, NAN, NAN, NAN),
)

# x -> result, d_x, d_x_x
OTHERS: Mapping[tuple[str, str], tuple[tuple[float | str, ...], ...]] = {
    ("sigmoid", ""): ((INF, 1.0, 0.0, E), (-INF, 0.0, 0.0, E), (0.0, 0.5, 0.25, E), (-0.0, 0.5, 0.25, E), (NAN,) * 4),
    ("silu", ""): ((INF, INF, 1.0, E), (-INF, -0.0, E, E), (-0.0, -0.0, 0.5, 0.5), (NAN,) * 4),
    ("gelu", "none"): ((INF, INF, 1.0, E), (-INF, -0.0, E, E), (-0.0, -0.0, 0.5, 0.7978845608028654), (NAN,) * 4),
    ("gelu", "tanh"): ((INF, INF, 1.0, E), (-INF, -0.0, E, E), (0.0, 0.0, 0.5, 0.7978845608028654), (NAN,) * 4),
    ("relu", ""): (
        (INF, INF, 1.0, E),
        (-INF, 0.0, 0.0, E),
        (-3.0, 0.0, 0.0, E),
        (-0.0, -0.0, 0.0, E),
        (0.0, 0.0, 0.0, E),
        (5.0, 5.0, 1.0, E),
        (NAN,) * 4,
    ),
}


@every_dtype
def test_swish_meets_the_table(dtype: str) -> None:
    for x, beta, *row in SWISH:
        for quantity, expected in zip(QUANTITIES["swish"], row, strict=True):
            expect("swish", quantity, {"x": x, "beta": beta}, expected, dtype)


@pytest.mark.parametrize(("function", "approximate"), list(OTHERS))
def test_activations_meet_the_table(function: str, approximate: str) -> None:
    static = {"approximate": approximate} if approximate else {}
    for x, *row in OTHERS[function, approximate]:
        for quantity, expected in zip(QUANTITIES[function], row, strict=True):
            assert not isinstance(x, str)
            expect(function, quantity, {"x": x}, expected, "float64", **static)


def test_a_cotangent_is_a_factor_of_every_derivative_and_of_no_value() -> None:
    for x, c, slope, bend in (
        (INF, -3.0, -3.0, E),
        (INF, INF, INF, NAN),
        (-INF, INF, NAN, NAN),
        (0.0, -INF, -INF, -INF),
    ):
        expect("silu", "result", {"x": x, "cotangent": c}, -0.0 if x < 0 else x)
        expect("silu", "d_x", {"x": x, "cotangent": c}, slope)
        expect("silu", "d_x_x", {"x": x, "cotangent": c}, bend)
    # 0 is the only second derivative that an infinite cotangent makes nan; where there is one, its sign decides.
    expect("silu", "d_x_x", {"x": -1e4, "cotangent": INF}, -INF)
    expect("gelu", "d_x_x", {"x": 1e30, "cotangent": INF}, -INF)
    expect("sigmoid", "d_x_x", {"x": -1e38, "cotangent": -INF}, -INF)
    expect("sigmoid", "d_x_x", {"x": 0.0, "cotangent": INF}, NAN)
    expect("swish", "d_beta_beta", {"x": -2.0, "beta": 3.0, "cotangent": INF}, -INF)
    expect("relu", "d_x", {"x": 0.0, "cotangent": INF}, NAN)
    expect("relu", "d_x", {"x": 5e-324, "cotangent": -INF}, -INF, "float64")
    expect("silu", "d_x", {"x": 1.0, "cotangent": NAN}, NAN)
    expect("silu", "result", {"x": 0.0, "cotangent": NAN}, 0.0)


# Units, cotangent c: gate, value, c -> result, d_gate, d_value

UNITS: Mapping[str, tuple[tuple[float | str, ...], ...]] = {
    "glu": (
        (-INF, -2.0, 1.0, -0.0, E, 0.0),
        (INF, INF, 1.0, INF, NAN, 1.0),
        (-INF, INF, 1.0, NAN, NAN, 0.0),
        (-1e30, INF, 1.0, INF, INF, E),
        (0.0, -0.0, 1.0, -0.0, -0.0, 0.5),
        (1.0, NAN, 1.0, NAN, NAN, 0.7310585975646973),
        (NAN, 0.0, 1.0, NAN, NAN, NAN),
    ),
    "bilinear": (
        (INF, -2.0, 1.0, -INF, -2.0, INF),
        (-0.0, 2.0, -1.0, -0.0, -2.0, 0.0),
        (0.0, INF, 1.0, NAN, INF, 0.0),
        (NAN, 2.0, 3.0, NAN, 6.0, NAN),
        (2.0, NAN, 3.0, NAN, NAN, 6.0),
        (2.0, 0.0, INF, 0.0, NAN, INF),
    ),
    "reglu": (
        (-2.0, -3.0, 1.0, -0.0, E, 0.0),
        (-0.0, -3.0, 1.0, 0.0, E, -0.0),
        (-2.0, INF, 1.0, NAN, NAN, 0.0),
        (0.0, INF, 1.0, NAN, NAN, 0.0),
        (5e-45, INF, -1.0, INF, -INF, -1.401298464324817e-45 * 4),
        (INF, 0.0, 1.0, NAN, 0.0, INF),
        (NAN, 3.0, 1.0, NAN, NAN, NAN),
        (2.0, NAN, 1.0, NAN, NAN, 2.0),
    ),
    "swiglu": (
        (-INF, -2.0, 1.0, 0.0, E, -0.0),
        (INF, 0.0, 1.0, NAN, E, INF),
        (0.0, INF, 1.0, NAN, INF, 0.0),
        (-INF, INF, 1.0, NAN, NAN, -0.0),
        (-1e30, INF, 1.0, -INF, -INF, E),
        (-1e30, 1.0, INF, -0.0, -INF, -INF),
        (-1.0, -INF, 1.0, INF, -INF, -0.2689414322376251),
        (-1.25, -INF, -1.0, INF, INF, 0.27837517857551575),
        (-1.3125, INF, 1.0, -INF, -INF, -0.27834030985832214),
        (1.0, INF, 0.0, INF, NAN, 0.0),
        (NAN, 0.0, 1.0, NAN, NAN, NAN),
        (0.0, NAN, 1.0, NAN, NAN, 0.0),
    ),
    "geglu": (
        (-INF, -2.0, 1.0, 0.0, E, -0.0),
        (-1e30, INF, 1.0, -INF, -INF, E),
        (-0.0, -2.0, 1.0, 0.0, -1.0, -0.0),
        (INF, -INF, 1.0, -INF, -INF, INF),
        (0.0, INF, INF, NAN, INF, NAN),
    ),
}


@pytest.mark.parametrize("function", list(UNITS))
def test_units_meet_the_table(function: str) -> None:
    for gate, value, cotangent, *row in UNITS[function]:
        inputs = {"gate": gate, "value": value, "cotangent": cotangent}
        for quantity, expected in zip(("result", "d_gate", "d_value"), row, strict=True):
            expect(function, quantity, inputs, expected)  # type: ignore[arg-type]


def test_the_gated_unit_is_the_unit_of_its_activation() -> None:
    names = {"sigmoid": "glu", "identity": "bilinear", "relu": "reglu", "gelu": "geglu", "swish": "swiglu"}
    for activation, function in names.items():
        for gate, value, cotangent, *_ in UNITS[function]:
            inputs = {"gate": gate, "value": value, "cotangent": cotangent}
            for quantity in ("result", "d_gate", "d_value"):
                form = FORMATS["float32"]
                one = correctly_rounded("gated_unit", quantity, form, inputs, static={"activation": activation})  # type: ignore[arg-type]
                assert one == correctly_rounded(function, quantity, form, inputs)  # type: ignore[arg-type]
    # beta matters to swish alone, even a nan.
    unit = {"gate": 2.0, "value": 3.0, "beta": NAN}
    expect("gated_unit", "result", unit, NAN)
    expect("gated_unit", "result", unit, 6.0, activation="relu")
    expect("gated_unit", "d_beta", unit, 0.0, activation="relu")
    expect("gated_unit", "d_beta", {"gate": -INF, "value": 3.0, "beta": 0.0}, INF)


# The clamp: gate, value -> result, d_gate, d_value of alpha = 0, limit 7, offset 1: g / 2 (v + 1)

CLAMPED = (
    (2.0, 3.0, 4.0, 2.0, 1.0),
    (7.0, 7.0, 28.0, 4.0, 3.5),
    (7.5, 3.0, 14.0, E, 3.5),
    (INF, -7.5, -21.0, E, E),
    (-9.0, INF, -36.0, 4.0, E),
    (-9.0, -7.0, 27.0, -3.0, -4.5),
    (-INF, 3.0, -INF, 2.0, -INF),
    (-INF, 8.0, -INF, 4.0, NAN),
    (-0.0, -1.0, -0.0, E, -0.0),
    (-3.0, -1.0, -0.0, E, -1.5),
    (NAN, 3.0, NAN, NAN, NAN),
    (3.0, NAN, NAN, NAN, NAN),
)


@every_dtype
def test_the_clamp_meets_the_table(dtype: str) -> None:
    for gate, value, *row in CLAMPED:
        for quantity, expected in zip(QUANTITIES["clamped_swiglu"], row, strict=True):
            expect("clamped_swiglu", quantity, {"gate": gate, "value": value}, expected, dtype, alpha=0.0)


def test_the_clamp_at_other_numbers() -> None:
    no_offset = {"offset": 0.0, "limit": INF, "alpha": 0.0}
    expect("clamped_swiglu", "result", {"gate": 3.0, "value": -0.0}, -0.0, **no_offset)
    expect("clamped_swiglu", "result", {"gate": INF, "value": 1e30}, INF, **no_offset)
    expect("clamped_swiglu", "d_value", {"gate": 3.0, "value": NAN}, NAN, **no_offset)
    expect("clamped_swiglu", "result", {"gate": 3.0, "value": 1.0}, 0.0, offset=-0.5, limit=0.5)
    # A limit keeps its double value: 0.1 is not bfloat16's 0.10009765625, which is past it.
    near = {"gate": 0.10009765625, "value": 1.0}
    expect("clamped_swiglu", "d_gate", near, E, "bfloat16", limit=0.1)
    expect("clamped_swiglu", "d_gate", near, 0.55078125, "bfloat16", limit=0.1001, alpha=0.0)
    # Masks multiply: 0 times an infinite cotangent is nan.
    for quantity in ("d_gate", "d_value"):
        expect("clamped_swiglu", quantity, {"gate": 8.0, "value": 8.0, "cotangent": INF}, NAN)
        expect("clamped_swiglu", quantity, {"gate": 8.0, "value": 8.0, "cotangent": 1e38}, E)


# Agreement with the array rules that the runner uses


@every_dtype
def test_special_products_are_those_of_the_array_rules(dtype: str) -> None:
    """Wherever an operand is not finite: the same class and sign, and the same number to an ulp of float64."""
    form = FORMATS[dtype]
    partials = {"result": "value", "d_gate": "x", "d_value": "value", "d_beta": "beta"}
    bits = st.one_of(any_bits(form).one(), st.sampled_from(infinite(form)))

    @given(
        st.sampled_from(["identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish"]),
        st.sampled_from(list(partials)),
        st.tuples(bits, bits, bits, bits),
    )
    @settings(max_examples=300)
    def agrees(activation: str, quantity: str, patterns: tuple[int, ...]) -> None:
        gate, value, beta, cotangent = (value_of(one, form) for one in patterns)
        factor = 1.0 if quantity == "d_value" else value
        outer = 1.0 if quantity == "result" else cotangent
        if all(map(math.isfinite, (gate, factor, outer, beta))):
            return
        inputs = {"gate": gate, "value": value, "beta": beta, "cotangent": cotangent}
        got = correctly_rounded("gated_unit", quantity, form, inputs, static={"activation": activation})
        arrays = (np.array(one) for one in (outer, gate, factor, beta))
        expected = float(special_products(activation, partials[quantity], *arrays))
        if not (math.isfinite(gate) and (math.isfinite(beta) or activation != "swish")) or not math.isfinite(expected):
            assert got.decimal == "nan" if math.isnan(expected) else True
            if not math.isnan(expected):
                assert float(got.decimal) == pytest.approx(expected, rel=2**-50, abs=2**-1074)

    agrees()


def infinite(form: Format) -> list[int]:
    return [int(np.array(one).astype(form.dtype).view(form.bits)) for one in (INF, -INF, NAN, 0.0, -0.0)]


# Bad calls

PAIR: Final = {"gate": 1.0, "value": 1.0}
BAD: tuple[tuple[str, str, dict[str, float], dict[str, Any], str], ...] = (
    (
        "glu_linear",
        "result",
        {"x": 1.0},
        {},
        'correctly_rounded: function must be one of sigmoid, .*, got "glu_linear"',
    ),
    ("silu", "d_beta", {"x": 1.0}, {}, 'silu has the quantities result, d_x, d_x_x, got "d_beta"'),
    ("swiglu", "d_x", {"gate": 1.0, "value": 1.0}, {}, 'swiglu has the quantities .*, got "d_x"'),
    ("swiglu", "result", {"gate": 1.0}, {}, "swiglu: the input value is missing, got gate"),
    ("gelu", "result", {}, {}, "gelu: the input x is missing, got none"),
    ("gelu", "result", {"x": 1.0, "beta": 2.0}, {}, 'gelu has the inputs x, cotangent, got "beta"'),
    ("gelu", "result", {"x": 1.0}, {"approximate": "erf"}, 'gelu: approximate must be one of none, tanh, got "erf"'),
    (
        "glu",
        "result",
        {"gate": 1.0, "value": 1.0},
        {"layout": "gate_first"},
        r'glu has the keywords \(none\), got "layout"',
    ),
    (
        "gated_unit",
        "result",
        {"gate": 1.0, "value": 1.0},
        {"activation": "silu"},
        "gated_unit: activation must be one of .* got",
    ),
    (
        "clamped_swiglu",
        "result",
        {"gate": 1.0, "value": 1.0},
        {"limit": -1.0},
        "clamped_swiglu: limit must be at least 0, got -1.0",
    ),
    (
        "clamped_swiglu",
        "result",
        {"gate": 1.0, "value": 1.0},
        {"limit": NAN},
        "clamped_swiglu: limit must be at least 0, got nan",
    ),
    (
        "clamped_swiglu",
        "result",
        {"gate": 1.0, "value": 1.0},
        {"alpha": INF},
        "clamped_swiglu: alpha must be finite, got inf",
    ),
)


@pytest.mark.parametrize(("function", "quantity", "inputs", "static", "text"), BAD)
def test_bad_calls_are_named(
    function: str, quantity: str, inputs: dict[str, float], static: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        correctly_rounded(function, quantity, FORMATS["float32"], inputs, static=static)


def test_the_defaults_are_those_of_the_functions() -> None:
    form = FORMATS["float64"]
    pair = {"gate": 1.25, "value": -2.5}
    for function, inputs, static in (
        ("gelu", {"x": 1.25}, {"approximate": "none"}),
        ("geglu", pair, {"approximate": "none"}),
        ("gated_unit", pair, {"activation": "swish"}),
        ("clamped_swiglu", pair, {"alpha": 1.702, "limit": 7.0, "offset": 1.0}),
    ):
        for quantity, cotangent in itertools.product(QUANTITIES[function], (None, 1.0)):
            given_cotangent = {} if cotangent is None else {"cotangent": cotangent}
            one = correctly_rounded(function, quantity, form, inputs | given_cotangent)
            assert one == correctly_rounded(function, quantity, form, inputs, static=static)
    assert correctly_rounded("swish", "d_beta", form, {"x": 2.0}) == correctly_rounded(
        "swish", "d_beta", form, {"x": 2.0, "beta": 1.0}
    )
