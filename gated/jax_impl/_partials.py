"""The activations and their partial derivatives of every order, by closed form, as scaled numbers.

With s the logistic function, E = exp(-|z|), and s_k its k-th derivative,

    s(z) = E / (1 + E) for z < 0, 1 / (1 + E) for z >= 0,
    s_k(z) = E Q_k(E) / (1 + E)^(k + 1) for z < 0, (-1)^(k + 1) times that for z > 0    (k >= 1),

where Q_k has the Eulerian numbers with alternating signs as coefficients. Every partial derivative of x s(w(x)) is a
sum of such terms with polynomials before them. E alone can leave the range of floats, and is a factor of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp

from gated.jax_impl._arrays import Array, Factor
from gated.jax_impl._exponential import Pair, exact, exact_product, exp_minus, halves, polynomial
from gated.jax_impl._normal_tail import bound, tail_divisor_less_two
from gated.jax_impl._scaled import Scaled, has_sign, select, signed_bits, split, times, to_float

__all__ = ["CUBIC", "QUARTILE", "SLOPE", "SQRT_2_PI", "is_positive", "partial", "rectify", "tanh_argument"]

_Coefficient = Array | float
_Polynomial = tuple[float, ...]

SQRT_2_PI = math.sqrt(2 * math.pi)
# Below this quartile of the normal distribution, (D - 2 E) / 2D < 1/4 in gelu, at most half of the 1/2 beside it.
QUARTILE = 0.67
# gelu_tanh: a = 2 sqrt(2 / pi) and a b, b = 0.044715, each as the float64 nearest to it and the rest.
SLOPE, _SLOPE_REST = 1.5957691216057308, -9.96930880911092e-17
CUBIC, _CUBIC_REST = 0.07135481627260025, -6.175149918155315e-19
# Beyond this x, exp(-w) times any float64 numbers is 0.
_TANH_BOUND = 40.0


def partial(activation: str, gate_order: int, beta_order: int, x: Array, beta: Factor | None) -> Scaled:
    """The derivative of the activation, ``gate_order`` times in x and ``beta_order`` times in beta.

    Args:
        activation: one of the contract's names.
        gate_order: 0 for the activation itself.
        beta_order: 0 unless the activation is swish.
        x: float32 or float64.
        beta: of arrays of the shape and dtype of ``x``, for swish; None stands for 1.
    """
    swish = activation == "swish"
    result = _swish(gate_order, beta_order, x, beta) if swish else _FAMILIES[activation](gate_order, x)
    if gate_order and activation in ("swish", "gelu", "gelu_tanh"):
        # A sum that tends to 0 at -infinity has no sign of its own.
        return Scaled(jnp.where(result.mantissa == 0, 0.0, result.mantissa), result.exponent)
    return result


# Piecewise linear


def is_positive(x: Array) -> Array:
    """Whether x > 0, also where the runtime compares a subnormal x as 0."""
    return (signed_bits(x) > 0) & ~jnp.isnan(x)


def rectify(x: Array) -> Array:
    """max(x, 0), with the sign of zeros kept."""
    negative = has_sign(x) & (signed_bits(x) != signed_bits(jnp.full_like(x, -0.0))) & ~jnp.isnan(x)
    return jnp.where(negative, 0.0, x)


def _identity(order: int, x: Array) -> Scaled:
    return split(x if order == 0 else jnp.full_like(x, float(order == 1)))


def _relu(order: int, x: Array) -> Scaled:
    if order == 0:
        return split(rectify(x))
    step = is_positive(x).astype(x.dtype) if order == 1 else jnp.zeros_like(x)
    return split(jnp.where(jnp.isnan(x), x, step))


# The logistic family


def _sigmoid(order: int, x: Array) -> Scaled:
    """s_order(x)."""
    return _logistic_sum({order: 1.0}, exact(x), jnp.isinf(x))


def _swish(p: int, q: int, x: Array, beta: Factor | None) -> Scaled:
    """d^p/dx^p d^q/dbeta^q of x s(beta x).

    d^q/dbeta^q gives x^(q+1) s_q(z), z = beta x; then by Leibniz' rule, with (q+1)_r = (q+1) q ... (q+2-r),

        sum over r of C(p, r) (q+1)_r x^(q+1-r) beta^(p-r) s_(q+p-r)(z),

    where x^(q+1-r) beta^(p-r) is a power of z, times x^(q+1-p) if p <= q + 1, times beta^(p-q-1) if not.
    """
    z, infinite = _logistic_argument(x, beta)
    bounded = _bounded(z)
    powers = min(p, q + 1)
    terms: dict[int, _Coefficient] = {
        q + p - r: math.comb(p, r) * math.perm(q + 1, r) * _power(bounded, powers - r) for r in range(powers + 1)
    }
    total = _logistic_sum(terms, z, infinite)
    # Where z is infinite, E = 0 is stronger than any power of x and beta; swish(+inf) = x s(+inf) alone has no E.
    decays = infinite & ((z.high < 0) | (q + p > powers))
    # As a factor, beta is as good rounded: only in z is an error of it multiplied, by z itself.
    outer = [(x, q + 1 - powers)] if beta is None else [(x, q + 1 - powers), (beta.rounded, p - powers)]
    for factor, power in outer:
        if power:
            one = split(jnp.where(decays, jnp.where(has_sign(factor), -1.0, 1.0), factor))
            total = times(total, *(one,) * power)
    return total


def _logistic_argument(x: Array, beta: Factor | None) -> tuple[Pair, Array]:
    """z = beta x, and whether it is infinite because a factor is."""
    if beta is None:
        return exact(x), jnp.isinf(x)
    z, infinite = exact_product(x, beta.rounded)
    if beta.rest is None:
        return z, infinite
    # An infinite z has no use for its low part, which may be nan.
    return Pair(z.high, z.low + (z.high + z.low) * beta.rest), infinite


def _gelu_tanh(order: int, x: Array) -> Scaled:
    """The derivatives of x s(w), w = a x (1 + b x^2), with a = 2 sqrt(2 / pi), b = 0.044715."""
    infinite = jnp.isinf(x)
    bounded = jnp.where(jnp.abs(x) > _TANH_BOUND, jnp.where(has_sign(x), -_TANH_BOUND, _TANH_BOUND), x)
    w = tanh_argument(bounded)
    if order == 0:
        return times(_logistic_sum({0: 1.0}, w, infinite), _unless(infinite & has_sign(x), x))
    terms: dict[int, _Coefficient] = {k: polynomial(c, bounded) for k, c in _tanh_polynomials(order).items()}
    return _logistic_sum(terms, w, infinite)


def tanh_argument(x: Array) -> Pair:
    """a x + a b x^3 = x (a + a b x^2), for |x| <= 40."""
    x_half = halves(x)
    square = Pair(x_half.high * x_half.high, x_half.low * (x + x_half.high))
    square_top = halves(square.high + square.low).high
    square_rest = (square.high - square_top) + square.low
    slope_top, slope_rest = _constant_halves(SLOPE, _SLOPE_REST, x)
    cubic_top, cubic_rest = _constant_halves(CUBIC, _CUBIC_REST, x)
    # The factor a + a b x^2 is factor_top + factor_rest; products of two tops are exact.
    cubic_high = cubic_top * square_top
    cubic_low = cubic_top * square_rest + cubic_rest * (square_top + square_rest)
    factor_top = halves(slope_top + cubic_high).high
    factor_rest = ((slope_top - factor_top) + cubic_high) + (cubic_low + slope_rest)
    return Pair(x_half.high * factor_top, x_half.high * factor_rest + x_half.low * (factor_top + factor_rest))


def _constant_halves(c: float, c_rest: float, like: Array) -> tuple[float, float]:
    """``c + c_rest``: half the bits of the dtype of ``like``, and what remains."""
    bits = 26 if like.dtype == jnp.float64 else 12
    fraction, exponent = math.frexp(c)
    top = math.ldexp(math.floor(math.ldexp(fraction, bits)), exponent - bits)
    return top, (c - top) + c_rest


def _tanh_polynomials(order: int) -> dict[int, _Polynomial]:
    """P_k for every k, where the derivative of x s(w) is the sum of P_k(x) s_k(w): (P s_k)' = P' s_k + P w' s_(k+1)."""
    w_prime = (SLOPE, 0.0, 3 * CUBIC)
    terms: dict[int, _Polynomial] = {0: (0.0, 1.0)}
    for _ in range(order):
        new: dict[int, _Polynomial] = {}
        for k, p in terms.items():
            new[k] = _sum(new.get(k, ()), _derivative(p))
            new[k + 1] = _sum(new.get(k + 1, ()), _product(p, w_prime))
        terms = {k: p for k, p in new.items() if any(p)}
    return terms


def _logistic_sum(terms: Mapping[int, _Coefficient], z: Pair, infinite: Array) -> Scaled:
    """The sum of ``coefficient * s_k(z)`` over k -> coefficient in ``terms``; where z is infinite, E is 0.

    E goes before the sum, and 1 + E = d below it as d^(n + 1), n the largest k. A term with k = 0 has no E for z >= 0,
    and there the others keep theirs.
    """
    negative = z.high < 0
    flip = jnp.where(negative, -1.0, 1.0).astype(z.high.dtype)
    _, e = exp_minus(Pair(flip * z.high, flip * z.low))
    e = Scaled(jnp.where(infinite, 0.0, e.mantissa), e.exponent)
    e_float = to_float(e)
    d = 1 + e_float
    n = max(terms)
    has_step = 0 in terms
    inner = jnp.where(negative, 1.0, e_float) if has_step else 1.0
    numerator: _Coefficient = 0.0
    for k, coefficient in sorted(terms.items(), reverse=True):
        if k == 0:
            numerator = numerator + coefficient * _power(d, n)
        else:
            parity = 1.0 if k % 2 else -flip
            numerator = numerator + coefficient * parity * inner * polynomial(_eulerian(k), e_float) * _power(d, n - k)
    total = split(jnp.broadcast_to(jnp.asarray(numerator, d.dtype), d.shape))
    one = Scaled(jnp.ones_like(d), jnp.zeros_like(e.exponent))
    total = times(total, select(negative, e, one) if has_step else e)
    mantissa = total.mantissa
    for _ in range(n + 1):
        mantissa = mantissa / d
    return Scaled(mantissa, total.exponent)


def _eulerian(k: int) -> _Polynomial:
    """Q_k: (-1)^m A(k, m) for m < k, with A(k, m) = (m + 1) A(k-1, m) + (k - m) A(k-1, m-1)."""
    row = [1]
    for j in range(2, k + 1):
        row = [(m + 1) * (row[m] if m < j - 1 else 0) + (j - m) * (row[m - 1] if m else 0) for m in range(j)]
    return tuple(float((-1) ** m * a) for m, a in enumerate(row))


def _bounded(z: Pair) -> Array:
    """z as one float, bounded by where exp(-|z|) is 0 in every use: its powers stay in the range."""
    flip = jnp.where(z.high < 0, -1.0, 1.0).astype(z.high.dtype)
    magnitude, _ = exp_minus(Pair(flip * z.high, flip * z.low))
    return flip * magnitude


# The normal family


def _gelu(order: int, x: Array) -> Scaled:
    """The derivatives of x Phi(x): Phi(x) + x phi(x), then phi(x) times a polynomial."""
    infinite = jnp.isinf(x)
    negative = has_sign(x)
    magnitude = jnp.abs(x)
    t = jnp.where(magnitude > bound(x), bound(x), magnitude)
    half = halves(t)
    _, e = exp_minus(Pair(half.high * half.high / 2, half.low * (t + half.high) / 2))
    e = Scaled(jnp.where(infinite, 0.0, e.mantissa), e.exponent)
    if order >= 2:
        sign = jnp.where(negative & (order % 2 == 1), -1.0, 1.0).astype(x.dtype)
        return times(split(sign * polynomial(_normal_polynomial(order), t) / SQRT_2_PI), e)
    # Phi(-t) = E / D(t), and its derivative is phi(t) = E / sqrt(2 pi).
    rise = tail_divisor_less_two(t)
    divisor = 2 + rise
    if order == 1:
        tail = split(e.mantissa * (1 / divisor - t / SQRT_2_PI))
        below = Scaled(tail.mantissa, tail.exponent + e.exponent)
        return select(negative, below, split(1 - to_float(below)))
    # Near 0, Phi(t) = 1/2 + (D - 2 E) / 2D: the 1/2 is exact, and what is rounded before the sum is small.
    e_float = to_float(e)
    near = ~negative & (t < QUARTILE)
    ratio = jnp.where(near, rise + 2 * (1 - e_float), jnp.where(negative, e.mantissa, e_float)) / divisor
    tail = split(ratio)
    below = Scaled(tail.mantissa, tail.exponent + e.exponent)
    above = split(jnp.where(near, 0.5 + ratio / 2, 1 - ratio))
    return times(select(negative, below, above), _unless(infinite & negative, x))


def _normal_polynomial(order: int) -> _Polynomial:
    """P with (x Phi)^(order) = P phi, order >= 2: (P phi)' = (P' - x P) phi."""
    p: _Polynomial = (2.0, 0.0, -1.0)
    for _ in range(order - 2):
        p = _sum(_derivative(p), _product((0.0, -1.0), p))
    return p


_FAMILIES: Mapping[str, Callable[[int, Array], Scaled]] = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "relu": _relu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}


# Small tools


def _unless(decays: Array, x: Array) -> Scaled:
    """``x``, or only its sign where it meets an exact 0 that is stronger."""
    return split(jnp.where(decays, jnp.where(has_sign(x), -1.0, 1.0), x))


def _power(x: Array, n: int) -> _Coefficient:
    return x**n if n else 1.0


def _derivative(p: _Polynomial) -> _Polynomial:
    return tuple(n * c for n, c in enumerate(p))[1:]


def _sum(p: _Polynomial, q: _Polynomial) -> _Polynomial:
    size = max(len(p), len(q))
    return tuple(a + b for a, b in zip(p + (0.0,) * (size - len(p)), q + (0.0,) * (size - len(q)), strict=True))


def _product(p: _Polynomial, q: _Polynomial) -> _Polynomial:
    out = [0.0] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] += a * b
    return tuple(out)
