"""Each activation and its derivatives in mpmath numbers, written otherwise than in gated.conformance.closed_forms.

At mpmath's current precision. None of them cancels but where a derivative has a zero, so that 400 bits are ample.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import mpmath

mp = mpmath.mp
mpf = mpmath.mpf


def logistic(t: Any) -> Any:
    return mp.exp(t) / (mp.exp(t) + 1) if t < 0 else 1 / (mp.exp(-t) + 1)


def bell(t: Any) -> Any:
    """s(t) s(-t) = 1 / (4 cosh^2(t / 2))."""
    return 1 / (2 * mp.cosh(t / 2)) ** 2


@functools.cache
def _gamma_tail(t: Any, precision: int) -> Any:
    return mp.gammainc(mpf(1) / 2, t * t / 2) / (2 * mp.sqrt(mp.pi))


def normal_cdf(x: Any) -> Any:
    """Phi(x) by the incomplete gamma function: Phi(-t) = Gamma(1/2, t^2 / 2) / (2 sqrt pi).

    Near 0 by the series Phi(x) = 1/2 + phi(x) (x + x^3 / 3 + x^5 / (3 * 5) + ...), in which no term changes sign.
    """
    if abs(x) < mpf(2) ** -20:
        terms, k = [x], 1
        while abs(terms[-1]) > mpf(2) ** (-2 * mp.prec) and len(terms) < 400:
            k += 2
            terms.append(terms[-1] * x * x / k)
        return mpf(1) / 2 + normal_pdf(x) * mp.fsum(terms)
    tail = _gamma_tail(abs(x), mp.prec)
    return tail if x <= 0 else 1 - tail


def normal_pdf(x: Any) -> Any:
    return mp.exp(-(x * x) / 2) / mp.sqrt(2 * mp.pi)


def tanh_argument(x: Any) -> Any:
    return mp.sqrt(8 / mp.pi) * (x + mpf("0.044715") * x**3)


def _tanh_argument_slope(x: Any) -> Any:
    return mp.sqrt(8 / mp.pi) * (1 + mpf("0.134145") * x**2)


def _gelu_tanh_slope(x: Any) -> Any:
    w = tanh_argument(x)
    return logistic(w) + (w + mp.sqrt(8 / mp.pi) * 2 * mpf("0.044715") * x**3) * bell(w)


def _gelu_tanh_bend(x: Any) -> Any:
    w, slope = tanh_argument(x), _tanh_argument_slope(x)
    bend = mp.sqrt(8 / mp.pi) * mpf("0.26829") * x
    return bell(w) * (2 * slope + x * (bend - slope**2 * mp.tanh(w / 2)))


def _swish_slope(x: Any, beta: Any) -> Any:
    z = beta * x
    return (mp.exp(z) * (mp.exp(z) + 1 + z) if z < 0 else 1 + mp.exp(-z) * (1 + z)) / (1 + mp.exp(-abs(z))) ** 2


FORMULAS: dict[tuple[str, str], Callable[[Any, Any], Any]] = {
    ("identity", "value"): lambda x, beta: x,
    ("identity", "x"): lambda x, beta: mpf(1),
    ("sigmoid", "value"): lambda x, beta: logistic(x),
    ("sigmoid", "x"): lambda x, beta: bell(x),
    ("sigmoid", "xx"): lambda x, beta: -bell(x) * mp.tanh(x / 2),
    ("relu", "value"): lambda x, beta: (x + abs(x)) / 2,
    ("relu", "x"): lambda x, beta: mpf(1 if x > 0 else 0),
    ("relu", "xx"): lambda x, beta: mpf(0),
    ("gelu", "value"): lambda x, beta: x * normal_cdf(x),
    ("gelu", "x"): lambda x, beta: normal_cdf(x) + x * normal_pdf(x),
    ("gelu", "xx"): lambda x, beta: (2 - x * x) * normal_pdf(x),
    ("gelu_tanh", "value"): lambda x, beta: x * logistic(tanh_argument(x)),
    ("gelu_tanh", "x"): lambda x, beta: _gelu_tanh_slope(x),
    ("gelu_tanh", "xx"): lambda x, beta: _gelu_tanh_bend(x),
    ("swish", "value"): lambda x, beta: x * logistic(beta * x),
    ("swish", "x"): _swish_slope,
    ("swish", "beta"): lambda x, beta: x * x * bell(beta * x),
    ("swish", "xx"): lambda x, beta: beta * bell(beta * x) * (2 - beta * x * mp.tanh(beta * x / 2)),
    ("swish", "xbeta"): lambda x, beta: x * bell(beta * x) * (2 - beta * x * mp.tanh(beta * x / 2)),
    ("swish", "betabeta"): lambda x, beta: -(x**3) * bell(beta * x) * mp.tanh(beta * x / 2),
}


def first_term(activation: str, x: Any, beta: Any = 1) -> Any:
    """The first of the two terms of a derivative in x: s(z), Phi(x) or s(w)."""
    if activation == "gelu":
        return normal_cdf(x)
    return logistic(tanh_argument(x) if activation == "gelu_tanh" else beta * x)


def largest_term(activation: str, partial: str, x: Any, beta: Any) -> Any:
    """The largest magnitude among the terms of the closed form, and the form itself."""
    exact = FORMULAS[activation, partial](x, beta)
    return max(abs(one) for one in (exact, *_terms(activation, partial, x, beta, exact)))


def _terms(activation: str, partial: str, x: Any, beta: Any, exact: Any) -> Sequence[Any]:
    """What a derivative that is a sum of products is the sum of; nothing for a product."""
    if activation in ("swish", "gelu", "gelu_tanh") and partial == "x":
        first = first_term(activation, x, beta)
        return first, exact - first
    if activation == "gelu" and partial == "xx":
        return 2 * normal_pdf(x), x * x * normal_pdf(x)
    t = {"swish": beta * x, "gelu_tanh": tanh_argument(x)}.get(activation, x)
    # s'' = s r^2 - s^2 r is a difference of two terms.
    rising, falling = bell(t) * logistic(-t), bell(t) * logistic(t)
    if activation == "gelu_tanh" and partial == "xx":
        slope, bend = _tanh_argument_slope(x), mp.sqrt(8 / mp.pi) * mpf("0.26829") * x
        return 2 * bell(t) * slope, x * slope**2 * rising, x * slope**2 * falling, x * bell(t) * bend
    factor = {"xx": beta * t, "xbeta": x * t, "betabeta": x**3}.get(partial, 0) if activation == "swish" else 1
    if partial in ("xx", "xbeta", "betabeta") and activation in ("swish", "sigmoid"):
        twice = {"xx": 2 * beta, "xbeta": 2 * x}.get(partial, 0) * bell(t) if activation == "swish" else 0
        return factor * rising, factor * falling, twice
    return ()
