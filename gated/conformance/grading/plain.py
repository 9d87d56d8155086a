r"""The field profile: how far the plain formulas, as everyone writes them, may be off in a dtype.

.. math:: \sigma(x) = 1 / (1 + e^{-x}), \quad \text{swish} = x \sigma(\beta x), \quad
   \text{gelu} = \tfrac12 x (1 + \operatorname{erf}(x / \sqrt 2)), \quad
   \text{gelu}_{\tanh} = \tfrac12 x (1 + \tanh(\sqrt{2 / \pi} (x + 0.044715 x^3)))

with their derivatives as frameworks write them and as automatic differentiation makes them, each operation rounded to
the dtype (:mod:`gated.conformance.grading.running_error`), and the products with a cotangent and a value taken in any
order. A derivative has several plain forms; the bound is that of the worst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance.error import Format
from gated.conformance.grading.running_error import Arithmetic, Number

__all__ = ["field_bound", "plain_forms", "total"]

Float64 = NDArray[np.float64]


class Term(NamedTuple):
    """A product: factors in any order, and one that every order of differentiation multiplies last.

    Where the last one may overflow, the result is lost: between 0 and the product of ``lost``, if that is given.
    """

    factors: Sequence[Number]
    last: Number | None = None
    lost: Sequence[Number] = ()


_CUBIC: Final = 0.044715


def plain_forms(m: Arithmetic, activation: str, partial: str, x: Number, beta: Number) -> list[list[Term]]:
    """The plain forms of an activation (``partial="value"``) or of its derivative in ``"x"`` or ``"beta"``.

    Each form is a sum of terms, each term a product of factors.
    """
    match activation:
        case "identity":
            return [[Term([x])]] if partial == "value" else [[Term([m.number(_like(x, partial == "x"))])]]
        case "relu":
            if partial == "value":
                return [[Term([m.maximum(x, 0.0)])]]
            step = np.where(x.value > 0, 1.0, 0.0) if partial == "x" else _like(x, False)
            # A gate that is itself inexact may be on either side.
            open_, shut = (x.high > 0, x.low <= 0) if partial == "x" else (step > 0, step <= 0)
            return [[Term([Number(m, step, np.where(shut, 0.0, 1.0), np.where(open_, 1.0, 0.0))])]]
        case "sigmoid":
            return _sigmoid(m, partial, x)
        case "swish":
            return _swish(m, partial, x, beta)
        case "gelu":
            return _gelu(m, partial, x)
        case _:
            return _gelu_tanh(m, partial, x)


def _like(x: Number, one: bool) -> Float64:
    return np.full(np.shape(x.value), 1.0 if one else 0.0)


def _sigmoid(m: Arithmetic, partial: str, x: Number) -> list[list[Term]]:
    s = m.sigmoid(x)
    match partial:
        case "value":
            return [[Term([s])]]
        case "x":
            return [[Term([s, 1.0 - s])], [Term([s, s], m.exp(-x), lost=[s])]]
        case _:
            return [[Term([m.number(_like(x, False))])]]


def _swish(m: Arithmetic, partial: str, x: Number, beta: Number) -> list[list[Term]]:
    z = beta * x
    s = m.sigmoid(z)
    r = 1.0 - s
    match partial:
        case "value":
            return [[Term([x, s])]]
        case "x":
            through_exp = [Term([s]), Term([x, beta, s, s], m.exp(-z), lost=[x, beta, s])]
            return [[Term([s, 1.0 + z * r])], [Term([s]), Term([x, beta, s, r])], through_exp]
        case _:
            return [[Term([x, x, s, r])], [Term([x, x, s, s], m.exp(-z), lost=[x, x, s])]]


def _gelu(m: Arithmetic, partial: str, x: Number) -> list[list[Term]]:
    half, t = m.constant(0.5), x * math.sqrt(0.5)
    step = 1.0 + m.erf(t)
    match partial:
        case "value":
            return [[Term([half, x, step])]]
        case "x":
            # 2 / sqrt pi, 1 / sqrt 2 and 1 / 2 are multiplied at run time.
            density = [m.constant(2 / math.sqrt(math.pi)), m.constant(math.sqrt(0.5)), half]
            powers = (-(t * t), x * x * -0.5)
            return [[Term([half, step]), Term([x, m.exp(power), *density])] for power in powers]
        case _:
            return [[Term([m.number(_like(x, False))])]]


def _gelu_tanh(m: Arithmetic, partial: str, x: Number) -> list[list[Term]]:
    half, slope = m.constant(0.5), m.constant(math.sqrt(2 / math.pi))
    t = m.tanh(slope * (x + m.product(m.constant(_CUBIC), x, x, x)))
    match partial:
        case "value":
            return [[Term([half, x, 1.0 + t])]]
        case "x":
            inner = slope * (1.0 + m.product(m.constant(3.0), m.constant(_CUBIC), x, x))
            cube = [m.constant(_CUBIC), m.constant(3.0)]
            forms = []
            for tail in (1.0 - t * t, (1.0 + t) * (1.0 - t)):
                forms.append([Term([half, 1.0 + t]), Term([half, x, tail], inner)])
                distributed = [Term([half, x, tail, slope]), Term([half, x, tail, slope, *cube], x * x)]
                forms.append([Term([half, 1.0 + t]), *distributed])
            if m.form.precision > 11:
                # JAX's rule of tanh: (g + g t) (1 - t), of which g t may be flushed alone. In 16 bits, where t is not
                # below their roundoff where it is flushed, the forms above are wider.
                rest = 1.0 - t
                forms.append([Term([half, 1.0 + t]), Term([half, x, rest], inner), Term([half, x, t, rest], inner)])
            return forms
        case _:
            return [[Term([m.number(_like(x, False))])]]


def total(m: Arithmetic, forms: Sequence[Sequence[Term]], *factors: Number) -> Number:
    """A sum of products times further factors, by any of its forms.

    Where an exponential overflows that a form multiplies last, the result may be lost, and is then 0: nan is not
    excused by there being a formula for it.
    """

    def evaluated(term: Term) -> Number:
        part = m.product(*term.factors, *factors)
        if term.last is None:
            return part
        part = m.product(part, term.last)
        if not term.lost:
            return part
        return m.where(np.isinf(term.last.high), m.product(*term.lost, *factors).hull(m.constant(0.0)), part)

    sums = [reduce(lambda a, b: a + b, [evaluated(term) for term in terms]) for terms in forms]
    return reduce(lambda a, b: a.hull(b), sums)


def field_bound(
    form: Format,
    activation: str,
    partial: str,
    gate: Any,
    value: Any,
    beta: Any,
    cotangent: Any,
) -> Float64:
    """The bound on the absolute error of cotangent * A(gate, beta) * value in the field profile, for each element.

    Args:
        form: the dtype.
        activation: one of ``contract.ACTIVATIONS``.
        partial: which A is: ``"value"``, the activation itself, or its derivative in ``"x"`` or ``"beta"``.
        gate: after the clamp, where there is one.
        value: clamped and offset; 1 for an activation alone and for the cotangent of a value.
        beta: of swish.
        cotangent: 1 for a value.

    Returns:
        float64, of the shape that the four broadcast to; infinite where it is not judged: an operand is infinite, or an
        intermediate of the plain formula may be; 0 where an operand is nan, the result being nan.
    """
    g, v, b, c = np.broadcast_arrays(*(np.asarray(one, np.float64) for one in (gate, value, beta, cotangent)))
    m = Arithmetic(form)
    with np.errstate(all="ignore"):
        finite = np.isfinite(g) & np.isfinite(v) & np.isfinite(b) & np.isfinite(c)
        x, factor, slope, cot = (m.number(np.where(finite, one, 1.0)) for one in (g, v, b, c))
        if form.name == "float64":
            # An offset that was added, to a value or in it, has been rounded: float64 cannot tell.
            factor = m.rounded(factor.value, [factor.value], exact=np.abs(factor.value) == 1)
        result = total(m, plain_forms(m, activation, partial, x, slope), cot, factor)
        exact = _reference(activation, partial, x.value, factor.value, slope.value, cot.value)
        bound = np.maximum(result.high - exact, exact - result.low)
        if form.name == "float64":
            # The reference has its own error.
            bound = bound + 8 * np.spacing(np.abs(exact))
        bound = np.where(np.isfinite(bound), np.maximum(bound, 0.0), np.inf)
        absent = np.isnan(g) | np.isnan(v) | np.isnan(b) | np.isnan(c)
    return np.where(finite, bound, np.where(absent, 0.0, np.inf))


def _reference(activation: str, partial: str, gate: Float64, value: Float64, beta: Float64, c: Float64) -> Float64:
    """The exact product, from the reference in float64."""
    if partial == "value":
        return np.asarray(reference.gated_unit(gate, c * value, activation=activation, beta=beta))
    _, pullback = reference.vjp(reference.gated_unit, gate, value, beta, activation=activation)
    in_gate, _, in_beta = pullback(c)
    return np.asarray(in_gate if partial == "x" else in_beta)
