"""What is exact, and how far from it a backend may be: products, and sums of products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance.bounds import elementwise_bound
from gated.conformance.carried import Carried, Rounding, _activation, _exact
from gated.conformance.closed_forms import FloatMath, activation_terms
from gated.conformance.error import FORMATS, Format, ulp_exponent
from gated.conformance.oracle import exact_sums, unit_terms

Array = NDArray[Any]
Float64 = NDArray[np.float64]


# Exact products, and bounds of their sums


@dataclass(frozen=True)
class Term:
    """cotangent * partial(gate, beta) * value: the exact numbers, the scale of an ulp, the bounds of its arithmetic.

    Attributes:
        high, low: the exact numbers.
        scale: the largest absolute term, or the sum of the terms where that is larger.
        ulps: the contract's bound of the result, in ulp of the dtype.
        judged: where the terms are in the range of float64 and decide the result.
        finite: where all operands are.
        signless: where the terms cancel down to the bound, or a derivative is 0 by a limit at infinity: a zero there
            has no sign to keep.
    """

    form: Format
    backend: str
    high: Float64
    low: Float64
    scale: Float64
    ulps: Float64
    judged: NDArray[np.bool_]
    finite: NDArray[np.bool_]
    signless: NDArray[np.bool_]

    @property
    def unrounded(self) -> Float64:
        """The absolute bound before the rounding to the dtype: what a longer sum makes of this term."""
        once = self.form.bits.itemsize == 2 or (self.backend == "numpy" and self.form.name == "float32")
        return np.where(self.judged, (self.ulps - (0.5 if once else 0.0)) * ulp(self.form, self.scale), np.inf)


def ulp(form: Format, t: Float64) -> Float64:
    """ulp(t)."""
    return np.ldexp(1.0, ulp_exponent(np.minimum(np.abs(t), form.largest), form))


def term(
    form: Format,
    backend_name: str,
    activation: str,
    partial: str,
    gate: Array,
    beta: Array | float,
    cotangent: Array | float,
    value: Array | float,
    *,
    gradient: bool,
    offset: float = 0.0,
) -> Term:
    """cotangent * partial(gate, beta) * (value + offset), all broadcast to the gate's shape.

    What is exact comes from the oracle for finite float64 numbers, else from the reference in float64 (whose special
    values tests/test_limits.py holds against the table of limits).
    """
    c, g, v, b = (np.asarray(one).astype(np.float64) for one in (cotangent, gate, value, beta))
    c, g, v, b = (np.broadcast_to(one, g.shape) for one in (c, g, v, b))
    with np.errstate(all="ignore"):
        shifted = v + offset if offset else v
        if partial == "value":
            # The cotangent or the value is 1 in every use, and the product of the two exact.
            high = reference.gated_unit(g, c * shifted, activation=activation, beta=b)
        else:
            _, pullback = reference.vjp(reference.gated_unit, g, shifted, b, activation=activation)
            high = pullback(c)[0 if partial == "x" else 2]
        finite = np.isfinite(g) & np.isfinite(shifted) & np.isfinite(b) & np.isfinite(c)
        terms = activation_terms(FloatMath(), activation, partial, g, b)
        terms = np.stack(np.broadcast_arrays(*terms, g)[:-1])
        largest = np.max(np.abs(terms), axis=0)
        cancellation = np.abs(np.sum(terms, axis=0)) / largest
        scale = np.abs(c * shifted) * largest
    high, low, scale = np.array(high), np.zeros(g.shape), np.array(scale)
    if form.name == "float64":
        sums = exact_sums(unit_terms(activation, partial, offset), c[finite], g[finite], v[finite], b[finite])
        high[finite] = np.where(sums[0] == 0, np.copysign(0.0, high[finite]), sums[0])
        low[finite] = sums[1]
        scale[finite] = sums[2]
    scale = np.where(finite, np.maximum(scale, np.abs(high)), np.abs(high))
    ulps = elementwise_bound(
        backend_name, form.name, activation=activation, partial=partial, gate=g, beta=b, gradient=gradient
    )
    # An ulp is at most 2 u of its number.
    cancelled = (len(terms) > 1) & (cancellation <= 2 * form.unit_roundoff * ulps)
    signless = cancelled | ((high == 0) & ~finite & (partial != "value"))
    # An infinite factor times a sum that cancels down to its bound may be of either sign, and nan.
    judged = np.where(finite, np.isfinite(scale), ~cancelled)
    return Term(form, backend_name, high, low, scale, ulps, judged, finite, signless)


def total(terms: Sequence[Float64]) -> tuple[Float64, Float64]:
    """The sum of float64 arrays as (high, low), without an error to speak of."""
    rows = np.stack(np.broadcast_arrays(*terms))
    columns = rows.reshape(len(rows), -1).T.tolist()
    high = [math.fsum(column) if all(map(math.isfinite, column)) else float(np.sum(column)) for column in columns]
    low = [
        math.fsum([*column, -one]) if math.isfinite(one) and all(map(math.isfinite, column)) else 0.0
        for column, one in zip(columns, high, strict=True)
    ]
    return np.array(high).reshape(rows.shape[1:]), np.array(low).reshape(rows.shape[1:])


def compute_format(backend_name: str, dtype: str) -> Format:
    """The format that a backend computes in."""
    return FORMATS["float64" if dtype == "float64" or backend_name == "numpy" else "float32"]


def sum_bound(terms: Sequence[Term], *, flushes: bool) -> Float64:
    r"""The absolute bound of the error of a sum of products, elementwise: a tangent.

    Each of the n terms is off by its own bound :math:`e_i`, at its own largest term :math:`m_i` (it is at most
    :math:`2 m_i`, having at most two terms). The n - 1 additions, in the compute dtype with roundoff u, add at most
    :math:`(n - 1) u' \sum (2 m_i + e_i)` with :math:`u' = u / (1 - n u)`; the final rounding, where there is one,
    half an ulp of the result; a flush, the smallest normal number each time.
    """
    form, name = terms[0].form, terms[0].backend
    compute = compute_format(name, form.name)
    n = len(terms)
    u = compute.unit_roundoff / (1 - n * compute.unit_roundoff)
    with np.errstate(over="ignore", invalid="ignore"):
        own = np.sum([one.unrounded for one in terms], axis=0)
        reach = np.sum([2 * one.scale + one.unrounded for one in terms], axis=0)
    error = own + (n - 1) * u * reach + (2 * n * compute.smallest_normal if flushes else 0.0)
    return _rounded_once(form, compute, error, total([one.high for one in terms])[0], flushes=flushes)


def reduction_bound(one: Term, axes: tuple[int, ...], shape: tuple[int, ...], *, flushes: bool) -> Float64:
    r"""The absolute bound of the gradient of a broadcast beta: n u sum |terms|, each term's own bound, one rounding."""
    compute = compute_format(one.backend, one.form.name)
    n = math.prod(one.high.shape[axis] for axis in axes)
    own = np.sum(one.unrounded, axis=axes).reshape(shape)
    reach = np.sum(one.scale + one.unrounded, axis=axes).reshape(shape)
    error = own + n * compute.unit_roundoff * reach + (2 * n * compute.smallest_normal if flushes else 0.0)
    exact = np.sum(one.high, axis=axes).reshape(shape)
    return _rounded_once(one.form, compute, error, exact, flushes=flushes)


def _rounded_once(form: Format, compute: Format, error: Float64, exact: Float64, *, flushes: bool) -> Float64:
    """The bound after the rounding into the dtype, where that is narrower than what was computed in."""
    if form == compute:
        return error
    flushed = form.smallest_normal if flushes else 0.0
    return error + 0.5 * ulp(form, np.abs(exact) + error) + flushed


# Tangents of the projected forms


def projection_tangent_bound(
    backend_name: str,
    dtype: str,
    arguments: dict[str, Float64],
    tangents: dict[str, Float64],
    *,
    activation: str,
    beta: Float64,
) -> Float64:
    """The absolute bound of a projected form's tangent: the carried bounds of its terms and of their additions.

    With g, v, h as in :mod:`gated.conformance.carried`: dg = dx W + x dW + db, dv likewise,
    dh = A'(g) v dg + A(g) dv + (dA/dbeta)(g) v dbeta, and dy = dh W2 + h dW2 + db2.
    """
    r = Rounding(backend_name, dtype)
    given = {name: _exact(value) for name, value in arguments.items()}
    moved = {name: _exact(value) for name, value in tangents.items()}

    def added(parts: Sequence[Carried | None], k: int) -> Carried | None:
        """The sum of what is there in any order, also within the accumulation of a product over k."""
        present = [part for part in parts if part is not None]
        if not present:
            return None
        n, reach = len(present), sum(part.reach for part in present)
        own = (r.gamma(k + n) + (n - 1) * r.store) * reach + n * r.tiny
        return Carried(sum(part.value for part in present), sum(part.error for part in present) + own)

    def moved_product(weight: str, bias: str) -> Carried | None:
        return added(
            [
                r.product(moved["x"], given[weight]) if "x" in moved else None,
                r.product(given["x"], moved[weight]) if weight in moved else None,
                moved.get(bias),
            ],
            given["x"].value.shape[-1],
        )

    gate = r.product(given["x"], given["W"], given.get("b"))
    value = r.product(given["x"], given["V"], given.get("c"))
    full_beta = np.broadcast_to(beta, gate.value.shape)
    factor = _activation(activation, gate, full_beta)

    def ulps(partial: str) -> Float64:
        return elementwise_bound(
            backend_name, dtype, activation=activation, partial=partial, gate=gate.value, beta=full_beta, gradient=True
        )

    def with_terms(partial: str) -> Carried:
        # An ulp of a derivative is taken at its largest term, at most |s| + |z s (1 - s)| <= 1.3.
        one = factor[partial]
        terms = 1.3 if partial == "x" and activation in ("swish", "gelu", "gelu_tanh") else 0.0
        return Carried(one.value, one.error + 2 * r.store * ulps(partial) * np.maximum(terms, one.reach))

    def widened(row: Carried | None) -> Carried | None:
        if row is None:
            return None
        shape = gate.value.shape
        return Carried(np.broadcast_to(row.value, shape), np.broadcast_to(row.error, shape))

    dgate, dvalue = widened(moved_product("W", "b")), widened(moved_product("V", "c"))
    dh = added(
        [
            r.times(r.times(with_terms("x"), value), dgate) if dgate else None,
            r.times(factor["value"], dvalue, ulps("value")) if dvalue else None,
            r.times(r.times(with_terms("beta"), value), _exact(np.broadcast_to(tangents["beta"], full_beta.shape)))
            if "beta" in moved
            else None,
        ],
        1,
    )
    if "W2" not in given:
        assert dh is not None
        return dh.error
    hidden = r.times(factor["value"], value, ulps("value"))
    dy = added(
        [
            r.product(dh, given["W2"]) if dh else None,
            r.product(hidden, moved["W2"]) if "W2" in moved else None,
            moved.get("b2"),
        ],
        gate.value.shape[-1],
    )
    assert dy is not None
    return dy.error


# Differences


def central_difference(f: Any, x: Float64, h: Float64) -> Float64:
    """f'(x) to 8th order: error h^8 / 630 |f^(9)|."""
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    return sum(w * (f(x + k * h) - f(x - k * h)) for k, w in enumerate(weights, start=1)) / h


def analytic_radius(activation: str, x: Float64, beta: Float64 | float = 1.0) -> Float64:
    r"""A radius r within which \|activation / argument\| is at most 2 on the complex disc around x.

    The logistic function is at most 1 where its argument's imaginary part is at most pi / 2 in magnitude. Phi(a + ib)
    is within \|b\| e^(b^2/2) phi(0) of Phi(a). The imaginary part of gelu_tanh's argument is at most
    1.6 r (1 + 0.134 (\|x\| + r)^2).
    """
    if activation == "gelu":
        return np.ones_like(x)
    if activation == "gelu_tanh":
        return 0.5 / (1 + 0.15 * x * x)
    return np.pi / 2 / np.maximum(np.abs(beta), 1 / 8) * np.ones_like(x)


def difference_bound(radius: Float64, h: Float64, largest: Float64, ulps: float) -> Float64:
    r"""The error of :func:`central_difference` for a function bounded by ``largest`` on the disc, computed to ``ulps``.

    Cauchy: \|f^(9)\| <= 9! largest / r^9, so the truncation is at most 576 (h/r)^8 largest / r. Rounding: the weights
    sum to 1.05, twice; each value is off by ``ulps`` of up to ``largest``, and the difference and sum by two more.
    """
    truncation = 576 * (h / radius) ** 8 * largest / radius
    rounding = 2.1 * (ulps + 4) * 2.0**-52 * largest / h
    return truncation + rounding
