"""PyTorch and JAX against the definition: values and every gradient, by gated's vjp and jvp and by the frameworks' own.

The definition is evaluated in float64, where a float32 or narrower result is as good as exact; for float64 the oracle's
proven values stand in its place. Every bound comes from gated.conformance or is a sum of such bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from _bounds import Term, reduction_bound, sum_bound, term, total
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import (
    ELEMENTS,
    SHAPES,
    SPECS,
    Backend,
    Patterns,
    Spec,
    any_bits,
    arrays,
    backend,
    beta_arrays,
    finite_bits,
    graded_bits,
    moderate_bits,
    pack,
    strided,
    tried,
    unpack,
)

from gated.conformance.error import FORMATS, Format, error_in_ulp
from gated.contract import DTYPES, LAYOUTS

Array = NDArray[Any]
Float64 = NDArray[np.float64]

# The exact values come from float64 arithmetic: for float32, 8 ulp of 2^-29.
EXACTNESS = 2.0**-26


@dataclass
class Call:
    """A call of an elementwise function, and what it means: activation(min(gate, limit)) * (clip(value) + offset)."""

    spec: Spec
    form: Format
    primals: tuple[Array, ...]
    static: dict[str, Any]
    gate: Array
    value: Array
    beta: Array | float
    axis: int = -1
    layout: str = "gate_last"
    limit: float = math.inf
    offset: float = 0.0

    def parts(self, x: Array) -> tuple[Array, ...]:
        """An array like the first primal, as what belongs to the gate and to the value."""
        return unpack(x, self.axis, self.layout) if self.spec.kind == "packed" else (x,)

    def term(self, one: Backend, kind: str, outer: Array | float, *, gradient: bool = True) -> Term:
        """The value, or ``outer`` times the partial derivative in the gate, the value or beta."""
        g, v = self.gate.astype(np.float64), self.value.astype(np.float64)
        gate_inside, value_inside = g <= self.limit, np.abs(v) <= self.limit
        g, v = np.where(g > self.limit, self.limit, g), np.where(np.abs(v) > self.limit, np.copysign(self.limit, v), v)
        outer = np.asarray(outer).astype(np.float64)
        name, form, activation = one.name, self.form, self.spec.activation
        if kind in ("value", "gate", "beta"):
            partial = {"value": "value", "gate": "x", "beta": "beta"}[kind]
            made = term(form, name, activation, partial, g, self.beta, outer, v, gradient=gradient, offset=self.offset)
        else:
            made = term(form, name, activation, "value", g, self.beta, outer, 1.0, gradient=gradient)
        inside = {"gate": gate_inside, "half": value_inside}.get(kind)
        if inside is not None and self.spec.function == "clamped_swiglu":
            passed = inside | np.isnan(g) | np.isnan(v)
            # 0 times what lies past the clamp: nan where that is infinite by its operands.
            made.high[~passed] = np.where(np.isinf(made.high) & ~made.finite, np.nan, 0.0)[~passed]
            made.low[~passed] = 0.0
            if kind == "half":
                made.high[np.isnan(v)] = np.nan
        return made


@st.composite
def calls(draw: st.DrawFn, spec: Spec, form: Format, elements: Patterns, *, jax: bool, beta_kind: str = "") -> Call:
    """A call with drawn arrays. JAX compiles for every shape and layout, so it has one of each."""
    shape = (ELEMENTS,) if jax else draw(st.sampled_from(SHAPES[1:] if spec.kind == "packed" else SHAPES))
    gate, value = (draw(arrays(form, shape, elements)) for _ in range(2))
    beta: Array | float = 1.0
    if spec.has_beta:
        kind = beta_kind or draw(st.sampled_from(("number", "element")))
        beta = draw(beta_arrays(form, shape, kind))
    keywords: dict[str, Any] = dict(spec.keywords)
    if spec.kind == "packed":
        axis = -1 if jax else draw(st.integers(-len(shape), len(shape) - 1))
        layout = "gate_last" if jax else draw(st.sampled_from(LAYOUTS))
        keywords |= {"axis": axis, "layout": layout}
        extra: dict[str, Any] = {}
        if spec.function == "clamped_swiglu":
            alpha, limit, offset = draw(st.sampled_from([(1.702, 7.0, 1.0), (1.0, math.inf, 0.5), (-0.5, 0.25, 1.0)]))
            keywords |= {"alpha": alpha, "limit": limit, "offset": offset}
            beta, extra = alpha, {"limit": limit, "offset": offset}
        primals: tuple[Any, ...] = (pack(gate, value, axis, layout),)
        call = Call(spec, form, primals, keywords, gate, value, beta, axis, layout, **extra)
    else:
        primals = (gate, value) if spec.kind == "pair" else (gate,)
        call = Call(spec, form, primals, keywords, gate, value if spec.kind == "pair" else np.ones_like(gate), beta)
    if spec.has_beta:
        if isinstance(beta, np.ndarray):
            call.primals = (*primals, beta)
        else:
            call.static["beta"] = beta
    call.primals = tuple(draw(strided(one)) for one in call.primals) if not jax else call.primals
    return call


def judge(one: Backend, what: str, result: Array, expected: Term, *, zero_signs: bool = True) -> None:
    """``result`` is within its bound of what is exact."""
    assert result.dtype == expected.form.dtype, what
    assert result.shape == expected.high.shape, what

    def error_in(zero_signs: bool) -> Float64:
        return error_in_ulp(
            result,
            expected.high,
            expected.low,
            form=expected.form,
            scale=expected.scale,
            flush=one.flushes,
            zero_signs=zero_signs,
        )

    error = np.where(expected.signless | (not zero_signs), error_in(False), error_in(True))
    wrong = expected.judged & ~(error <= expected.ulps + EXACTNESS)
    if np.any(wrong):
        i = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise AssertionError(
            f"{what}{[int(k) for k in i]}: {error[i]} ulp, the bound is {expected.ulps[i]}: "
            f"got {result[i]}, exact {expected.high[i]!r}"
        )


# JAX compiles for every function, dtype and shape, which is most of the time that these tests take. Its functions are
# one rule behind many names, so the names are tried in float32, and the rule in every dtype by these.
JAX_IN_EVERY_DTYPE = {
    "values": {"silu", "swish", "swiglu", "clamped_swiglu", "gated_unit"},
    "tangents": {"gated_unit"},
    "sums": {"swish"},
}


def specs_by_backend(what: str, specs: Sequence[Spec]) -> pytest.MarkDecorator:
    """Every combination of framework, dtype and function that is tried."""
    return pytest.mark.parametrize(
        ("backend_name", "dtype", "spec"),
        [
            pytest.param(name, dtype, spec, id=f"{spec}-{dtype}-{name}")
            for name in ("torch", "jax")
            for dtype in DTYPES
            for spec in specs
            if name == "torch" or dtype == "float32" or spec.function in JAX_IN_EVERY_DTYPE[what]
        ],
    )


@specs_by_backend("values", SPECS)
def test_values_and_gradients_of_units_are_within_the_contract(backend_name: str, dtype: str, spec: Spec) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    jax = backend_name == "jax"

    def check(data: Any) -> None:
        call = data.draw(calls(spec, form, any_bits(form), jax=jax))
        cotangent = data.draw(arrays(form, call.gate.shape, graded_bits(form)))
        value, cotangents = one.vjp(spec.function, call.primals, cotangent, **call.static)
        by_framework = one.autodiff(spec.function, call.primals, cotangent, **call.static)
        expected = {
            "value": call.term(one, "value", 1.0, gradient=False),
            "gate": call.term(one, "gate", cotangent),
            "half": call.term(one, "half", cotangent),
            "beta": call.term(one, "beta", cotangent),
        }
        clamped = spec.function == "clamped_swiglu"
        for who, (result, pulled) in (("vjp", (value, cotangents)), ("autodiff", by_framework)):
            judge(one, "value", result, expected["value"], zero_signs=not clamped)
            named = dict(zip(("gate", "half"), call.parts(pulled[0]), strict=False))
            if spec.kind == "pair":
                named["half"] = pulled[1]
            if isinstance(call.beta, np.ndarray):
                named["beta"] = pulled[-1]
            for kind, part in named.items():
                # The cotangent of a 0-d beta is a sum.
                signed = not clamped and (kind != "beta" or np.ndim(call.beta) > 0)
                judge(one, f"{who}: cotangent of {kind}", part, expected[kind], zero_signs=signed)

    tried(backend_name, check, 12)


@specs_by_backend("tangents", SPECS)
def test_tangents_of_units_are_within_the_sum_of_their_bounds(backend_name: str, dtype: str, spec: Spec) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    jax = backend_name == "jax"

    def check(data: Any) -> None:
        kind = "element" if jax else ""
        call = data.draw(calls(spec, form, finite_bits(form), jax=jax, beta_kind=kind))
        tangents = tuple(data.draw(arrays(form, each.shape, graded_bits(form))) for each in call.primals)
        value, tangent = one.jvp(spec.function, call.primals, tangents, **call.static)
        judge(one, "value", value, call.term(one, "value", 1.0, gradient=False), zero_signs=False)
        moved = dict(zip(("gate", "half"), call.parts(tangents[0]), strict=False))
        if spec.kind == "pair":
            moved["half"] = tangents[1]
        if isinstance(call.beta, np.ndarray):
            moved["beta"] = tangents[-1]
        terms = [call.term(one, kind, each) for kind, each in moved.items()]
        bound = sum_bound(terms, flushes=one.flushes)
        high, low = total([each for one in terms for each in (one.high, one.low)])
        with np.errstate(over="ignore", invalid="ignore"):
            reach = np.sum([each.scale for each in terms], axis=0)
            judged = np.all([each.judged for each in terms], axis=0) & (4 * reach < form.largest)
            distance = np.abs((tangent.astype(np.float64) - high) - low)
            # The terms themselves come from float64 arithmetic.
            allowed = bound * (1 + EXACTNESS) + 2.0**-50 * reach * (form.name != "float64")
        assert tangent.dtype == form.dtype and tangent.shape == high.shape
        assert np.all(~judged | (distance <= allowed)), (distance / allowed, tangent, high)

    tried(backend_name, check, 12)


@specs_by_backend("sums", [spec for spec in SPECS if spec.has_beta])
@pytest.mark.parametrize("kind", ["number", "0-d", "channel", "token"])
def test_the_gradient_of_a_broadcast_beta_is_its_sum(backend_name: str, dtype: str, spec: Spec, kind: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    jax = backend_name == "jax"
    if jax and (spec.function == "swiglu" or (dtype != "float32" and kind in ("0-d", "token"))):
        return  # JAX compiles for each

    def check(data: Any) -> None:
        shape = (4, 6) if jax else data.draw(st.sampled_from([(), (5,), (3, 4), (2, 3, 2), (3, 0)]))
        if spec.kind == "packed" and not shape:
            shape = (2,)
        gate, value = (data.draw(arrays(form, shape, moderate_bits(form, 12.0))) for _ in range(2))
        beta = data.draw(beta_arrays(form, shape, kind))
        cotangent = data.draw(arrays(form, shape, graded_bits(form)))
        primals: tuple[Any, ...] = {
            "unary": (gate,),
            "pair": (gate, value),
            "packed": (pack(gate, value, -1, "gate_last") if spec.kind == "packed" else None,),
        }[spec.kind]
        _, cotangents = one.vjp(spec.function, (*primals, beta), cotangent, **dict(spec.keywords))
        result = cotangents[-1]
        made = term(
            form,
            backend_name,
            "swish",
            "beta",
            gate,
            beta,
            cotangent,
            1.0 if spec.kind == "unary" else value,
            gradient=True,
        )
        beta_shape = np.shape(beta)
        padded = (1,) * (len(shape) - len(beta_shape)) + beta_shape
        axes = tuple(i for i, (b, s) in enumerate(zip(padded, shape, strict=True)) if b == 1)
        bound = reduction_bound(made, axes, beta_shape, flushes=one.flushes)
        exact = np.sum(made.high, axis=axes).reshape(beta_shape)
        reach = np.sum(made.scale, axis=axes).reshape(beta_shape)
        assert result.dtype == form.dtype and result.shape == beta_shape
        # The exact sum is added up in float64 here: n u sum |terms| once more.
        allowed = bound + max(1, made.high.size) * 2.0**-52 * reach
        distance = np.abs(result.astype(np.float64) - exact)
        assert np.all((distance <= allowed) | (reach > form.largest)), (distance / allowed, result, exact)

    tried(backend_name, check, 8)


# Shapes and layouts in JAX, where the tests above have one of each


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_jax_splits_every_axis_in_every_layout(axis: int, layout: str) -> None:
    one, form = backend("jax"), FORMATS["float32"]
    rng = np.random.default_rng(7)
    gate, value = (rng.standard_normal((2, 3, 4)).astype(np.float32) for _ in range(2))
    call = Call(Spec("swiglu", "swish"), form, (pack(gate, value, axis, layout),), {}, gate, value, 1.0, axis, layout)
    cotangent = rng.standard_normal(gate.shape).astype(np.float32)
    result, (dx,) = one.vjp("swiglu", call.primals, cotangent, axis=axis, layout=layout)
    judge(one, "value", result, call.term(one, "value", 1.0, gradient=False))
    for kind, part in zip(("gate", "half"), call.parts(dx), strict=True):
        judge(one, kind, part, call.term(one, kind, cotangent))
