"""The built-in cases: calls of each public function, with the exact results that they are held against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance import inputs, oracle
from gated.conformance.calls import UNARY, UNITS
from gated.conformance.carried import projection_bounds
from gated.conformance.elements import Elements, Packing, random_cotangents
from gated.conformance.error import FORMATS, Format, ulp_exponent
from gated.conformance.quantities import Case, Quantity, pack
from gated.contract import ACTIVATIONS, ARRAY_PARAMETERS

__all__ = ["FUNCTIONS", "cases"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

FUNCTIONS: Final = tuple(ARRAY_PARAMETERS)


def cases(function: str, dtype: str, *, seed: int = 0, size: int | None = None) -> Iterator[Case]:
    """The cases of a function in a dtype.

    Args:
        size: about how many inputs the broad case has; by default all 65,536 of a 16-bit dtype for the unary functions
            and 16,384 pairs, 16,384 in float32, 2,048 in float64.
    """
    form = FORMATS[dtype]
    rng = np.random.default_rng([seed, FUNCTIONS.index(function), list(FORMATS).index(dtype)])
    unary = function in UNARY
    if size is None:
        size = 2048 if dtype == "float64" else 2**16 if unary and form.bits.itemsize == 2 else 2**14
    if unary:
        yield from _unary_cases(function, form, rng, size)
    elif function == "gated_unit":
        for activation in ACTIVATIONS:
            yield _pair_case(activation, form, rng, size // 4)
    elif function in UNITS:
        yield from _packed_cases(function, form, rng, size)
    else:
        yield from _projected_cases(function, form, rng)


# Elementwise functions


def _unary_cases(function: str, form: Format, rng: np.random.Generator, size: int) -> Iterator[Case]:
    x = inputs.line(form, rng, size)
    c = random_cotangents(form, rng, x.shape)
    if function == "gelu":
        for approximate, activation in (("none", "gelu"), ("tanh", "gelu_tanh")):
            elements = Elements(form, activation, x, None, 1.0, c)
            yield elements.case(function, activation, (x,), {"approximate": approximate}, ("gate",))
        return
    activation = UNARY[function]
    yield Elements(form, activation, x, None, 1.0, c).case(function, "", (x,), {}, ("gate",))
    if function == "swish":
        x = inputs.line(form, rng, min(size, 2**15))
        c = random_cotangents(form, rng, x.shape)
        beta = inputs.betas(form, rng, len(x))
        elements = Elements(form, activation, x, None, beta, c)
        yield elements.case(function, "beta by element", (x, beta), {}, ("gate", "beta"))
        # The cotangent of a number is a sum: its terms are kept in range.
        x = (4 * rng.standard_normal(2048)).astype(form.dtype)
        c = rng.standard_normal(2048).astype(form.dtype)
        elements = Elements(form, activation, x, None, -1.3, c)
        yield elements.case(function, "beta = -1.3", (x, -1.3), {}, ("gate", "number"))


def _packed_cases(function: str, form: Format, rng: np.random.Generator, size: int) -> Iterator[Case]:
    """gate_last on a line, the other layouts along an axis that is not the last."""
    yield from _packed(function, form, rng, size, Packing("gate_last"), ())
    yield from _packed(function, form, rng, size // 8, Packing("gate_first", 1), (3, -1, 2))
    yield from _packed(function, form, rng, size // 8, Packing("interleaved", 0), (-1, 3))


def _packed(
    function: str, form: Format, rng: np.random.Generator, size: int, packing: Packing, shape: tuple[int, ...]
) -> Iterator[Case]:
    gate, value = inputs.pairs(form, rng, size)
    if shape:
        whole = len(gate) - len(gate) % 6
        gate, value = gate[:whole].reshape(shape), value[:whole].reshape(shape)
    c = random_cotangents(form, rng, gate.shape)
    x = pack(gate, value, packing.layout, packing.axis)
    static: dict[str, Any] = {"axis": packing.axis, "layout": packing.layout}
    label = packing.layout
    if function == "clamped_swiglu":
        # The widest case has gpt-oss's numbers, the others their own.
        numbers = {} if not shape else {"alpha": 1.25, "limit": 3.5, "offset": -0.5}
        full = {"alpha": 1.702, "limit": 7.0, "offset": 1.0} | numbers
        elements = Elements(form, "swish", gate, value, full["alpha"], c, limit=full["limit"], offset=full["offset"])
        yield elements.case(function, label, (x,), static | numbers, ("packed",), packing)
        return
    if function == "geglu":
        kinds = (("none", "gelu"), ("tanh", "gelu_tanh")) if not shape else (("none", "gelu"),)
        for approximate, activation in kinds:
            elements = Elements(form, activation, gate, value, 1.0, c)
            keywords = static | {"approximate": approximate}
            yield elements.case(function, f"{activation}, {label}", (x,), keywords, ("packed",), packing)
        return
    elements = Elements(form, UNITS[function], gate, value, 1.0, c)
    yield elements.case(function, label, (x,), static, ("packed",), packing)
    if function == "swiglu" and not shape:
        beta = inputs.betas(form, rng, len(gate))
        elements = Elements(form, "swish", gate, value, beta, c)
        yield elements.case(function, "beta by element", (x, beta), static, ("packed", "beta"), packing)


def _pair_case(activation: str, form: Format, rng: np.random.Generator, size: int) -> Case:
    gate, value = inputs.pairs(form, rng, size)
    c = random_cotangents(form, rng, gate.shape)
    static = {"activation": activation}
    if activation == "swish":
        beta = inputs.betas(form, rng, len(gate))
        elements = Elements(form, activation, gate, value, beta, c)
        return elements.case("gated_unit", activation, (gate, value, beta), static, ("gate", "value", "beta"))
    elements = Elements(form, activation, gate, value, 1.0, c)
    return elements.case("gated_unit", activation, (gate, value), static, ("gate", "value"))


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

        return Quantity(name, high, low, None, bound, zero_signs=False)

    primals = tuple(arrays.values()) + ((beta,) if takes_beta else ())
    static = {} if function in ("glu_linear", "swiglu_linear") else {"activation": activation}
    names = ("value", *arrays, *(("beta",) if takes_beta else ()))
    return Case(function, activation, primals, static, cotangent, tuple(quantity(name) for name in names), {})
