"""The activations: sigmoid, swish, silu, gelu, relu.

Below each public function stands its formula, on blocks of float64 numbers (:mod:`gated.numpy_ref._wide` has the
arithmetic). float16, bfloat16 and float32 arrays are worked in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np
import scipy.special

from gated.numpy_ref._arrays import Array, Kernel, checks, elementwise
from gated.numpy_ref._wide import Float64, Pair, Wide, add, exact_product, exp, multiply, select, vanishing, wide

__all__ = ["gelu", "relu", "sigmoid", "silu", "swish"]


def sigmoid(x: Array) -> Array:
    r"""The logistic function :math:`\sigma(x) = 1 / (1 + e^{-x})`.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.

    Returns:
        An array of the shape and dtype of ``x``; 0 at -inf, 1 at +inf.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype.
    """
    checks.unary("sigmoid", x)
    return elementwise(sigmoid_formula, x, like=x)


def sigmoid_formula(x: Float64, beta: Float64 | None = None) -> Wide:
    """s(x)."""
    s, _ = logistic(exactly(x))
    return s


def exactly(x: Float64) -> Pair:
    """``x`` itself as the argument of an exponential: nothing was rounded."""
    return Pair(x, np.zeros_like(x))


def logistic(t: Pair) -> tuple[Wide, Wide]:
    """``s(t) = 1 / (1 + e^-t)`` and ``1 - s(t)``, each to full relative precision.

    With E = e^-|t|, which cannot overflow, the one on the side of t is 1 / (1 + E), the other E / (1 + E).
    """
    flip = np.where(t.high < 0, 1.0, -1.0)
    e = exp(Pair(flip * t.high, flip * t.low))
    near_one = wide(1 / (1 + e.to_float64()))
    near_zero = e / (1 + e.to_float64())
    positive = t.high >= 0
    return select(positive, near_one, near_zero), select(positive, near_zero, near_one)


def swish(x: Array, beta: float | Array = 1.0) -> Array:
    r"""Swish: :math:`\operatorname{swish}_\beta(x) = x \, \sigma(\beta x)`.

    Source: Ramachandran, Zoph and Le, "Searching for Activation Functions", arXiv:1710.05941, section 3.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.
        beta: a Python number, or an array of the dtype of ``x`` that broadcasts to ``x`` without enlarging it.

    Returns:
        An array of the shape and dtype of ``x``. For beta > 0: -0.0 at -inf, +inf at +inf; for beta < 0 mirrored; for
        beta = 0, x / 2.

    Raises:
        TypeError: an argument is no array of an allowed dtype, or the dtypes differ.
        ValueError: ``beta`` does not broadcast to ``x``, or would enlarge it.
    """
    checks.swish("swish", x, beta)
    return elementwise(swish_formula, x, beta, like=x)


def swish_formula(x: Float64, beta: Float64) -> Wide:
    """x s(beta x)."""
    s, _ = logistic(exact_product(beta, x))
    return vanishing(wide(x), s)


def silu(x: Array) -> Array:
    r"""SiLU, swish with beta = 1: :math:`\operatorname{silu}(x) = x \, \sigma(x)`.

    Source: Elfwing, Uchibe and Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
    Reinforcement Learning", arXiv:1702.03118, equation 5.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.

    Returns:
        An array of the shape and dtype of ``x``; -0.0 at -inf, +inf at +inf.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype.
    """
    checks.unary("silu", x)
    return elementwise(swish_formula, x, 1.0, like=x)


def gelu(x: Array, *, approximate: str = "none") -> Array:
    r"""GELU: :math:`x \, \Phi(x)`, or its tanh approximation.

    .. math::
        \Phi(x) = \tfrac12 \operatorname{erfc}(-x / \sqrt 2)
        \qquad\text{or}\qquad
        \tfrac12 \bigl(1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3))\bigr)

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415, section 2.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.
        approximate: ``"none"`` (erf) or ``"tanh"``. The two differ by up to 4.7e-4.

    Returns:
        An array of the shape and dtype of ``x``; -0.0 at -inf, +inf at +inf.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype.
        ValueError: ``approximate`` is unknown.
    """
    checks.gelu("gelu", x, approximate)
    return elementwise(gelu_formula if approximate == "none" else gelu_tanh_formula, x, like=x)


def gelu_formula(x: Float64, beta: Float64 | None = None) -> Wide:
    """x Phi(x)."""
    return vanishing(wide(x), normal_cdf(x))


def normal_cdf(x: Float64) -> Wide:
    """Phi(x) = (1 + erf(x / sqrt 2)) / 2 = erfc(-x / sqrt 2) / 2, the tail by erfc(t) = erfcx(t) e^(-t^2)."""
    tail = 0.5 * wide(scipy.special.erfcx(np.abs(x) / np.sqrt(2.0))) * gaussian(x)
    tail = Wide(np.where(np.isinf(x), 0.0, tail.mantissa), tail.exponent)
    # 1 + erf cancels below; from -1 up it loses no more than erfcx would.
    return select(x < -1, tail, wide((1 + scipy.special.erf(x / np.sqrt(2.0))) / 2))


def gaussian(x: Float64) -> Wide:
    """e^(-x^2 / 2), the square without error."""
    square = exact_product(x, x)
    return exp(Pair(-square.high / 2, -square.low / 2))


# 2 sqrt(2 / pi) and 0.044715, each as the float64 nearest to it and the rest.
SLOPE = Pair(np.array(1.5957691216057308), np.array(-9.96930880911092e-17))
CUBIC = Pair(np.array(0.044715), np.array(2.1960211427085595e-18))
# Beyond this, e^(-w) times any float64 numbers is 0, and x^3 is far from overflow.
SATURATED = 64.0


def gelu_tanh_formula(x: Float64, beta: Float64 | None = None) -> Wide:
    """x s(w) with w = 2 sqrt(2 / pi) (x + 0.044715 x^3), since (1 + tanh u) / 2 = s(2 u)."""
    s, _ = logistic(gelu_tanh_argument(x))
    return vanishing(wide(x), s)


def gelu_tanh_argument(x: Float64) -> Pair:
    """w = 2 sqrt(2 / pi) x (1 + 0.044715 x^2), to about 106 bits."""
    bounded = exactly(np.clip(x, -SATURATED, SATURATED))
    w = multiply(multiply(SLOPE, bounded), add(1.0, multiply(CUBIC, multiply(bounded, bounded))))
    infinite = np.isinf(x)
    return Pair(np.where(infinite, x, w.high), np.where(infinite, 0.0, w.low))


def relu(x: Array) -> Array:
    r"""The rectifier :math:`\max(x, 0)`. The sign of a zero is kept.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype.
    """
    checks.unary("relu", x)
    return elementwise(relu_formula, x, like=x)


def relu_formula(x: Float64, beta: Float64 | None = None) -> Wide:
    """max(x, 0)."""
    return wide(np.where(x < 0, 0.0, x))


def identity_formula(x: Float64, beta: Float64 | None = None) -> Wide:
    """x."""
    return wide(x)


FORMULAS: dict[str, Kernel] = {
    "identity": identity_formula,
    "sigmoid": sigmoid_formula,
    "relu": relu_formula,
    "gelu": gelu_formula,
    "gelu_tanh": gelu_tanh_formula,
    "swish": swish_formula,
}
