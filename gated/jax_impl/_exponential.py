"""exp(-t) for t >= 0 of any size, with the rounding error of t carried and an exponent of its own.

The argument is an unevaluated sum high + low. A product enters as one: with the upper halves of the factors' bits,
a b = a_h b_h + (a_h b_l + a_l b), where a_h b_h is exact, so a compiler that contracts a product and a sum into a fused
multiply-add changes nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gated.jax_impl._arrays import Array
from gated.jax_impl._scaled import Scaled, split, to_float

__all__ = ["Pair", "exact", "exact_product", "exp_minus", "halves", "polynomial", "reduced_exp_minus"]


class Pair(NamedTuple):
    """The number ``high + low``, with |low| far below |high|."""

    high: Array
    low: Array


class _Reduction(NamedTuple):
    """t = k ln 2 + r: ``k * ln2_high`` is exact for every k up to ``largest / ln 2``."""

    largest: float
    ln2_high: float
    ln2_low: float
    degree: int


def _reduction(largest: float, bits: int, degree: int) -> _Reduction:
    ln2_high = math.floor(math.log(2) * 2.0**bits) / 2.0**bits
    # ln 2 = 0.693147180559945309417232121458176568..., of which math.log(2) is the first 53 bits.
    ln2_tail = 2.3190468138462996e-17
    return _Reduction(largest, ln2_high, (math.log(2) - ln2_high) + ln2_tail, degree)


# exp(-largest) stays 0 after multiplication with four finite numbers of the dtype. The Taylor sum of the degree is
# within 2^-27 and 2^-57 of exp on |r| <= ln(2) / 2.
_REDUCTIONS = {"float32": _reduction(1000.0, 12, 7), "float64": _reduction(8000.0, 36, 13)}


def exact(x: Array) -> Pair:
    """``x`` itself."""
    return Pair(x, jnp.zeros_like(x))


def halves(x: Array) -> Pair:
    """The upper half of the bits of ``x``, and the rest: the products of two upper halves are exact."""
    integer, dropped = (jnp.int64, 27) if x.dtype == jnp.float64 else (jnp.int32, 12)
    high = lax.bitcast_convert_type(lax.bitcast_convert_type(x, integer) & (-1 << dropped), x.dtype)
    return Pair(high, x - high)


def exact_product(a: Array, b: Array) -> tuple[Pair, Array]:
    """a * b, where 0 * inf counts as 0, and whether it is infinite because a factor is (an overflow is not)."""
    a_scaled, b_scaled = split(a), split(b)
    a_half, b_half = halves(a_scaled.mantissa), halves(b_scaled.mantissa)
    exponent = a_scaled.exponent + b_scaled.exponent
    product = a_scaled.mantissa * b_scaled.mantissa
    vanishes = jnp.isnan(product) & ~jnp.isnan(a) & ~jnp.isnan(b)
    infinite = jnp.isinf(product)
    high = jnp.where(vanishes, 0.0, jnp.where(infinite, product, a_half.high * b_half.high))
    low = jnp.where(vanishes | infinite, 0.0, a_half.high * b_half.low + a_half.low * b_scaled.mantissa)
    return Pair(to_float(Scaled(high, exponent)), to_float(Scaled(low, exponent))), infinite


def exp_minus(t: Pair) -> tuple[Array, Scaled]:
    """``t`` as one float, bounded by where exp(-t) is 0 in every use, and exp(-t). t >= 0 or nan."""
    largest = _REDUCTIONS[t.high.dtype.name].largest
    beyond = t.high > largest
    high, low = jnp.where(beyond, largest, t.high), jnp.where(beyond, 0.0, t.low)
    mantissa, k = reduced_exp_minus(high, low)
    return high + low, Scaled(mantissa, -k.astype(jnp.int32))


def reduced_exp_minus(high: Array, low: Array | None = None) -> tuple[Array, Array]:
    """m and k, an integer as a float, of exp(-t) = m 2^-k with t = ``high + low`` from 0 to ``largest``."""
    _, ln2_high, ln2_low, degree = _REDUCTIONS[high.dtype.name]
    k = lax.round(high * (1 / math.log(2)), lax.RoundingMethod.TO_NEAREST_EVEN)
    r = (high - k * ln2_high) - k * ln2_low
    taylor = tuple((-1) ** n / math.factorial(n) for n in range(degree + 1))
    return polynomial(taylor, r if low is None else r + low), k


def polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """c_0 + c_1 x + c_2 x^2 + ..."""
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient if coefficient else total * x
    return total
