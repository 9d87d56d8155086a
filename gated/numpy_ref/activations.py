"""The activations: sigmoid, swish, silu, gelu, relu.

Below each public function stands its formula, on blocks of float64 numbers (:mod:`gated.numpy_ref._pair` and ``_wide``
have the arithmetic, of about 106 bits). Results are rounded once, to the dtype of the arrays.
"""

from __future__ import annotations

import numpy as np

from gated.numpy_ref._arrays import Array, Kernel, checks, elementwise
from gated.numpy_ref._erfcx import erfcx
from gated.numpy_ref._exponential import exp
from gated.numpy_ref._pair import Float64, Pair, constant, exact
from gated.numpy_ref._wide import Wide, product, select, vanishing, wide

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
    s, _ = logistic(exact(x))
    return s


def logistic(t: Pair) -> tuple[Wide, Wide]:
    """``s(t) = 1 / (1 + e^-t)`` and ``1 - s(t)``, each to full relative precision.

    With E = e^-|t|, which cannot overflow, the one on the side of t is 1 / (1 + E), the other E / (1 + E).
    """
    positive = t.high >= 0
    sign = np.where(positive, -1.0, 1.0)
    e = exp(Pair(sign * t.high, sign * t.low))
    near_one = wide(1 / (1 + e.to_pair()))
    near_zero = e * near_one
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
    s, _ = logistic(product(beta, x).to_pair())
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
    cdf, _ = normal(x)
    return vanishing(wide(x), cdf)


SQRT_HALF = constant("0.70710678118654752440084436210484903928483593768847")
INVERSE_SQRT_2PI = constant("0.39894228040143267793994605993438186847585863116493")
SLOPE = constant("1.5957691216057307117597842397375274738903434465976")  # 2 sqrt(2 / pi)
CUBIC = constant("0.044715")
THREE_CUBIC = constant("0.134145")
# Beyond this, e^(-w) and e^(-x^2 / 2) times any float64 numbers are 0, and x^3 is far from overflow.
SATURATED = 64.0


def normal(x: Float64) -> tuple[Wide, Wide]:
    """Phi(x) = erfc(-x / sqrt 2) / 2 and phi(x) = e^(-x^2 / 2) / sqrt(2 pi).

    With t = |x| / sqrt 2, erfc(t) = erfcx(t) e^(-t^2) has no cancellation. Phi(x) for x >= 0 is 1 - Phi(-x).
    """
    gaussian = exp(-(wide(x) * wide(x)).halved().to_pair())
    t = exact(np.minimum(np.abs(x), SATURATED)) * SQRT_HALF
    tail = (wide(erfcx(t)) * gaussian).halved()
    cdf = select(x < 0, tail, wide(1 - tail.to_pair()))
    return cdf, gaussian * INVERSE_SQRT_2PI


def gelu_tanh_formula(x: Float64, beta: Float64 | None = None) -> Wide:
    """x s(w) with w = 2 sqrt(2 / pi) (x + 0.044715 x^3), since (1 + tanh u) / 2 = s(2 u)."""
    w, _ = gelu_tanh_argument(x)
    s, _ = logistic(w)
    return vanishing(wide(x), s)


def gelu_tanh_argument(x: Float64) -> tuple[Pair, Pair]:
    """w = 2 sqrt(2 / pi) x (1 + 0.044715 x^2) and its derivative 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2)."""
    bounded = exact(np.clip(x, -SATURATED, SATURATED))
    square = bounded * bounded
    w = SLOPE * bounded * (1 + CUBIC * square)
    slope = SLOPE * (1 + THREE_CUBIC * square)
    return Pair(np.where(np.isinf(x), x, w.high), w.low), slope


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
