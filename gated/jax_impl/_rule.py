"""The differentiation rule of all activations and units.

A unit is value * f(gate, beta). Its partial derivatives are value * f_pq(gate, beta), f_pq the closed forms of
``_partials``, and f_pq itself: one family, closed under differentiation, so one rule gives every order in both modes.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from gated.jax_impl._arrays import Array, Factor, compiled
from gated.jax_impl._curves import curve, slope
from gated.jax_impl._partials import is_positive, partial, rectify
from gated.jax_impl._scaled import Scaled, join, largest_exponent, power_of_two, shifted, signed_bits, split, times
from gated.jax_impl._tapered import Linear, coefficient, product

__all__ = ["clamped_unit", "clip", "gated", "rectified", "upper_bounded"]


class _Term(NamedTuple):
    """f_pq: the activation, p times differentiated in the gate and q times in beta."""

    activation: str
    gate_order: int = 0
    beta_order: int = 0


def gated(activation: str, gate: Array, beta: Factor | None, value: Array | None) -> Array:
    """value * f(gate, beta).

    Args:
        activation: one of the contract's names.
        gate: float32 or float64.
        beta: of arrays like ``gate``, for swish; None stands for 1.
        value: like ``gate``; None stands for 1.
    """
    if beta is None:
        return _product(activation, gate, value)
    return _term(_Term(activation), gate, beta, value, None)


# With beta = 1: values and first derivatives in float arithmetic, the orders above them as terms


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(activation: str, gate: Array, value: Array | None) -> Array:
    """value * f(gate)."""
    return product(curve(activation, gate), value)


@functools.partial(_product.defjvp, symbolic_zeros=True)
def _product_jvp(activation: str, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    gate, value = primals
    out = _product(activation, gate, value)
    tangent = None
    for direction, order, factor in zip(tangents, (1, 0), (value, None), strict=True):
        if direction is None or isinstance(direction, SymbolicZero):
            continue
        near, first, last = _linear(activation, order, gate, factor)
        along = direction if first is None else direction * lax.stop_gradient(first)
        along = along * near
        along = along if last is None else along * lax.stop_gradient(last)
        tangent = along if tangent is None else tangent + along
    return out, jnp.zeros_like(out) if tangent is None else tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _linear(activation: str, order: int, gate: Array, value: Array | None) -> Linear:
    """value * f(gate), or value * f'(gate) for order 1, as a coefficient."""
    return coefficient((slope if order else curve)(activation, gate), value)


@functools.partial(_linear.defjvp, symbolic_zeros=True)
def _linear_jvp(
    activation: str, order: int, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Linear, Linear]:
    gate, value = primals
    d_gate, d_value = tangents
    out = _linear(activation, order, gate, value)
    shift = out.exponent()
    tangent = jnp.zeros_like(out.near)
    if not isinstance(d_gate, SymbolicZero):
        tangent = tangent + _along(d_gate, _Term(activation, order + 1), gate, None, value, shift)
    if d_value is not None and not isinstance(d_value, SymbolicZero):
        tangent = tangent + _along(d_value, _Term(activation, order), gate, None, None, shift)
    return out, jax.tree.map(jnp.zeros_like, out)._replace(near=tangent)


# The terms


@compiled(0)  # traced once, wherever a rule needs it
def _scaled(term: _Term, gate: Array, beta: Factor | None, value: Array | None) -> Scaled:
    """value * f_pq(gate, beta). The mantissa of a first derivative is between 2^-3 and 2^5."""
    result = partial(*term, gate, beta)
    return result if value is None else times(result, split(value))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _term(term: _Term, gate: Array, beta: Factor | None, value: Array | None, shift: Array | None) -> Array:
    """value * f_pq(gate, beta) * 2^-shift; None stands for 0."""
    result = _scaled(term, gate, beta, value)
    return join(result) if shift is None else shifted(result, shift)


@functools.partial(_term.defjvp, symbolic_zeros=True)
def _term_jvp(term: _Term, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    gate, beta, value, shift = primals
    d_gate, d_beta, d_value, _ = tangents
    activation, p, q = term
    out = _term(term, gate, beta, value, shift)
    tangent = None
    for direction, partial_term, factor in (
        (d_gate, _Term(activation, p + 1, q), value),
        (_of_rounded(d_beta), _Term(activation, p, q + 1), value),
        (d_value, term, None),
    ):
        if direction is None or isinstance(direction, SymbolicZero):
            continue
        along = _along(direction, partial_term, gate, beta, factor, shift)
        tangent = along if tangent is None else tangent + along
    return out, jnp.zeros_like(out) if tangent is None else tangent


def _of_rounded(d_beta: Factor | None) -> Any:
    """The direction of beta: its rest is a constant."""
    return None if d_beta is None else d_beta.rounded


def _along(
    direction: Array, term: _Term, gate: Array, beta: Factor | None, value: Array | None, shift: Array | None
) -> Array:
    """direction * (value * f_pq * 2^-shift), linear in the direction.

    The coefficient may be no float where the product is one. So it comes as c 2^s 2^s': c holds the mantissa and an
    exponent of a few bits, and the three go in the same direction, so that no partial product, in either order, leaves
    the range unless the product does. A coefficient too small for any product to be a float still has a c that is not
    0, and makes an infinity of an infinite direction.
    """
    mantissa, exponent = _scaled(term, *jax.tree.map(lax.stop_gradient, (gate, beta, value)))
    if shift is not None:
        exponent = exponent - shift
    # c >= 1 where s > 0 and c <= 1 where s < 0, for mantissas from 2^-3 to 2^5. A zero and an infinity need no scale,
    # and one could make 0 * inf of them in the transpose.
    excess = jnp.where(exponent > 0, jnp.maximum(exponent - 3, 0), jnp.minimum(exponent + 5, 0))
    excess = jnp.where(jnp.isfinite(mantissa) & (mantissa != 0), excess, 0)
    largest = largest_exponent(mantissa.dtype)
    s = jnp.clip(excess, -largest, largest)
    s_rest = jnp.clip(excess - s, -largest, largest)
    moved = s + s_rest
    coefficient = _term(term, gate, beta, value, moved if shift is None else moved + shift)
    return direction * coefficient * power_of_two(s, mantissa.dtype) * power_of_two(s_rest, mantissa.dtype)


# The clamped unit: masks meet the direction last, and so the cotangent first, before a product that may overflow.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def clamped_unit(limit: float, offset: float, gate: Array, alpha: Factor | None, value: Array) -> Array:
    """swish_alpha(min(gate, limit)) * (clip(value, -limit, limit) + offset)."""
    g, v = _clamped(limit, offset, gate, value)
    return gated("swish", g, alpha, v)


@functools.partial(clamped_unit.defjvp, symbolic_zeros=True)
def _clamped_jvp(
    limit: float, offset: float, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Array, Array]:
    gate, alpha, value = primals
    d_gate, d_alpha, d_value = tangents
    g, v = _clamped(limit, offset, gate, value)
    out = clamped_unit(limit, offset, gate, alpha, value)
    tangent = None
    for direction, term, factor, mask in (
        (d_gate, _Term("swish", 1), v, _mask(~_above(gate, limit), gate)),
        (_of_rounded(d_alpha), _Term("swish", 0, 1), v, None),
        (d_value, _Term("swish"), None, _mask(~_above(value, limit) & ~_above(-value, limit), value)),
    ):
        if direction is None or isinstance(direction, SymbolicZero):
            continue
        along = _along(direction, term, g, alpha, factor, None)
        along = along if mask is None else along * mask
        tangent = along if tangent is None else tangent + along
    return out, jnp.zeros_like(out) if tangent is None else tangent


def _clamped(limit: float, offset: float, gate: Array, value: Array) -> tuple[Array, Array]:
    g, v = upper_bounded(gate, limit), clip(value, limit)
    if not offset:
        return g, v  # adding 0 would flush a subnormal v where the runtime flushes
    (_, limit_low), (high, low) = _parts(limit, v.dtype), _parts(offset, v.dtype)
    v = v + high
    if not (low or limit_low):
        return g, v
    # Chosen by the value, it is no constant, which XLA would add to the other one first.
    at_the_limits = jnp.where(_above(value, limit), low + limit_low, low - limit_low)
    return g, v + jnp.where(_above(jnp.abs(value), limit), at_the_limits, low).astype(v.dtype)


def _parts(number: float, dtype: Any) -> tuple[float, float]:
    """A number as high + low of the dtype: where a sum cancels, the low part is what remains."""
    with np.errstate(over="ignore"):
        high = float(np.asarray(number, dtype))
    return high, float(np.asarray(number - high, dtype)) if np.isfinite(high) else 0.0


# Piecewise linear functions of one array: a mask is their derivative.


@jax.custom_jvp
def rectified(x: Array) -> Array:
    """max(x, 0), with derivative 0 at 0."""
    return rectify(x)


@rectified.defjvp
def _rectified_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return rectified(x), dx * _mask(is_positive(x), x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def upper_bounded(x: Array, limit: float) -> Array:
    """min(x, limit), with derivative 1 at the limit."""
    return jnp.where(_above(x, limit), limit, x)


@upper_bounded.defjvp
def _upper_bounded_jvp(limit: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return upper_bounded(x, limit), dx * _mask(~_above(x, limit), x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def clip(x: Array, limit: float) -> Array:
    """x between -limit and limit, with derivative 1 at both."""
    return jnp.where(_above(x, limit), limit, jnp.where(_above(-x, limit), -limit, x))


@clip.defjvp
def _clip_jvp(limit: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return clip(x, limit), dx * _mask(~_above(x, limit) & ~_above(-x, limit), x)


def _above(x: Array, limit: float) -> Array:
    """Whether x > limit, limit >= 0, as real numbers, also where the runtime compares a subnormal x as 0."""
    with np.errstate(over="ignore"):
        nearest = np.asarray(limit, x.dtype)
    # Where the limit was rounded up, what is above it begins with the rounded number.
    lower = np.nextafter(nearest, nearest.dtype.type(0)) if limit < float(nearest) < np.inf else nearest
    return (signed_bits(x) > signed_bits(jnp.full_like(x, lower))) & ~jnp.isnan(x)


def _mask(inside: Array, x: Array) -> Array:
    """1 inside, 0 outside, nan at nan: piecewise constant."""
    return jnp.where(jnp.isnan(x), lax.stop_gradient(x), inside.astype(x.dtype))
