"""Calls of the elementwise functions by name, taken apart into the factors of one product.

Every result is cotangent * A(g) * (v + offset), A an activation or a derivative of it and g, v the gate and the value,
clamped where the function clamps: an activation alone has v = 1, and a clamp that cuts a derivative is a factor 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gated.contract import ACTIVATIONS, APPROXIMATIONS

__all__ = ["QUANTITIES", "UNARY", "UNITS", "Product", "activation_of", "product"]

UNARY: Final = {"sigmoid": "sigmoid", "swish": "swish", "silu": "swish", "gelu": "gelu", "relu": "relu"}
"""The functions of one array, and the activation of each."""

UNITS: Final = {
    "glu": "sigmoid",
    "bilinear": "identity",
    "reglu": "relu",
    "geglu": "gelu",
    "swiglu": "swish",
    "clamped_swiglu": "swish",
    "gated_unit": "swish",
}
"""The functions of a gate and a value, and the activation of each, by default."""

_WITH_BETA: Final = ("swish", "swiglu", "gated_unit")
_STATIC: Final[Mapping[str, Mapping[str, Any]]] = {
    "gelu": {"approximate": "none"},
    "geglu": {"approximate": "none"},
    "clamped_swiglu": {"alpha": 1.702, "limit": 7.0, "offset": 1.0},
    "gated_unit": {"activation": "swish"},
}
_PARTIALS: Final = {
    "result": "value",
    "d_x": "x",
    "d_gate": "x",
    "d_value": "value",
    "d_beta": "beta",
    "d_x_x": "xx",
    "d_x_beta": "xbeta",
    "d_beta_beta": "betabeta",
}


def _quantities(function: str) -> tuple[str, ...]:
    first = ("result", "d_x") if function in UNARY else ("result", "d_gate", "d_value")
    in_beta = ("d_beta",) if function in _WITH_BETA else ()
    second = ("d_x_x",) if function in UNARY else ()
    return (*first, *in_beta, *second, *(("d_x_beta", "d_beta_beta") if function == "swish" else ()))


QUANTITIES: Final[Mapping[str, tuple[str, ...]]] = {function: _quantities(function) for function in (*UNARY, *UNITS)}
"""The elementwise functions, and of each the quantities that have an exact result."""


@dataclass(frozen=True, slots=True)
class Product:
    """cotangent * partial of activation(gate, beta) * (value + offset), times 0 if a clamp has cut it.

    Attributes:
        partial: as :func:`gated.conformance.closed_forms.activation_terms` names it.
        cut: the derivative of the clamp is 0.
        absent: an operand is nan.
    """

    activation: str
    partial: str
    cotangent: float
    gate: float
    value: float
    offset: float
    beta: float
    cut: bool
    absent: bool


def product(function: str, quantity: str, inputs: Mapping[str, float], static: Mapping[str, Any]) -> Product:
    """The product that a quantity of a function is.

    Raises:
        ValueError: a name is unknown, an input is missing, or a keyword has a value that the function does not take.
    """
    if function not in QUANTITIES:
        raise ValueError(f'correctly_rounded: function must be one of {", ".join(QUANTITIES)}, got "{function}"')
    if quantity not in QUANTITIES[function]:
        raise ValueError(f'{function} has the quantities {", ".join(QUANTITIES[function])}, got "{quantity}"')
    unary = function in UNARY
    needed = ("x",) if unary else ("gate", "value")
    optional = (*(("beta",) if function in _WITH_BETA else ()), "cotangent")
    for name in needed:
        if name not in inputs:
            raise ValueError(f"{function}: the input {name} is missing, got {', '.join(inputs) or 'none'}")
    for name in inputs:
        if name not in needed and name not in optional:
            raise ValueError(f'{function} has the inputs {", ".join((*needed, *optional))}, got "{name}"')
    activation, keywords = activation_of(function, static)
    partial = _PARTIALS[quantity]
    cotangent = 1.0 if quantity == "result" else float(inputs.get("cotangent", 1.0))
    gate = float(inputs[needed[0]])
    value = 1.0 if unary else float(inputs["value"])
    beta = float(keywords.get("alpha", inputs.get("beta", 1.0)))
    limit, offset = keywords.get("limit", math.inf), keywords.get("offset", 0.0)
    cut = False
    absent = math.isnan(cotangent)
    if quantity == "d_gate":
        cut = gate > limit
    if quantity == "d_value":
        # A clip has no derivative at nan; without one the value does not matter.
        absent |= function == "clamped_swiglu" and math.isnan(value)
        cut = abs(value) > limit
        value, offset = 1.0, 0.0
    elif value > limit or value < -limit:
        value = math.copysign(limit, value)
    if (activation, partial) == ("identity", "x"):
        # 1 at every gate, even at nan.
        gate = 0.0
    absent |= math.isnan(value) or math.isnan(gate)
    absent |= activation == "swish" and math.isnan(beta)
    return Product(activation, partial, cotangent, min(gate, limit), value, offset, beta, cut, absent)


def activation_of(function: str, static: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The activation of an elementwise function, and its keywords with their defaults.

    Raises:
        ValueError: the function has no such keyword, or does not take its value.
    """
    known = _STATIC.get(function, {})
    for name in static:
        if name not in known:
            raise ValueError(f'{function} has the keywords {", ".join(known) or "(none)"}, got "{name}"')
    keywords = {**known, **static}
    for name, choices in (("approximate", APPROXIMATIONS), ("activation", ACTIVATIONS)):
        if name in keywords and keywords[name] not in choices:
            raise ValueError(f'{function}: {name} must be one of {", ".join(choices)}, got "{keywords[name]}"')
    for name in ("alpha", "limit", "offset"):
        if name in keywords:
            keywords[name] = float(keywords[name])
            if not (keywords[name] >= 0 if name == "limit" else math.isfinite(keywords[name])):
                expected = "at least 0" if name == "limit" else "finite"
                raise ValueError(f"{function}: {name} must be {expected}, got {keywords[name]}")
    if keywords.get("approximate") == "tanh":
        return "gelu_tanh", keywords
    return keywords.get("activation", UNARY.get(function) or UNITS[function]), keywords
