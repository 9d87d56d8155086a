"""Derivatives of the activations of any order, and the second derivatives of the gated forms.

Closed forms in plain arithmetic, with their limits at infinity. s denotes the sigmoid; its derivatives are
polynomials in itself: s' = s (1 - s), so that D p(s) = p'(s) s (1 - s).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ._arrays import Factor
from ._curves import CURVES, GELU_TANH_CUBIC, GELU_TANH_SCALE, Swish, argument
from ._words import Word

__all__ = ["derivative"]

_FAR = 60.0
"""e^-(_FAR^2 / 2) and e^-(_FAR^3 / 20) are zero in every dtype, while powers of _FAR are far from overflow."""


@functools.cache
def _polynomial(order: int, scale: float = 1.0, cubic: float = 0.0) -> Mapping[tuple[int, int], float]:
    """The ``order``-th derivative of s(w(x)), w' = scale + 3 cubic x^2, as coefficients of x^i s^j."""
    if order == 0:
        return {(0, 1): 1.0}
    result: dict[tuple[int, int], float] = {}

    def add(i: int, j: int, coefficient: float) -> None:
        if coefficient:
            result[i, j] = result.get((i, j), 0.0) + coefficient

    for (i, j), coefficient in _polynomial(order - 1, scale, cubic).items():
        add(i - 1, j, coefficient * i)
        for power, slope in ((0, scale), (2, 3 * cubic)):
            add(i + power, j, coefficient * j * slope)
            add(i + power, j + 1, -coefficient * j * slope)
    return result


def _evaluate(polynomial: Mapping[tuple[int, int], float], x: Tensor, s: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for (i, j), coefficient in polynomial.items():
        result = result + coefficient * x**i * s**j
    return result


def _logistic_derivative(order: int, z: Tensor) -> Tensor:
    """s^(order)(z), order >= 1, by the symmetry s^(n)(z) = (-1)^(n+1) s^(n)(-z): at -|z| no term cancels another."""
    value = _evaluate(_polynomial(order), torch.ones_like(z), torch.sigmoid(-z.abs()))
    return value if order % 2 else -torch.sign(z) * value


def _even(order: int, x: Tensor, at_negative: Tensor) -> Tensor:
    """f^(order)(x) from f^(order)(-|x|), where f(x) - x / 2 is even and order >= 2."""
    return torch.where(x > 0, -at_negative, at_negative) if order % 2 else at_negative


def _swish(order: int, beta_order: int, x: Tensor, beta: float | Tensor) -> Tensor:
    """The sum over i of C(n, i) (m + 1)! / (m + 1 - i)! x^(m+1-i) beta^(n-i) s^(m+n-i)(z), n and m the orders.

    x^p beta^r is a power of z times a power of x or of beta, the same in all terms.
    """
    n, m = order, beta_order
    z = argument(Word(x), beta).high.clamp(-(_FAR**2), _FAR**2)
    result = torch.zeros_like(z)
    for i in range(min(n, m + 1) + 1):
        weight = math.comb(n, i) * math.perm(m + 1, i)
        result = result + weight * z ** min(m + 1 - i, n - i) * _logistic_derivative(m + n - i, z)
    excess = m + 1 - n
    power: Tensor | float = x**excess if excess >= 0 else beta**-excess
    return torch.where(result == 0, result, result * power)


def _gelu(order: int, x: Tensor) -> Tensor:
    """x phi^(n-1) + n phi^(n-2), with phi^(j) = (-1)^j He_j phi, He_{j+1} = x He_j - j He_{j-1}."""
    x = x.clamp(-_FAR, _FAR)
    hermite = [torch.ones_like(x), x]
    for j in range(1, order - 1):
        hermite.append(x * hermite[j] - j * hermite[j - 1])
    sign = -1 if order % 2 else 1
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return sign * (order * hermite[order - 2] - x * hermite[order - 1]) * density


def _gelu_tanh(order: int, x: Tensor) -> Tensor:
    """x S^(n) + n S^(n-1), S(x) = s(w(x))."""
    y = -x.abs().clamp_max(_FAR)
    s = torch.sigmoid(y * (GELU_TANH_CUBIC * y * y + GELU_TANH_SCALE))
    upper = _evaluate(_polynomial(order, GELU_TANH_SCALE, GELU_TANH_CUBIC), y, s)
    lower = _evaluate(_polynomial(order - 1, GELU_TANH_SCALE, GELU_TANH_CUBIC), y, s)
    return _even(order, x, y * upper + order * lower)


def derivative(activation: str, order: int, beta_order: int, x: Tensor, beta: Factor) -> Tensor:
    """The derivative of A(x; beta), ``order`` times in x and ``beta_order`` times in beta, in the compute dtype.

    A tensor beta has the shape of x.
    """
    curve = CURVES[activation]
    if beta_order and curve is not Swish:
        return torch.zeros_like(x)
    match order, beta_order:
        case 0, 0:
            return curve(Word(x), beta).value().times().rounded()
        case 1, 0:
            return curve(Word(x), beta).slope().times().rounded()
    if curve.linear:
        return torch.where(x.isnan(), x, torch.zeros_like(x))
    if activation == "swish":
        assert beta is not None
        return _swish(order, beta_order, x, beta)
    if activation == "sigmoid":
        return _logistic_derivative(order, x)
    return _gelu(order, x) if activation == "gelu" else _gelu_tanh(order, x)
