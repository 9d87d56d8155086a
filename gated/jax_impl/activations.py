"""The activations: sigmoid, swish, silu, gelu, relu.

Values and derivatives of every order are closed forms (``_partials.py``), the same in and out of ``jax.jit``. float16
and bfloat16 are worked in float32 and rounded once.
"""

from __future__ import annotations

from gated.jax_impl._arrays import Array, Beta, beta_operand, checks
from gated.jax_impl._gated import activation_of

__all__ = ["gelu", "relu", "sigmoid", "silu", "swish"]


def sigmoid(x: Array) -> Array:
    r"""The logistic function :math:`\sigma(x) = 1 / (1 + e^{-x})`.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.

    Returns:
        An array of the shape and dtype of ``x``; 0 at -inf, 1 at +inf.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype.
    """
    checks.unary("sigmoid", x)
    return activation_of("sigmoid", x)


def swish(x: Array, beta: Beta = 1.0) -> Array:
    r"""Swish: :math:`\operatorname{swish}_\beta(x) = x \, \sigma(\beta x)`.

    Source: Ramachandran, Zoph and Le, "Searching for Activation Functions", arXiv:1710.05941, section 3.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.
        beta: a Python number, or an array of the dtype of ``x`` that broadcasts to ``x`` without enlarging it. It is
            differentiable: :math:`\partial_\beta = x^2 \sigma(\beta x) (1 - \sigma(\beta x))`.

    Returns:
        An array of the shape and dtype of ``x``. For beta > 0: -0.0 at -inf, +inf at +inf; for beta < 0 mirrored; for
        beta = 0, x / 2.

    Raises:
        TypeError: an argument is no JAX array of an allowed dtype, or the dtypes differ.
        ValueError: ``beta`` does not broadcast to ``x``, or would enlarge it.
    """
    checks.swish("swish", x, beta)
    return activation_of("swish", x, beta_operand(beta, x))


def silu(x: Array) -> Array:
    r"""SiLU, swish with beta = 1: :math:`\operatorname{silu}(x) = x \, \sigma(x)`.

    Source: Elfwing, Uchibe and Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
    Reinforcement Learning", arXiv:1702.03118, equation 5.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.

    Returns:
        An array of the shape and dtype of ``x``; -0.0 at -inf, +inf at +inf.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype.
    """
    checks.unary("silu", x)
    return activation_of("swish", x)


def gelu(x: Array, *, approximate: str = "none") -> Array:
    r"""GELU: :math:`x \, \Phi(x)`, or its tanh approximation.

    .. math::
        \Phi(x) = \tfrac12 \operatorname{erfc}(-x / \sqrt 2)
        \qquad\text{or}\qquad
        \tfrac12 \bigl(1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3))\bigr)

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415, section 2.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.
        approximate: ``"none"`` (erf) or ``"tanh"``. The two differ by up to 4.7e-4. (``jax.nn.gelu`` has tanh as its
            default.)

    Returns:
        An array of the shape and dtype of ``x``; -0.0 at -inf, +inf at +inf.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype.
        ValueError: ``approximate`` is unknown.
    """
    checks.gelu("gelu", x, approximate)
    return activation_of("gelu" if approximate == "none" else "gelu_tanh", x)


def relu(x: Array) -> Array:
    r"""The rectifier :math:`\max(x, 0)`, with derivative 0 at 0. The sign of a zero is kept.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype.
    """
    checks.unary("relu", x)
    return activation_of("relu", x)
