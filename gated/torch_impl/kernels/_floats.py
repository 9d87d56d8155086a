"""What the kernels know of floating-point numbers: bits, mantissas and exponents, exact products and sums.

Functions for Triton kernels, on tiles of float32 or float64. A :class:`tl.tensor` of one of these dtypes has integers
of its own size: int32 or int64. Nothing here, and nothing built on it, divides or calls a function of the device's
library: the operations are those that IEEE 754 defines, so that every device and the interpreter give the same bits.
"""

import triton
import triton.language as tl

__all__ = [
    "bits",
    "capped",
    "exact_product",
    "exact_sum",
    "from_bits",
    "polynomial",
    "power_of_two",
    "rounded",
    "split",
    "times",
]


@triton.jit
def bits(x):
    """The bits of a float."""
    return x.to(tl.int64 if x.dtype == tl.float64 else tl.int32, bitcast=True)


@triton.jit
def from_bits(i):
    """The float of these bits."""
    return i.to(tl.float64 if i.dtype == tl.int64 else tl.float32, bitcast=True)


@triton.jit
def power_of_two(exponent):
    """2^exponent, for the exponents of normal numbers: int64 of float64, int32 of float32."""
    if exponent.dtype == tl.int64:
        return from_bits((exponent + 1023) << 52)
    else:
        return from_bits((exponent + 127) << 23)


@triton.jit
def capped(x, most: tl.constexpr):
    """``x``, at most ``most`` and at least -``most``; nan stays."""
    low = tl.maximum(x, -most, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(low, most, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def polynomial(x, coefficients: tl.constexpr, DEGREE: tl.constexpr):
    """The sum of coefficients[k] x^k up to k = DEGREE, by Horner's rule."""
    total = tl.full(x.shape, coefficients[DEGREE], x.dtype)
    for k in tl.static_range(DEGREE):
        total = tl.fma(total, x, tl.full(x.shape, coefficients[DEGREE - 1 - k], x.dtype))
    return total


# Error-free transformations


@triton.jit
def exact_product(a, b):
    """a b rounded, and the rest."""
    product = a * b
    return product, tl.fma(a, b, -product)


@triton.jit
def exact_sum(a, b):
    """a + b rounded, and the rest (D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2)."""
    total = a + b
    b_there = total - a
    return total, (a - (total - b_there)) + (b - b_there)


# Mantissas and exponents: products that only their result rounds to the dtype's range


@triton.jit
def split(x):
    """``x`` = mantissa 2^exponent, exact. The mantissa of a normal number is of magnitude 1 to 16, that of a subnormal
    one smaller; 0, inf and nan are their own.

    The exponent is cut to a multiple of 4: then its inverse is a normal number for every x.
    """
    if x.dtype == tl.float64:
        field = (bits(x) >> 52) & 0x7FC
        return x * from_bits((2046 - field) << 52), field - 1023
    else:
        field = (bits(x) >> 23) & 0xFC
        return x * from_bits((254 - field) << 23), field - 127


@triton.jit
def times(mantissa, exponent, x, SCALED: tl.constexpr):
    """mantissa 2^exponent times ``x``, of any magnitude; of at most five factors in all. Without SCALED the exponent is
    none: the product of ordinary numbers."""
    if SCALED:
        other, shift = split(x)
        return mantissa * other, exponent + shift
    else:
        return mantissa * x, exponent


@triton.jit
def rounded(mantissa, exponent, SCALED: tl.constexpr):
    """The number in its dtype: rounded at most once more, where it is subnormal."""
    if SCALED:
        # Two factors within the normal range. Beyond twice that range every result is zero or infinite.
        reach: tl.constexpr = 2044 if mantissa.dtype == tl.float64 else 252
        near = tl.minimum(tl.maximum(exponent, -reach), reach)
        half = near >> 1
        return mantissa * power_of_two(half) * power_of_two(near - half)
    else:
        return mantissa
