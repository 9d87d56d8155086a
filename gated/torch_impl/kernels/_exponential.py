"""The exponential and the logistic function, for Triton kernels.

``tl.exp`` is no use here: on NVIDIA it is ``ex2.approx`` of an argument that was rounded, off by tens of units in the
last place where the result is small, and it underflows long before the product that it is a factor of.
"""

import math

import triton
import triton.language as tl

from ._floats import bits, from_bits, polynomial, power_of_two

__all__ = ["FARTHEST_32", "FARTHEST_64", "INFINITY", "decay", "inverse_of_one_to_two", "logistic", "reciprocal"]

INFINITY = tl.constexpr(math.inf)
FARTHEST_32 = tl.constexpr(500.0)
FARTHEST_64 = tl.constexpr(4000.0)
"""e^-farthest times any four numbers of the dtype is zero, and farthest / ln 2 times the cut ln 2 is exact."""

_LOG2_E = tl.constexpr(1 / math.log(2))
# ln 2 in two parts, the first of few bits, as W. J. Cody and W. Waite cut it (355 / 512), and as fdlibm's e_exp.c does.
_LN2_32 = tl.constexpr(0.693359375)
_LN2_REST_32 = tl.constexpr(-2.1219444005469057e-4)
_LN2_64 = tl.constexpr(0.6931471803691238)
_LN2_REST_64 = tl.constexpr(1.9082149292705877e-10)
# What is left out, at |r| <= ln 2 / 2, is less than 5.3e-9 and 4.2e-18.
_SERIES = tl.constexpr(tuple((-1) ** k / math.factorial(k) for k in range(14)))
_TERMS_32 = tl.constexpr(7)
_TERMS_64 = tl.constexpr(13)


@triton.jit
def decay(t, low):
    """e^-(t + low) as mantissa 2^exponent for t >= 0 and |low| much smaller than t: mantissa in (0.7, 1.42).

    t = k ln 2 + r, so that e^-t = 2^-k e^-r with |r| <= ln 2 / 2 (Cody and Waite). The mantissa is zero at t = inf
    alone: at finite t, e^-t is a positive number, however small.
    """
    # 3 2^(p - 2) added, a small number is rounded to an integer, which then stands in the lowest bits.
    if t.dtype == tl.float64:
        near = tl.minimum(t, FARTHEST_64, propagate_nan=tl.PropagateNan.ALL)
        shifted = near * _LOG2_E + 6755399441055744.0
        exponent = 0x4338000000000000 - bits(shifted)
        k = shifted - 6755399441055744.0
        r = tl.fma(k, tl.full(k.shape, -_LN2_64, k.dtype), near)
        r = tl.fma(k, tl.full(k.shape, -_LN2_REST_64, k.dtype), r)
        mantissa = polynomial(r + low, _SERIES, _TERMS_64)
    else:
        near = tl.minimum(t, FARTHEST_32, propagate_nan=tl.PropagateNan.ALL)
        shifted = near * _LOG2_E + 12582912.0
        exponent = 0x4B400000 - bits(shifted)
        k = shifted - 12582912.0
        r = tl.fma(k, tl.full(k.shape, -_LN2_32, k.dtype), near)
        r = tl.fma(k, tl.full(k.shape, -_LN2_REST_32, k.dtype), r)
        mantissa = polynomial(r + low, _SERIES, _TERMS_32)
    return tl.where(t == INFINITY, 0.0, mantissa), exponent


@triton.jit
def inverse_of_one_to_two(d):
    """1 / d for 1 <= d <= 2, off by less than one unit in the last place.

    Newton's iteration squares the relative error, which is 1/17 at first, 2^-4.08: 2^-32 after three steps, 2^-65 after
    four.
    """
    one = tl.full(d.shape, 1.0, d.dtype)
    q = tl.fma(d, tl.full(d.shape, -8 / 17, d.dtype), tl.full(d.shape, 24 / 17, d.dtype))
    for _ in tl.static_range(4 if d.dtype == tl.float64 else 3):
        q = tl.fma(q, tl.fma(-d, q, one), q)
    return q


@triton.jit
def reciprocal(d):
    """1 / d for a normal number d > 0 far from the ends of the range, as good."""
    if d.dtype == tl.float64:
        scale = from_bits(0x7FE0000000000000 - (bits(d) & 0x7FF0000000000000))
    else:
        scale = from_bits(0x7F000000 - (bits(d) & 0x7F800000))
    return inverse_of_one_to_two(d * scale) * scale


@triton.jit
def logistic(z, rest):
    """s(z + rest), |rest| much smaller than |z|, with what its derivatives need. With E = e^-|z|:

        s = 1 / (1 + E) for z >= 0,  E / (1 + E) for z < 0

    Returns:
        s and s (1 - s), each as mantissa and exponent, and 1 - s, which may underflow.
    """
    negative = z < 0
    mantissa, exponent = decay(tl.abs(z), tl.where(negative, -rest, rest))
    # Below the smallest normal number E is lost beside 1.
    lowest: tl.constexpr = -1022 if z.dtype == tl.float64 else -126
    e = mantissa * power_of_two(tl.maximum(exponent, lowest))
    inverse = inverse_of_one_to_two(1.0 + e)
    s = tl.where(negative, mantissa, 1.0) * inverse
    complement = tl.where(negative, 1.0, e) * inverse
    return s, tl.where(negative, exponent, 0), mantissa * inverse * inverse, exponent, complement
