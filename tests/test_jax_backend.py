"""What is special to JAX: one operation at a time, derivatives of any order, their limits, and dtypes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import mpmath as mp  # noqa: E402
from _jax import ACTIVATIONS, COTANGENT, CURVED, GATE, VALUE, assert_same  # noqa: E402

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


EXACT: dict[str, Callable[[Any, Any], Any]] = {
    "sigmoid": lambda x, b: 1 / (1 + mp.exp(-x)),
    "swish": lambda x, b: x / (1 + mp.exp(-b * x)),
    "gelu": lambda x, b: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "gelu_tanh": lambda x, b: x / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))),
}


def forward(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]


@pytest.mark.parametrize("activation", CURVED)
def test_derivatives_of_orders_one_to_three_are_right_in_every_mode(activation: str) -> None:
    points = np.array([-9.5, -2.25, -0.5, 0.75, 3.0])
    f, modes = single(activation), (jax.grad, forward)
    first = [mode(f) for mode in modes]
    first.append(lambda x: jax.linearize(f, x)[1](jnp.ones_like(x)))
    second = [mode(one) for mode in modes for one in first[:2]]
    third = [forward(second[0])]
    with jax.enable_x64(True), mp.workdps(60):
        computed = jax.jit(jax.vmap(lambda x: [[one(x) for one in order] for order in (first, second, third)]))(points)
        for order, ways in enumerate(computed, 1):
            exact = [float(mp.diff(lambda x: EXACT[activation](x, 1), mp.mpf(x), order)) for x in points]
            for values in ways:
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


# Dtypes


def test_a_number_beta_changes_no_dtype_where_x64_is_on() -> None:
    def pulled(x: Any, beta: Any, activation: str) -> Any:
        result, pullback = G.vjp(G.gated_unit, x, x, beta, activation=activation)
        return result, *pullback(result)

    with jax.enable_x64(True):
        x = jnp.asarray(GATE, "bfloat16")
        for activation in ACTIVATIONS:
            made = jax.eval_shape(lambda x, a=activation: pulled(x, 0.7, a), x)
            assert [(each.shape, each.dtype) for each in made] == [((8,), x.dtype)] * 3 + [((), x.dtype)]
            assert not any(each.weak_type for each in made)


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


def test_the_backend_leaves_x64_as_it_is() -> None:
    code = "import jax, gated.jax_impl as G; G.silu(jax.numpy.ones(1)); print(jax.config.jax_enable_x64)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
