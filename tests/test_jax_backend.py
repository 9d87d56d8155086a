"""What is special to JAX: transformations in any order, residuals, dtypes under x64, subnormal inputs, Flax modules."""

from __future__ import annotations

import copy
import importlib
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import flax.linen as nn  # noqa: E402
import flax.serialization  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import mpmath as mp  # noqa: E402
from flax import nnx  # noqa: E402
from jax._src.ad_checkpoint import saved_residuals  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import gated.jax_impl as G  # noqa: E402
from gated.jax_impl import linen  # noqa: E402
from gated.jax_impl import nnx as gated_nnx  # noqa: E402

ROOT = Path(__file__).parent.parent
ACTIVATIONS = ("identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish")
CURVED = ("sigmoid", "gelu", "gelu_tanh", "swish")

# One shape and one set of numbers: XLA compiles each function once.
GATE = np.array([-87.5, -9.25, -1.28, -0.75, -0.0, 0.5, 3.0, 40.0], np.float32)
VALUE = np.array([1e30, -2.5, 0.75, 1.0, 3.0, -1e-3, 7.0, 1e-30], np.float32)
COTANGENT = np.array([2.0, -1.0, 0.5, 3.0, -2.0, 1.0, 0.25, -4.0], np.float32)


def single(activation: str) -> Callable[[Any], Any]:
    """The activation as a function of x: the public one, or gated_unit with the value 1 where there is none."""
    if activation == "gelu_tanh":
        return lambda x: G.gelu(x, approximate="tanh")
    if activation in ("identity", "swish"):
        return lambda x: G.gated_unit(x, jnp.ones_like(x), activation=activation)
    return getattr(G, activation)


def bits(x: Any) -> Any:
    x = np.asarray(x)
    return x.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[x.dtype.itemsize])


def assert_same(actual: Any, expected: Any, ulps: int = 0) -> None:
    """Equal classes, signs of zeros and dtypes; numbers within ``ulps`` of the expected ones."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    known = ~np.isnan(expected)
    a, b = actual[known], expected[known]
    if ulps == 0:
        np.testing.assert_array_equal(bits(a), bits(b))
        return
    np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
    finite = np.isfinite(b)
    assert np.all(np.abs(a[finite] - b[finite]) <= ulps * np.spacing(np.abs(b[finite])))


# Transformations


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_operation_at_a_time_gives_what_a_compiled_function_gives(activation: str) -> None:
    def pulled(gate: Any, value: Any, cotangent: Any) -> Any:
        result, pullback = G.vjp(G.gated_unit, gate, value, activation=activation)
        return result, *pullback(cotangent)

    arrays = [jnp.asarray(each) for each in (GATE, VALUE, COTANGENT)]
    compiled = jax.jit(pulled)(*arrays)
    with jax.disable_jit():
        one_by_one = pulled(*arrays)
    # Only fused multiply-adds may differ; -1.28 is near the zero of swish', where an ulp of a term is many of the sum.
    for each, other in zip(compiled, one_by_one, strict=True):
        assert_same(each, other, ulps=256)


@pytest.mark.parametrize("activation", CURVED)
def test_every_way_to_a_derivative_gives_the_same(activation: str) -> None:
    f = single(activation)
    x = jnp.asarray(GATE)
    slope = jax.vmap(jax.grad(f))(x)
    ones = jnp.ones_like(x)
    assert_same(jax.jvp(f, (x,), (ones,))[1], slope, ulps=2)
    assert_same(jax.linearize(f, x)[1](ones), slope, ulps=2)
    assert_same(jax.vjp(f, x)[1](ones)[0], slope, ulps=2)
    assert_same(jax.grad(lambda x: f(x).sum())(x), slope, ulps=2)
    by_hand = G.jvp(G.gated_unit, (x, ones), (ones, jnp.zeros_like(x)), activation=activation)[1]
    assert_same(by_hand, slope, ulps=2)
    assert_same(jax.jit(jax.grad(lambda x: jax.lax.map(f, x).sum()))(x), slope, ulps=2)


@pytest.mark.parametrize("activation", CURVED)
def test_second_derivatives_agree_in_all_four_orders_of_the_modes(activation: str) -> None:
    def total(gate: Any) -> Any:
        return (G.gated_unit(gate, jnp.asarray(COTANGENT), activation=activation)).sum()

    x = jnp.asarray(GATE)
    modes = (jax.jacfwd, jax.jacrev)
    first, *others = (jax.jit(outer(inner(total)))(x) for outer in modes for inner in modes)
    assert np.count_nonzero(first) >= 5
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(jax.hessian(total)(x), first, rtol=1e-5, atol=1e-30)


def test_derivatives_to_second_order_agree_with_differences_in_float64() -> None:
    with jax.enable_x64(True):
        gate, value, beta = (jnp.asarray(each, jnp.float64) for each in ([-2.0, 0.3, 1.5], [0.5, -2.0, 1.0], 0.8))
        swish = jax.jit(lambda g, v, b: G.gated_unit(g, v, beta=b))
        check_grads(swish, (gate, value, beta), order=2, modes=("fwd", "rev"), rtol=1e-5)


EXACT: dict[str, Callable[[Any, Any], Any]] = {
    "sigmoid": lambda x, b: 1 / (1 + mp.exp(-x)),
    "swish": lambda x, b: x / (1 + mp.exp(-b * x)),
    "gelu": lambda x, b: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "gelu_tanh": lambda x, b: x / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))),
}


@pytest.mark.parametrize("activation", CURVED)
def test_derivatives_of_orders_one_to_three_are_right(activation: str) -> None:
    points = np.array([-9.5, -2.25, -0.5, 0.75, 3.0])
    f = single(activation)
    with jax.enable_x64(True), mp.workdps(60):
        first, second = jax.grad(f), jax.grad(jax.grad(f))
        computed = jax.jit(jax.vmap(lambda x: (first(x), second(x), jax.jvp(second, (x,), (1.0,))[1])))(points)
        for order, values in enumerate(computed, 1):
            exact = [float(mp.diff(lambda x: EXACT[activation](x, 1), mp.mpf(x), order)) for x in points]
            np.testing.assert_allclose(values, exact, rtol=1e-13)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 1), (0, 2), (1, 2)])
def test_mixed_derivatives_in_x_and_beta_are_right(p: int, q: int) -> None:
    f: Callable[..., Any] = G.swish
    for argument in (0,) * p + (1,) * q:
        f = jax.grad(f, argument)
    points, beta = np.array([-9.5, -0.5, 0.75, 3.0]), 0.8
    with jax.enable_x64(True), mp.workdps(60):
        computed = jax.jit(jax.vmap(f, (0, None)))(jnp.asarray(points), jnp.float64(beta))
        exact = [float(mp.diff(EXACT["swish"], (mp.mpf(x), mp.mpf(beta)), (p, q))) for x in points]
        np.testing.assert_allclose(computed, exact, rtol=1e-12)


@pytest.mark.parametrize("activation", CURVED)
def test_derivatives_take_their_limits_at_infinity(activation: str) -> None:
    f = single(activation)
    x = jnp.asarray([-np.inf, np.inf, np.nan], jnp.float32)
    limits = {0: (0.0, 1.0 if activation == "sigmoid" else np.inf), 1: (0.0, 0.0 if activation == "sigmoid" else 1.0)}
    for order in range(3):
        values = np.asarray(jax.jit(jax.vmap(f))(x))
        np.testing.assert_array_equal(values, [*limits.get(order, (0.0, 0.0)), np.nan])
        assert order or np.signbit(values[0]) == (activation != "sigmoid")
        f = jax.grad(f)


def test_the_gradient_of_beta_takes_its_limits() -> None:
    x = jnp.asarray([-np.inf, np.inf, 0.0, 3e38, -3e38], jnp.float32)
    slope = jax.jit(jax.vmap(jax.grad(G.swish, (0, 1)), (0, None)))
    for beta, dx in ((1.0, [0, 1, 0.5, 1, 0]), (-1.0, [1, 0, 0.5, 0, 1])):
        by_x, by_beta = slope(x, beta)
        np.testing.assert_array_equal(by_x, dx)
        np.testing.assert_array_equal(by_beta, 0)
    by_x, by_beta = slope(x, 0.0)
    np.testing.assert_array_equal(by_x, 0.5)
    np.testing.assert_array_equal(by_beta, [np.inf, np.inf, 0, np.inf, np.inf])


def test_a_traced_beta_may_be_an_argument_or_closed_over() -> None:
    x = jnp.asarray(GATE)

    def closed(beta: Any) -> Any:
        return jax.lax.scan(lambda carry, each: (carry + G.swish(each, beta), None), 0.0, x)[0]

    expected = sum(float(each) ** 2 * 0.25 / np.cosh(0.4 * float(each)) ** 2 for each in GATE)
    for derivative in (
        jax.grad(closed),
        jax.jit(jax.grad(closed)),
        jax.jacfwd(closed),
        jax.grad(lambda beta: G.swish(x, beta).sum()),
        jax.grad(lambda beta: jax.checkpoint(lambda x: G.swish(x, beta).sum())(x)),
    ):
        np.testing.assert_allclose(derivative(0.8), expected, rtol=1e-5)


def test_vmap_over_beta_alone_is_one_call_a_beta() -> None:
    x, betas = jnp.asarray(GATE), jnp.asarray([0.0, 1.5, -2.0], jnp.float32)
    batched = jax.vmap(G.swish, (None, 0))(x, betas)
    for row, beta in zip(batched, betas, strict=True):
        assert_same(row, G.swish(x, beta), ulps=2)


# Residuals


def kept(f: Callable[..., Any], *arguments: Any) -> list[tuple[tuple[int, ...], str]]:
    """What is saved for the backward pass: shape and dtype of all that is larger than a number."""
    return sorted((a.shape, a.dtype.name) for a, _ in saved_residuals(f, *arguments) if a.shape)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_inputs_alone_are_kept_in_the_dtype_in_which_they_came(dtype: str) -> None:
    x = jnp.ones((4, 6), dtype)
    one = [((4, 6), dtype)]
    assert kept(G.silu, x) == one
    assert kept(G.gelu, x) == one
    assert kept(G.swish, x, jnp.ones((), dtype)) == one
    assert kept(G.swiglu, x) == one
    assert kept(G.clamped_swiglu, x) == one
    assert kept(G.gated_unit, x, x + 1) == one * 2
    assert kept(lambda x: jax.jit(G.gated_unit)(x, x), x) == one
    for function in (G.silu, G.swiglu):
        sources = [source for _, source in saved_residuals(function, x)]
        assert all("argument" in source for source in sources)


# Dtypes


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes_hold_with_and_without_x64(dtype: str, x64: bool) -> None:
    def pulled(x: Any, beta: Any, activation: str) -> Any:
        result, pullback = G.vjp(G.gated_unit, x, x, beta, activation=activation)
        return result, *pullback(result)

    with jax.enable_x64(x64):
        x = jnp.asarray(GATE, dtype)
        for activation in ACTIVATIONS:
            for beta in (0.7, jnp.asarray(0.7, dtype)):
                made = jax.eval_shape(lambda x, b=beta, a=activation: pulled(x, b, a), x)
                assert [(each.shape, each.dtype) for each in made] == [((8,), x.dtype)] * 3 + [((), x.dtype)]
                assert not any(each.weak_type for each in made)
        hessian = jax.eval_shape(jax.hessian(lambda x: G.gated_unit(x, x, activation="gelu_tanh").sum()), x)
        assert hessian.dtype == x.dtype


def test_float64_stays_float64_and_the_configuration_stays_as_it_was() -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(GATE, jnp.float64)
        result, pullback = G.vjp(G.gated_unit, x, x, 0.7)
        assert {each.dtype.name for each in (result, *pullback(result))} == {"float64"}
    assert not jax.config.jax_enable_x64


def test_a_weak_array_gives_way_and_a_number_keeps_its_value_past_16_bits() -> None:
    x = jnp.asarray([1.0, -2.0, 3.0], jnp.bfloat16)
    number = G.swish(x, 0.3)
    assert number.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64) / (1 + np.exp(-0.3 * np.asarray(x, np.float64)))
    np.testing.assert_array_equal(number, exact.astype(jnp.bfloat16))
    weak = jnp.asarray(0.3)
    assert weak.weak_type
    assert_same(G.swish(x, weak), number)
    with pytest.raises(TypeError, match="beta must have the dtype of x, bfloat16, got float32"):
        G.swish(x, jnp.float32(0.3))
    assert G.silu(jnp.asarray(1.0)).dtype == jnp.float32
    assert G.gated_unit(x, jnp.asarray([1.0, 1.0, 1.0], jnp.bfloat16)).dtype == jnp.bfloat16


def test_an_infinite_number_is_a_step_and_one_past_float32_is_refused() -> None:
    x = jnp.asarray([-1.0, 0.0, 2.0], jnp.float32)
    assert_same(G.swish(x, math.inf), np.array([-0.0, 0.0, 2.0], np.float32))
    for beta in (1e300, 1e-300, 10**300):
        with pytest.raises(ValueError, match=r"swish: beta must be 0 or of a magnitude from 2\*\*-126 to 2\*\*128"):
            G.vjp(G.swish, x, beta)


def test_a_tracer_of_a_wrong_dtype_and_a_numpy_array_are_refused() -> None:
    with pytest.raises(TypeError, match="silu: x must have dtype float16, bfloat16, float32 or float64, got int32"):
        jax.jit(G.silu)(jnp.arange(3))
    with pytest.raises(TypeError, match=r"silu: x must be an array of this backend .* got numpy\.ndarray"):
        G.silu(GATE)
    with pytest.raises(TypeError, match=r"silu: x must be an array of this backend"):
        G.vjp(G.silu, GATE)


def test_the_gradient_of_a_scalar_beta_is_summed_in_float32_and_rounded_once() -> None:
    x = jnp.full((4096,), 1.0, jnp.bfloat16)
    (gradient,) = jax.grad(lambda beta: G.swish(x, beta).astype(jnp.float32).sum(), (0,))(jnp.bfloat16(0.5))
    s = 1 / (1 + np.exp(-0.5))
    assert float(gradient) == float(jnp.bfloat16(4096 * s * (1 - s)))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_empty_arrays_have_empty_results_and_zero_gradients(shape: tuple[int, ...]) -> None:
    x = jnp.zeros(shape)
    half = (shape[0], shape[1] // 2)
    result, pullback = G.vjp(G.swiglu, x, 0.5)
    assert result.shape == half
    by_x, by_beta = pullback(result)
    assert (by_x.shape, by_beta.shape, float(by_beta)) == (shape, (), 0.0)
    W, V, W2 = jnp.zeros((shape[1], 5)), jnp.zeros((shape[1], 5)), jnp.zeros((5, 2))
    assert G.gated_ffn(x, W, V, W2).shape == (shape[0], 2)


# The range: XLA on the CPU flushes subnormal results of arithmetic and reads subnormal operands as 0


def test_subnormal_inputs_count() -> None:
    tiny = np.array([1e-40, -1e-40, 3e-45], np.float32)
    big = np.array([1e30, 1e36, -1e30], np.float32)
    for activation, factor in (("identity", 1.0), ("swish", 0.5), ("gelu", 0.5), ("gelu_tanh", 0.5)):
        exact = tiny.astype(np.float64) * big * factor
        result, pullback = G.vjp(G.gated_unit, jnp.asarray(tiny), jnp.asarray(big), activation=activation)
        np.testing.assert_allclose(result, exact, rtol=3e-7)
        _, by_value = pullback(jnp.full(3, 2.0**16, jnp.float32))
        normal = np.abs(tiny) > 1e-41
        np.testing.assert_allclose(by_value[normal], (tiny.astype(np.float64) * factor * 2**16)[normal], rtol=3e-7)
        swapped, _ = G.vjp(G.gated_unit, jnp.asarray(big), jnp.asarray(tiny), activation=activation)
        right = tiny.astype(np.float64) * np.where(big > 0, big, big if activation == "identity" else 0)
        np.testing.assert_allclose(swapped, right, rtol=3e-7)


def test_relu_is_exact_on_subnormal_numbers_and_so_is_its_derivative() -> None:
    x = np.array([1e-40, -1e-40, 0.0, -0.0, np.nan, np.inf, -np.inf, 2.0], np.float32)
    assert_same(G.relu(jnp.asarray(x)), np.array([1e-40, 0, 0, -0.0, np.nan, np.inf, 0, 2], np.float32))
    for f in (G.relu, lambda x: G.gated_unit(x, jnp.ones_like(x), activation="relu")):
        slope = jax.vmap(jax.grad(f))(jnp.asarray(x))
        np.testing.assert_array_equal(slope, [1, 0, 0, 0, np.nan, 1, 0, 1])
        np.testing.assert_array_equal(jax.vmap(jax.grad(jax.grad(f)))(jnp.asarray(x[[0, 1, 2, 5, 6, 7]])), 0)


def test_a_product_of_a_subnormal_x_and_a_large_beta_counts() -> None:
    x, beta = np.float32(1e-40), np.float32(3e38)
    z = float(x) * float(beta)
    np.testing.assert_allclose(
        jax.grad(G.swish)(jnp.asarray(x), jnp.asarray(beta)),
        1 / (1 + np.exp(-z)) + z * np.exp(-z) / (1 + np.exp(-z)) ** 2,
        rtol=3e-7,
    )


def test_subnormal_results_are_rounded_not_flushed() -> None:
    x = np.linspace(-103.0, -87.0, 65).astype(np.float32)
    exact = x.astype(np.float64) * np.exp(x.astype(np.float64))
    error = np.abs(np.asarray(G.silu(jnp.asarray(x)), np.float64) - exact)
    assert np.all(error <= 5 * np.maximum(2.0**-149, np.spacing(np.abs(exact).astype(np.float32))))
    smallest = np.asarray(G.silu(jnp.asarray(np.array([-120.0, 1e-45], np.float32))))
    assert_same(smallest, np.array([-0.0, 0.0], np.float32))


def test_no_partial_product_of_a_gradient_leaves_the_range() -> None:
    gate = np.array([-120.0, -200.0, -60.0, 5.0], np.float32)
    value = np.array([1e30, 3e38, 1e-30, 3e37], np.float32)
    cotangent = np.array([2.0**16, 2.0**16, 2.0**16, 2.0**-16], np.float32)
    g, v, c = (each.astype(np.float64) for each in (gate, value, cotangent))
    s = np.exp(g) / (1 + np.exp(g))
    _, pullback = G.vjp(G.gated_unit, jnp.asarray(gate), jnp.asarray(value))
    by_gate, by_value = pullback(jnp.asarray(cotangent))
    for computed, exact in ((by_gate, c * v * s * (1 + g * (1 - s))), (by_value, c * g * s)):
        within = np.abs(exact) >= 2.0**-126
        np.testing.assert_allclose(computed[within], exact[within], rtol=1e-6)
    _, tangent = G.jvp(G.gated_unit, (jnp.asarray(gate), jnp.asarray(value)), (jnp.asarray(cotangent), jnp.zeros(4)))
    exact = c * v * s * (1 + g * (1 - s))
    np.testing.assert_allclose(tangent[exact != 0], exact[exact != 0], rtol=1e-6, atol=2.0**-126)


def test_an_infinite_value_or_cotangent_meets_the_activation_as_a_real_number() -> None:
    gate = jnp.asarray([-1e30, -200.0, -np.inf, 0.0, 5.0], jnp.float32)
    infinite, two = jnp.full(5, jnp.inf), jnp.full(5, 2.0)
    inf, nan = np.inf, np.nan
    for activation in ("swish", "gelu", "gelu_tanh"):
        result, pullback = G.vjp(G.gated_unit, gate, infinite, activation=activation)
        np.testing.assert_array_equal(result, [-inf, -inf, nan, nan, inf])
        np.testing.assert_array_equal(pullback(jnp.ones(5))[0], [-inf, -inf, nan, inf, inf])
        _, pullback = G.vjp(G.gated_unit, gate, two, activation=activation)
        by_gate, by_value = pullback(infinite)
        np.testing.assert_array_equal(by_gate, [-inf, -inf, nan, inf, inf])
        np.testing.assert_array_equal(by_value, [-inf, -inf, nan, nan, inf])
    result, pullback = G.vjp(G.gated_unit, gate, infinite, activation="sigmoid")
    np.testing.assert_array_equal(result, [inf, inf, nan, inf, inf])
    result, pullback = G.vjp(G.gated_unit, gate, infinite, activation="relu")
    np.testing.assert_array_equal(result, [nan, nan, nan, nan, inf])
    np.testing.assert_array_equal(pullback(jnp.ones(5))[0], [nan, nan, nan, nan, inf])


def test_a_zero_derivative_stays_zero_beside_a_large_value_and_cotangent() -> None:
    gate, value = jnp.asarray([-1.0, -1.0], jnp.float32), jnp.asarray([3e38, -3e38], jnp.float32)
    _, pullback = G.vjp(G.gated_unit, gate, value, activation="relu")
    np.testing.assert_array_equal(pullback(jnp.full(2, 2.0**16))[0], 0)


def test_the_clamps_have_derivative_one_on_the_boundary_and_see_subnormal_numbers() -> None:
    gate = np.array([7.0, 7.5, 1.0, 1.0, 1.0, np.nan], np.float32)
    value = np.array([1.0, 1.0, 7.0, -7.0, 7.5, 1.0], np.float32)
    x = jnp.asarray(np.stack([value, gate]))
    _, pullback = G.vjp(G.clamped_swiglu, x, axis=0)
    ((by_value, by_gate),) = pullback(jnp.ones((1, 6)))
    np.testing.assert_array_equal(by_gate != 0, [True, False, True, True, True, True])
    np.testing.assert_array_equal(by_value[:5] != 0, [True, True, True, True, False])
    assert np.isnan(by_gate[5]) and np.isnan(by_value[5])
    above = jnp.asarray([[1e-40], [1e-40]], jnp.float32)
    _, pullback = G.vjp(G.clamped_swiglu, above, limit=0.0, axis=0)
    np.testing.assert_array_equal(pullback(jnp.ones((1, 1)))[0], 0)


def test_the_table_of_the_normal_tail_is_what_its_script_makes() -> None:
    script = [sys.executable, str(ROOT / "tools" / "erfcx_coefficients.py")]
    made = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert made in (ROOT / "gated" / "jax_impl" / "_normal_tail.py").read_text()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_normal_tail_is_within_three_ulp(dtype: str) -> None:
    from gated.jax_impl._normal_tail import bound, scaled_tail

    with jax.enable_x64(True), mp.workdps(40):
        x = np.linspace(0, 1, 1001, dtype=dtype) ** 3 * np.dtype(dtype).type(bound(jnp.zeros((), dtype)))
        computed = np.asarray(jax.jit(scaled_tail)(jnp.asarray(x)))
        exact = [mp.erfc(t / mp.sqrt(2)) * mp.exp(t * t / 2) / 2 for t in map(mp.mpf, x.tolist())]
        errors = [abs(mp.mpf(float(a)) - b) / float(np.spacing(a)) for a, b in zip(computed, exact, strict=True)]
    assert max(errors) <= 3


# Projections


def weights(dtype: str = "float32") -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(3), 7)
    shapes = {"x": (5, 4), "W": (4, 8), "V": (4, 8), "W2": (8, 6), "b": (8,), "c": (8,), "b2": (6,)}
    return {name: jax.random.normal(key, shape, dtype) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def test_a_half_precision_ffn_rounds_its_hidden_product_once() -> None:
    arrays = weights("bfloat16")
    wide = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    gate = wide["x"] @ wide["W"] + wide["b"]
    hidden = gate / (1 + np.exp(-gate)) * (wide["x"] @ wide["V"] + wide["c"])
    linear = G.gated_linear(*(arrays[name] for name in ("x", "W", "V", "b", "c")))
    ulp = np.maximum(2.0 ** (np.floor(np.log2(np.abs(hidden))) - 7), 2.0**-133)
    assert np.max(np.abs(np.asarray(linear, np.float64) - hidden) / ulp) <= 0.51


def test_gradients_of_the_projections_have_the_dtypes_of_their_arrays() -> None:
    for dtype in ("bfloat16", "float16", "float32"):
        arrays = weights(dtype)
        primals = [arrays[name] for name in ("x", "W", "V", "W2", "b", "c", "b2")]

        def pulled(*primals: Any) -> Any:
            value, pullback = G.vjp(G.gated_ffn, *primals, 0.7)
            return pullback(value)

        *cotangents, by_beta = jax.eval_shape(pulled, *primals)
        assert [(each.shape, each.dtype) for each in cotangents] == [(each.shape, each.dtype) for each in primals]
        assert (by_beta.shape, by_beta.dtype) == ((), jnp.dtype(dtype))


def test_an_absent_bias_has_no_cotangent_and_no_tangent() -> None:
    a = weights()
    value, pullback = G.vjp(G.gated_linear, a["x"], a["W"], a["V"], None, a["c"])
    cotangents = pullback(value)
    assert [each is None for each in cotangents] == [False, False, False, True, False]
    primals = (a["x"], a["W"], a["V"], None, a["c"])
    _, tangent = G.jvp(G.gated_linear, primals, primals)
    expected = jax.jvp(lambda x, W, V, c: G.gated_linear(x, W, V, None, c), (a["x"], a["W"], a["V"], a["c"]), (
        a["x"], a["W"], a["V"], a["c"],
    ))[1]  # fmt: skip
    assert_same(tangent, expected, ulps=2)


# Modules


def plain_ffn(x: Any, state: Any, beta: float) -> Any:
    """The block, in float64, from a nest of parameters."""
    kernel = {name: np.asarray(state[name]["kernel"], np.float64) for name in ("gate_proj", "up_proj", "down_proj")}
    bias = {name: np.asarray(state[name]["bias"], np.float64) for name in kernel}
    x = np.asarray(x, np.float64)
    gate = x @ kernel["gate_proj"] + bias["gate_proj"]
    value = x @ kernel["up_proj"] + bias["up_proj"]
    return gate / (1 + np.exp(-beta * gate)) * value @ kernel["down_proj"] + bias["down_proj"]


def ffn(recompute: str = "product", **keywords: Any) -> Any:
    return gated_nnx.GatedFFN(
        4, 8, 6, beta=0.7, bias=True, recompute=recompute, bias_init=jax.nn.initializers.normal(1.0), **keywords,
        rngs=nnx.Rngs(0),
    )  # fmt: skip


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_the_two_ffn_modules_compute_the_formula_from_the_same_weights(recompute: str) -> None:
    x = weights()["x"]
    module = ffn(recompute, learn_beta=True)
    parameters = nnx.to_pure_dict(nnx.state(module))
    assert sorted(parameters) == ["beta", "down_proj", "gate_proj", "up_proj"]
    other = linen.GatedFFN(4, 8, 6, beta=0.7, learn_beta=True, bias=True, recompute=recompute)
    made = other.init(jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, parameters)
    assert float(made["beta"]) == np.float32(0.7)
    result = module(x)
    np.testing.assert_allclose(result, plain_ffn(x, parameters, 0.7), rtol=1e-5, atol=1e-6)
    assert_same(other.apply({"params": parameters}, x), result, ulps=4)

    def loss(parameters: Any) -> Any:
        return (other.apply({"params": parameters}, x) ** 2).sum()

    by_linen = jax.jit(jax.grad(loss))(parameters)
    by_nnx = nnx.to_pure_dict(nnx.jit(nnx.grad(lambda module, x: (module(x) ** 2).sum()))(module, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), by_nnx, by_linen)
    h = 1e-4
    ahead, behind = (np.sum(plain_ffn(x, parameters, 0.7 + step) ** 2) for step in (h, -h))
    np.testing.assert_allclose(by_linen["beta"], (ahead - behind) / (2 * h), rtol=1e-4)


@pytest.mark.parametrize(("recompute", "hidden"), [("product", 2), ("all", 0)])
def test_an_ffn_module_keeps_the_gate_and_the_value_or_nothing_of_hidden_size(recompute: str, hidden: int) -> None:
    x = jnp.ones((5, 4))
    graph, state = nnx.split(ffn(recompute, learn_beta=True))
    other = linen.GatedFFN(4, 8, 6, beta=0.7, learn_beta=True, bias=True, recompute=recompute)
    parameters = {"params": nnx.to_pure_dict(state)}
    for shapes in (
        kept(lambda state, x: nnx.merge(graph, state)(x), state, x),
        kept(other.apply, parameters, x),
    ):
        assert shapes.count(((5, 8), "float32")) == hidden
        assert shapes.count(((5, 6), "float32")) == 0


def test_modules_are_what_their_functions_are() -> None:
    x, packed = jnp.asarray(GATE), jnp.asarray(np.stack([VALUE, GATE]))
    for library, call in (
        (gated_nnx, lambda module, x: module(x)),
        (linen, lambda module, x: module.apply(module.init(jax.random.key(0), x), x)),
    ):
        for learn in (False, True):
            assert_same(call(library.Swish(0.7, learn_beta=learn), x), G.swish(x, 0.7), ulps=2)
            swiglu = library.SwiGLU(0.7, learn_beta=learn, axis=0, layout="gate_first")
            assert_same(call(swiglu, packed), G.swiglu(packed, 0.7, axis=0, layout="gate_first"), ulps=2)
        assert_same(call(library.GLU(axis=0), packed), G.glu(packed, axis=0))
        half = jnp.asarray(GATE, jnp.bfloat16)
        assert call(library.Swish(0.7, learn_beta=True), half).dtype == jnp.bfloat16
    module = gated_nnx.GatedLinear(4, 8, activation="gelu", bias=True, rngs=nnx.Rngs(1))
    children = (module.gate_proj, module.up_proj)
    arrays = [*(child.kernel[...] for child in children), *(child.bias[...] for child in children)]
    a = weights()
    assert_same(module(a["x"]), G.gated_linear(a["x"], *arrays, activation="gelu"), ulps=4)
    other = linen.GatedLinear(4, 8, activation="gelu", bias=True)
    assert_same(other.apply({"params": nnx.to_pure_dict(nnx.state(module))}, a["x"]), module(a["x"]), ulps=4)


def test_a_replaced_child_is_called() -> None:
    module = ffn()
    x = weights()["x"]
    before = module(x)
    module.down_proj = nnx.LoRA(8, 2, 6, base_module=module.down_proj, rngs=nnx.Rngs(2))
    assert_same(module(x), before, ulps=2)
    module.down_proj.lora_b[...] += 1.0
    assert np.all(np.asarray(module(x)) != np.asarray(before))
    by_lora = nnx.grad(lambda module: module(x).sum(), argnums=nnx.DiffState(0, nnx.LoRAParam))(module)
    assert np.all(np.asarray(by_lora["down_proj"]["lora_a"][...]) != 0)


def test_modules_in_half_precision_compute_in_it() -> None:
    x = weights("bfloat16")["x"]
    assert ffn(dtype=jnp.bfloat16, learn_beta=True)(x).dtype == jnp.bfloat16
    assert ffn(param_dtype=jnp.bfloat16, learn_beta=True)(x).dtype == jnp.bfloat16
    other = linen.GatedFFN(4, 8, dtype=jnp.bfloat16, learn_beta=True)
    assert other.apply(other.init(jax.random.key(0), x), x).dtype == jnp.bfloat16


def test_modules_are_copied_pickled_saved_loaded_and_read() -> None:
    x = weights()["x"]
    module = ffn(learn_beta=True)
    result = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_same(twin(x), result)
    graph, state = nnx.split(module)
    assert_same(nnx.merge(graph, jax.tree.map(jnp.array, state))(x), result)
    text = repr(module)
    assert all(part in text for part in ("GatedFFN", "activation='swish'", "recompute='product'", "beta", "gate_proj"))

    other = linen.GatedFFN(4, 8, 6, learn_beta=True, bias=True)
    assert pickle.loads(pickle.dumps(other)) == other
    parameters = {"params": nnx.to_pure_dict(state)}
    blank = other.init(jax.random.key(1), x)
    loaded = flax.serialization.from_bytes(blank, flax.serialization.to_bytes(parameters))
    assert_same(other.apply(loaded, x), other.apply(parameters, x))
    assert "recompute = 'product'" in repr(other)


@pytest.mark.parametrize("library", [gated_nnx, linen])
def test_bad_modules_are_refused_at_construction(library: Any) -> None:
    rngs = {"rngs": nnx.Rngs(0)} if library is gated_nnx else {}
    allowed = '"identity", "sigmoid", "relu", "gelu", "gelu_tanh" or "swish"'
    layouts = '"gate_last", "gate_first" or "interleaved"'
    for make, error, text in (
        (lambda: library.GatedFFN(4, 8, activation="silu", **rngs), ValueError,
         f"GatedFFN: activation must be {allowed}, got 'silu'"),
        (lambda: library.GatedLinear(4, 8, activation=None, **rngs), ValueError,
         f"GatedLinear: activation must be {allowed}, got None"),
        (lambda: library.GatedFFN(4, 8, recompute="x", **rngs), ValueError,
         "GatedFFN: recompute must be \"product\" or \"all\", got 'x'"),
        (lambda: library.GatedFFN(4, 8, activation="gelu", learn_beta=True, **rngs), ValueError,
         "GatedFFN: learn_beta=True needs activation \"swish\", got 'gelu'"),
        (lambda: library.GLU(layout="x"), ValueError, f"GLU: layout must be {layouts}, got 'x'"),
        (lambda: library.SwiGLU(layout="x"), ValueError, f"SwiGLU: layout must be {layouts}, got 'x'"),
        (lambda: library.Swish(True), TypeError, "Swish: beta must be a Python number, got bool"),
    ):  # fmt: skip
        with pytest.raises(error) as caught:
            make()
        assert str(caught.value) == text


@pytest.mark.parametrize("library", [gated_nnx, linen])
def test_an_input_of_another_width_is_refused(library: Any) -> None:
    text = r"GatedFFN: x must have shape \(\.\.\., 4\), got \(2, 3\)"
    with pytest.raises(ValueError, match=text):
        if library is linen:
            linen.GatedFFN(4, 8).init(jax.random.key(0), jnp.ones((2, 3)))
        else:
            ffn()(jnp.ones((2, 3)))


def test_linen_modules_are_dense_layers_inside() -> None:
    seen = []

    def record(next_call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        seen.append(type(context.module))
        return next_call(*arguments, **keywords)

    module = linen.GatedFFN(4, 8)
    x = jnp.ones((2, 4))
    parameters = module.init(jax.random.key(0), x)
    with nn.intercept_methods(record):
        module.apply(parameters, x)
    assert seen.count(nn.Dense) == 3


# What is missing


@pytest.mark.parametrize(
    ("module", "package"),
    [("gated.jax_impl", "jax"), ("gated.jax_impl.nnx", "flax"), ("gated.jax_impl.linen", "flax")],
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(module: str, package: str) -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
try:
    import {module}
except ModuleNotFoundError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == (
        f'{module} needs the package {package}, which is not installed; install it with: pip install "gated[jax]"'
    )


def test_the_functions_need_no_flax() -> None:
    code = "import sys, gated.jax_impl; print('flax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize("module", ["gated.jax_impl", "gated.jax_impl.nnx", "gated.jax_impl.linen"])
def test_all_that_is_public_is_there(module: str) -> None:
    loaded = importlib.import_module(module)
    assert all(hasattr(loaded, name) for name in loaded.__all__)
    assert sorted(loaded.__all__) == list(loaded.__all__) or module != "gated.jax_impl"


def test_a_traced_python_integer_is_a_number() -> None:
    x = jnp.asarray([-1.5, 0.25, 3.0], jnp.float32)
    assert_same(jax.jit(G.swish)(x, 2), np.asarray(G.swish(x, 2)))
    with pytest.raises(TypeError, match="swish: beta must have dtype"):
        G.swish(x, jnp.asarray(2, jnp.int32))
