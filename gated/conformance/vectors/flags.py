"""What a test is about (its flags) and where the contract leaves an implementation a choice (its ``may``).

Every flag is decided by the inputs and the exact results, so that whoever verifies a file decides it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Final

from gated.conformance.error import Format
from gated.conformance.oracle import Rounded, correctly_rounded
from gated.conformance.vectors._numbers import Exact, infinity, nearest, sign_bit
from gated.conformance.vectors.catalogue import Function

__all__ = ["FLAGS", "MAY", "flags", "leeway"]

FLAGS: Final[Mapping[str, str]] = {
    "zero": "An input is a zero, or an expected value is exactly zero: signs of zeros count, but see may.",
    "limit": "The argument of the activation (x, gate or beta) is infinite: the activation takes its limit.",
    "infinite-value": "value is infinite: times an activation that is not zero it is an infinity, times 0 nan.",
    "nan": "An input is nan.",
    "beta-zero": "beta is 0: swish is x / 2.",
    "beta-negative": "beta is below 0: the function is mirrored.",
    "beta-large": "beta is 8 or more in magnitude: beta x is large where x is not.",
    "clamped": "gate or value is past the limit, and the derivative in it 0.",
    "tail": "The gating factor (activation(x) / x, or the sigmoid itself) is below the unit roundoff, and not 0.",
    "subnormal": "An expected value is below the smallest normal number, and not 0.",
    "hidden-subnormal": "The gating factor is below the smallest normal number where an expected value is not: "
    "computed on its own it loses its digits, and e^-z overflows.",
    "overflow": "A finite exact value is past the largest number, and rounded to an infinity.",
    "cancellation": "A derivative is less than an eighth of its largest term.",
    "double-rounding": "The exact value rounded to the next wider format and then to this one gives other bits: "
    "to float32 for the 16-bit formats, to float64 for float32.",
    "gate-order": "Every other layout in which the function differs gives results that are off by an eighth or more.",
}

MAY: Final[Mapping[str, str]] = {
    "flush": "The exact value is below the smallest normal number: a zero of its sign is accepted of a runtime that "
    "flushes subnormal results.",
    "zero": "A zero is accepted whatever its sign: the value is a sum that cancels, or is masked by a relu or a clamp. "
    "Where the exact value is subnormal, of a runtime that flushes.",
    "any": "Not graded: terms past the range whose sum is within it, or a sum that cancels to within rounding, times "
    "an infinity.",
}

_UNBOUNDED: Final = 1 << 17
_WIDER: Final = {"float16": (24, -126), "bfloat16": (24, -126), "float32": (53, -1022)}


def flags(
    function: Function,
    form: Format,
    inputs: Mapping[str, float],
    parameters: Mapping[str, float | str],
    rounded: Mapping[str, Rounded],
) -> list[str]:
    """The flags of an elementwise test, in the order of :data:`FLAGS`.

    Args:
        rounded: the quantities' expected values.
    """
    gate = inputs[function.arguments[0]]
    value = inputs.get("value", 1.0)
    beta = inputs.get("beta", _number(parameters, "beta", 1.0))
    limit = _number(parameters, "limit", math.inf)
    exact = {name: Exact(one.decimal) for name, one in rounded.items()}
    normal = Fraction(2) ** form.lowest
    finite = {name: one for name, one in exact.items() if one.finite and not one.zero}
    factor = _gating_factor(function, form, inputs, parameters)
    decided = {
        "zero": 0.0 in (gate, value) or any(one.zero for one in exact.values()),
        "limit": math.isinf(gate) or math.isinf(beta),
        "infinite-value": math.isinf(value),
        "nan": any(map(math.isnan, inputs.values())),
        "beta-zero": beta == 0,
        "beta-negative": beta < 0,
        "beta-large": abs(beta) >= 8,
        "clamped": gate > limit or abs(value) > limit,
        "tail": factor is not None and factor.below(Fraction(1, 2**form.precision)),
        "subnormal": any(one.below(normal) for one in finite.values()),
        "hidden-subnormal": factor is not None
        and factor.below(normal)
        and any(not one.below(normal) for one in finite.values()),
        "overflow": any(rounded[name].bits & (sign_bit(form) - 1) == infinity(form) for name in finite),
        "cancellation": any(_cancels(rounded[name].ulp_exponent, one, form) for name, one in finite.items()),
        "double-rounding": any(_rounds_twice(rounded[name].bits, one, form) for name, one in finite.items()),
    }
    return [name for name, holds in decided.items() if holds]


def _number(parameters: Mapping[str, float | str], name: str, default: float) -> float:
    number = parameters.get(name, default)
    assert isinstance(number, float)
    return number


class _Factor:
    """The magnitude |activation / x|, compared without dividing."""

    def __init__(self, activation: Exact, x: float) -> None:
        self._activation, self._x = activation, abs(Fraction(x))

    def below(self, bound: Fraction) -> bool:
        return self._activation.below(bound * self._x)


def _gating_factor(
    function: Function, form: Format, inputs: Mapping[str, float], parameters: Mapping[str, float | str]
) -> _Factor | None:
    """What the activation multiplies x by, where it is a number, and not one that has no tail."""
    x = min(inputs[function.arguments[0]], _number(parameters, "limit", math.inf))
    beta = inputs.get("beta", _number(parameters, "alpha", _number(parameters, "beta", 1.0)))
    if not (math.isfinite(x) and math.isfinite(beta)) or function.activation in ("relu", "identity"):
        return None
    if function.activation == "sigmoid":
        return _Factor(Exact(correctly_rounded("sigmoid", "result", form, {"x": x}).decimal), 1.0)
    if x == 0:
        return None
    if function.activation == "swish":
        rounded = correctly_rounded("swish", "result", form, {"x": x, "beta": beta})
    else:
        rounded = correctly_rounded("gelu", "result", form, {"x": x}, static=function.static)
    return _Factor(Exact(rounded.decimal), x)


def _cancels(ulp_exponent: int | None, exact: Exact, form: Format) -> bool:
    """Whether a sum is below 2^-3 of its largest term's binade; not where both are subnormal."""
    assert ulp_exponent is not None
    if ulp_exponent == form.lowest - form.precision + 1 or exact.beyond:
        return False
    return exact.below(Fraction(2) ** (ulp_exponent + form.precision - 1 - 3))


def _rounds_twice(bits: int, exact: Exact, form: Format) -> bool:
    if form.name not in _WIDER or exact.beyond or exact.vanishing:
        return False
    precision, lowest = _WIDER[form.name]
    value = exact.fraction
    binade = abs(value).numerator.bit_length() - value.denominator.bit_length()
    if Fraction(2) ** binade > abs(value):
        binade -= 1
    unit = Fraction(2) ** (max(binade, lowest) - precision + 1)
    twice = round(value / unit) * unit
    return (sign_bit(form) if value < 0 else 0) | nearest(abs(twice), form) != bits


def leeway(
    function: Function,
    form: Format,
    inputs: Mapping[str, float],
    parameters: Mapping[str, float | str],
    quantity: str,
    rounded: Rounded,
    bound: float,
) -> str:
    """``""`` where an implementation must give the expected value to within its bound, or one of :data:`MAY`.

    Args:
        bound: of the error, in ulp.
    """
    exact = Exact(rounded.decimal)
    sums = function.is_sum and quantity in ("d_x", "d_gate")
    magnitude = rounded.bits & (sign_bit(form) - 1)
    if sums and exact.finite and magnitude < infinity(form) and _terms_leave(form, rounded.ulp_exponent):
        return "any"
    if sums and math.isinf(inputs.get("value", 1.0)) and _sum_has_no_sign(function, form, inputs, parameters):
        return "any"
    if not exact.finite:
        return ""
    tiny = not exact.zero and exact.below(Fraction(2) ** form.lowest)
    if sums:
        assert rounded.ulp_exponent is not None
        within = exact.zero or exact.below(Fraction(bound) * Fraction(2) ** rounded.ulp_exponent)
        return "zero" if within or tiny else ""
    if exact.zero and _masked(function, inputs, parameters, quantity):
        return "zero"
    return "flush" if tiny else ""


def _terms_leave(form: Format, ulp_exponent: int | None) -> bool:
    """Whether the largest term is past the numbers of float64: for narrower formats float64 holds it."""
    return form.name == "float64" and ulp_exponent is not None and ulp_exponent > form.highest - form.precision + 1


def _sum_has_no_sign(
    function: Function, form: Format, inputs: Mapping[str, float], parameters: Mapping[str, float | str]
) -> bool:
    """Whether the derivative of the activation is below 32 ulp of its largest term, at a gate that is finite."""
    x = min(inputs[function.arguments[0]], _number(parameters, "limit", math.inf))
    beta = inputs.get("beta", _number(parameters, "alpha", _number(parameters, "beta", 1.0)))
    if not (math.isfinite(x) and math.isfinite(beta)):
        return False
    given = {"x": x, "beta": beta} if function.activation == "swish" else {"x": x}
    static = {} if function.activation == "swish" else function.static
    call = "swish" if function.activation == "swish" else "gelu"
    # In a format without subnormal numbers the unit tells the largest term, however small it is.
    slope = correctly_rounded(call, "d_x", replace(form, lowest=-_UNBOUNDED, highest=_UNBOUNDED), given, static=static)
    assert slope.ulp_exponent is not None
    exact = Exact(slope.decimal)
    return not exact.vanishing and exact.below(32 * Fraction(2) ** slope.ulp_exponent)


def _masked(
    function: Function, inputs: Mapping[str, float], parameters: Mapping[str, float | str], quantity: str
) -> bool:
    """Whether a relu or a clamp lets no derivative through, or may not."""
    limit = _number(parameters, "limit", math.inf)
    if quantity in ("d_x", "d_gate"):
        return function.activation == "relu" or inputs[function.arguments[0]] > limit
    return quantity == "d_value" and abs(inputs["value"]) > limit
