"""The partial derivatives of each activation by closed form, in x and in beta, on blocks of float64 numbers."""

from __future__ import annotations

import numpy as np

from gated.numpy_ref._arrays import Kernel
from gated.numpy_ref._wide import Float64, Wide, exact_product, vanishing, wide
from gated.numpy_ref.activations import (
    CUBIC,
    SATURATED,
    SLOPE,
    exactly,
    gaussian,
    gelu_tanh_argument,
    logistic,
    normal_cdf,
)

__all__ = ["IN_BETA", "IN_X"]


def identity_in_x(x: Float64, beta: Float64) -> Wide:
    """1."""
    return wide(np.ones_like(x))


def sigmoid_in_x(x: Float64, beta: Float64) -> Wide:
    """s(x) (1 - s(x))."""
    s, one_minus_s = logistic(exactly(x))
    return s * one_minus_s


def relu_in_x(x: Float64, beta: Float64) -> Wide:
    """1 for x > 0, else 0; at 0, where there is no derivative, 0 by convention."""
    return wide(np.where(np.isnan(x), x, np.where(x > 0, 1.0, 0.0)))


def swish_in_x(x: Float64, beta: Float64) -> Wide:
    """s + z s (1 - s) with z = beta x and s = s(z)."""
    z = exact_product(beta, x)
    s, one_minus_s = logistic(z)
    return s + vanishing(wide(z.high), s * one_minus_s)


def swish_in_beta(x: Float64, beta: Float64) -> Wide:
    """x^2 s (1 - s) with s = s(beta x)."""
    s, one_minus_s = logistic(exact_product(beta, x))
    return vanishing(wide(x), vanishing(wide(x), s * one_minus_s))


def gelu_in_x(x: Float64, beta: Float64) -> Wide:
    """Phi(x) + x phi(x) with phi(x) = e^(-x^2 / 2) / sqrt(2 pi)."""
    phi = gaussian(x) * (1 / np.sqrt(2 * np.pi))
    return normal_cdf(x) + vanishing(wide(x), phi)


def gelu_tanh_in_x(x: Float64, beta: Float64) -> Wide:
    """s(w) + x s(w) (1 - s(w)) w' with w' = 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2)."""
    s, one_minus_s = logistic(gelu_tanh_argument(x))
    bounded = np.clip(x, -SATURATED, SATURATED)
    slope = SLOPE.high * (1 + 3 * CUBIC.high * bounded * bounded)
    return s + vanishing(wide(x), s * one_minus_s) * wide(slope)


def _zero(x: Float64, beta: Float64) -> Wide:
    """0: the activation has no beta."""
    return wide(np.zeros_like(x))


IN_X: dict[str, Kernel] = {
    "identity": identity_in_x,
    "sigmoid": sigmoid_in_x,
    "relu": relu_in_x,
    "gelu": gelu_in_x,
    "gelu_tanh": gelu_tanh_in_x,
    "swish": swish_in_x,
}

IN_BETA: dict[str, Kernel] = dict.fromkeys(IN_X, _zero) | {"swish": swish_in_beta}
