"""Correct rounding checked with mpmath: no number of the format is nearer to the exact result, by other formulas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from _formulas import FORMULAS, largest_term, mp, mpf

from gated.conformance.error import Format
from gated.conformance.oracle import Rounded, correctly_rounded

__all__ = ["UNITS", "assert_correct", "check"]

UNITS = {
    "glu": "sigmoid",
    "bilinear": "identity",
    "reglu": "relu",
    "geglu": "gelu",
    "swiglu": "swish",
    "clamped_swiglu": "swish",
    "gated_unit": "swish",
}
PARTIALS = {"result": "value", "d_x": "x", "d_gate": "x", "d_value": "value", "d_beta": "beta"}
PARTIALS |= {"d_x_x": "xx", "d_x_beta": "xbeta", "d_beta_beta": "betabeta"}
DECIMAL = re.compile(r"(-?\d\.\d{44})e([+-]\d+)")


def decoded(bits: int, form: Format) -> Any:
    """The number of a bit pattern; an infinity as the number that would follow the largest."""
    fraction_bits = form.precision - 1
    magnitude = bits & ~(1 << (8 * form.bits.itemsize - 1))
    field, fraction = magnitude >> fraction_bits, magnitude & ((1 << fraction_bits) - 1)
    significand = fraction + ((1 << fraction_bits) if field else 0)
    number = mpf(significand) * mpf(2) ** (max(field, 1) - 1 + form.lowest - fraction_bits)
    return -number if magnitude != bits else number


def assert_correct(
    got: Rounded, exact: Any, scale: Any, form: Format, where: object, *, zero_sign: bool = True
) -> None:
    """The bits are the nearest to ``exact``, ties to even; the decimal is within half a unit of its last digit."""
    sign_bit = 1 << (8 * form.bits.itemsize - 1)
    magnitude = got.bits & ~sign_bit
    if exact != 0:
        assert bool(got.bits & sign_bit) == (exact < 0), where
    size, number = abs(exact), decoded(magnitude, form)
    infinity = 2**form.highest * 2
    assert number <= infinity, where
    if number < infinity:
        middle = (number + decoded(magnitude + 1, form)) / 2
        assert size < middle or (size == middle and magnitude % 2 == 0), where
    if number > 0:
        middle = (number + decoded(magnitude - 1, form)) / 2
        assert size > middle or (size == middle and magnitude % 2 == 0), where

    if exact == 0:
        assert got.decimal in ("0", "-0"), where
    elif size < mpf(10) ** -20000:
        assert got.decimal == ("<1e-20000" if exact > 0 else ">-1e-20000"), where
    else:
        match = DECIMAL.fullmatch(got.decimal)
        assert match is not None, where
        # The exact result here is good to 90 digits.
        unit = mpf(10) ** (int(match[2]) - 44)
        assert abs(mpf(match[1]) * mpf(10) ** int(match[2]) - exact) <= unit * (0.5 + mpf(10) ** -30), where
        assert match[1].lstrip("-")[0] != "0", where

    binade = form.lowest if scale == 0 else max(int(mp.floor(mp.log(scale, 2))), form.lowest)
    assert got.ulp_exponent == binade - form.precision + 1, where


def check(function: str, quantity: str, form: Format, inputs: Mapping[str, float], **static: Any) -> Rounded:
    """Holds one finite result against mpmath."""
    got = correctly_rounded(function, quantity, form, inputs, static=static)
    activation = static.get("activation", UNITS.get(function, "swish" if function == "silu" else function))
    if static.get("approximate") == "tanh":
        activation = "gelu_tanh"
    partial = PARTIALS[quantity]
    beta = inputs.get("beta", static.get("alpha", 1.702) if function == "clamped_swiglu" else 1.0)
    start = inputs.get("gate", inputs.get("x", 0.0))
    reach = reach_of(activation, min(start, static.get("limit", 7.0)) if function == "clamped_swiglu" else start, beta)
    tiny = any(0 < abs(one) < 1e-30 for one in inputs.values())
    rising = partial in ("value", "x") and start * beta > 0
    # What is next to a tie is told from it by its last term: e^-reach of the result, or a tiny operand squared.
    with mp.workprec(3400 if tiny else 400 + rising * int(1.5 * min(reach, SATURATED))):
        operands = {name: mpf(one) for name, one in inputs.items()}
        gate, beta = operands.get("gate", operands.get("x")), mpf(beta)
        value, outer = operands.get("value", mpf(1)), operands.get("cotangent", mpf(1))
        if quantity == "result":
            outer = mpf(1)
        if function == "clamped_swiglu":
            numbers = {"limit": 7.0, "offset": 1.0} | static
            limit = mpf(numbers["limit"])
            if (quantity == "d_gate" and gate > limit) or (quantity == "d_value" and abs(value) > limit):
                outer = mpf(0)
            gate, value = min(gate, limit), max(min(value, limit), -limit) + mpf(numbers["offset"])
        outer *= mpf(1) if quantity == "d_value" else value
        formula = FORMULAS.get((activation, partial))
        if formula is None or outer == 0:
            exact = scale = mpf(0)
        elif reach > SATURATED and activation not in ("identity", "relu"):
            exact = scale = far_out(activation, partial, gate, beta, reach) * outer
        else:
            exact = formula(gate, beta) * outer
            scale = abs(outer) * largest_term(activation, partial, gate, beta)
        assert_correct(got, exact, abs(scale), form, (function, quantity, form.name, inputs, static, got))
    return got


SATURATED = 1500
"""Arguments of the exponential from which on a result is at its limit to 2000 bits."""

VANISHED = 50000
"""Those at which e^-t is below 10^-20000, which the decimals do not go beyond."""


def reach_of(activation: str, gate: float, beta: float) -> float:
    """The magnitude of the exponential's argument."""
    with np.errstate(over="ignore"):
        x = np.float64(abs(gate))
        reach = {"swish": x * abs(beta), "gelu": x * x / 2, "gelu_tanh": 1.6 * x + 0.07 * x**3}.get(activation, x)
    return float(reach)


def far_out(activation: str, partial: str, gate: Any, beta: Any, reach: float) -> Any:
    """The formula from :data:`SATURATED` on.

    A value that rises is a little less than its limit 1 or x, a slope like that of swish a little more than 1.
    """
    rising = (gate * beta if activation == "swish" else gate) > 0
    slightly = mpf(2) ** -2000
    with mp.workprec(8000):
        if rising and partial == "value":
            return (1 if activation == "sigmoid" else gate) * (1 - slightly)
        if rising and partial == "x" and activation != "sigmoid":
            return 1 + slightly
    if reach < VANISHED:
        return FORMULAS[activation, partial](gate, beta)
    return mp.sign(FORMULAS[activation, partial](*near(gate, beta))) * mpf(10) ** -30000


def near(gate: Any, beta: Any) -> tuple[Any, Any]:
    """A gate and a beta of the same signs, at which every derivative has the sign that it has far out."""
    return mp.sign(gate) * 20, mp.sign(beta)
