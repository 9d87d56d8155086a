"""The partial derivatives of each activation by closed form, in x and in beta, on blocks of float64 numbers."""

from __future__ import annotations

import numpy as np

from gated.numpy_ref._arrays import Kernel
from gated.numpy_ref._pair import Float64, exact
from gated.numpy_ref._wide import Wide, product, vanishing, wide
from gated.numpy_ref.activations import gelu_tanh_argument, logistic, normal

__all__ = ["IN_BETA", "IN_X"]


def identity_in_x(x: Float64, beta: Float64) -> Wide:
    """1."""
    return wide(np.ones_like(x))


def sigmoid_in_x(x: Float64, beta: Float64) -> Wide:
    """s(x) (1 - s(x))."""
    s, one_minus_s = logistic(exact(x))
    return s * one_minus_s


def relu_in_x(x: Float64, beta: Float64) -> Wide:
    """1 for x > 0, else 0; at 0, where there is no derivative, 0 by convention."""
    return wide(np.where(np.isnan(x), x, np.where(x > 0, 1.0, 0.0)))


def swish_in_x(x: Float64, beta: Float64) -> Wide:
    """s + z s (1 - s) with z = beta x and s = s(z)."""
    z = product(beta, x)
    s, one_minus_s = logistic(z.to_pair())
    return s + vanishing(z, s * one_minus_s)


def swish_in_beta(x: Float64, beta: Float64) -> Wide:
    """x^2 s (1 - s) with s = s(beta x)."""
    s, one_minus_s = logistic(product(beta, x).to_pair())
    return vanishing(wide(x), vanishing(wide(x), s * one_minus_s))


def gelu_in_x(x: Float64, beta: Float64) -> Wide:
    """Phi(x) + x phi(x) with phi(x) = e^(-x^2 / 2) / sqrt(2 pi)."""
    cdf, density = normal(x)
    return cdf + vanishing(wide(x), density)


def gelu_tanh_in_x(x: Float64, beta: Float64) -> Wide:
    """s(w) + x s(w) (1 - s(w)) w' with w' = 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2)."""
    w, slope = gelu_tanh_argument(x)
    s, one_minus_s = logistic(w)
    return s + vanishing(wide(x), s * one_minus_s) * slope


IN_X: dict[str, Kernel] = {
    "identity": identity_in_x,
    "sigmoid": sigmoid_in_x,
    "relu": relu_in_x,
    "gelu": gelu_in_x,
    "gelu_tanh": gelu_tanh_in_x,
    "swish": swish_in_x,
}

# The other activations have no beta.
IN_BETA: dict[str, Kernel] = {"swish": swish_in_beta}
