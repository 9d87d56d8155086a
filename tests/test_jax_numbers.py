"""A Python number beta in the JAX backend: it keeps its double value, where a float32 has no room for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from _jax import assert_same  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import gated.jax_impl as G  # noqa: E402

# z = beta x reaches -85 and 85 for every |beta| from 0.5 to 2: what float32 loses of beta is up to 85 2^-24 of exp(z).
X = np.linspace(-170.0, 170.0, 681, dtype=np.float32)
# 0.1, alpha of clamped_swiglu, and the two sides of a float32 as far from it as can be.
NUMBERS = (0.1, 1.702, -0.7, 1 + 2.0**-24 - 2.0**-40, 1 - 2.0**-25 + 2.0**-40)
# The contract's bounds in ulp without the allowance for a rounded argument, for a value and for a gradient.
VALUE_ULPS, GRADIENT_ULPS = 5.0, 8.0


def wide(x: Any) -> Any:
    return np.asarray(x, np.float64)


def logistic(z: Any) -> Any:
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1.0) / (1 + e)


def swish(x: Any, beta: float) -> Any:
    return wide(x) * logistic(beta * wide(x))


def swish_terms(x: Any, beta: float) -> tuple[Any, Any]:
    """The terms of the derivative in x: s and z s (1 - s)."""
    z = beta * wide(x)
    return logistic(z), z * logistic(z) * logistic(-z)


def ulps(computed: Any, exact: Any, scale: Any = None) -> Any:
    """The largest error in units of the float32 spacing at ``scale``; results below the normal range do not count."""
    scale = np.abs(exact) if scale is None else np.maximum(np.abs(exact), scale)
    normal = np.abs(exact) >= 2.0**-126
    errors = np.abs(wide(computed) - exact) / np.spacing(scale.astype(np.float32))
    return np.max(errors, where=normal, initial=0.0)


WAYS: dict[str, Callable[[Any, float], Any]] = {
    "plain": lambda x, b: G.swish(x, b),
    "jit": lambda x, b: jax.jit(lambda x: G.swish(x, b))(x),
    "vmap": lambda x, b: jax.vmap(lambda x: G.swish(x, b))(x),
    "checkpoint": lambda x, b: jax.checkpoint(lambda x: G.swish(x, b))(x),
    "vjp": lambda x, b: G.vjp(G.swish, x, b)[0],
    "vjp under jit": lambda x, b: jax.jit(lambda x: G.vjp(G.swish, x, b)[0])(x),
    "jvp": lambda x, b: G.jvp(G.swish, (x, b), (x, 1.0))[0],
    "a constant of vjp": lambda x, b: G.vjp(G.swish, x, beta=b)[0],
    "gated_unit": lambda x, b: G.gated_unit(x, jnp.ones_like(x), beta=b),
    "swiglu": lambda x, b: G.swiglu(jnp.stack([jnp.ones_like(x), x]), b, axis=0)[0],
    "clamped_swiglu": lambda x, b: G.clamped_swiglu(
        jnp.stack([jnp.ones_like(x), x]), alpha=b, limit=math.inf, offset=0.0, axis=0
    )[0],
}


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_value_has_the_double_value_of_a_number(way: str, x64: bool) -> None:
    with jax.enable_x64(x64):
        for beta in NUMBERS:
            assert ulps(WAYS[way](jnp.asarray(X), beta), swish(X, beta)) <= VALUE_ULPS, beta


@settings(max_examples=60, deadline=None)
@given(
    st.floats(2.0**-126, 2.0**128, exclude_max=True, allow_subnormal=False),
    st.sampled_from([-1.0, 1.0]),
)
def test_numbers_of_every_size_have_their_double_value(magnitude: float, sign: float) -> None:
    beta = sign * magnitude
    z = np.linspace(-80.0, 80.0, 64)
    with np.errstate(over="ignore"):
        x = (z / beta).astype(np.float32)
    x = np.where(np.isfinite(x) & (np.abs(x) >= 2.0**-126), x, np.float32(1.0))
    with np.errstate(over="ignore"):
        exact = swish(x, beta)
    assert ulps(G.swish(jnp.asarray(x), beta), exact) <= VALUE_ULPS


def test_a_number_that_rounds_to_infinity_does_not_become_it() -> None:
    beta = 2.0**128 - 2.0**100
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(beta))
    x = np.array([1.2e-38, 1.5e-38, 2e-38, 1e-37], np.float32)
    assert ulps(G.swish(jnp.asarray(x), beta), swish(x, beta)) <= VALUE_ULPS
    assert G.swish(jnp.zeros(()), beta) == 0


@pytest.mark.parametrize("beta", NUMBERS)
def test_derivatives_have_the_double_value_of_a_number(beta: float) -> None:
    x, ones = jnp.asarray(X), jnp.ones_like(X)
    s, rest = swish_terms(X, beta)
    by_x, scale = s + rest, np.maximum(np.abs(s), np.abs(rest))
    by_beta = wide(X) ** 2 * logistic(beta * wide(X)) * logistic(-beta * wide(X))

    def f(x: Any) -> Any:
        return G.swish(x, beta)

    for slope in (
        jax.vmap(jax.grad(f))(x),
        jax.jit(jax.vmap(jax.grad(f)))(x),
        jax.jvp(f, (x,), (ones,))[1],
        G.vjp(G.swish, x, beta)[1](ones)[0],
        G.vjp(G.swish, x, beta=beta)[1](ones)[0],
        G.jvp(G.swish, (x, beta), (ones, 0.0))[1],
    ):
        assert ulps(slope, by_x, scale) <= GRADIENT_ULPS
    assert ulps(G.jvp(G.swish, (x, beta), (jnp.zeros_like(x), 1.0))[1], by_beta) <= GRADIENT_ULPS
    one_by_one = jax.vmap(lambda x: G.vjp(G.swish, x, beta)[1](jnp.float32(1))[1])(x)
    assert ulps(one_by_one, by_beta) <= GRADIENT_ULPS


def test_a_hessian_has_the_double_value_of_a_number() -> None:
    # Far below 0, swish'' = beta E (2 + z) with E = exp(z), to 2^-100: what float32 loses of beta is 2^-19 of E.
    beta = NUMBERS[-1]
    x = np.linspace(-84.0, -75.0, 8, dtype=np.float32)
    z = beta * wide(x)
    exact = beta * np.exp(z) * (2 + z)
    curvature = jnp.diagonal(jax.hessian(lambda x: G.swish(x, beta).sum())(jnp.asarray(x)))
    by_vjp = jax.vmap(jax.grad(lambda x: G.vjp(G.swish, x, beta)[1](jnp.float32(1))[0]))(jnp.asarray(x))
    mixed = jax.vmap(jax.grad(lambda x: G.vjp(G.swish, x, beta)[1](jnp.float32(1))[1]))(jnp.asarray(x))
    # E and the sum are as in a gradient, and beta, rounded, is one product more.
    assert ulps(curvature, exact) <= GRADIENT_ULPS + 1
    assert ulps(by_vjp, exact) <= GRADIENT_ULPS + 1
    assert ulps(mixed, wide(x) * np.exp(z) * (2 + z)) <= GRADIENT_ULPS + 1


def test_the_alpha_of_the_clamped_unit_has_its_double_value_with_its_own_clamps() -> None:
    gate = np.linspace(-50.0, 10.0, 601, dtype=np.float32)
    value = np.resize(np.linspace(-8.0, 8.0, 37, dtype=np.float32), 601)
    x = jnp.asarray(np.stack([gate, value], -1).reshape(-1))
    result, pullback = G.vjp(G.clamped_swiglu, x, layout="interleaved")
    g, v = np.minimum(wide(gate), 7), np.clip(wide(value), -7, 7) + 1
    away = np.abs(v) > 0.5  # where v + 1 cancels, its own rounding is all there is
    assert ulps(np.asarray(result)[away], (swish(g, 1.702) * v)[away]) <= VALUE_ULPS
    (by_x,) = pullback(jnp.ones_like(result))
    terms = [term * v * (wide(gate) <= 7) for term in swish_terms(g, 1.702)]
    by_gate = np.asarray(by_x)[::2]
    assert ulps(by_gate[away], sum(terms)[away], np.max(np.abs(terms), 0)[away]) <= GRADIENT_ULPS


def test_an_array_and_a_traced_number_are_what_they_are() -> None:
    beta = 1.702
    nearest = float(np.float32(beta))
    x = jnp.asarray(X)
    traced = jax.jit(G.swish)(x, beta)
    assert_same(traced, np.asarray(G.swish(x, jnp.float32(beta))))
    assert_same(traced, np.asarray(G.swish(x, nearest)))
    assert ulps(traced, swish(X, nearest)) <= VALUE_ULPS
    assert ulps(traced, swish(X, beta)) > VALUE_ULPS


@pytest.mark.parametrize("beta", [*NUMBERS, 0.5, 0.0])
def test_limits_hold_beside_a_number(beta: float) -> None:
    x = jnp.asarray([-math.inf, math.inf, -3e38, 3e38], jnp.float32)
    result, pullback = G.vjp(G.swish, x, beta)
    to_the_right, by_x = [-0.0, math.inf, -0.0, float(np.float32(3e38))], [0, 1, 0, 1]
    if beta < 0:
        to_the_right, by_x = [-math.inf, 0.0, -float(np.float32(3e38)), 0.0], [1, 0, 1, 0]
    if beta == 0:
        to_the_right, by_x = [-math.inf, math.inf, -float(np.float32(1.5e38)), float(np.float32(1.5e38))], [0.5] * 4
    assert_same(result, np.array(to_the_right, np.float32))
    np.testing.assert_array_equal(pullback(jnp.ones_like(x))[0], by_x)


def test_numbers_share_a_trace() -> None:
    from gated.jax_impl._gated import activation_of

    x = jnp.ones((3, 1, 2), jnp.float32)
    G.swish(x, 0.1)
    traces = activation_of._cache_size()
    for beta in (0.3, 2, -1.702, 0.5, 0.0, math.inf):
        G.swish(x, beta)
    assert activation_of._cache_size() == traces
    G.swish(x)
    assert activation_of._cache_size() == traces + 1


def test_the_gradient_of_a_number_is_the_sum_of_all_terms() -> None:
    x = jnp.asarray(X)
    _, pullback = G.vjp(G.swish, x, 0.1)
    by_x, by_beta = pullback(jnp.ones_like(x))
    assert (by_x.shape, by_beta.shape, by_beta.dtype) == (x.shape, (), x.dtype)
    exact = np.sum(wide(X) ** 2 * logistic(0.1 * wide(X)) * logistic(-0.1 * wide(X)))
    # n u for the sum of n positive terms, of which each has the error of a gradient.
    assert abs(float(by_beta) - exact) <= (X.size + GRADIENT_ULPS * 2) * 2.0**-24 * exact


@pytest.mark.parametrize("recompute", ["product", "all"])
@pytest.mark.parametrize("library", ["nnx", "linen"])
def test_the_ffn_modules_keep_the_double_value_of_a_number(library: str, recompute: str) -> None:
    flax = pytest.importorskip("flax")
    beta = 1.702
    # One hidden gate each, of -50 beta: the projections are exact.
    x = jnp.asarray([[-50.0], [-49.0], [-45.5], [-40.25]], jnp.float32)
    exact = swish(x, beta) * wide(x)
    eye = {"kernel": jnp.ones((1, 1), jnp.float32)}
    parameters = dict.fromkeys(("gate_proj", "up_proj", "down_proj"), eye)
    if library == "linen":
        from gated.jax_impl import linen

        module = linen.GatedFFN(1, 1, beta=beta, recompute=recompute)
        result = module.apply({"params": parameters}, x)
    else:
        from gated.jax_impl import nnx

        ffn = nnx.GatedFFN(1, 1, beta=beta, recompute=recompute, rngs=flax.nnx.Rngs(0))
        for name in parameters:
            getattr(ffn, name).kernel[...] = eye["kernel"]
        result = ffn(x)
    assert ulps(result, exact) <= VALUE_ULPS


def test_the_projections_keep_the_double_value_of_a_number() -> None:
    one = jnp.ones((1, 1), jnp.float32)
    x = jnp.asarray([[-50.0], [-49.0], [-45.5], [-40.25]], jnp.float32)
    exact = swish(x, 1.702) * wide(x)
    assert ulps(G.swiglu_linear(x, one, one, beta=1.702), exact) <= VALUE_ULPS
    assert ulps(G.gated_linear(x, one, one, beta=1.702), exact) <= VALUE_ULPS
    assert ulps(G.gated_ffn(x, one, one, one, beta=1.702), exact) <= VALUE_ULPS
    assert ulps(G.vjp(G.swiglu_linear, x, one, one, None, None, 1.702)[0], exact) <= VALUE_ULPS


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


def test_a_traced_python_integer_is_a_number() -> None:
    x = jnp.asarray([-1.5, 0.25, 3.0], jnp.float32)
    assert_same(jax.jit(G.swish)(x, 2), np.asarray(G.swish(x, 2)))
    with pytest.raises(TypeError, match="swish: beta must have dtype"):
        G.swish(x, jnp.asarray(2, jnp.int32))
