"""The activations and their first derivatives in x, with one exponential and one division each where beta is 1.

With E = exp(-|z|) and the logistic function s,

    s(z) = E / (1 + E) for z < 0, 1 - E / (1 + E) for z >= 0,

and the same with the normal distribution, Phi(-x) = exp(-x^2 / 2) / D(x). Below exp(-far) the results are tapered:
``_partials.py`` has these functions again, of every order, with an exponent apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp

from gated.jax_impl._arrays import Array
from gated.jax_impl._exponential import halves
from gated.jax_impl._normal_tail import tail_divisor_less_two
from gated.jax_impl._partials import CUBIC, QUARTILE, SLOPE, SQRT_2_PI, tanh_argument
from gated.jax_impl._scaled import where
from gated.jax_impl._tapered import Decay, Tapered, exp_minus, largest, tapered

__all__ = ["curve", "slope"]


def curve(activation: str, x: Array) -> Tapered:
    """The activation, one of the contract's names, with beta = 1."""
    return _CURVES[activation](x)


def slope(activation: str, x: Array) -> Tapered:
    """Its derivative. Nowhere is it kept larger for being subnormal itself."""
    return _SLOPES[activation](x)


# Piecewise linear


def _relu(x: Array) -> Tapered:
    kept = tapered(x)
    return kept._replace(near=where(kept.near < 0, 0.0, kept.near))


def _relu_slope(x: Array) -> Tapered:
    kept = tapered(x).near
    return Tapered(where(jnp.isnan(x), x, (kept > 0).astype(x.dtype)))


def _identity_slope(x: Array) -> Tapered:
    return Tapered(jnp.ones_like(x))


# The logistic family


def _clipped(x: Array, bound: float) -> Array:
    """x between -bound and bound."""
    return where(x > bound, bound, where(x < -bound, -bound, x))


def _base(x: Array, bound: float) -> Tapered:
    """x, or -bound below it: what the activation multiplies with a number from 0 to 1."""
    kept = tapered(x)
    return kept._replace(near=where(x < -bound, -bound, kept.near))


def _over_one_more(numerator: Array | float, e: Decay, vanishes: Array) -> Array:
    """numerator / (1 + E), or 0 where that is its limit.

    The limit is chosen after the division: a division with more than one user is no part of a fusion in XLA.
    """
    return where(vanishes, 0.0, numerator / (1 + e.plain))


def _logistic(z: Array, e: Decay, vanishes: Array) -> Array:
    """s(z), kept larger where z is negative and far."""
    tail = _over_one_more(e.kept, e, vanishes)
    return where(z < 0, tail, 1 - where(e.far, 0.0, tail))


def _sum_of_slopes(z: Array, ratio: Array, e: Decay, vanishes: Array) -> Array:
    """s(z) + ratio s(z) (1 - s(z)), kept larger where z is negative and far."""
    negative = z < 0
    upper = _over_one_more(1.0, e, vanishes)
    s = where(negative, e.kept * upper, upper)
    complement = where(negative, upper, e.plain * upper)
    return (ratio * complement) * s + s


def _sigmoid(x: Array) -> Tapered:
    z = _clipped(x, largest(x))
    e = exp_minus(jnp.abs(z))
    return Tapered(_logistic(z, e, x == -math.inf), e.far & (z < 0))


def _sigmoid_slope(x: Array) -> Tapered:
    """s (1 - s)"""
    e = exp_minus(jnp.abs(_clipped(x, largest(x))))
    upper = _over_one_more(1.0, e, jnp.isinf(x))
    return Tapered(e.kept * upper * upper, e.far)


def _swish(x: Array) -> Tapered:
    """x s(x)"""
    z = _clipped(x, largest(x))
    e = exp_minus(jnp.abs(z))
    base = _base(x, largest(x))
    return base._replace(near=base.near * _logistic(z, e, x == -math.inf), far=e.far & (z < 0))


def _swish_slope(x: Array) -> Tapered:
    """s + x s (1 - s)"""
    z = _clipped(x, largest(x))
    e = exp_minus(jnp.abs(z))
    return Tapered(_sum_of_slopes(z, z, e, x == -math.inf), e.far & (z < 0))


# w is just below ``largest`` here.
_TANH_BOUNDS = {"float32": 13.54, "float64": 27.1}


def _tanh_decay(x: Array) -> tuple[Array, Decay]:
    """x where exp(-|w|) is defined, and that."""
    near = _clipped(x, _TANH_BOUNDS[x.dtype.name])
    w = tanh_argument(near)
    sign = where(near < 0, -1.0, jnp.ones_like(near))
    return near, exp_minus(sign * w.high, sign * w.low)


def _gelu_tanh(x: Array) -> Tapered:
    """x s(w), w = a x (1 + b x^2)"""
    near, e = _tanh_decay(x)
    base = _base(x, _TANH_BOUNDS[x.dtype.name])
    return base._replace(near=base.near * _logistic(near, e, x == -math.inf), far=e.far & (near < 0))


def _gelu_tanh_slope(x: Array) -> Tapered:
    """s + x w' s (1 - s)"""
    near, e = _tanh_decay(x)
    ratio = near * (SLOPE + 3 * CUBIC * near * near)
    return Tapered(_sum_of_slopes(near, ratio, e, x == -math.inf), e.far & (near < 0))


# The normal family

# x^2 / 2 is just below ``largest`` here, so that E / D is normal.
_NORMAL_BOUNDS = {"float32": 19.6, "float64": 53.95}


def _normal_decay(x: Array) -> tuple[Array, Decay]:
    """|x| where exp(-x^2 / 2) is defined, and that: 0 at the infinities."""
    bound = _NORMAL_BOUNDS[x.dtype.name]
    t = where(jnp.abs(x) > bound, bound, jnp.abs(x))
    half = halves(t)
    e = exp_minus(half.high * half.high / 2, half.low * (t + half.high) / 2)
    return t, e._replace(kept=where(jnp.isinf(x), 0.0, e.kept))


def _gelu(x: Array) -> Tapered:
    """x Phi(x), where Phi(-t) = E / D(t)"""
    t, e = _normal_decay(x)
    negative = x < 0
    rise = tail_divisor_less_two(t)
    # Near 0, Phi(t) = 1/2 + (D - 2 E) / 2D: the 1/2 is exact, and what is rounded before the sum is small.
    near = ~negative & (t < QUARTILE)
    numerator = where(near, rise + 2 * (1 - e.plain), where(negative, e.kept, e.plain))
    ratio = numerator / (2 + rise)
    above = where(near, 0.5 + ratio / 2, 1 - ratio)
    base = _base(x, _NORMAL_BOUNDS[x.dtype.name])
    return base._replace(near=base.near * where(negative, ratio, above), far=e.far & negative)


def _gelu_slope(x: Array) -> Tapered:
    """Phi(x) + x phi(x)"""
    t, e = _normal_decay(x)
    negative = x < 0
    difference = 1 / (2 + tail_divisor_less_two(t)) - t / SQRT_2_PI
    # At -inf it is a sum that tends to 0: +0.
    below = where(x == -math.inf, 0.0, e.kept * difference)
    return Tapered(where(negative, below, 1 - e.plain * difference), e.far & negative)


_CURVES: Mapping[str, Callable[[Array], Tapered]] = {
    "identity": tapered,
    "sigmoid": _sigmoid,
    "relu": _relu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "swish": _swish,
}
_SLOPES: Mapping[str, Callable[[Array], Tapered]] = {
    "identity": _identity_slope,
    "sigmoid": _sigmoid_slope,
    "relu": _relu_slope,
    "gelu": _gelu_slope,
    "gelu_tanh": _gelu_tanh_slope,
    "swish": _swish_slope,
}
