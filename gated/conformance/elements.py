"""The exact results of the elementwise functions: activations and gated units, with every cotangent.

Finite inputs in float64 are decided by the oracle; in the narrower dtypes they are the reference's in float64, whose
ulp is 2^-29 of theirs or less, and which the float64 rows prove. Infinities, nan and the signs of zeros come from the
rules of :mod:`gated.conformance.limits`, for every dtype: no backend is held against itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance import inputs, oracle
from gated.conformance.bounds import elementwise_bound, reduction_bound
from gated.conformance.closed_forms import FloatMath, activation_terms
from gated.conformance.error import FORMATS, Format, ulp_exponent
from gated.conformance.limits import activation_sign, special_products
from gated.conformance.quantities import Case, Quantity, unpack

__all__ = ["Elements", "Packing"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_SUMS: Final = ("swish", "gelu", "gelu_tanh")
"""The activations whose derivative in x is a sum of two terms."""


@dataclass(frozen=True)
class Packing:
    """Where gate and value are in a packed array."""

    layout: str
    axis: int = -1


class Elements:
    """cotangent * activation(min(gate, limit), beta) * (clip(value, -limit, limit) + offset), and its derivatives.

    Args:
        value: None for an activation alone.
        beta: a number, or an array of the gate's shape.
    """

    def __init__(
        self,
        form: Format,
        activation: str,
        gate: Array,
        value: Array | None,
        beta: Array | float,
        cotangent: Array,
        *,
        limit: float = math.inf,
        offset: float = 0.0,
    ) -> None:
        self.form = form
        self.activation = activation
        self.cotangent = cotangent
        self.inputs = {"gate" if value is not None else "x": gate}
        if value is not None:
            self.inputs["value"] = value
        if isinstance(beta, np.ndarray):
            self.inputs["beta"] = beta
        with np.errstate(invalid="ignore"):
            self.raw_gate = gate.astype(np.float64)
            self.raw_value = np.ones_like(self.raw_gate) if value is None else value.astype(np.float64)
        self.limit, self.offset = limit, offset
        self.gate = np.where(self.raw_gate > limit, limit, self.raw_gate)
        clipped = np.where(self.raw_value < -limit, -limit, self.raw_value)
        self.value = np.where(clipped > limit, limit, clipped)
        self.beta = np.broadcast_to(np.asarray(beta, np.float64), self.gate.shape)

    def case(
        self,
        function: str,
        label: str,
        primals: tuple[Any, ...],
        static: dict[str, Any],
        cotangents: tuple[str, ...],
        packing: Packing | None = None,
    ) -> Case:
        """The case of a call whose ``primals`` have these ``cotangents``.

        A cotangent is ``"packed"``, ``"gate"`` (also of x), ``"value"``, ``"beta"``, ``"number"``: the sum over all
        elements that is the cotangent of one beta for all, or ``"vector"``: the sums over all axes but the last, of one
        beta a column.
        """
        names = {"gate": "gate" if "value" in self.inputs else "x"}
        quantities = [self._quantity("value", "output")]
        for kind in cotangents:
            if kind == "packed":
                assert packing is not None
                quantities += [
                    self._quantity("x", "gate", lambda x: unpack(x, packing.layout, packing.axis)[0]),
                    self._quantity("x", "value", lambda x: unpack(x, packing.layout, packing.axis)[1]),
                ]
            elif kind in ("number", "vector"):
                quantities.append(self._sum(self._quantity("beta", "beta"), by_column=kind == "vector"))
            else:
                quantities.append(self._quantity(names.get(kind, kind), kind))
        return Case(function, label, primals, static, self.cotangent, tuple(quantities), self.inputs)

    def _factors(self, kind: str) -> tuple[str, Float64, Float64, float, NDArray[np.float64]]:
        """Which partial of the activation it is, its cotangent, value and offset, and the derivative of the clamp."""
        ones = np.ones_like(self.gate)
        c = self.cotangent.astype(np.float64)
        match kind:
            case "output":
                return "value", ones, self.value, self.offset, ones
            case "gate":
                return "x", c, self.value, self.offset, np.where(self.raw_gate > self.limit, 0.0, 1.0)
            case "value":
                inside = np.where(np.abs(self.raw_value) > self.limit, 0.0, 1.0)
                # A clip has no derivative at nan; a plain value has: its factor.
                clipped = np.isnan(self.raw_value) & math.isfinite(self.limit)
                return "value", c, ones, 0.0, np.where(clipped, np.nan, inside)
            case _:
                return "beta", c, self.value, self.offset, ones

    def _quantity(self, name: str, kind: str, unpack: Callable[[Array], Array] = lambda result: result) -> Quantity:
        partial, cotangent, value, offset, inside = self._factors(kind)
        with np.errstate(invalid="ignore"):
            shifted = value + offset if offset else value
        high, low, scale = self._exact(partial, cotangent, value, offset)
        finite = np.isfinite(self.gate) & np.isfinite(shifted) & np.isfinite(self.beta)
        special = special_products(self.activation, partial, cotangent, self.gate, shifted, self.beta)
        with np.errstate(all="ignore"):
            sign = np.copysign(1.0, cotangent) * np.copysign(1.0, shifted)
            sign *= activation_sign(self.activation, partial, self.gate)
            high = np.where(finite, np.where(high == 0, np.copysign(0.0, sign), high), special) * inside
            low = np.where(finite, low, 0.0) * inside
            scale = np.where(finite, scale, np.abs(high)) * inside
        # Of an activation that has no beta the derivative is 0, whatever it would be multiplied with.
        absent = partial == "beta" and self.activation != "swish"
        if absent:
            high, low, scale = np.zeros_like(high), np.zeros_like(low), np.zeros_like(scale)
        is_sum = partial == "x" and self.activation in _SUMS
        # Terms past float64 whose sum is within it: IEEE arithmetic has the last word.
        judged = ~(finite & np.isinf(scale) & np.isfinite(high))
        if is_sum:
            judged &= ~(np.isinf(shifted) & self._cancelled())
        # A sum may tend to zero from either side; so may what a rectifier or a clamp has masked.
        masked = (inside == 0) | ((partial == "x") & (self.activation == "relu"))
        zero_signs = ~(masked | is_sum | absent)

        def bound(backend: str) -> Float64:
            if backend == "field":
                return self._field_bound(kind, high, scale)
            return elementwise_bound(
                backend,
                self.form.name,
                activation=self.activation,
                partial=partial,
                gate=self.gate,
                beta=self.beta,
                gradient=kind != "output",
            )

        return Quantity(name, high, low, scale, bound, judged, zero_signs, unpack)

    def _field_bound(self, kind: str, high: Float64, scale: Float64) -> Float64:
        """What plain formulas in the dtype reach, in the ulp that the errors are measured in."""
        at = np.minimum(np.maximum(np.abs(high), scale), self.form.largest)
        with np.errstate(all="ignore"):
            bound: Float64 = np.ldexp(self._field_absolute(kind), -ulp_exponent(at, self.form))
            return bound

    def _field_absolute(self, kind: str) -> Float64:
        from gated.conformance.grading.plain import field_bound

        partial, cotangent, value, offset, inside = self._factors(kind)
        with np.errstate(all="ignore"):
            shifted = value + offset if offset else value
            absolute = field_bound(self.form, self.activation, partial, self.gate, shifted, self.beta, cotangent)
            finite = np.isfinite(self.raw_gate) & np.isfinite(self.raw_value)
            absolute = np.where((inside == 0) & finite, 0.0, absolute)
            if kind == "output":
                return absolute
            # On the edge of a clamp or a rectifier the derivative is any between those on its two sides.
            edge = np.abs(self.raw_value) == self.limit if kind == "value" else self.raw_gate == self.limit
            reach = reference.gated_unit(self.gate, cotangent * shifted, activation=self.activation, beta=self.beta)
            if kind == "gate" and self.activation == "relu":
                edge |= self.raw_gate == 0
                reach = cotangent * shifted
            elif kind == "gate":
                reach = self._slopes(cotangent, shifted)
            absolute = np.where(edge, absolute + 1.01 * np.abs(reach), absolute)
        # Of a gradient at nan frameworks make what their masks make of it.
        return np.where(np.isnan(self.raw_gate) | np.isnan(self.raw_value), np.inf, absolute)

    def _slopes(self, cotangent: Float64, value: Float64) -> Float64:
        _, pullback = reference.vjp(reference.gated_unit, self.gate, value, self.beta, activation=self.activation)
        in_gate, _, _ = pullback(cotangent)
        assert in_gate is not None
        return in_gate

    def _exact(
        self, partial: str, cotangent: Float64, value: Float64, offset: float
    ) -> tuple[Float64, Float64, Float64]:
        """The exact results as (high, low) and their largest terms; meaningful where all operands are finite."""
        if self.form.name == "float64":
            finite = np.isfinite(self.gate) & np.isfinite(value) & np.isfinite(self.beta)
            operands = (np.where(finite, one, 0.0) for one in (cotangent, self.gate, value, self.beta))
            return oracle.exact_sums(oracle.unit_terms(self.activation, partial, offset), *operands)
        with np.errstate(all="ignore"):
            shifted = value + offset if offset else value
            terms = activation_terms(FloatMath(), self.activation, partial, self.gate, self.beta)
            largest = np.max(np.abs(np.stack(np.broadcast_arrays(*terms))), axis=0)
            scale = np.abs(cotangent * shifted) * largest
            # For a value the cotangent or the value is 1, and the product of the two exact.
            product = cotangent * shifted
        if partial == "value":
            high = reference.gated_unit(self.gate, product, activation=self.activation, beta=self.beta)
        else:
            _, pullback = reference.vjp(reference.gated_unit, self.gate, shifted, self.beta, activation=self.activation)
            in_gate, _, in_beta = pullback(cotangent)
            assert in_gate is not None and in_beta is not None
            high = in_gate if partial == "x" else in_beta
        return high, np.zeros_like(high), scale

    def _cancelled(self) -> NDArray[np.bool_]:
        """Where the terms of the derivative in x cancel to within their bound."""
        with np.errstate(all="ignore"):
            terms = np.stack(activation_terms(FloatMath(), self.activation, "x", self.gate, self.beta))
            least = 32 * self.form.unit_roundoff * np.abs(terms).max(axis=0)
            cancelled: NDArray[np.bool_] = np.abs(terms.sum(axis=0)) < least
        return cancelled

    def _sum(self, terms: Quantity, *, by_column: bool) -> Quantity:
        """The cotangent of one beta for many elements: the sum of their terms, which must be finite."""
        columns = self.gate.shape[-1] if by_column else 1
        shape = (columns,) if by_column else ()

        def split(x: Float64) -> list[Float64]:
            return list(x.reshape(-1, columns).T)

        sums = []
        for high, low in zip(split(terms.high), split(terms.low), strict=True):
            parts = [*high.tolist(), *low.tolist()]
            total = math.fsum(parts)
            sums.append((total, math.fsum([*parts, -total])))
        high, low = np.array(sums).T.reshape(2, *shape)
        assert terms.scale is not None
        scales = split(terms.scale)

        def absolute(backend: str) -> list[Float64]:
            if backend == "field":
                own = split(self._field_absolute("beta"))
                wide = FORMATS["float64" if self.form.name == "float64" else "float32"]
                sums_of = [
                    np.sum(one) + one.size * wide.unit_roundoff * np.sum(scale + one)
                    for one, scale in zip(own, scales, strict=True)
                ]
                return [
                    one + 0.5 * np.ldexp(1.0, ulp_exponent(np.abs(total) + one, self.form))
                    for one, (total, _) in zip(sums_of, sums, strict=True)
                ]
            return [
                reduction_bound(
                    backend,
                    self.form.name,
                    scale,
                    activation=self.activation,
                    gate=gate,
                    beta=beta,
                    exact=total,
                )
                for scale, gate, beta, (total, _) in zip(
                    scales, split(self.gate), split(np.asarray(self.beta)), sums, strict=True
                )
            ]

        def bound(backend: str) -> Float64:
            return np.ldexp(np.array(absolute(backend)).reshape(shape), -ulp_exponent(high, self.form))

        return Quantity("beta", high, low, None, bound)


def random_cotangents(form: Format, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Cotangents of the magnitudes at which gradients are graded, of a shape."""
    return inputs.cotangents(form, rng, math.prod(shape)).reshape(shape)
