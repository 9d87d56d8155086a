"""Correct rounding against mpmath: no number of the format is nearer to the result, found by other formulas."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import every_dtype, finite_bits

flint = pytest.importorskip("flint")
mpmath = pytest.importorskip("mpmath")

from _formulas import mp, mpf, normal_cdf  # noqa: E402
from _rounding import UNITS, assert_correct, check  # noqa: E402

import gated.numpy_ref as reference  # noqa: E402
from gated.conformance.balls import SATURATED_PRECISION, BallMath  # noqa: E402
from gated.conformance.error import FORMATS, Format  # noqa: E402
from gated.conformance.oracle import (  # noqa: E402
    QUANTITIES,
    Undecided,
    correctly_rounded,
    correctly_rounded_projection,
    exact_projection,
    round_ball,
)

EVERYTHING = [(function, quantity) for function, quantities in QUANTITIES.items() for quantity in quantities]


# Bit patterns of every kind


def number(bits: int, form: Format) -> float:
    return float(np.array(bits).astype(form.bits).view(form.dtype))


@st.composite
def calls(draw: st.DrawFn, form: Format) -> tuple[str, str, dict[str, float], dict[str, Any]]:
    function, quantity = draw(st.sampled_from(EVERYTHING))
    bits = finite_bits(form).one()
    names = ["x"] if function not in UNITS else ["gate", "value"]
    names += ["beta"] if function in ("swish", "swiglu", "gated_unit") else []
    inputs = {name: number(draw(bits), form) for name in (*names, "cotangent")}
    static: dict[str, Any] = {}
    if function in ("gelu", "geglu"):
        static["approximate"] = draw(st.sampled_from(["none", "tanh"]))
    if function == "gated_unit":
        static["activation"] = draw(st.sampled_from(["identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish"]))
    if function == "clamped_swiglu":
        static = draw(
            st.sampled_from([{}, {"alpha": -0.3, "limit": 1e3, "offset": 0.0}, {"offset": -0.1, "limit": 0.7}])
        )
    return function, quantity, inputs, static


@every_dtype
def test_every_result_is_the_nearest_number_to_the_exact_one(dtype: str) -> None:
    form = FORMATS[dtype]

    @given(calls(form))
    @settings(max_examples=250)
    def holds(call: tuple[str, str, dict[str, float], dict[str, Any]]) -> None:
        function, quantity, inputs, static = call
        check(function, quantity, form, inputs, **static)

    holds()


@pytest.mark.parametrize(("function", "quantity"), EVERYTHING)
def test_results_are_correct_where_it_is_hard(function: str, quantity: str) -> None:
    """Zeros of derivatives, thresholds of overflow and underflow, both ends of the range, tiny and huge betas."""
    hard = [1.2784645427610738, 0.7517915246935645, 0.7524614220710163, 1.4142135623730951, 2.399357280520545, 7.0]
    hard += [
        1e-3,
        9.01,
        17.33,
        37.52,
        88.72283905206835,
        91.2,
        103.97,
        708.3964185322641,
        745.1332191019412,
        1e4,
        5e30,
        3e200,
    ]
    for form in FORMATS.values():
        ends = [form.smallest_subnormal, form.smallest_normal, form.largest / 8]
        numbers = [float(np.float64(one).astype(form.dtype)) for one in hard if one < form.largest]
        rng = np.random.default_rng(3)
        for size in (*numbers, *ends):
            for x in (size, -size):
                beta, value, cotangent = (float(np.array(k).astype(form.dtype)) for k in rng.normal(0, 3, 3))
                inputs = {"x": x} if function not in UNITS else {"gate": x, "value": value}
                if function in ("swish", "swiglu", "gated_unit"):
                    inputs["beta"] = beta if rng.random() < 0.5 else 1.0
                check(function, quantity, form, inputs | {"cotangent": cotangent})
                if function in ("gelu", "geglu"):
                    check(function, quantity, form, inputs | {"cotangent": cotangent}, approximate="tanh")


# The hardest to round


def nearest_to_ties(exact: NDArray[np.float64], form: Format, count: int) -> NDArray[np.intp]:
    """The indices of the results that are nearest to the middle between two numbers of the format, in ulp."""
    _, exponent = np.frexp(exact)
    unit = np.maximum(exponent - 1, form.lowest) - (form.precision - 1)
    with np.errstate(all="ignore"):
        steps = np.ldexp(exact, -unit)
        distance = np.abs(np.abs(steps - np.floor(steps)) - 0.5)
    distance[~np.isfinite(exact) | (exact == 0) | (np.abs(exact) > form.largest)] = np.inf
    return np.argsort(distance, kind="stable")[:count]


def sample(form: Format) -> NDArray[Any]:
    if form.bits.itemsize == 2:
        return np.arange(2**16, dtype=np.uint32).astype(form.bits).view(form.dtype)
    patterns = np.random.default_rng(4).integers(0, 2**32, 2**19, dtype=np.uint64).astype(np.uint32)
    return patterns.view(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("function", ["sigmoid", "silu", "gelu", "gelu_tanh"])
def test_the_results_nearest_to_ties_are_rounded_to_the_right_side(dtype: str, function: str) -> None:
    """All 65,536 inputs, or 2^19 of float32, ranked by the reference in float64: the 30 hardest of each."""
    form = FORMATS[dtype]
    with np.errstate(invalid="ignore"):
        x = sample(form).astype(np.float64)
    x = x[np.isfinite(x) & (np.abs(x) < 1e30)]
    static = {"approximate": "tanh"} if function == "gelu_tanh" else {}
    name = function.removesuffix("_tanh")
    value, pullback = reference.vjp(getattr(reference, name), x, **static)
    for quantity, exact in (("result", value), ("d_x", pullback(np.ones_like(x))[0])):
        hardest = nearest_to_ties(exact, form, 30)
        assert len(hardest) == 30
        for at in x[hardest]:
            check(name, quantity, form, {"x": float(at)}, **static)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_exact_ties_go_to_even(dtype: str) -> None:
    """Products that end exactly in the middle, on both sides of an even number, normal and subnormal."""
    form = FORMATS[dtype]
    p, one = form.precision, 1 + 2.0 ** (1 - form.precision)
    # (1 + 2u)(3/2) = 3/2 + 3u, and u is half an ulp there; likewise for the odd multiples k of 2u.
    ties = 0
    for k in range(1, 32, 2):
        gate = 1 + k * 2.0 ** (1 - p)
        for scale in (1.0, -1.0, form.smallest_normal, 2.0 ** (form.highest - 1)):
            got = check("bilinear", "result", form, {"gate": gate * scale, "value": 1.5})
            ties += 1
            assert got.bits % 2 == 0
    assert ties == 64
    half = {"gate": form.smallest_subnormal, "value": 0.5}
    assert check("bilinear", "result", form, half).bits == 0
    assert check("bilinear", "result", form, half | {"value": 1.5}).bits == 2
    # swish at beta = 0 is x / 2 without a rounding before the last.
    assert check("swish", "result", form, {"x": 3 * form.smallest_subnormal, "beta": 0.0}).bits == 2
    assert check("relu", "d_x", form, {"x": one, "cotangent": one}).bits % 2 == 1


@every_dtype
def test_the_largest_number_ends_half_an_ulp_above_itself(dtype: str) -> None:
    form = FORMATS[dtype]
    infinity = int(np.array(np.inf).astype(form.dtype).view(form.bits))
    u = form.unit_roundoff
    # largest = (1 - u) 2^(highest + 1); the middle to 2^(highest + 1) is (1 - u / 2) of it.
    up, down = {"gate": form.largest, "value": 1 + 2 * u}, {"gate": form.largest, "value": -1 + u}
    assert check("bilinear", "result", form, up).bits == infinity
    assert check("bilinear", "result", form, down).bits % infinity != 0
    # Exactly in the middle: (2^(p+1) - 1) 2^k, by a sum that is exact in balls alone.
    middle = flint.arb((2 ** (form.precision + 1) - 1, form.highest - form.precision))
    assert round_ball(middle, form) == infinity
    with flint.ctx.workprec(4000):
        less = middle - flint.arb((1, -2000))
        assert round_ball(less, form) == infinity - 1
        assert round_ball(-less, form) == infinity - 1 + (1 << 8 * form.bits.itemsize - 1)


def test_decimal_ties_go_to_even() -> None:
    """5^65 and 3 * 5^64 have 46 digits, of which the last is a 5: 2^-65 and 3 * 2^-64 are ties."""
    form = FORMATS["float32"]
    for number, tie in ((2.0**-65, 5**65), (3 * 2.0**-64, 3 * 5**64)):
        whole = tie // 10
        assert len(str(tie)) == 46 and tie % 10 == 5
        even = str(whole + whole % 2)
        got = check("bilinear", "result", form, {"gate": -number, "value": 1.0})
        assert got.decimal.split("e")[0] == f"-{even[0]}.{even[1:]}"


def test_decimals_far_below_the_range_are_given_and_farther_ones_are_bounded() -> None:
    form = FORMATS["float64"]
    assert correctly_rounded("sigmoid", "result", form, {"x": -46000.0}).decimal.endswith("e-19978")
    for x, bits in ((-46100.0, 1 << 63), (-1e300, 1 << 63)):
        got = correctly_rounded("silu", "result", form, {"x": x})
        assert (got.bits, got.decimal, got.ulp_exponent) == (bits, ">-1e-20000", -1074)
    for name, x in (("gelu", -1e308), ("silu", -1.7976931348623157e308)):
        for static in ({"approximate": "none"}, {"approximate": "tanh"}) if name == "gelu" else ({},):
            got = correctly_rounded(name, "d_x", form, {"x": x}, static=static)
            assert (got.bits, got.decimal) == (1 << 63, ">-1e-20000")
            assert correctly_rounded(name, "d_x", form, {"x": -x}, static=static).decimal.startswith("1.000")
    far = {"x": 1.7e308, "beta": -1.7e308, "cotangent": -1.7e308}
    assert correctly_rounded("swish", "d_beta_beta", form, far).decimal == ">-1e-20000"
    far["beta"] = 1e-308
    assert correctly_rounded("swish", "d_beta_beta", form, far).decimal.endswith("e+1231")


@pytest.mark.parametrize("t", ["1023.5", "1024.5", "5000", "1e30"])
def test_the_far_tail_of_the_normal_distribution_is_enclosed(t: str) -> None:
    with mp.workprec(1000), flint.ctx.workprec(600):
        tail = BallMath().normal_cdf(-flint.arb(t))
        low, high = (decode_ball(end) for end in (tail.lower(), tail.upper()))
        assert 0 < low <= normal_cdf(-mpf(t)) <= high <= low * (1 + mpf(2) ** -19)
        assert (BallMath().normal_cdf(flint.arb(t)) + tail).contains(1)


def decode_ball(exact: Any) -> Any:
    mantissa, power = exact.man_exp()
    return mpf(int(mantissa)) * mpf(2) ** int(power)


# What is not decided


def test_what_the_precisions_do_not_decide_is_not_guessed() -> None:
    form = FORMATS["float64"]
    with pytest.raises(Undecided, match=r"d_x of swish at .* is not decided at 40 bits"):
        correctly_rounded("swish", "d_x", form, {"x": 0.3}, precisions=(20, 40))
    # Between two precisions, the result is the same or there is none.
    proven = correctly_rounded("swish", "d_x", form, {"x": 0.3})
    for precision in range(20, 400, 4):
        try:
            assert correctly_rounded("swish", "d_x", form, {"x": 0.3}, precisions=(precision,)) == proven
        except Undecided:
            assert precision < 192


def test_the_stand_in_for_a_saturated_exponential_is_no_result_of_its_own() -> None:
    """At that precision, an exponential that vanishes is not the tiny number that stands for it beside a 1."""
    form, last = FORMATS["float64"], (SATURATED_PRECISION,)
    for x in (-1e300, -30000.0):
        with pytest.raises(Undecided):
            correctly_rounded("silu", "result", form, {"x": x}, precisions=last)
    with pytest.raises(Undecided):
        correctly_rounded("gelu", "d_x_x", form, {"x": 300.0}, precisions=last)
    for x in (30000.0, 1e300):
        saturated = correctly_rounded("silu", "d_x", form, {"x": x}, precisions=last)
        assert saturated == correctly_rounded("silu", "d_x", form, {"x": x})


def test_a_ball_of_several_numbers_is_not_rounded() -> None:
    form = FORMATS["bfloat16"]
    assert round_ball(flint.arb(1, 2.0**-10), form) == 0x3F80
    for ball in (
        flint.arb(1, 2.0**-7),
        flint.arb(0, 2.0**-300),
        flint.arb("nan"),
        flint.arb("inf"),
        flint.arb(1, "inf"),
    ):
        with pytest.raises(Undecided, match="round_ball"):
            round_ball(ball, form)
    assert round_ball(flint.arb(0), form) == 0
    assert round_ball(flint.arb((-1, -(10**30))), form) == 0x8000


def test_flints_precision_is_left_alone() -> None:
    before = flint.ctx.prec
    correctly_rounded("gelu", "d_x_x", FORMATS["float64"], {"x": 1e-300})
    with pytest.raises(Undecided):
        correctly_rounded("gelu", "d_x", FORMATS["float64"], {"x": 1.0}, precisions=(30,))
    assert flint.ctx.prec == before


# The projected forms


def projections() -> Iterator[
    tuple[str, str, dict[str, NDArray[np.float64]], NDArray[np.float64], NDArray[np.float64]]
]:
    rng = np.random.default_rng(5)
    shapes: dict[str, Sequence[int]] = {"x": (2, 3), "W": (3, 4), "V": (3, 4), "W2": (4, 2), "b": (4,), "b2": (2,)}
    for dtype, activation in itertools.product(FORMATS, ("swish", "gelu_tanh", "relu")):
        kind = FORMATS[dtype].dtype
        arguments = {name: rng.normal(size=shape).astype(kind).astype(np.float64) for name, shape in shapes.items()}
        cotangent = rng.normal(size=(2, 2)).astype(kind).astype(np.float64)
        yield dtype, activation, arguments, cotangent, np.array([1.0, -0.5, 0.0, 2.0])


def test_projections_are_rounded_from_their_exact_results() -> None:
    for dtype, activation, arguments, cotangent, beta in projections():
        form = FORMATS[dtype]
        exact = exact_projection(arguments, cotangent, activation=activation, beta=beta)
        rounded = correctly_rounded_projection(arguments, cotangent, form, activation, beta)
        assert rounded.keys() == exact.keys()
        for name, (high, low) in exact.items():
            assert rounded[name].shape == high.shape
            for got, h, rest in zip(rounded[name].ravel(), high.ravel(), low.ravel(), strict=True):
                with mp.workprec(400):
                    # high + low is good to 95 bits, the decimal to 149: taken to be the exact result here.
                    total = mpf(float(h)) + mpf(float(rest))
                    near = mpf(got.decimal)
                    assert abs(near - total) <= abs(total) * mpf(2) ** -90
                    assert_correct(got, near, abs(near), form, (name, dtype))


def test_a_projection_of_infinite_numbers_is_refused() -> None:
    _, activation, arguments, cotangent, beta = next(projections())
    arguments["V"][0, 0] = np.inf
    with pytest.raises(ValueError, match="correctly_rounded_projection: arguments must be finite, got V"):
        correctly_rounded_projection(arguments, cotangent, FORMATS["float16"], activation, beta)
