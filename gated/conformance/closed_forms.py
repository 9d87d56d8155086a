r"""The closed forms, term by term: what the error measure and the oracle need to know of each function.

A value is a product, a derivative a sum of products. :func:`activation_terms` gives the terms of that sum, whose
largest is where an ulp of a derivative is taken, and :func:`activation_condition` what the contract's allowance
``4 cond ulp`` counts: how much a relative error in the argument t of the outer exponential or erfc moves the result,
:math:`|t f'(t)|` over the largest term.

The formulas are written once over an arithmetic ``m`` (:class:`FloatMath`, or balls in
:mod:`gated.conformance.oracle`). They share no code with any backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import scipy.special

__all__ = ["PARTIALS", "SECOND_PARTIALS", "FloatMath", "Math", "activation_condition", "activation_terms"]


class Math(Protocol):
    """An arithmetic: numbers with + - * / and the few functions and constants that the formulas use."""

    def sigmoid(self, t: Any) -> Any:
        """1 / (1 + e^-t), without cancellation."""

    def normal_cdf(self, x: Any) -> Any:
        """Phi(x)."""

    def normal_pdf(self, x: Any) -> Any:
        """phi(x)."""

    def positive(self, x: Any) -> Any:
        """1 where x > 0, else 0."""

    def tanh_slope(self) -> Any:
        """2 sqrt(2 / pi)."""

    def tanh_cubic(self) -> Any:
        """0.044715."""


class FloatMath:
    """float64 arrays: a few digits, for scales and conditions. Arguments are kept where nothing overflows."""

    bound: Final = 700.0

    def sigmoid(self, t: Any) -> Any:
        return scipy.special.expit(np.clip(t, -self.bound, self.bound))

    def normal_cdf(self, x: Any) -> Any:
        return scipy.special.ndtr(np.clip(x, -37.0, 37.0))

    def normal_pdf(self, x: Any) -> Any:
        x = np.clip(x, -37.0, 37.0)
        return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)

    def positive(self, x: Any) -> Any:
        return np.where(x > 0, 1.0, 0.0)

    def tanh_slope(self) -> Any:
        return 2 * np.sqrt(2 / np.pi)

    def tanh_cubic(self) -> Any:
        return 0.044715


PARTIALS: Final = ("value", "x", "beta")
"""An activation and its first derivatives."""

SECOND_PARTIALS: Final = ("xx", "xbeta", "betabeta")
"""Its second derivatives."""


def _tanh_argument(m: Math, x: Any) -> Any:
    return m.tanh_slope() * (x + m.tanh_cubic() * x * x * x)


def _tanh_argument_slope(m: Math, x: Any) -> Any:
    return m.tanh_slope() * (1 + 3 * m.tanh_cubic() * x * x)


def _tanh_argument_curvature(m: Math, x: Any) -> Any:
    return m.tanh_slope() * 6 * m.tanh_cubic() * x


def activation_terms(m: Math, activation: str, partial: str, x: Any, beta: Any) -> Sequence[Any]:
    """The terms of an activation (``partial="value"``) or of a derivative of it, each a product.

    Args:
        m: the arithmetic that x and beta are numbers of.
        partial: ``"value"``; ``"x"`` or ``"beta"`` for a first derivative; ``"xx"``, ``"xbeta"`` or ``"betabeta"`` for
            a second one.
    """
    if partial in SECOND_PARTIALS:
        return _second_order_terms(m, activation, partial, x, beta)
    match activation, partial:
        case "identity", "value":
            return [x]
        case "identity", "x":
            return [1 + 0 * x]
        case "relu", "value":
            return [x * m.positive(x)]
        case "relu", "x":
            return [m.positive(x)]
        case "sigmoid", "value":
            return [m.sigmoid(x)]
        case "sigmoid", "x":
            return [m.sigmoid(x) * m.sigmoid(-x)]
        case "swish", "value":
            return [x * m.sigmoid(beta * x)]
        case "swish", "x":
            z = beta * x
            return [m.sigmoid(z), z * m.sigmoid(z) * m.sigmoid(-z)]
        case "swish", "beta":
            z = beta * x
            return [x * x * m.sigmoid(z) * m.sigmoid(-z)]
        case "gelu", "value":
            return [x * m.normal_cdf(x)]
        case "gelu", "x":
            return [m.normal_cdf(x), x * m.normal_pdf(x)]
        case "gelu_tanh", "value":
            return [x * m.sigmoid(_tanh_argument(m, x))]
        case "gelu_tanh", "x":
            w = _tanh_argument(m, x)
            return [m.sigmoid(w), x * m.sigmoid(w) * m.sigmoid(-w) * _tanh_argument_slope(m, x)]
        case _:
            return [0 * x]


def _second_order_terms(m: Math, activation: str, partial: str, x: Any, beta: Any) -> Sequence[Any]:
    """With s = s(z) and r = s(-z) = 1 - s: s' = s r and s'' = s r (r - s)."""
    match activation, partial:
        case "sigmoid", "xx":
            s, r = m.sigmoid(x), m.sigmoid(-x)
            return [s * r * r, -s * r * s]
        case "swish", _:
            z = beta * x
            s, r = m.sigmoid(z), m.sigmoid(-z)
            if partial == "xx":
                return [2 * beta * s * r, beta * z * s * r * r, -beta * z * s * r * s]
            if partial == "xbeta":
                return [2 * x * s * r, x * z * s * r * r, -x * z * s * r * s]
            return [x * x * x * s * r * r, -x * x * x * s * r * s]
        case "gelu", "xx":
            density = m.normal_pdf(x)
            return [2 * density, -x * x * density]
        case "gelu_tanh", "xx":
            w = _tanh_argument(m, x)
            s, r, slope = m.sigmoid(w), m.sigmoid(-w), _tanh_argument_slope(m, x)
            bend = x * slope * slope * s * r
            return [2 * s * r * slope, bend * r, -bend * s, x * s * r * _tanh_argument_curvature(m, x)]
        case _:
            return [0 * x]


def activation_condition(activation: str, partial: str, x: Any, beta: Any, *, farthest: float = np.inf) -> Any:
    """``|t f'(t)|`` over the largest term of f, t being the argument that has to be rounded; 0 where nothing is.

    Args:
        farthest: 0 also where f is below e^-farthest: to zero, whatever it is multiplied with, t rounded or not.
    """
    condition = _condition(activation, partial, x, beta)
    return np.where(_decay(activation, x, beta) > farthest, 0.0, condition)


def _decay(activation: str, x: Any, beta: Any) -> Any:
    """-log of the activation's exponential where it decays, negative where it grows."""
    match activation:
        case "swish":
            return -beta * x
        case "gelu":
            return np.where(x < 0, x * x / 2, -1.0)
        case "gelu_tanh":
            return -_tanh_argument(FloatMath(), x)
        case _:
            return np.full(np.shape(x), -1.0)


def _condition(activation: str, partial: str, x: Any, beta: Any) -> Any:
    """Numerator and denominator are divided by s or Phi, which underflow where a unit's value may make up for it."""
    m = FloatMath()
    match activation, partial:
        case "swish", "value":
            z = beta * x
            return np.where(beta == 1, 0.0, np.abs(z) * m.sigmoid(-z))
        case "swish", ("x" | "beta"):
            z = beta * x
            s, r = m.sigmoid(z), m.sigmoid(-z)
            if partial == "beta":
                moved = np.abs(z * (r - s))
            else:
                moved = np.abs(z * r * (2 + z * (r - s))) / np.maximum(1, np.abs(z * r))
            return np.where(beta == 1, 0.0, moved)
        case "gelu", "value":
            return np.abs(x) * _normal_pdf_over_cdf(x)
        case "gelu", "x":
            second = np.abs(x) * _normal_pdf_over_cdf(x)
            return second * np.abs(2 - x * x) / np.maximum(1, second)
        case "gelu_tanh", ("value" | "x"):
            w, slope = _tanh_argument(m, x), _tanh_argument_slope(m, x)
            s, r = m.sigmoid(w), m.sigmoid(-w)
            if partial == "value":
                return np.abs(w) * r
            return np.abs(w * r * (1 + x * slope * (r - s))) / np.maximum(1, np.abs(x * r * slope))
        case _:
            return np.zeros(np.shape(x))


def _normal_pdf_over_cdf(x: Any) -> Any:
    """phi(x) / Phi(x), where Phi may underflow."""
    return np.sqrt(2 / np.pi) / scipy.special.erfcx(-x / np.sqrt(2))
