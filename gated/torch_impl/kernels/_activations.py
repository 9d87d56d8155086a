"""The activations with their derivatives, as mantissas and exponents, for Triton kernels: one exponential each."""

import math

import torch
import triton
import triton.language as tl

from .._curves import GELU_TANH_CUBIC, GELU_TANH_CUBIC_REST, GELU_TANH_SCALE, GELU_TANH_SCALE_REST
from .._words import parts
from ._exponential import FARTHEST_32, FARTHEST_64, INFINITY, logistic
from ._floats import capped, exact_product, exact_sum
from ._normal import normal

__all__ = ["activation"]

_LARGEST_32 = tl.constexpr(torch.finfo(torch.float32).max)
_LARGEST_64 = tl.constexpr(torch.finfo(torch.float64).max)
# The cube of gelu_tanh is in range up to here, and e^-|w| negligible beside any factor long before.
_CUBED_32 = tl.constexpr(math.sqrt(FARTHEST_32.value))
_CUBED_64 = tl.constexpr(math.sqrt(FARTHEST_64.value))

_SCALE = tl.constexpr(GELU_TANH_SCALE)
_CUBIC = tl.constexpr(GELU_TANH_CUBIC)
_SCALE_LOW_32 = tl.constexpr(parts(GELU_TANH_SCALE, torch.float32).low)
_CUBIC_LOW_32 = tl.constexpr(parts(GELU_TANH_CUBIC, torch.float32).low)
_SCALE_LOW_64 = tl.constexpr(GELU_TANH_SCALE_REST)
_CUBIC_LOW_64 = tl.constexpr(GELU_TANH_CUBIC_REST)


@triton.jit
def _near(z):
    """z cut to where e^-|z| is already negligible beside any factor: finite, so that its products are."""
    return capped(z, FARTHEST_64 if z.dtype == tl.float64 else FARTHEST_32)


# The arguments of the logistic function, each with what it lost when it was rounded: rounded once, z would cost e^z up
# to |z| half units in its last place.


@triton.jit
def _scaled_argument(x, x_low, beta, beta_low, LIMITED: tl.constexpr):
    """z = beta x, where a zero times an infinity is 0, and a product of finite numbers that overflows stays finite."""
    largest: tl.constexpr = _LARGEST_64 if x.dtype == tl.float64 else _LARGEST_32
    farthest: tl.constexpr = FARTHEST_64 if x.dtype == tl.float64 else FARTHEST_32
    z = capped(capped(x, largest) * capped(beta, largest), largest)
    infinite = ((tl.abs(x) == INFINITY) & (beta != 0)) | ((tl.abs(beta) == INFINITY) & (x != 0))
    rest = tl.fma(x, beta, -z) + x * beta_low
    if LIMITED:
        rest += x_low * beta
    # Of what was capped the rest is no rest; where e^-|z| is negligible, it does not matter.
    rest = tl.where((tl.abs(z) <= farthest) & (tl.abs(rest) < 1.0), rest, 0.0)
    return tl.where(infinite, z * INFINITY, z), rest


@triton.jit
def _gelu_tanh_argument(x):
    """w = x (scale + cubic x^2) for x that is cut, and x w'(x)"""
    square, square_rest = exact_product(x, x)
    cubic = tl.full(x.shape, _CUBIC, x.dtype)
    bent, bent_rest = exact_product(square, cubic)
    slope, slope_rest = exact_sum(tl.full(x.shape, _SCALE, x.dtype), bent)
    if x.dtype == tl.float64:
        slope_rest += (bent_rest + (square_rest * _CUBIC + square * _CUBIC_LOW_64)) + _SCALE_LOW_64
    else:
        slope_rest += (bent_rest + (square_rest * _CUBIC + square * _CUBIC_LOW_32)) + _SCALE_LOW_32
    w, rest = exact_product(x, slope)
    return w, rest + x * slope_rest, x * (3 * bent + _SCALE)


@triton.jit
def activation(NAME: tl.constexpr, x, x_low, beta, beta_low, SCALED_BY_BETA: tl.constexpr, LIMITED: tl.constexpr):
    """A(x + x_low; beta + beta_low) and its derivatives, which are

        A = value base,  dA/dx = slope,  dA/dbeta = bend bow^2

    with value, slope and bend as mantissas with exponents, and with base and bow as numbers of any magnitude. x_low is
    nothing without LIMITED, beta is 1 without SCALED_BY_BETA. A mantissa of zero is a mathematical zero, never an
    underflow. What is not used costs nothing: the compiler drops it.

    Returns:
        value and its exponent, base, slope and its exponent, bend and its exponent, bow.
    """
    one = tl.full(x.shape, 1.0, x.dtype)
    level = tl.zeros(x.shape, tl.int64 if x.dtype == tl.float64 else tl.int32)
    if NAME == "identity":
        return one, level, x, one, level, one, level, x
    elif NAME == "relu":
        slope = tl.where(x > 0, 1.0, tl.where(x == x, 0.0, x))
        return one, level, tl.where(x < 0, 0.0, x), slope, level, one, level, x
    elif NAME == "gelu":
        cdf, exponent, x_density = normal(x)
        # At -inf cdf is zero, and any number of its sign serves as base; adding 0 makes -0, which has no sign there, 0.
        return cdf, exponent, tl.where(x == -INFINITY, -1.0, x), (cdf + x_density) + 0.0, exponent, one, level, x
    elif NAME == "gelu_tanh":
        near = capped(x, _CUBED_64 if x.dtype == tl.float64 else _CUBED_32)
        w, rest, x_w_slope = _gelu_tanh_argument(near)
        s, exponent, _, _, complement = logistic(tl.where(tl.abs(x) == INFINITY, x, w), rest)
        slope = s * tl.fma(x_w_slope, complement, one)
        return s, exponent, tl.where(x == -INFINITY, -1.0, x), slope + 0.0, exponent, one, level, x
    else:
        z, rest = x, tl.zeros(x.shape, x.dtype)
        if SCALED_BY_BETA:
            z, rest = _scaled_argument(x, x_low, beta, beta_low, LIMITED)
        elif LIMITED:
            rest = x_low
        s, exponent, bend, bend_exponent, complement = logistic(z, rest)
        if NAME == "sigmoid":
            return s, exponent, one, bend, bend_exponent, one, level, x
        else:
            slope = s * tl.fma(_near(z), complement, one)
            base = tl.where(z == -INFINITY, tl.where(x < 0, -1.0, 1.0), x)
            bow = tl.where(tl.abs(z) == INFINITY, 0.0, x)
            return s, exponent, base, slope + 0.0, exponent, bend, bend_exponent, bow
