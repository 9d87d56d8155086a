"""Numbers that may be too small for a float, and products that flush only where the result is subnormal.

XLA on the CPU reads subnormal operands as zeros and flushes subnormal results. The general remedy is an exponent apart
(``_scaled.py``). For values and first derivatives there is a cheaper one: what is too small is kept larger by a fixed
power of two, in one step below exp(-far) and for subnormal inputs, and the power is multiplied back last.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gated.jax_impl._arrays import Array
from gated.jax_impl._exponential import reduced_exp_minus
from gated.jax_impl._scaled import (
    exponent_of_power,
    is_subnormal,
    not_below_normal,
    power_of_minus,
    rounded_product,
    smallest_normal,
    subnormal_times_power,
    where,
)

__all__ = ["Decay", "Linear", "Tapered", "coefficient", "exp_minus", "largest", "product", "tapered"]


class _Range(NamedTuple):
    """Where numbers are kept larger, and by how much.

    exp(-t) is plain up to ``far``, where half of it times a cotangent of 2^-16 is normal. From there to ``largest`` it
    is kept larger by 2^(2 far_bits), and normal. At ``largest``, an activation times a finite number is 0, and so is a
    derivative with a cotangent of 2^16. A factor below 8 times the smallest normal number is kept larger by 2^bits in a
    product; see :func:`coefficient` for that of a derivative, for ``rest_bits`` and ``step_bits``.
    """

    far: float
    largest: float
    far_bits: int
    bits: int
    rest_bits: int
    step_bits: int


_RANGES = {"float32": _Range(75.0, 199.0, 81, 64, 108, 50), "float64": _Range(690.0, 1465.0, 547, 512, 608, 498)}


def _range(x: Array) -> _Range:
    return _RANGES[x.dtype.name]


def largest(x: Array) -> float:
    """The t up to which there is an exp(-t) of the dtype of ``x``."""
    return _range(x).largest


class Tapered(NamedTuple):
    """``near``, times 2^-(2 far_bits) where ``far`` and 2^-bits where ``small``; None stands for nowhere."""

    near: Array
    far: Array | None = None
    small: Array | None = None


def tapered(x: Array) -> Tapered:
    """``x``, kept larger where it or its half is subnormal."""
    near, small = _kept_larger(x)
    return Tapered(near, None, small)


def _kept_larger(x: Array) -> tuple[Array, Array]:
    """``x`` as it is kept, and where it is larger."""
    bits = _range(x).bits
    small = jnp.abs(x) < 8 * smallest_normal(x.dtype)
    return _times(x, where(small, 2.0**bits, lax.full_like(x, 1.0)), bits), small


def _times(x: Array, power: Array, bits: int) -> Array:
    """x * power, a power that is 2^bits where x is subnormal."""
    return where(is_subnormal(x), subnormal_times_power(x, bits), x * power)


class Decay(NamedTuple):
    """exp(-t): ``kept``, which is larger by 2^(2 far_bits) where t is ``far``, and ``plain``, which is 0 there."""

    kept: Array
    plain: Array
    far: Array


def exp_minus(t: Array, rest: Array | None = None) -> Decay:
    """exp(-(t + rest)) for t from 0 to :func:`largest`, or nan, and a rest far below it."""
    far = t > _range(t).far
    mantissa, k = reduced_exp_minus(t, rest)
    kept = mantissa * power_of_minus(k - where(far, 2.0 * _range(k).far_bits, lax.full_like(k, 0.0)))
    return Decay(kept, where(far, 0.0, kept), far)


def product(f: Tapered, value: Array | None) -> Array:
    """f * value.

    The steps stand on both sides of what is kept larger, so that no partial product leaves the range unless the
    result does: |near * step| < 1 where step < 1. Where both factors are kept larger the result is 0 in any case.
    """
    result, far, small = f
    step = _power(result, far, -_range(result).far_bits)
    if value is not None:
        v, v_small = _kept_larger(value)
        small = v_small if small is None else small | v_small
        result = _scaled_by(v, step) * result
    else:
        result = _scaled_by(result, step)
    last = _last(result, step, small)
    return result if last is None else rounded_product(result, last)


def _power(like: Array, here: Array | None, exponent: int) -> Array | None:
    """2^exponent here and 1 elsewhere."""
    return None if here is None else where(here, 2.0**exponent, lax.full_like(like, 1.0))


def _scaled_by(x: Array, power: Array | None) -> Array:
    return x if power is None else x * power


def _last(like: Array, step: Array | None, small: Array | None) -> Array | None:
    """The power multiplied last. What is small in one factor is not far in another unless their product is 0."""
    if small is None:
        return step
    return where(small, 2.0 ** -_range(like).bits, lax.full_like(like, 1.0) if step is None else step)


class Linear(NamedTuple):
    """A coefficient as the factors ``first * near * last``, for multiplication in this order or the reverse.

    ``first`` and ``last`` are powers of two; None stands for 1.
    """

    near: Array
    first: Array | None
    last: Array | None

    def exponent(self) -> Array:
        """n, where ``first * last`` is 2^n."""
        exponents = [exponent_of_power(power) for power in (self.first, self.last) if power is not None]
        return sum(exponents, jnp.zeros(self.near.shape, jnp.int32))


def coefficient(f: Tapered, value: Array | None) -> Linear:
    """f * value, as a coefficient of what is not known yet; beside a value, f is small nowhere.

    The coefficient may be no float where its product with a cotangent is one. One that is too small for any product
    has a ``near`` that is not 0, and makes an infinity of an infinite cotangent.
    """
    n, far, small = f
    _, _, far_bits, bits, rest_bits, step_bits = _range(n)
    if value is None:
        if far is None:
            return Linear(n, None, _last(n, None, small))
        # A second derivative meets the powers, times a cotangent of 2^-16, before its factor: where it may be a float,
        # their product is one.
        counts = far & (jnp.abs(n) > 1)
        n = where(counts, n * 2.0 ** (2 * (step_bits - far_bits)), n)
        step = where(counts, 2.0**-step_bits, where(far, 2.0**-far_bits, lax.full_like(n, 1.0)))
        return Linear(n, step, _last(n, step, small))
    assert small is None
    size, one = jnp.abs(value), lax.full_like(value, 1.0)
    # ``last`` is 1 only where the product is normal, wherever f is not far.
    large, low = size > 2.0 ** (bits - 1), size < 2.0**-17
    v = _times(value, where(large, 2.0**-bits, where(low, 2.0**bits, one)), bits)
    near, last = v * n, where(large, 2.0**bits, where(low, 2.0**-bits, one))
    if far is not None:
        # near < 2^32, and what is lost of it is too small, whatever ``last`` is.
        rest = rest_bits - 2 * far_bits
        near = where(far, near * where(large, 2.0**-bits, lax.full_like(one, 2.0**-rest_bits)), near)
        last_far = where(low, 2.0 ** (rest - bits), lax.full_like(one, 2.0**rest))
        last = where(far, where(large, 2.0 ** (2 * bits - 2 * far_bits), last_far), last)
    tiny = smallest_normal(n.dtype)
    sunk = (jnp.abs(near) < tiny) & (n != 0) & (v != 0)
    return Linear(where(sunk, not_below_normal(near), near), None, where(sunk, tiny, last))
