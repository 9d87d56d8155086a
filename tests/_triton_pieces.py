"""Kernels that compute the pieces of the others, for tests of each."""

import triton
import triton.language as tl

from gated.torch_impl.kernels._exponential import decay, reciprocal
from gated.torch_impl.kernels._floats import rounded, split

__all__ = ["exponential", "inverse", "parted"]


@triton.jit
def exponential(x, result, SIZE: tl.constexpr):
    """e^-x"""
    at = tl.arange(0, SIZE)
    t = tl.load(x + at)
    mantissa, exponent = decay(t, tl.zeros(t.shape, t.dtype))
    tl.store(result + at, rounded(mantissa, exponent, True))


@triton.jit
def inverse(x, result, SIZE: tl.constexpr):
    """1 / x"""
    at = tl.arange(0, SIZE)
    tl.store(result + at, reciprocal(tl.load(x + at)))


@triton.jit
def parted(x, result, mantissas, SIZE: tl.constexpr):
    """x, taken apart and put together"""
    at = tl.arange(0, SIZE)
    mantissa, exponent = split(tl.load(x + at))
    tl.store(mantissas + at, mantissa)
    tl.store(result + at, rounded(mantissa, exponent, True))
