"""Numbers with an exponent of their own: nothing between the inputs and the result can leave the range.

exp(-200) is no float32, and 1e-40 * 1e30 is 0 where the runtime reads subnormal numbers as zeros (XLA on the CPU). As
mantissa * 2^exponent, with an int32 exponent, both are ordinary. Taking a number apart and putting it together are bit
operations and exact scalings: only the arithmetic on the mantissas rounds.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gated.jax_impl._arrays import Array, DType

__all__ = [
    "Scaled",
    "exponent_of_power",
    "has_sign",
    "is_subnormal",
    "join",
    "largest_exponent",
    "not_below_normal",
    "power_of_minus",
    "power_of_two",
    "rounded_product",
    "select",
    "shifted",
    "signed_bits",
    "smallest_normal",
    "split",
    "subnormal_times_power",
    "times",
    "to_float",
    "where",
]


class Scaled(NamedTuple):
    """The number ``mantissa * 2^exponent``. A zero, an infinity or a nan is its mantissa."""

    mantissa: Array
    exponent: Array


class _Format(NamedTuple):
    """An IEEE 754 binary format."""

    integer: type
    fraction_bits: int
    bias: int

    @property
    def exponent_mask(self) -> int:
        return 2 * self.bias + 1

    @property
    def sign_bit(self) -> int:
        return -1 << (self.fraction_bits + self.exponent_mask.bit_length())

    @property
    def fraction_mask(self) -> int:
        return (1 << self.fraction_bits) - 1


_FLOAT32 = _Format(jnp.int32, 23, 127)
_FLOAT64 = _Format(jnp.int64, 52, 1023)


def _format(dtype: DType) -> _Format:
    return _FLOAT64 if dtype == jnp.float64 else _FLOAT32


def signed_bits(x: Array) -> Array:
    """The bits of x as a signed integer: negative where the sign bit is set, else ordered as the floats are.

    Comparisons of floats see a subnormal number as 0 where the runtime does; comparisons of these integers do not. (A
    test of the bits without the sign against 0 would not help: LLVM makes it a comparison of floats.)
    """
    return lax.bitcast_convert_type(x, _format(x.dtype).integer)


def has_sign(x: Array) -> Array:
    """Whether the sign bit of x is set."""
    return signed_bits(x) < 0


def where(condition: Array, a: Array | float, b: Array | float) -> Array:
    """``a`` where the condition holds, ``b`` elsewhere; one of them is an array, of the shape of the condition.

    Like ``jnp.where``, without a function of its own in what is compiled: there are many of these.
    """
    like = a if isinstance(a, jax.Array) else b
    assert isinstance(like, jax.Array)
    on_true = a if isinstance(a, jax.Array) else lax.full_like(like, a)
    on_false = b if isinstance(b, jax.Array) else lax.full_like(like, b)
    result: Array = lax.select(condition, on_true, on_false)
    return result


def smallest_normal(dtype: DType) -> float:
    """2^-126 for float32."""
    return 2.0 ** (1 - _format(dtype).bias)


def is_subnormal(x: Array) -> Array:
    """Whether x is subnormal or 0."""
    form = _format(x.dtype)
    return (signed_bits(x) & ~form.sign_bit) <= form.fraction_mask


def subnormal_times_power(x: Array, n: int) -> Array:
    """x 2^n for subnormal numbers and zeros, where that is normal."""
    form = _format(x.dtype)
    bits = signed_bits(x)
    # The fraction f behind an exponent is the number 2^e (1 + f), where it stood for 2^(1 - bias) f.
    one_more = from_bits((bits & ~form.sign_bit) + ((n + 1) << form.fraction_bits), x.dtype)
    return _with_sign_of(bits, one_more - 2.0 ** (n + 1 - form.bias))


def rounded_product(x: Array, power: Array) -> Array:
    """x * power for a power of two of at most 1, rounded to a subnormal number where the runtime would flush it."""
    form = _format(x.dtype)
    bits = signed_bits(x)
    size = from_bits(bits & ~form.sign_bit, x.dtype)
    # A sum with the number that becomes the smallest normal one is rounded where the subnormal number ends.
    becomes_normal = from_bits(((form.bias + 1) << form.fraction_bits) - signed_bits(power), x.dtype)
    subnormal = signed_bits(size + becomes_normal) - signed_bits(becomes_normal)
    return where(size < becomes_normal, _with_sign_of(bits, from_bits(subnormal, x.dtype)), x * power)


def not_below_normal(x: Array) -> Array:
    """x, or the smallest normal number of its sign where x is less."""
    form = _format(x.dtype)
    bits = signed_bits(x)
    smallest = lax.full_like(bits, form.fraction_mask + 1)
    return _with_sign_of(bits, from_bits(lax.max(bits & ~form.sign_bit, smallest), x.dtype))


def _with_sign_of(bits: Array, x: Array) -> Array:
    """x >= +0 with the sign bit of ``bits``."""
    form = _format(x.dtype)
    return from_bits(signed_bits(x) | (bits & form.sign_bit), x.dtype)


def power_of_minus(k: Array) -> Array:
    """2^-k for an integer k as a float, of the exponent of a normal number."""
    form = _format(k.dtype)
    # The number's last bits are those of the integer, and the first ones leave in the shift.
    integers = 1.5 * 2.0**form.fraction_bits + form.bias
    return from_bits(signed_bits(integers - k) << form.fraction_bits, k.dtype)


def exponent_of_power(power: Array) -> Array:
    """n for the normal number 2^n."""
    form = _format(power.dtype)
    return ((signed_bits(power) >> form.fraction_bits) - form.bias).astype(jnp.int32)


def from_bits(bits: Array, dtype: DType) -> Array:
    """The float of ``bits``."""
    return lax.bitcast_convert_type(bits, dtype)


def split(x: Array) -> Scaled:
    """``x`` with its mantissa in [1, 2), or x itself with exponent 0 where it is zero, infinite or nan."""
    form = _format(x.dtype)
    bits = signed_bits(x) & ~form.sign_bit
    # A subnormal number is fraction * 2^(1 - bias - fraction_bits), and its fraction is a float like any other.
    subnormal = bits <= form.fraction_mask
    fraction = lax.bitcast_convert_type(bits.astype(x.dtype), form.integer)
    bits = jnp.where(subnormal, fraction, bits)
    biased = bits >> form.fraction_bits
    plain = (biased != 0) & (biased != form.exponent_mask)
    one = form.bias << form.fraction_bits
    mantissa = lax.bitcast_convert_type(jnp.where(plain, bits & form.fraction_mask | one, bits), x.dtype)
    exponent = biased - form.bias + jnp.where(subnormal, 1 - form.bias - form.fraction_bits, 0)
    signed = jnp.where(has_sign(x), -mantissa, mantissa)
    return Scaled(signed, jnp.where(plain, exponent, 0).astype(jnp.int32))


def times(*factors: Scaled) -> Scaled:
    """The product."""
    mantissa, exponent = factors[0]
    for factor in factors[1:]:
        mantissa = mantissa * factor.mantissa
        exponent = exponent + factor.exponent
    return Scaled(mantissa, exponent)


def select(condition: Array, a: Scaled, b: Scaled) -> Scaled:
    """``a`` where the condition holds, ``b`` elsewhere."""
    return Scaled(jnp.where(condition, a.mantissa, b.mantissa), jnp.where(condition, a.exponent, b.exponent))


def largest_exponent(dtype: DType) -> int:
    """n such that 2^n and 2^-n are normal."""
    return _format(dtype).bias - 1


def power_of_two(exponent: Array, dtype: DType) -> Array:
    """2^exponent, for exponents of normal numbers."""
    form = _format(dtype)
    return lax.bitcast_convert_type((exponent.astype(form.integer) + form.bias) << form.fraction_bits, dtype)


def join(a: Scaled) -> Array:
    """``a`` as a float, rounded into the subnormal range too: its bits are made by integers, which nothing flushes."""
    form = _format(a.mantissa.dtype)
    # In units of the smallest subnormal number, whose multiples have the multipliers as their bits.
    up = jnp.clip(a.exponent + (form.bias - 1 + form.fraction_bits), -16, form.bias - 16)
    units = jnp.abs(a.mantissa) * power_of_two(up, a.mantissa.dtype)
    subnormal = units < 2.0**form.fraction_bits
    bits = jnp.round(jnp.where(subnormal, units, 0.0)).astype(form.integer)
    signed = jnp.where(has_sign(a.mantissa), bits | form.sign_bit, bits)
    return jnp.where(subnormal, lax.bitcast_convert_type(signed, a.mantissa.dtype), to_float(a))


def to_float(a: Scaled) -> Array:
    """``a`` as a float, where one below the normal range may be 0."""
    bias = _format(a.mantissa.dtype).bias
    # Two normal powers of two of the same direction: the first cannot leave the range unless the result does.
    exponent = jnp.clip(a.exponent, 2 * (1 - bias), 2 * bias)
    half = exponent >> 1
    dtype = a.mantissa.dtype
    return a.mantissa * power_of_two(half, dtype) * power_of_two(exponent - half, dtype)


def shifted(a: Scaled, shift: Array) -> Array:
    """``a * 2^-shift``, for a shift that leaves an exponent of a few bits; larger ones stop short of 0 and infinity."""
    dtype = a.mantissa.dtype
    largest = largest_exponent(dtype) - 8
    return a.mantissa * power_of_two(jnp.clip(a.exponent - shift, -largest, largest), dtype)
