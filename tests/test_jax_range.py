"""The JAX backend at both ends of the range, and the tail of the normal distribution.

XLA on the CPU flushes subnormal results of arithmetic and reads subnormal operands as 0.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import mpmath as mp  # noqa: E402
from _jax import assert_same  # noqa: E402

import gated.jax_impl as G  # noqa: E402

ROOT = Path(__file__).parent.parent


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


def rounding_of_the_rise(dtype: str, x: Any) -> Any:
    """Bounds the error of x G(x) to first order: the table's, and half an ulp for each operation.

    Every rounding is at most v = 2^-p of its result, and so are those of the coefficients. An error of u enters with
    G'(u): three operations make u. An FMA rounds once instead of twice.
    """
    from gated.jax_impl._normal_tail import _TABLES

    _, k, coefficients = _TABLES[dtype]
    v = float(np.finfo(dtype).eps) / 2
    u = (x - k) / (x + k)
    total, slope, error = np.zeros_like(u), np.zeros_like(u), np.zeros_like(u)
    for c in reversed(coefficients):
        product = total * u
        slope = slope * u + total
        total = product + c
        error = error * np.abs(u) + v * (np.abs(product) + np.abs(c) + np.abs(total))
    error += 3 * v * np.abs(u * slope)
    table = {"float32": 2.0**-31.5, "float64": 2.0**-59}[dtype] * (2 + x * total)
    return x * error + v * x * np.abs(total) + table


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_normal_tail_is_within_its_rounding_errors(dtype: str) -> None:
    from gated.jax_impl._normal_tail import bound, tail_divisor_less_two

    with jax.enable_x64(True), mp.workdps(40):
        x = np.linspace(0, 1, 1001, dtype=dtype) ** 3 * np.dtype(dtype).type(bound(jnp.zeros((), dtype)))
        computed = np.asarray(jax.jit(tail_divisor_less_two)(jnp.asarray(x)))
        exact = [2 / (mp.erfc(t / mp.sqrt(2)) * mp.exp(t * t / 2)) - 2 for t in map(mp.mpf, x.tolist())]
        errors = np.array([float(abs(mp.mpf(float(a)) - b)) for a, b in zip(computed, exact, strict=True)])
    allowed = rounding_of_the_rise(dtype, x.astype(np.float64))
    assert np.all(errors <= allowed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu_near_zero_rounds_a_half_and_little_else(dtype: str) -> None:
    """Phi = 1/2 + small for x > 0, E / (2 + small) for x < 0, times x: within 3 ulp.

    With v half an ulp of 1: for x > 0, E within 0.75 v (its last addition and what is before it) gives 0.75 v of Phi,
    the addition to 1/2 at most v; for x < 0, E 0.75 v, the divisor v, the quotient just below 1/2 0.5 v. A relative
    error of n v is at most n ulp; the product with x adds half an ulp: 2.25 and 2.75.
    """
    rng = np.random.default_rng(5)
    x = (rng.uniform(1, 2, 2**14) * 2.0 ** rng.integers(-20, -8, 2**14) * rng.choice([-1, 1], 2**14)).astype(dtype)
    with jax.enable_x64(True):
        y = np.asarray(G.gelu(jnp.asarray(x)))
    # The series of x Phi(x) to x^6 / 240 sqrt(2 pi): 2^-60 of x / 2 is next. Its sum is carried in two parts.
    t = x.astype(np.longdouble)
    exact = t / 2 + t * t / np.sqrt(2 * np.longdouble(np.pi)) * (1 - t * t / 6 + t**4 / 40)
    errors = np.abs(y.astype(np.longdouble) - exact) / np.spacing(np.abs(exact).astype(dtype))
    assert errors.max() <= 3


def test_gelu_from_two_on_rounds_one_minus_little() -> None:
    """Phi = 1 - E / D with E / D < 0.023, times x: within 1.2 ulp.

    At most 5 roundings of E / D give 0.12 half ulps of 1, the subtraction 0.5; the product adds half an ulp.
    """
    x = np.linspace(2, 20, 2**14, dtype=np.float32)
    exact = x.astype(np.float64) * np.array([math.erfc(-t / math.sqrt(2)) / 2 for t in x.tolist()])
    errors = np.abs(np.asarray(G.gelu(jnp.asarray(x)), np.float64) - exact) / np.spacing(exact.astype(np.float32))
    assert errors.max() <= 1.2


@pytest.mark.parametrize("limit", [0.1, 3.3, 1 - 1e-10])
@pytest.mark.parametrize("offset", [0.1, -0.1, 0.7])
@pytest.mark.parametrize("alpha", [1.0, 1.702])
def test_the_numbers_of_a_clamp_keep_the_values_that_float32_cannot_hold(
    limit: float, offset: float, alpha: float
) -> None:
    near = np.nextafter(np.float32(limit), np.float32([0, np.inf]))
    numbers = np.concatenate([[-30, -limit, offset, 0.05, limit, 1e30], near]).astype(np.float32)
    gate, value = (grid.ravel() for grid in np.meshgrid(numbers, np.concatenate([numbers, -numbers])))
    x = jnp.asarray(np.concatenate([value, gate]))
    keywords = {"alpha": alpha, "limit": limit, "offset": offset}
    result, pullback = G.vjp(G.clamped_swiglu, x, **keywords)
    g = np.minimum(gate.astype(np.float64), limit)
    v = value.astype(np.float64).clip(-limit, limit) + offset  # exact where it cancels
    exact = g / (1 + np.exp(-alpha * g)) * v
    spacing = np.spacing(np.abs(exact).astype(np.float32).clip(2.0**-126)).astype(np.float64)
    allowed = 5 + 4 * np.abs(alpha * g)  # the contract's, with its allowance for alpha g
    assert np.all(np.abs(np.asarray(result, np.float64) - exact) <= allowed * spacing)
    # The clamp's derivative is 0 or 1 by the limit as it is: float32 is on either side of it.
    in_value, in_gate = np.split(np.asarray(pullback(jnp.ones_like(result))[0]), 2)
    assert np.array_equal(in_gate == 0, (gate.astype(np.float64) > limit) | (v == 0))
    assert np.array_equal(in_value == 0, np.abs(value.astype(np.float64)) > limit)
