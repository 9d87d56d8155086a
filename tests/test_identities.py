"""Identities between the functions, and between values and derivatives, in every backend.

Each side is a computed result within its bound of what is exact, so the sides are within the sum of their bounds; what
a test adds to them is added in float64. Weights and values that must not be rounded are small dyadic numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from _bounds import (
    analytic_radius,
    central_difference,
    difference_bound,
    projection_tangent_bound,
    sum_bound,
    term,
    ulp,
)
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import (
    ELEMENTS,
    SPECS,
    Backend,
    Spec,
    arrays,
    backend,
    every_backend,
    graded_bits,
    halves,
    moderate_bits,
    pack,
    tried,
    unpack,
)

import gated.numpy_ref as reference
from gated.conformance.bounds import elementwise_bound
from gated.conformance.carried import projection_bounds
from gated.conformance.error import FORMATS, Format
from gated.contract import ACTIVATIONS, LAYOUTS

Array = NDArray[Any]
Float64 = NDArray[np.float64]

PACKED = [spec for spec in SPECS if spec.kind == "packed" and spec.function != "clamped_swiglu"]
# JAX compiles for every dtype: it has one that it computes in for each width.
backends_and_dtypes = pytest.mark.parametrize(
    ("backend_name", "dtype"),
    [
        (name, dtype)
        for name in ("numpy", "torch", "jax")
        for dtype in ("bfloat16", "float32", "float64")
        if name != "jax" or dtype != "bfloat16"
    ],
)


def wide(x: Array) -> Float64:
    return x.astype(np.float64)


def holds(one: Backend, check: Callable[[Any], None], examples: int = 6) -> None:
    tried(one.name, check, examples)


def drawn(data: Any, form: Format, reach: float = 8.0) -> Array:
    return data.draw(arrays(form, (ELEMENTS,), moderate_bits(form, reach)))


def dyadic(data: Any, form: Format, shape: tuple[int, ...], reach: int = 2) -> Array:
    """Numbers k / 2 with |k| <= reach."""
    return data.draw(halves(form, shape, reach))


def off(
    one: Backend, form: Format, activation: str, gate: Array, value: Array | float, result: Array, beta: Any = 1.0
) -> Float64:
    """The absolute bound of activation(gate) * value."""
    ulps = elementwise_bound(
        one.name, form.name, activation=activation, partial="value", gate=wide(gate), beta=beta, gradient=False
    )
    flushed = form.smallest_normal if one.flushes else 0.0
    # The exact value is within (ulps + 1) ulp of the result, so in its binade or the next.
    return ulps * ulp(form, 2 * np.abs(wide(result))) + flushed


def same(a: Array | Float64, b: Array | Float64, bound: Float64) -> None:
    difference = np.abs(wide(np.asarray(a)) - wide(np.asarray(b)))
    assert np.all(difference <= bound), (np.max(difference / bound), a, b)


# The activations


@backends_and_dtypes
@pytest.mark.parametrize("beta", [1.0, 0.5, -1.5, 10.0])
def test_swish_less_its_mirror_image_is_x(backend_name: str, dtype: str, beta: float) -> None:
    """x s(z) + x s(-z) = x."""
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        x = drawn(data, form)
        plus, minus = one.call("swish", x, beta=beta), one.call("swish", -x, beta=beta)
        bound = off(one, form, "swish", x, 1.0, plus, beta) + off(one, form, "swish", -x, 1.0, minus, beta)
        same(wide(plus) - wide(minus), x, bound)

    holds(one, check)


@backends_and_dtypes
def test_beta_times_swish_is_silu_of_beta_x(backend_name: str, dtype: str) -> None:
    """beta swish_beta(x) = silu(beta x); beta is a power of two, so that beta x is not rounded."""
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        x = drawn(data, form)
        beta = data.draw(st.sampled_from([0.25, 0.5, 2.0, 4.0, -1.0, -2.0]))
        x = np.where(np.abs(wide(x)) < 1e-3, np.array(1, form.dtype), x)
        scaled = (beta * wide(x)).astype(form.dtype)
        a, b = one.call("swish", x, beta=beta), one.call("silu", scaled)
        bound = abs(beta) * off(one, form, "swish", x, 1.0, a, beta) + off(one, form, "swish", scaled, 1.0, b)
        same(beta * wide(a), b, bound)

    holds(one, check)


@backends_and_dtypes
def test_swish_of_beta_0_is_half_of_x(backend_name: str, dtype: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        x = drawn(data, form)
        for beta in (0, 0.0, -0.0):
            half = one.call("swish", x, beta=beta)
            same(half, wide(x) / 2, off(one, form, "swish", x, 1.0, half, beta))

    holds(one, check)


@backends_and_dtypes
@pytest.mark.parametrize("beta", [64.0, 4096.0])
def test_swish_of_a_large_beta_is_near_relu(backend_name: str, dtype: str, beta: float) -> None:
    """|swish_beta(x) - relu(x)| = |x| / (1 + e^(beta |x|)), at most 0.27847 / beta, near |x| = 1.2785 / beta."""
    one, form = backend(backend_name), FORMATS[dtype]
    x = np.linspace(-4, 4, ELEMENTS).astype(form.dtype)
    x[:2] = np.array([1.278, -1.278]) / beta
    result = one.call("swish", x, beta=beta)
    distance = np.abs(wide(result) - wide(one.call("relu", x)))
    assert np.all(distance <= 0.27847 / beta + off(one, form, "swish", x, 1.0, result, beta))
    assert np.all(distance[:2] >= 0.27 / beta)


@backends_and_dtypes
def test_gelu_and_its_tanh_form_differ_by_less_than_48e_5(backend_name: str, dtype: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    x = np.linspace(-5, 5, 4096).astype(form.dtype)
    exact, tanh = one.call("gelu", x), one.call("gelu", x, approximate="tanh")
    bound = off(one, form, "gelu", x, 1.0, exact) + off(one, form, "gelu_tanh", x, 1.0, tanh)
    difference = np.abs(wide(exact) - wide(tanh))
    assert np.all(difference <= 4.8e-4 + bound)
    assert np.max(difference) > 4e-4
    assert np.allclose(wide(one.call("gelu", x)), wide(one.call("gelu", x, approximate="none")), rtol=0, atol=0)


# The units


def unit_pair(one: Backend, spec: Spec, gate: Array, value: Array) -> Array:
    return one.call("gated_unit", gate, value, activation=spec.activation)


@backends_and_dtypes
@pytest.mark.parametrize("spec", PACKED, ids=str)
def test_a_packed_unit_is_the_unit_of_its_halves(backend_name: str, dtype: str, spec: Spec) -> None:
    """Also: glu is the unit of the sigmoid, swiglu of swish, and so on."""
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        gate, value = drawn(data, form), drawn(data, form)
        expected = unit_pair(one, spec, gate, value)
        bound = 2 * off(one, form, spec.activation, gate, value, expected)
        # JAX compiles for every layout; the next test has the others.
        for layout in LAYOUTS if one.name != "jax" else ("gate_last",):
            x = pack(gate, value, -1, layout)
            packed = one.call(spec.function, x, layout=layout, **dict(spec.keywords))
            same(packed, expected, bound)
            assert np.array_equal(np.signbit(packed), np.signbit(expected))

    holds(one, check)


@every_backend
@pytest.mark.parametrize("spec", [spec for spec in PACKED if spec.function != "bilinear"], ids=str)
def test_swapped_halves_swap_the_layouts(backend_name: str, spec: Spec) -> None:
    one, form = backend(backend_name), FORMATS["float32"]

    def check(data: Any) -> None:
        x = pack(drawn(data, form), drawn(data, form), -1, "gate_last")
        keywords = dict(spec.keywords)
        swapped = np.concatenate(tuple(reversed(np.split(x, 2))))
        interleaved = pack(*unpack(x, -1, "gate_last"), -1, "interleaved")
        last = one.call(spec.function, x, layout="gate_last", **keywords)
        bound = 2 * off(one, form, spec.activation, unpack(x, -1, "gate_last")[0], 1.0, last)
        same(last, one.call(spec.function, swapped, layout="gate_first", **keywords), bound)
        same(last, one.call(spec.function, interleaved, layout="interleaved", **keywords), bound)
        default = one.call(spec.function, x, **keywords)
        assert default.tobytes() == last.tobytes()

    holds(one, check, 6)
    # The layouts do differ where the halves do.
    x = np.linspace(-3, 3, 2 * ELEMENTS, dtype=np.float32)
    results = [wide(one.call(spec.function, x, layout=layout, **dict(spec.keywords))) for layout in LAYOUTS]
    for i in range(3):
        assert np.max(np.abs(results[i] - results[i - 1])) > 0.1


@backends_and_dtypes
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_unit_is_linear_in_its_value(backend_name: str, dtype: str, activation: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        gate = drawn(data, form)
        first, second = (dyadic(data, form, (ELEMENTS,), 16) for _ in range(2))
        results = [
            one.call("gated_unit", gate, value.astype(form.dtype), activation=activation)
            for value in (first, second, wide(first) + wide(second))
        ]
        bound = sum(off(one, form, activation, gate, 1.0, each) for each in results)
        same(wide(results[0]) + wide(results[1]), results[2], np.asarray(bound))

    holds(one, check)


@backends_and_dtypes
def test_an_unclamped_swiglu_is_swiglu(backend_name: str, dtype: str) -> None:
    """Without a limit and an offset it is swish_alpha(gate) * value."""
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        gate, value = drawn(data, form, 20.0), drawn(data, form, 20.0)
        alpha = data.draw(st.sampled_from([1.0, 1.702, 0.5, -1.0]))
        x = pack(gate, value, -1, "gate_last")
        clamped = one.call("clamped_swiglu", x, alpha=alpha, limit=math.inf, offset=0.0)
        plain = one.call("swiglu", x, beta=alpha)
        same(clamped, plain, 2 * off(one, form, "swish", gate, value, plain, alpha))

    holds(one, check)


# The projected forms


@backends_and_dtypes
@pytest.mark.parametrize("function", ["glu_linear", "swiglu_linear", "gated_linear"])
@pytest.mark.parametrize("biased", [False, True])
def test_a_projected_unit_is_the_unit_of_two_projections(
    backend_name: str, dtype: str, function: str, biased: bool
) -> None:
    """The arrays are halves of small integers, whose products and sums every dtype holds exactly."""
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        x, W, V = (dyadic(data, form, shape) for shape in ((5, 4), (4, 6), (4, 6)))
        b, c = (dyadic(data, form, (6,)) for _ in range(2)) if biased else (None, None)
        offsets = [np.zeros(6) if each is None else wide(each) for each in (b, c)]
        gate = (wide(x) @ wide(W) + offsets[0]).astype(form.dtype)
        value = (wide(x) @ wide(V) + offsets[1]).astype(form.dtype)
        activation, static = {
            "glu_linear": ("sigmoid", {}),
            "swiglu_linear": ("swish", {}),
            "gated_linear": ("gelu", {"activation": "gelu"}),
        }[function]
        projected = one.call(function, x, W, V, b, c, **static)
        expected = one.call("gated_unit", gate, value, activation=activation)
        same(projected, expected, 2 * off(one, form, activation, gate, value, expected))

    holds(one, check, 6)


@backends_and_dtypes
@pytest.mark.parametrize("activation", ["swish", "gelu"])
def test_a_feed_forward_block_projects_the_gated_unit_down(backend_name: str, dtype: str, activation: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        shapes = {"x": (5, 6), "W": (6, 8), "V": (6, 8), "W2": (8, 4), "b": (8,), "c": (8,), "b2": (4,)}
        a = {name: data.draw(arrays(form, shape, moderate_bits(form, 2.0))) for name, shape in shapes.items()}
        hidden = one.call("gated_linear", a["x"], a["W"], a["V"], a["b"], a["c"], activation=activation)
        block = one.call("gated_ffn", *a.values(), activation=activation)
        w = {name: wide(array) for name, array in a.items()}
        linear = {name: w[name] for name in ("x", "W", "V", "b", "c")}
        beta = np.array(1.0)
        of_hidden, of_block = (
            projection_bounds(one.name, dtype, dict(each), np.zeros(size), activation=activation, beta=beta)["value"]
            for each, size in ((linear, (5, 8)), (w, (5, 4)))
        )
        same(block, wide(hidden) @ w["W2"] + w["b2"], of_block + of_hidden @ np.abs(w["W2"]))

    holds(one, check, 6)


# Derivatives


@backends_and_dtypes
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_pullback_is_the_adjoint_of_the_pushforward(backend_name: str, dtype: str, activation: str) -> None:
    """<c, jvp(t)> = <vjp(c), t>, within sum |c| bound(jvp) + sum |t| bound(vjp)."""
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        gate, value = drawn(data, form), drawn(data, form)
        cotangent, *tangents = (data.draw(arrays(form, (ELEMENTS,), graded_bits(form))) for _ in range(3))
        primals = (gate, value)
        pulled = one.vjp("gated_unit", primals, cotangent, activation=activation)[1]
        pushed = one.jvp("gated_unit", primals, tangents, activation=activation)[1]

        def made(outer: Array) -> list[Any]:
            in_gate = term(form, one.name, activation, "x", gate, 1.0, outer, value, gradient=True)
            in_value = term(form, one.name, activation, "value", gate, 1.0, outer, 1.0, gradient=True)
            return [in_gate, in_value]

        pulls = made(cotangent)
        pushes = [made(tangents[0])[0], made(tangents[1])[1]]
        flushed = form.smallest_normal if one.flushes else 0.0
        bound = np.sum(np.abs(wide(cotangent)) * sum_bound(pushes, flushes=one.flushes))
        for each, tangent in zip(pulls, tangents, strict=True):
            bound += np.sum(np.abs(wide(tangent)) * (each.ulps * ulp(form, each.scale) + flushed))
        left = math.fsum(wide(cotangent) * wide(pushed))
        products = [wide(a) * wide(b) for a, b in zip(pulled, tangents, strict=True)]
        right = math.fsum(np.concatenate(products))
        # Each product is rounded to float64 here.
        rounding = 2.0**-52 * np.sum(np.abs(products))
        assert abs(left - right) <= bound + rounding

    holds(one, check, 4)


@backends_and_dtypes
def test_the_pullback_of_a_block_is_the_adjoint_of_its_pushforward(backend_name: str, dtype: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]

    def check(data: Any) -> None:
        shapes = {"x": (5, 6), "W": (6, 8), "V": (6, 8), "W2": (8, 4), "b": (8,), "c": (8,), "b2": (4,), "beta": (8,)}
        a, t = (
            {name: data.draw(arrays(form, shape, moderate_bits(form, 2.0))) for name, shape in shapes.items()}
            for _ in range(2)
        )
        cotangent = data.draw(arrays(form, (5, 4), moderate_bits(form, 2.0)))
        pulled = one.vjp("gated_ffn", list(a.values()), cotangent)[1]
        pushed = one.jvp("gated_ffn", list(a.values()), list(t.values()))[1]
        w, moved = ({name: wide(array) for name, array in each.items()} for each in (a, t))
        beta = w.pop("beta")
        bounds = projection_bounds(one.name, dtype, dict(w), wide(cotangent), activation="swish", beta=beta)
        of_tangent = projection_tangent_bound(one.name, dtype, w, moved, activation="swish", beta=beta)
        bound = np.sum(np.abs(wide(cotangent)) * of_tangent)
        bound += sum(np.sum(np.abs(moved[name]) * bounds[name]) for name in shapes)
        left = np.sum(wide(cotangent) * wide(pushed))
        parts = [wide(each) * moved[name] for each, name in zip(pulled, shapes, strict=True)]
        right = math.fsum(np.concatenate([part.ravel() for part in parts]))
        rounding = 2.0**-48 * sum(np.sum(np.abs(part)) for part in parts)
        assert abs(left - right) <= bound + rounding

    holds(one, check, 6)


DIFFERENTIABLE = [("sigmoid", 1.0), ("gelu", 1.0), ("gelu_tanh", 1.0), ("swish", 1.0), ("swish", -1.5), ("swish", 0.1)]


@every_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("activation", "beta"), DIFFERENTIABLE)
def test_gradients_are_the_slopes_of_the_reference(backend_name: str, dtype: str, activation: str, beta: float) -> None:
    """8th-order central differences of the reference's value in float64: truncation by Cauchy's bound, and rounding."""
    one, form = backend(backend_name), FORMATS[dtype]

    def value_at(gate: Float64, by_beta: Any) -> Float64:
        return reference.gated_unit(gate, np.ones_like(gate), activation=activation, beta=by_beta)

    def check(data: Any) -> None:
        gate = drawn(data, form, 6.0)
        ones = np.ones_like(gate)
        betas = np.full_like(gate, beta)
        primals = (gate, ones, betas) if activation == "swish" else (gate, ones)
        _, (dgate, dvalue, *rest) = one.vjp("gated_unit", primals, ones, activation=activation)
        g, b = wide(gate), wide(betas)
        parts = {
            name: term(form, one.name, activation, name, gate, betas, ones, 1.0, gradient=True)
            for name in ("x", "value", "beta")
        }
        radius = analytic_radius(activation, g, b)
        largest = 2.0 * (1.0 if activation == "sigmoid" else np.abs(g) + radius)
        flushed = form.smallest_normal if one.flushes else 0.0
        # 16 ulp of the largest in float64 for the reference's values, whose contract is 8.
        of_slope = difference_bound(radius, radius / 64, largest, ulps=16)
        slope = central_difference(lambda t: value_at(t, b), g, radius / 64)
        same(dgate, slope, of_slope + parts["x"].ulps * ulp(form, parts["x"].scale) + flushed)
        own = parts["value"].ulps * ulp(form, parts["value"].scale) + 8 * np.spacing(np.abs(value_at(g, b)))
        same(dvalue, value_at(g, b), own + flushed)
        if rest:
            # In beta the disc has the radius pi / (2 |x|), and the function the bound |x|.
            x = np.maximum(np.abs(g), 1 / 8)
            radius = np.pi / 2 / x
            in_beta = central_difference(lambda t: value_at(g, t), b, radius / 64)
            own = parts["beta"].ulps * ulp(form, parts["beta"].scale)
            same(rest[0], in_beta, difference_bound(radius, radius / 64, x, ulps=16) + own + flushed)

    holds(one, check)


@every_backend
def test_the_gradient_of_a_block_is_its_slope_along_a_line(backend_name: str) -> None:
    """<vjp(c), t> against the 8th-order difference of <c, ffn(a + e t)> at e = 0, in float64."""
    one = backend(backend_name)
    rng = np.random.default_rng(8)
    shapes = {"x": (5, 6), "W": (6, 8), "V": (6, 8), "W2": (8, 4), "b": (8,), "c": (8,), "b2": (4,), "beta": (8,)}
    for _ in range(3):
        a, t = ({name: rng.uniform(-0.5, 0.5, shape) for name, shape in shapes.items()} for _ in range(2))
        cotangent = rng.uniform(-1, 1, (5, 4))

        def along(e: Float64, a: Any = a, t: Any = t, cotangent: Any = cotangent) -> Float64:
            moved = {name: a[name] + float(e) * t[name] for name in a}
            beta = moved.pop("beta")
            return np.sum(cotangent * reference.gated_ffn(*moved.values(), beta=beta))

        pulled = one.vjp("gated_ffn", list(a.values()), cotangent)[1]
        left = sum(np.sum(each * t[name]) for each, name in zip(pulled, shapes, strict=True))
        # For |e| <= 1/4 every number is below 5/8, so |gate| and |value| <= 6 * 0.4 + 0.7 < 3.1. The slope of beta gate
        # in e is at most 6, so on the disc of radius 1/4 its imaginary part is below pi / 2 and swish at most |gate|:
        # the sum is at most 20 * (8 * 3.1 * 3.1 * 0.7 + 0.7).
        radius, largest = np.array(0.25), np.array(20 * (8 * 3.1 * 3.1 * 0.7 + 0.7))
        bound = difference_bound(radius, radius / 64, largest, ulps=16)
        assert bound < 2e-8
        assert abs(left - central_difference(along, np.array(0.0), radius / 64)) <= bound
