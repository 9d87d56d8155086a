"""The oracle against mpmath at 400 bits, by other formulas than the oracle's, and its two forms of an answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import finite_bits

flint = pytest.importorskip("flint")
mpmath = pytest.importorskip("mpmath")

from _formulas import FORMULAS, first_term  # noqa: E402

from gated.conformance.closed_forms import PARTIALS  # noqa: E402
from gated.conformance.error import FORMATS  # noqa: E402
from gated.conformance.oracle import (  # noqa: E402
    BallMath,
    Undecided,
    correctly_rounded,
    exact_projection,
    exact_sums,
    unit_terms,
)
from gated.contract import ACTIVATIONS  # noqa: E402

mp = mpmath.mp
mpf = mpmath.mpf
LARGEST = float(np.finfo(np.float64).max)


def numbers() -> list[float]:
    """Thresholds of float64 and float32, where derivatives cancel, tails, both ends of the range, and random ones."""
    rng = np.random.default_rng(1)
    adversarial = [0.0, 5e-324, 2.2250738585072014e-308, 1e-160, 1e-20, 1.0, 6.0, 36.7368005696771, 37.42994775023705]
    adversarial += [87.0, 88.72283905206835, 281.0, 708.3964185322641, 709.782712893384, 745.1332191019412]
    adversarial += [1.278464542761074, 1.2784645427610737, 0.7517915246935645, 0.7524614220710163, 2164.0, 19999.0]
    adversarial += [20001.0, 1e5, 1e150, LARGEST]
    drawn = [*rng.uniform(0, 8, 12), *rng.uniform(0, 2200, 6), *2.0 ** rng.uniform(-1000, 1000, 6)]
    return [sign * float(one) for one in (*adversarial, *drawn) for sign in (1, -1)]


def _exact(activation: str, partial: str, *factors: float) -> Any:
    """The formula at 400 bits, more where the argument of the exponential needs them."""
    formula = FORMULAS[activation, partial]
    with mp.workprec(400):
        gate, beta, cotangent, value = (mpf(one) for one in factors)
        reach = max(abs(gate * beta), abs(gate) ** 3, 1)
        if activation.startswith("gelu") and reach <= 1e9:
            # erfc, incomplete gamma and the logistic function do not cancel.
            return formula(gate, beta) * cotangent * value
        # Past this, e^-reach times anything is 0: no need for the bits of the exponent.
        if reach > 1e9:
            sign = mp.sign(gate) * (mp.sign(beta) or 1)
            limit = _limit(activation, partial, sign, gate, beta)
            return limit * cotangent * value
    with mp.workprec(400 + int(min(3 * reach, 4000))):
        return formula(gate, beta) * cotangent * value


def _limit(activation: str, partial: str, sign: Any, gate: Any, beta: Any) -> Any:
    """The formula where the exponential is 0 or infinite to every bit."""
    if activation == "identity" or (activation == "swish" and abs(gate * beta) <= 1e9):
        return FORMULAS[activation, partial](gate, beta)
    bounded = activation == "sigmoid"
    rising = (sign if activation == "swish" else mp.sign(gate)) > 0
    return {"value": mpf(1) if bounded else gate, "x": mpf(not bounded)}.get(partial, mpf(0)) if rising else mpf(0)


@pytest.mark.parametrize(("activation", "partial"), list(FORMULAS))
def test_the_oracle_agrees_with_mpmath_to_95_bits(activation: str, partial: str) -> None:
    gates = numbers()
    betas = [1.0, -1.5, 0.1, 1e-200] if activation == "swish" else [1.0]
    factors = [(1.0, 1.0), (2.0**-16, -3.4e38)]
    for beta, (cotangent, value) in itertools.product(betas, factors):
        columns = [np.array(gates), *(np.full(len(gates), one) for one in (beta, cotangent, value))]
        high, low, scale = exact_sums(unit_terms(activation, partial), columns[2], columns[0], columns[3], columns[1])
        for i, gate in enumerate(gates):
            expected = _exact(activation, partial, gate, beta, cotangent, value)
            where = (activation, partial, gate, beta, cotangent, value)
            if math.isinf(high[i]):
                assert high[i] == math.copysign(math.inf, expected) and abs(expected) > LARGEST, where
                continue
            with mp.workprec(2400):
                distance = abs(mpf(high[i]) + mpf(low[i]) - expected)
                assert distance <= max(abs(expected) * mpf(2) ** -95, mpf(2) ** -1074), where
                assert abs(mpf(low[i])) <= mpf(math.ulp(high[i])), where
                # The scale is the largest of at most two terms.
                assert abs(expected) <= 2 * mpf(scale[i]) * (1 + mpf(2) ** -50) + mpf(2) ** -1074, where


@pytest.mark.parametrize("activation", ["swish", "gelu", "gelu_tanh"])
def test_the_scale_of_a_derivative_is_its_largest_term(activation: str) -> None:
    x = np.array([-1.2784645427610738, -0.7517915246935645, -5.0, 0.5, 4.0, -40.0])
    ones = np.ones_like(x)
    scale = exact_sums(unit_terms(activation, "x"), ones, x, ones, ones)[2]
    for one, largest in zip(x, scale, strict=True):
        with mp.workprec(400):
            t = mpf(float(one))
            first = first_term(activation, t)
            second = FORMULAS[activation, "x"](t, mpf(1)) - first
            assert abs(mpf(float(largest)) - max(abs(first), abs(second))) <= mpf(2) ** -52 * largest + mpf(2) ** -1074


def test_results_past_the_range_are_infinite_and_just_past_it_are_not() -> None:
    one, two = np.array([1.0]), np.array([2.0])
    terms = unit_terms("identity", "value")
    assert exact_sums(terms, two, np.array([LARGEST]), one, one)[0][0] == np.inf
    assert exact_sums(terms, -two, np.array([LARGEST]), one, one)[0][0] == -np.inf
    barely = np.array([1 + 2.0**-52])
    high, low, _ = exact_sums(terms, barely, np.array([LARGEST]), one, one)
    assert high[0] == LARGEST and low[0] > 0


# Which quantity of a gated unit has which partial of the activation as its factor.
QUANTITIES = {"result": "value", "d_gate": "x", "d_value": "value", "d_beta": "beta"}


def assert_rounded_once(activation: str, quantity: str, **inputs: float) -> int:
    """The high part has the bits of the oracle's other form: that of balls narrowed until they are rounded to one.

    The two may differ where the exact result is so near to the middle between two numbers that the pair, whose balls
    have 120 bits, takes it for the middle. Returns 1 there, else 0.
    """
    beta = inputs["beta"] if activation == "swish" else 1.0
    given = {name: one for name, one in inputs.items() if name != "beta"} | {"beta": beta}
    form = FORMATS["float64"]
    single = correctly_rounded("gated_unit", quantity, form, given, static={"activation": activation})
    cotangent = 1.0 if quantity == "result" else inputs["cotangent"]
    value = 1.0 if quantity == "d_value" else inputs["value"]
    columns = (np.array([one]) for one in (cotangent, inputs["gate"], value, beta))
    high, low, _ = exact_sums(unit_terms(activation, QUANTITIES[quantity]), *columns)
    if single.decimal in ("0", "-0"):
        assert high[0] == 0 == low[0]
        return 0
    expected = float(np.array(single.bits, np.uint64).view(np.float64))
    if math.isinf(expected) and high[0] == math.copysign(LARGEST, expected):
        # Up to a little past the range a pair says how far past.
        assert low[0] * high[0] > 0
        return 0
    if repr(float(high[0])) == repr(expected):
        return 0
    exact = Fraction(single.decimal)
    assert abs(exact - (Fraction(high[0]) + Fraction(expected)) / 2) < abs(exact) / 2**100, (activation, given)
    return 1


@given(
    activation=st.sampled_from(ACTIVATIONS),
    quantity=st.sampled_from(list(QUANTITIES)),
    bits=st.tuples(*[finite_bits(FORMATS["float64"]).one()] * 4),
)
@settings(max_examples=400)
def test_the_high_part_is_the_result_rounded_once(activation: str, quantity: str, bits: tuple[int, ...]) -> None:
    numbers = np.array(bits, np.uint64).view(np.float64).tolist()
    assert_rounded_once(activation, quantity, **dict(zip(("gate", "value", "beta", "cotangent"), numbers, strict=True)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("quantity", ["result", "d_gate"])
def test_the_high_part_of_a_subnormal_product_is_rounded_once(activation: str, quantity: str) -> None:
    """Of all lengths: of 2^-1074 to 2^-1020, where a first rounding to more bits than are kept moves a second one."""
    rng = np.random.default_rng(5)
    ties = 0
    for exponent in np.repeat(np.arange(-1075, -1020), 8):
        gate, cotangent = rng.uniform(0.25, 4, 2)
        value = math.ldexp(rng.uniform(1, 2), int(exponent))
        ties += assert_rounded_once(activation, quantity, gate=gate, value=value, beta=1.5, cotangent=cotangent)
    assert ties == 0


def test_an_exact_zero_is_decided() -> None:
    zero, ones = np.zeros(1), np.ones(1)
    for activation, partial in itertools.product(ACTIVATIONS, PARTIALS):
        high, low, _ = exact_sums(unit_terms(activation, partial), ones, ones, zero, ones)
        assert high[0] == 0 and low[0] == 0


def test_what_no_precision_decides_is_not_guessed() -> None:
    m = BallMath()

    def cancelling(x: Any) -> list[Any]:
        # s(x) + s(-x) - 1 is 0, but no ball proves it.
        return [m.sigmoid(x), m.sigmoid(-x), flint.arb(-1)]

    with pytest.raises(Undecided, match="not decided at"):
        exact_sums(cancelling, np.array([0.3]))


# The projected forms


def _slow_projection(a: dict[str, np.ndarray[Any, Any]], dy: Any, activation: str, beta: Any) -> dict[str, Any]:
    """Value and cotangents by sums over indices, in mpmath numbers; beta per channel."""
    rows, d_in = a["x"].shape
    width = a["W"].shape[1]
    d_out = a["W2"].shape[1] if "W2" in a else width
    m = {name: [[mpf(float(e)) for e in row] for row in np.atleast_2d(one)] for name, one in a.items()}
    dy = [[mpf(float(e)) for e in row] for row in dy]
    betas = [mpf(float(one)) for one in np.broadcast_to(beta, (width,))]

    def bias(name: str, j: int) -> Any:
        return m[name][0][j] if name in m else mpf(0)

    def table(n: int, k: int, f: Callable[[int, int], Any]) -> list[list[Any]]:
        return [[f(i, j) for j in range(k)] for i in range(n)]

    def act(partial: str) -> list[list[Any]]:
        f = FORMULAS.get((activation, partial), lambda x, beta: mpf(0))
        return table(rows, width, lambda i, j: f(g[i][j], betas[j]))

    g = table(rows, width, lambda i, j: sum(m["x"][i][k] * m["W"][k][j] for k in range(d_in)) + bias("b", j))
    v = table(rows, width, lambda i, j: sum(m["x"][i][k] * m["V"][k][j] for k in range(d_in)) + bias("c", j))
    f, slope, in_beta = act("value"), act("x"), act("beta")
    h = table(rows, width, lambda i, j: f[i][j] * v[i][j])
    out: dict[str, Any] = {"value": h}
    dh = dy
    if "W2" in m:
        w2 = m["W2"]
        out["value"] = table(rows, d_out, lambda i, o: sum(h[i][j] * w2[j][o] for j in range(width)) + bias("b2", o))
        out["W2"] = table(width, d_out, lambda j, o: sum(h[i][j] * dy[i][o] for i in range(rows)))
        out["b2"] = [sum(dy[i][o] for i in range(rows)) for o in range(d_out)]
        dh = table(rows, width, lambda i, j: sum(dy[i][o] * w2[j][o] for o in range(d_out)))
    dg = table(rows, width, lambda i, j: dh[i][j] * slope[i][j] * v[i][j])
    dv = table(rows, width, lambda i, j: dh[i][j] * f[i][j])
    out["x"] = table(
        rows, d_in, lambda i, k: sum(dg[i][j] * m["W"][k][j] + dv[i][j] * m["V"][k][j] for j in range(width))
    )
    out["W"] = table(d_in, width, lambda k, j: sum(m["x"][i][k] * dg[i][j] for i in range(rows)))
    out["V"] = table(d_in, width, lambda k, j: sum(m["x"][i][k] * dv[i][j] for i in range(rows)))
    out["b"] = [sum(dg[i][j] for i in range(rows)) for j in range(width)]
    out["c"] = [sum(dv[i][j] for i in range(rows)) for j in range(width)]
    by_channel = [sum(dh[i][j] * in_beta[i][j] * v[i][j] for i in range(rows)) for j in range(width)]
    out["beta"] = by_channel if np.ndim(beta) else sum(by_channel)
    return out


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("form", ["linear", "linear with biases", "ffn", "ffn with biases"])
def test_a_projection_agrees_with_sums_over_indices(activation: str, form: str) -> None:
    rng = np.random.default_rng(2)
    shapes: dict[str, tuple[int, ...]] = {"x": (2, 3), "W": (3, 4), "V": (3, 4)}
    if form.startswith("ffn"):
        shapes["W2"] = (4, 2)
    if form.endswith("biases"):
        shapes |= {"b": (4,), "c": (4,)} | ({"b2": (2,)} if form.startswith("ffn") else {})
    arguments = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    cotangent = rng.standard_normal((2, 2 if form.startswith("ffn") else 4))
    for beta in (np.array(1.5), np.array([1.0, -0.5, 0.0, 2.0])):
        exact = exact_projection(arguments, cotangent, activation=activation, beta=beta)
        with mp.workprec(400):
            slow = _slow_projection(arguments, cotangent, activation, beta)
            assert set(exact) == {"value", "beta", *arguments}
            for name, (high, low) in exact.items():
                expected = np.array(slow[name], object)
                assert high.shape == expected.shape
                for h, rest, t in zip(high.ravel(), low.ravel(), expected.ravel(), strict=True):
                    assert abs(mpf(float(h)) + mpf(float(rest)) - t) <= mpf(2) ** -95, name
