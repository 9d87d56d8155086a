r"""The rounding-error bound of the projected forms: running error analysis through two products and a gate.

Every intermediate is a value with a bound on its absolute error; each operation adds what its own rounding may do
(Higham, "Accuracy and Stability of Numerical Algorithms", sections 3.1 and 3.3). With u the dtype's unit roundoff and
:math:`\gamma_k = k u_a / (1 - k u_a)` for sums of k products accumulated with roundoff :math:`u_a` (float32 or wider,
in any order):

- a product of matrices: :math:`|A| E_B + E_A |B| + E_A E_B + (\gamma_{k+1} + u) (|A| + E_A)(|B| + E_B)`, and
  :math:`\gamma_{k+1} |b|` for a bias b, since the sums may begin from it;
- an activation at a gate off by :math:`\delta`: :math:`|A'(g)| \delta + \sup|A''| \delta^2 / 2` (Taylor), plus the
  contract's own bound for its arithmetic;
- each stored intermediate: u of its magnitude, and the smallest normal number where results may be flushed.

The reference works the narrower dtypes in float64 and rounds once: its bound there is that of float64 and 0.51 ulp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance.bounds import elementwise_bound
from gated.conformance.error import FORMATS, Format

__all__ = ["projection_bounds"]

Float64 = NDArray[np.float64]

# sup |A''|: 1 / (6 sqrt 3) for sigmoid, beta / 2 for swish, 2 phi(0) for gelu and (to 1e-6) its tanh form.
_CURVATURE: Final = {"identity": 0.0, "sigmoid": 0.0963, "relu": 0.0, "gelu": 0.7979, "gelu_tanh": 0.7979, "swish": 0.5}
# sup |d/dz z^2 s(z) s(-z)|: the slope of swish's beta-derivative in x is this over |beta|.
_BETA_SLOPE: Final = 0.3025


@dataclass(frozen=True)
class Carried:
    """A value and a bound on the absolute error that the computed one has."""

    value: Float64
    error: Float64

    @property
    def reach(self) -> Float64:
        """The largest magnitude that the computed value can have."""
        return np.abs(self.value) + self.error

    @property
    def T(self) -> Carried:  # noqa: N802 - as NumPy spells it
        """The transpose."""
        return Carried(self.value.T, self.error.T)


@dataclass(frozen=True)
class Rounding:
    """The arithmetic of a backend in one dtype."""

    backend: str
    dtype: str

    @property
    def store(self) -> float:
        """The unit roundoff of a stored intermediate."""
        return FORMATS[self.dtype].unit_roundoff

    @property
    def tiny(self) -> float:
        """What a flushed result may lose."""
        return FORMATS[self.dtype].smallest_normal

    @property
    def sums(self) -> Format:
        """The format that sums are accumulated in, at least."""
        return FORMATS["float64" if self.dtype == "float64" else "float32"]

    def gamma(self, k: int) -> float:
        u = self.sums.unit_roundoff
        return k * u / (1 - k * u)

    def flushed(self, k: int) -> float:
        """What a stored sum of k products may lose to flushing."""
        return 2 * k * self.sums.smallest_normal + self.tiny

    def product(self, a: Carried, b: Carried, start: Carried | None = None) -> Carried:
        """a @ b + start; the sums may begin from ``start``, or it may be added to a stored product."""
        k = a.value.shape[-1]
        propagated = np.abs(a.value) @ b.error + a.error @ np.abs(b.value) + a.error @ b.error
        reach = a.reach @ b.reach
        own = (self.gamma(k + 1) + self.store) * reach + self.flushed(k)
        product = Carried(a.value @ b.value, propagated + own)
        if start is None:
            return product
        begun = self.gamma(k + 1) * start.reach
        return self.plus(product, Carried(start.value, start.error + begun))

    def plus(self, a: Carried, b: Carried | None) -> Carried:
        """a + b, rounded; a alone where there is no b."""
        if b is None:
            return a
        error = a.error + b.error + self.store * (a.reach + b.reach) + self.tiny
        return Carried(a.value + b.value, error)

    def total(self, a: Carried, axis: int | tuple[int, ...]) -> Carried:
        """The sum along an axis."""
        k = a.value.size // max(1, np.sum(a.value, axis=axis).size)
        own = (self.gamma(k) + self.store) * np.sum(a.reach, axis=axis) + self.flushed(k)
        return Carried(np.sum(a.value, axis=axis), np.sum(a.error, axis=axis) + own)

    def times(self, a: Carried, b: Carried, ulps: Float64 | float = 0.0) -> Carried:
        """a * b elementwise, with the arithmetic of a contract bound of so many ulp (an ulp: 2 u at most)."""
        propagated = np.abs(a.value) * b.error + a.error * np.abs(b.value) + a.error * b.error
        own = (2 * self.store * ulps + self.store) * a.reach * b.reach + self.tiny
        return Carried(a.value * b.value, propagated + own)


def _exact(x: Float64) -> Carried:
    return Carried(np.asarray(x, np.float64), np.zeros(np.shape(x)))


def _activation(activation: str, gate: Carried, beta: Float64) -> dict[str, Carried]:
    """A(g), A'(g) and dA/dbeta at a gate that is off by its error."""
    g, off = gate.value, gate.error
    ones = np.ones_like(g)
    _, pullback = reference.vjp(reference.gated_unit, g, ones, beta, activation=activation)
    slope, value, in_beta = pullback(ones)
    assert slope is not None and value is not None and in_beta is not None
    if activation == "relu":
        crossing = np.abs(g) <= off
        return {
            "value": Carried(value, np.where(g > -off, off, 0.0)),
            "x": Carried(slope, np.where(crossing, 1.0, 0.0)),
            "beta": Carried(in_beta, np.zeros_like(g)),
        }
    curvature = _CURVATURE[activation] * (np.abs(beta) if activation == "swish" else 1.0)
    # d/dx x^2 s (1 - s) = x (2 s (1 - s) + z s (1 - s) (1 - 2 s)), and the bracket is at most 1 / 2, its value at 0.
    beta_slope = np.minimum(_BETA_SLOPE / np.maximum(np.abs(beta), np.finfo(np.float64).tiny), (np.abs(g) + off) / 2)
    return {
        "value": Carried(value, np.abs(slope) * off + curvature * off * off / 2),
        "x": Carried(slope, curvature * off),
        "beta": Carried(in_beta, beta_slope * off if activation == "swish" else np.zeros_like(g)),
    }


def projection_bounds(
    backend: str,
    dtype: str,
    arguments: dict[str, Float64 | None],
    cotangent: Float64,
    *,
    activation: str,
    beta: Float64,
) -> dict[str, Float64]:
    """The bound on the absolute error of the value (key ``"value"``) and of every cotangent of a projected form.

    Args:
        arguments: ``x`` (rows, d_in), ``W``, ``V`` and, where there are any, ``W2``, ``b``, ``c``, ``b2``, in float64.
        cotangent: of the shape of the result.
        beta: an array that broadcasts to the gate.
    """
    # The reference works the narrower dtypes in float64 and rounds once.
    once = backend == "numpy" and dtype != "float64"
    carried = _carry(Rounding(backend, "float64" if once else dtype), arguments, cotangent, activation, beta)
    if not once:
        return {name: one.error for name, one in carried.items()}
    form = FORMATS[dtype]
    ceiling = 2 * 0.51
    return {
        name: one.error + ceiling * np.maximum(form.unit_roundoff * one.reach, form.smallest_subnormal / 2)
        for name, one in carried.items()
    }


def _carry(
    r: Rounding, arguments: dict[str, Float64 | None], cotangent: Float64, activation: str, beta: Float64
) -> dict[str, Carried]:
    """The value and the cotangents with their errors in the arithmetic ``r``."""
    given = {name: _exact(value) for name, value in arguments.items() if value is not None}
    x, w, v, dy = given["x"], given["W"], given["V"], _exact(cotangent)
    gate = r.product(x, w, given.get("b"))
    value = r.product(x, v, given.get("c"))
    full_beta = np.broadcast_to(beta, gate.value.shape).astype(np.float64)
    factor = _activation(activation, gate, full_beta)

    def ulps(partial: str, *, gradient: bool) -> Float64:
        return elementwise_bound(
            r.backend,
            r.dtype,
            activation=activation,
            partial=partial,
            gate=gate.value,
            beta=full_beta,
            gradient=gradient,
        )

    # An ulp of a derivative is taken at the largest term: at most |s| + |z s (1 - s)| <= 1.3, where the derivative
    # itself may be 0.
    def with_terms(partial: str) -> Carried:
        one = factor[partial]
        terms = 1.3 if partial == "x" and activation in ("swish", "gelu", "gelu_tanh") else 0.0
        own = 2 * r.store * ulps(partial, gradient=True) * np.maximum(terms, one.reach)
        return Carried(one.value, one.error + own)

    hidden = r.times(factor["value"], value, ulps("value", gradient=False))
    bounds: dict[str, Carried] = {}
    dh = dy
    result = hidden
    if "W2" in given:
        result = r.product(hidden, given["W2"], given.get("b2"))
        dh = r.product(dy, given["W2"].T)
        bounds["W2"] = r.product(hidden.T, dy)
        bounds["b2"] = r.total(dy, 0)
    dgate = r.times(r.times(dh, with_terms("x")), value)
    dvalue = r.times(dh, factor["value"], ulps("value", gradient=True))
    dbeta = r.times(r.times(dh, with_terms("beta")), value)
    summed = tuple(i for i, size in enumerate((1,) * (2 - np.ndim(beta)) + np.shape(beta)) if size == 1)
    total_beta = r.total(dbeta, summed) if summed else dbeta
    return bounds | {
        "value": result,
        "x": r.plus(r.product(dgate, w.T), r.product(dvalue, v.T)),
        "W": r.product(x.T, dgate),
        "V": r.product(x.T, dvalue),
        "b": r.total(dgate, 0),
        "c": r.total(dvalue, 0),
        "beta": Carried(total_beta.value.reshape(np.shape(beta)), total_beta.error.reshape(np.shape(beta))),
    }
