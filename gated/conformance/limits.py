"""What the closed forms cannot be evaluated for: the limits at infinity and the signs of zeros, by rule.

The rules are the contract's semantics written down once more, apart from every backend: a function that has a limit
takes it, beta = 0 makes swish x / 2, a nan operand gives nan, an infinite value makes an infinity of every activation
that is not zero, and a product has the sign of its factors, also where it is zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gated.conformance.closed_forms import SECOND_PARTIALS, FloatMath, activation_terms

__all__ = ["activation_limit", "activation_sign", "special_products"]

Float64 = NDArray[np.float64]


def activation_sign(activation: str, partial: str, x: Float64) -> Float64:
    """+1 or -1: the sign of a product-form activation or partial derivative, zero or not, wherever it has one.

    The derivatives of swish and gelu in x and all second derivatives are sums, whose sign is not that of a factor; they
    are given as +1.
    """
    if partial == "value" and activation in ("identity", "swish", "gelu", "gelu_tanh"):
        return np.copysign(1.0, x)
    if partial == "value" and activation == "relu":
        return np.where(x < 0, 1.0, np.copysign(1.0, x))
    return np.ones_like(x)


def activation_limit(activation: str, partial: str, x: Float64, beta: Float64) -> Float64:
    """The activation or a derivative of it where x or beta (of swish) is infinite: its limit there.

    At an infinite argument z = beta x all second derivatives vanish. At z = 0 they are those of a quadratic: swish is
    x / 2 + beta x^2 / 4 to third order, so an infinite beta makes an infinite curvature at x = 0, and an infinite x an
    infinite mixed derivative at beta = 0.
    """
    if partial in SECOND_PARTIALS:
        if activation != "swish" or partial == "betabeta":
            return np.zeros_like(x)
        at_zero = np.sign(beta) * np.sign(x) == 0
        return np.where(at_zero, (beta if partial == "xx" else x) / 2, 0.0)
    if activation == "identity":
        return x if partial == "value" else np.ones_like(x)
    slope = np.sign(beta) * np.sign(x) if activation == "swish" else np.sign(x)
    # With beta = 0 or x = 0 the argument of the sigmoid is 0, whatever the other is.
    rising, level = slope > 0, slope == 0
    if activation == "sigmoid":
        return np.where(rising, 1.0, 0.0) if partial == "value" else np.zeros_like(x)
    if partial == "value":
        return np.where(rising, x, np.where(level, x / 2, 0.0 if activation == "relu" else np.copysign(0.0, x)))
    if partial == "x":
        return np.where(rising, 1.0, np.where(level, 0.5, 0.0))
    return np.where(level, x * x / 4, 0.0)


def _finite_sign(activation: str, partial: str, x: Float64, beta: Float64) -> Float64:
    """-1, 0 or 1: the sign of the activation or its derivative at a finite x; 0 where it is zero, not by underflow."""
    if (activation == "sigmoid" and partial in ("value", "x")) or (activation, partial) == ("identity", "x"):
        return np.ones_like(x)
    if activation == "relu" and partial in ("value", "x"):
        return np.where(x > 0, 1.0, 0.0)
    if partial == "value":
        return np.sign(x)
    if partial == "beta":
        return np.where(x == 0, 0.0, 1.0) if activation == "swish" else np.zeros_like(x)
    total: Float64 = np.sum(activation_terms(FloatMath(), activation, partial, x, beta), axis=0)
    return np.sign(total)


def _product(*factors: Float64) -> Float64:
    """The product of numbers of any magnitude, of which no part leaves the range unless the whole does."""
    mantissa, exponent = np.ones(()), np.zeros((), np.int32)
    for factor in factors:
        part, power = np.frexp(factor)
        mantissa = mantissa * part
        exponent = exponent + np.where(np.isfinite(factor), power, 0)
    return np.ldexp(mantissa, exponent)


def special_products(
    activation: str, partial: str, cotangent: Float64, gate: Float64, value: Float64, beta: Float64
) -> Float64:
    """cotangent * A * value, A the activation or a partial derivative of it, where an operand is not finite.

    The results for finite operands mean nothing.
    """
    with np.errstate(all="ignore"):
        limit = activation_limit(activation, partial, gate, beta)
        # Times an infinity, only the sign of a finite activation matters, and whether it is zero.
        at_limit = ~(np.isfinite(gate) & (np.isfinite(beta) | (activation != "swish")))
        factor = np.where(at_limit, limit, _finite_sign(activation, partial, gate, beta))
        product = _product(cotangent, factor, value)
    absent = np.isnan(value) | np.isnan(cotangent)
    if (activation, partial) != ("identity", "x"):
        absent |= np.isnan(gate)
    if activation == "swish":
        absent |= np.isnan(beta)
    return np.where(absent, np.nan, product)
