"""The activations: elementwise functions of one array."""

from __future__ import annotations

import torch

from ._arrays import Beta, checks, factor
from ._autograd import apply
from ._forms import Form

__all__ = ["gelu", "relu", "sigmoid", "silu", "swish"]


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    r"""The logistic function, :math:`\sigma(x) = 1 / (1 + e^{-x})`.

    Its derivative is :math:`\sigma(x) (1 - \sigma(x))`. :math:`\sigma(-\infty) = 0` and :math:`\sigma(\infty) = 1`.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.

    Returns:
        An array of the shape and dtype of ``x``. 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: ``x`` is no tensor, or of another dtype.
    """
    checks.unary("sigmoid", x)
    return apply(Form("sigmoid"), x, None, None)


def swish(x: torch.Tensor, beta: Beta = 1.0) -> torch.Tensor:
    r"""Swish, :math:`\mathrm{swish}_\beta(x) = x \, \sigma(\beta x)`.

    With :math:`z = \beta x` and :math:`s = \sigma(z)` its derivatives are :math:`s + z s (1 - s)` in x and
    :math:`x^2 s (1 - s)` in beta. A :math:`0 \cdot \infty` within z counts as 0, so that swish with beta = 0 is
    :math:`x / 2` everywhere. At the infinity where z is :math:`-\infty` the value is a zero of the sign of x.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.
        beta: a Python number, which is never rounded to a 16-bit dtype, or an array of the dtype of ``x`` that
            broadcasts to its shape without enlarging it; differentiable.

    Returns:
        An array of the shape and dtype of ``x``. 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: ``x`` or ``beta`` is of another kind or dtype, or their dtypes differ.
        ValueError: ``beta`` does not broadcast to the shape of ``x``.

    Source: P. Ramachandran, B. Zoph, Q. V. Le, "Searching for Activation Functions", arXiv:1710.05941.
    """
    checks.swish("swish", x, beta)
    return apply(Form("swish"), x, None, factor(beta, x.dtype))


def silu(x: torch.Tensor) -> torch.Tensor:
    r"""The sigmoid-weighted linear unit, :math:`\mathrm{silu}(x) = x \, \sigma(x)`: :func:`swish` with beta = 1.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.

    Returns:
        An array of the shape and dtype of ``x``. 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: ``x`` is no tensor, or of another dtype.

    Source: S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
    Reinforcement Learning", arXiv:1702.03118.
    """
    checks.unary("silu", x)
    return apply(Form("swish"), x, None, 1.0)


def gelu(x: torch.Tensor, *, approximate: str = "none") -> torch.Tensor:
    r"""The Gaussian error linear unit, :math:`\mathrm{gelu}(x) = x \, \Phi(x)`, or its approximation.

    :math:`\Phi(x) = \mathrm{erfc}(-x / \sqrt 2) / 2` is the distribution function of the standard normal distribution.
    ``approximate="tanh"`` gives

    .. math:: x \, \frac{1 + \tanh(w / 2)}{2} = x \, \sigma(w), \quad w = 2 \sqrt{2 / \pi} \, (x + 0.044715 \, x^3).

    The derivatives are :math:`\Phi(x) + x \varphi(x)` with the density :math:`\varphi`, and
    :math:`\sigma(w) + x \, w' \sigma(w) (1 - \sigma(w))`.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.
        approximate: ``"none"`` or ``"tanh"``. The two differ by up to 4.7e-4.

    Returns:
        An array of the shape and dtype of ``x``. 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: ``x`` is no tensor, or of another dtype.
        ValueError: ``approximate`` is neither.

    Source: D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", arXiv:1606.08415.
    """
    checks.gelu("gelu", x, approximate)
    return apply(Form("gelu" if approximate == "none" else "gelu_tanh"), x, None, None)


def relu(x: torch.Tensor) -> torch.Tensor:
    r"""The rectifier, :math:`\mathrm{relu}(x) = \max(x, 0)`.

    Its derivative is 1 for x > 0 and 0 elsewhere, at 0 too. nan propagates, to the derivative too, and -0.0 stays.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is no tensor, or of another dtype.
    """
    checks.unary("relu", x)
    return apply(Form("relu"), x, None, None)
