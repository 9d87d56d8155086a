"""The distribution function of the standard normal distribution, for Triton kernels.

It is that of :mod:`gated.torch_impl._normal_tail`, whose coefficients it takes.
"""

import math

import torch
import triton
import triton.language as tl

from .._normal_tail import COEFFICIENTS, MIDDLE, POLES, TERMS
from ._exponential import FARTHEST_32, FARTHEST_64, INFINITY, decay, reciprocal
from ._floats import capped, exact_product, polynomial, power_of_two

__all__ = ["normal"]


_PHI_0 = tl.constexpr(1 / math.sqrt(2 * math.pi))
_MIDDLE = tl.constexpr(MIDDLE)
_MIDDLE_SERIES = tl.constexpr(tuple(1 / (math.factorial(k) * (2 * k + 1)) for k in range(TERMS[torch.float64])))
_MIDDLE_DEGREE_32 = tl.constexpr(TERMS[torch.float32] - 1)
_MIDDLE_DEGREE_64 = tl.constexpr(TERMS[torch.float64] - 1)
_TAIL_32 = tl.constexpr(COEFFICIENTS[torch.float32])
_TAIL_64 = tl.constexpr(COEFFICIENTS[torch.float64])
_TAIL_DEGREE_32 = tl.constexpr(len(COEFFICIENTS[torch.float32]) - 1)
_TAIL_DEGREE_64 = tl.constexpr(len(COEFFICIENTS[torch.float64]) - 1)
_POLE_32 = tl.constexpr(POLES[torch.float32])
_POLE_64 = tl.constexpr(POLES[torch.float64])
# e^(-y^2 / 2) is negligible beyond: y^2 / 2 is FARTHEST there.
_FARTHEST_32 = tl.constexpr(math.sqrt(2 * FARTHEST_32.value))
_FARTHEST_64 = tl.constexpr(math.sqrt(2 * FARTHEST_64.value))


@triton.jit
def _tail_ratio(y):
    """R(y) = e^(y^2/2) Phi(-y) for finite y >= 0: a polynomial of m = (y - pole) / (y + pole), over 1 + y."""
    pole: tl.constexpr = _POLE_64 if y.dtype == tl.float64 else _POLE_32
    divisor, other = y + 1.0, y + pole
    inverse = reciprocal(divisor * other)
    m = (y - pole) * (divisor * inverse)
    if y.dtype == tl.float64:
        return polynomial(m, _TAIL_64, _TAIL_DEGREE_64) * (other * inverse)
    else:
        return polynomial(m, _TAIL_32, _TAIL_DEGREE_32) * (other * inverse)


@triton.jit
def _middle(x):
    """Phi(x) for |x| <= MIDDLE: 1/2 + x times the sum of (-x^2 / 2)^k / (k! (2 k + 1)) over k, over sqrt(2 pi)."""
    t = -0.5 * x * x
    if x.dtype == tl.float64:
        return 0.5 + x * (polynomial(t, _MIDDLE_SERIES, _MIDDLE_DEGREE_64) * _PHI_0)
    else:
        return 0.5 + x * (polynomial(t, _MIDDLE_SERIES, _MIDDLE_DEGREE_32) * _PHI_0)


@triton.jit
def normal(x):
    """Phi(x), with what the derivative of x Phi(x) needs.

    Returns:
        The mantissa of Phi, the exponent, and x phi(x) as a mantissa of the same exponent.
    """
    magnitude = tl.abs(x)
    if x.dtype == tl.float64:
        y = tl.minimum(magnitude, _FARTHEST_64, propagate_nan=tl.PropagateNan.ALL)
        lowest: tl.constexpr = -1022
    else:
        y = tl.minimum(magnitude, _FARTHEST_32, propagate_nan=tl.PropagateNan.ALL)
        lowest: tl.constexpr = -126
    square, rest = exact_product(y, y)
    # Only at infinity is e^(-x^2 / 2) a zero.
    mantissa, exponent = decay(tl.where(magnitude == INFINITY, INFINITY, 0.5 * square), 0.5 * rest)
    e = mantissa * power_of_two(tl.maximum(exponent, lowest))
    ratio = _tail_ratio(y)
    negative = x < 0
    tail = tl.where(negative, mantissa * ratio, 1.0 - e * ratio)
    cdf = tl.where(y < _MIDDLE, _middle(capped(x, _MIDDLE)), tail)  # in the middle the exponent is 0
    return cdf, tl.where(negative, exponent, 0), _PHI_0 * y * tl.where(negative, -mantissa, e)
