"""What is special to JAX: transformations in any order, residuals, and dtypes under x64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import mpmath as mp  # noqa: E402
from _jax import ACTIVATIONS, COTANGENT, CURVED, GATE, VALUE, assert_same, kept  # noqa: E402
from jax._src.ad_checkpoint import saved_residuals  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import gated.jax_impl as G  # noqa: E402


def single(activation: str) -> Callable[[Any], Any]:
    """The activation as a function of x: the public one, or gated_unit with the value 1 where there is none."""
    if activation == "gelu_tanh":
        return lambda x: G.gelu(x, approximate="tanh")
    if activation in ("identity", "swish"):
        return lambda x: G.gated_unit(x, jnp.ones_like(x), activation=activation)
    return getattr(G, activation)


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
