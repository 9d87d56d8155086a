"""The built-in cases: calls of each public function, with the exact results that they are held against.

A case is one call with arrays of one dtype, and for the value and every cotangent a :class:`Quantity`: the exact
numbers, the scale of an ulp, and the bound of each element. What is exact comes from the oracle in float64, and from
the reference evaluated in float64 for the narrower dtypes, whose ulp is at least 2^29 of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance import inputs, oracle
from gated.conformance.bounds import elementwise_bound
from gated.conformance.carried import projection_bounds
from gated.conformance.closed_forms import FloatMath, activation_terms
from gated.conformance.error import FORMATS, Format, error_in_ulp, ulp_exponent
from gated.contract import ACTIVATIONS, ARRAY_PARAMETERS

__all__ = ["FUNCTIONS", "Case", "Quantity", "cases", "pack", "unpack"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

FUNCTIONS: Final = tuple(ARRAY_PARAMETERS)

_UNARY: Final = ("sigmoid", "swish", "silu", "gelu", "relu")
_UNITS: Final = {
    "glu": "sigmoid",
    "bilinear": "identity",
    "reglu": "relu",
    "geglu": "gelu",
    "swiglu": "swish",
    "clamped_swiglu": "swish",
}
_LAYOUTS: Final = ("gate_last", "gate_first", "interleaved")


@dataclass(frozen=True)
class Quantity:
    """The exact numbers of one result, and how far from them a backend may be.

    Attributes:
        name: the argument whose cotangent it is (``"x"``, ``"beta"``, ...); the first quantity of a case is its value.
        high, low: the exact numbers as ``high + low``.
        scale: the largest absolute term, where an ulp is taken; None: the exact number.
        bound: backend name -> bound of each element in ulp.
        judged: False where the terms themselves are beyond float64 and IEEE arithmetic has the last word.
        unpack: takes the result apart so that it lines up with ``high``.
        zero_signs: whether a zero's sign counts.
    """

    name: str
    high: Float64
    low: Float64
    scale: Float64 | None
    bound: Callable[[str], Float64]
    judged: NDArray[np.bool_]
    unpack: Callable[[Array], Array] = field(default=lambda result: result)
    zero_signs: bool = True

    def errors(self, result: Array, form: Format, *, flush: bool) -> Float64:
        """The error of each element in ulp, 0 where it is not judged; inf for a wrong shape or dtype."""
        if result.dtype != form.dtype:
            return np.full(self.high.shape, np.inf)
        part = self.unpack(result)
        if part.shape != self.high.shape:
            return np.full(self.high.shape, np.inf)
        error = error_in_ulp(
            part, self.high, self.low, form=form, scale=self.scale, flush=flush, zero_signs=self.zero_signs
        )
        return np.where(self.judged, error, 0.0)


@dataclass(frozen=True)
class Case:
    """One call: its primals (NumPy arrays, numbers, None), the keywords, the cotangent, the exact results."""

    function: str
    label: str
    primals: tuple[Any, ...]
    static: dict[str, Any]
    cotangent: Array
    quantities: tuple[Quantity, ...]
    inputs: dict[str, Array]
    """The arrays that a worst input is named from, each of the shape of the elements."""

    @property
    def size(self) -> int:
        """The number of inputs tried."""
        return int(self.cotangent.size)


def pack(gate: Array, value: Array, layout: str) -> Array:
    """A packed array of shape (..., 2n) from a gate and a value of shape (..., n)."""
    if layout == "interleaved":
        return np.stack([gate, value], axis=-1).reshape(*gate.shape[:-1], 2 * gate.shape[-1])
    halves = (gate, value) if layout == "gate_first" else (value, gate)
    return np.concatenate(halves, axis=-1)


def unpack(x: Array, layout: str) -> tuple[Array, Array]:
    """The gate and the value of a packed array of shape (..., 2n)."""
    if layout == "interleaved":
        couples = x.reshape(*x.shape[:-1], -1, 2)
        return couples[..., 0], couples[..., 1]
    first, last = np.split(x, 2, axis=-1)
    return (first, last) if layout == "gate_first" else (last, first)


def cases(function: str, dtype: str, *, seed: int = 0, size: int | None = None) -> Iterator[Case]:
    """The cases of a function in a dtype.

    Args:
        size: about how many inputs the broad case has; by default all 65,536 of a 16-bit dtype for the unary functions
            and 16,384 pairs, 16,384 in float32, 2,048 in float64.
    """
    form = FORMATS[dtype]
    rng = np.random.default_rng([seed, FUNCTIONS.index(function), list(FORMATS).index(dtype)])
    unary = function in _UNARY
    if size is None:
        size = 2048 if dtype == "float64" else 2**16 if unary and form.bits.itemsize == 2 else 2**14
    if unary:
        yield from _unary_cases(function, form, rng, size)
    elif function in _UNITS:
        yield from _packed_cases(function, form, rng, size)
    elif function == "gated_unit":
        for activation in ACTIVATIONS:
            yield from _pair_cases(activation, form, rng, size // 4)
    else:
        yield from _projected_cases(function, form, rng)


# Elementwise functions


def _unary_cases(function: str, form: Format, rng: np.random.Generator, size: int) -> Iterator[Case]:
    x = inputs.line(form, rng, size)
    if function == "gelu":
        for approximate, activation in (("none", "gelu"), ("tanh", "gelu_tanh")):
            element = _Elements(form, activation, x, None, 1.0, rng)
            yield element.case(
                function, activation, (x,), {"approximate": approximate}, {"value": "value", "x": "gate"}
            )
        return
    activation = "swish" if function == "silu" else function
    yield _Elements(form, activation, x, None, 1.0, rng).case(function, "", (x,), {}, {"value": "value", "x": "gate"})
    if function == "swish":
        x = inputs.line(form, rng, min(size, 2**15))
        beta = inputs.betas(form, rng, len(x))
        names = {"value": "value", "x": "gate", "beta": "beta"}
        yield _Elements(form, "swish", x, None, beta, rng).case(function, "beta by element", (x, beta), {}, names)
        yield _Elements(form, "swish", x, None, -1.5, rng).case(
            function, "beta = -1.5", (x,), {"beta": -1.5}, {"value": "value", "x": "gate"}
        )


def _packed_cases(function: str, form: Format, rng: np.random.Generator, size: int) -> Iterator[Case]:
    names = {"value": "value", "x": "packed"}
    for layout in _LAYOUTS:
        share = size if layout == "gate_last" else size // 8
        gate, value = inputs.pairs(form, rng, share)
        x = pack(gate, value, layout)
        static: dict[str, Any] = {"layout": layout}
        if function == "clamped_swiglu":
            elements = _Elements(form, "swish", gate, value, 1.702, rng, limit=7.0, offset=1.0)
            yield elements.case(function, layout, (x,), static, names, layout=layout)
        elif function == "geglu":
            for approximate, activation in (("none", "gelu"), ("tanh", "gelu_tanh")):
                if layout == "gate_last" or approximate == "none":
                    elements = _Elements(form, activation, gate, value, 1.0, rng)
                    keywords = static | {"approximate": approximate}
                    yield elements.case(function, f"{activation}, {layout}", (x,), keywords, names, layout=layout)
        else:
            elements = _Elements(form, _UNITS[function], gate, value, 1.0, rng)
            yield elements.case(function, layout, (x,), static, names, layout=layout)
            if function == "swiglu" and layout == "gate_last":
                beta = inputs.betas(form, rng, len(gate))
                elements = _Elements(form, "swish", gate, value, beta, rng)
                yield elements.case(
                    function, "beta by element", (x, beta), static, names | {"beta": "beta"}, layout=layout
                )


def _pair_cases(activation: str, form: Format, rng: np.random.Generator, size: int) -> Iterator[Case]:
    gate, value = inputs.pairs(form, rng, size)
    static = {"activation": activation}
    names = {"value": "value", "gate": "gate", "value cotangent": "half"}
    if activation == "swish":
        beta = inputs.betas(form, rng, len(gate))
        elements = _Elements(form, activation, gate, value, beta, rng)
        yield elements.case("gated_unit", activation, (gate, value, beta), static, names | {"beta": "beta"})
    else:
        yield _Elements(form, activation, gate, value, 1.0, rng).case(
            "gated_unit", activation, (gate, value), static, names
        )


class _Elements:
    """cotangent * activation(min(gate, limit), beta) * (clip(value) + offset), and its derivatives."""

    def __init__(
        self,
        form: Format,
        activation: str,
        gate: Array,
        value: Array | None,
        beta: Array | float,
        rng: np.random.Generator,
        *,
        limit: float = np.inf,
        offset: float = 0.0,
    ) -> None:
        self.form = form
        self.activation = activation
        self.inputs = {"gate" if value is not None else "x": gate}
        if value is not None:
            self.inputs["value"] = value
        if isinstance(beta, np.ndarray):
            self.inputs["beta"] = beta
        self.cotangent = inputs.cotangents(form, rng, len(gate))
        with np.errstate(invalid="ignore"):
            raw_gate = gate.astype(np.float64)
            raw_value = np.ones_like(raw_gate) if value is None else value.astype(np.float64)
        # The derivative of min and clip: 1 inside and on the boundary, 0 outside; nan where a clipped number is nan.
        self.gate_inside = np.where(raw_gate > limit, 0.0, 1.0)
        self.value_inside = np.where(np.abs(raw_value) > limit, 0.0, 1.0)
        if np.isfinite(limit):
            self.value_inside = np.where(np.isnan(raw_value), np.nan, self.value_inside)
        self.gate = np.where(raw_gate > limit, limit, raw_gate)
        self.value = np.where(raw_value > limit, limit, np.where(raw_value < -limit, -limit, raw_value))
        self.offset = offset
        self.beta = np.broadcast_to(np.asarray(beta, np.float64), self.gate.shape)
        self.ones = np.ones_like(self.gate)
        with np.errstate(all="ignore"):
            shifted = self.value + offset if offset else self.value
            self.reference_value, pullback = reference.vjp(
                reference.gated_unit, self.gate, shifted, self.beta, activation=activation
            )
            gate_cotangent, half_cotangent, beta_cotangent = pullback(self.cotangent.astype(np.float64))
        assert gate_cotangent is not None and half_cotangent is not None and beta_cotangent is not None
        self.reference_gate, self.reference_half, self.reference_beta = gate_cotangent, half_cotangent, beta_cotangent

    def case(
        self,
        function: str,
        label: str,
        primals: tuple[Any, ...],
        static: dict[str, Any],
        names: dict[str, str],
        *,
        layout: str | None = None,
    ) -> Case:
        """The case of a call; ``names`` gives for each result which quantity it is."""
        quantities: list[Quantity] = []
        for name, kind in names.items():
            if kind == "packed":
                assert layout is not None
                quantities.append(self.quantity("x", "gate", unpack=lambda x: unpack(x, layout)[0]))
                quantities.append(self.quantity("x", "half", unpack=lambda x: unpack(x, layout)[1]))
            else:
                quantities.append(self.quantity("value" if kind == "value" else name.split()[0], kind))
        # The first is the value; the cotangents follow in the order of the primals.
        return Case(function, label, primals, static, self.cotangent, tuple(quantities), self.inputs)

    def quantity(self, name: str, kind: str, unpack: Callable[[Array], Array] = lambda result: result) -> Quantity:
        """The exact numbers of the value, or of the cotangent of the gate, the value (``"half"``) or beta."""
        c = self.cotangent.astype(np.float64)
        with np.errstate(all="ignore"):
            rough, partial, factors = {
                "value": (self.reference_value, "value", (self.ones, self.value, self.offset)),
                "gate": (self.reference_gate * self.gate_inside, "x", (c, self.value, self.offset)),
                "half": (self.reference_half * self.value_inside, "value", (c, self.ones, 0.0)),
                "beta": (self.reference_beta, "beta", (c, self.value, self.offset)),
            }[kind]
        cotangent, value, offset = factors
        masked = {"gate": self.gate_inside, "half": self.value_inside}.get(kind, self.ones) == 0
        high, low = rough.copy(), np.zeros_like(rough)
        if self.form.name == "float64":
            finite = np.isfinite(self.gate) & np.isfinite(self.value) & np.isfinite(self.beta) & ~masked
            exact_high, exact_low, exact_scale = oracle.exact_sums(
                oracle.unit_terms(self.activation, partial, offset),
                cotangent[finite],
                self.gate[finite],
                value[finite],
                self.beta[finite],
            )
            high[finite] = np.where(exact_high == 0, np.copysign(0.0, rough[finite]), exact_high)
            low[finite] = exact_low
            scale = np.abs(rough)
            scale[finite] = exact_scale
        else:
            with np.errstate(all="ignore"):
                terms = activation_terms(FloatMath(), self.activation, partial, self.gate, self.beta)
                largest = np.max(np.abs(np.stack(np.broadcast_arrays(*terms))), axis=0)
                scale = np.abs(cotangent * (value + offset if offset else value)) * largest
                scale = np.where(np.isfinite(scale) & ~masked, scale, np.abs(rough))

        def bound(backend: str) -> Float64:
            return elementwise_bound(
                backend,
                self.form.name,
                activation=self.activation,
                partial=partial,
                gate=self.gate,
                beta=self.beta,
                gradient=kind != "value",
            )

        # A derivative that is a sum of terms may cancel to zero, or tend to it, from either side.
        is_sum = partial == "x" and self.activation in ("swish", "gelu", "gelu_tanh")
        special = ~(np.isfinite(self.gate) & np.isfinite(self.value) & np.isfinite(self.beta))
        judged = special | np.isfinite(scale)
        if is_sum:
            # Times infinity, a sum that cancels to within its own bound has no sign to be held to.
            with np.errstate(all="ignore"):
                rough_terms = np.stack(activation_terms(FloatMath(), self.activation, partial, self.gate, self.beta))
                least = 32 * self.form.unit_roundoff * np.abs(rough_terms).max(axis=0)
                lost = np.abs(rough_terms.sum(axis=0)) < least
            judged &= ~(np.isinf(self.value) & lost)
        return Quantity(name, high, low, scale, bound, judged, unpack, zero_signs=not is_sum)


# Projected functions


def _projected_cases(function: str, form: Format, rng: np.random.Generator) -> Iterator[Case]:
    own = {"glu_linear": "sigmoid", "swiglu_linear": "swish"}
    for activation in (own[function],) if function in own else ACTIVATIONS:
        yield _projected_case(function, activation, form, rng)


def _projected_case(function: str, activation: str, form: Format, rng: np.random.Generator) -> Case:
    rows, d_in, d_hidden, d_out = 12, 24, 40, 16
    shapes: dict[str, tuple[int, ...]] = {"x": (rows, d_in), "W": (d_in, d_hidden), "V": (d_in, d_hidden)}
    if function == "gated_ffn":
        shapes["W2"] = (d_hidden, d_out)
    shapes |= {"b": (d_hidden,), "c": (d_hidden,)}
    if function == "gated_ffn":
        shapes["b2"] = (d_out,)
    arrays = {}
    for name, shape in shapes.items():
        spread = 1.0 if name == "x" else 1.5 / np.sqrt(shape[0]) if len(shape) == 2 else 0.5
        arrays[name] = (spread * rng.standard_normal(shape)).astype(form.dtype)
    beta = rng.uniform(0.5, 2.0, d_hidden).astype(form.dtype)
    takes_beta = "beta" in ARRAY_PARAMETERS[function]
    result_shape = (rows, d_out if function == "gated_ffn" else d_hidden)
    cotangent = rng.standard_normal(result_shape).astype(form.dtype)
    used_beta = beta if takes_beta else np.ones((), form.dtype)

    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    exact = oracle.exact_projection(
        wide, cotangent.astype(np.float64), activation=activation, beta=used_beta.astype(np.float64)
    )

    def absolute_bounds(backend: str) -> dict[str, Float64]:
        return projection_bounds(
            backend,
            form.name,
            dict(wide),
            cotangent.astype(np.float64),
            activation=activation,
            beta=used_beta.astype(np.float64),
        )

    def quantity(name: str) -> Quantity:
        high, low = exact[name]

        def bound(backend: str) -> Float64:
            return np.ldexp(absolute_bounds(backend)[name], -ulp_exponent(high, form))

        return Quantity(name, high, low, None, bound, np.ones(high.shape, bool), zero_signs=False)

    primals = tuple(arrays.values()) + ((beta,) if takes_beta else ())
    static = {} if function in ("glu_linear", "swiglu_linear") else {"activation": activation}
    names = ("value", *arrays, *(("beta",) if takes_beta else ()))
    return Case(function, activation, primals, static, cotangent, tuple(quantity(name) for name in names), {})
