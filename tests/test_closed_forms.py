"""The closed forms against differences of the values, and the carried bounds of the projected forms against errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from _bounds import analytic_radius, central_difference, difference_bound
from numpy.typing import NDArray
from strategies import Backend, backend, every_backend

import gated.numpy_ref as reference
from gated.conformance import carried, oracle
from gated.conformance.bounds import ceiling, elementwise_bound
from gated.conformance.carried import projection_bounds
from gated.conformance.closed_forms import FloatMath, activation_condition, activation_terms
from gated.conformance.error import FORMATS
from gated.contract import ACTIVATIONS, DTYPES

Float64 = NDArray[np.float64]

BETAS = (1.0, -1.5, 0.1, 10.0)
SMOOTH = [(activation, beta) for activation in ("sigmoid", "gelu", "gelu_tanh") for beta in (1.0,)]
SMOOTH += [("swish", beta) for beta in BETAS]


def summed(activation: str, partial: str, x: Float64, beta: Float64 | float) -> Float64:
    return np.sum(np.broadcast_arrays(*activation_terms(FloatMath(), activation, partial, x, beta)), axis=0)


def points() -> Float64:
    return np.concatenate([np.linspace(-8, 8, 641), [-1.2784645427610738, -0.7517915246935645, -1e-9, 0.0]])


# The terms


@pytest.mark.parametrize(("activation", "beta"), SMOOTH)
def test_the_terms_of_a_derivative_add_up_to_the_slope_of_the_value(activation: str, beta: float) -> None:
    x = points()
    radius = analytic_radius(activation, x, beta)
    h = radius / 64
    slope = central_difference(lambda t: summed(activation, "value", t, beta), x, h)
    largest = 2.0 * (1 if activation == "sigmoid" else np.abs(x) + radius)
    # The terms themselves are good to a few ulp of the largest, which is at most 1.3.
    bound = difference_bound(radius, h, largest, ulps=16) + 64 * 2.0**-52
    assert np.all(np.abs(slope - summed(activation, "x", x, beta)) <= bound)
    assert np.max(bound) < 1e-8


@pytest.mark.parametrize("beta", [1.0, -1.5, 0.1, 0.0])
def test_the_term_of_the_beta_derivative_is_the_slope_in_beta(beta: float) -> None:
    x = points()
    x = x[np.abs(x) > 1e-3]
    radius = np.pi / 2 / np.abs(x)
    h = radius / 64
    slope = central_difference(lambda b: summed("swish", "value", x, b), np.full_like(x, beta), h)
    bound = difference_bound(radius, h, np.abs(x), ulps=16) + 64 * 2.0**-52 * x * x
    assert np.all(np.abs(slope - summed("swish", "beta", x, beta)) <= bound)


def test_the_derivatives_of_the_piecewise_linear_are_exact() -> None:
    x = np.array([-2.0, -1e-300, -0.0, 0.0, 1e-300, 2.0])
    assert summed("identity", "value", x, 1.0).tolist() == x.tolist()
    assert summed("identity", "x", x, 1.0).tolist() == [1.0] * 6
    assert summed("relu", "value", x, 1.0).tolist() == [0, 0, 0, 0, 1e-300, 2]
    assert summed("relu", "x", x, 1.0).tolist() == [0, 0, 0, 0, 1, 1]


def test_only_swish_moves_with_beta() -> None:
    x = points()
    for activation in ACTIVATIONS:
        assert np.any(summed(activation, "beta", x, 1.0) != 0) == (activation == "swish")


@pytest.mark.parametrize(("activation", "beta"), [*SMOOTH, ("identity", 1.0), ("relu", 1.0)])
@pytest.mark.parametrize("partial", ["value", "x", "beta"])
def test_the_terms_in_float64_are_those_in_balls(activation: str, beta: float, partial: str) -> None:
    # FloatMath keeps arguments within 700: gelu_tanh's is there up to about 21.
    x = np.concatenate([points(), np.linspace(-20, 20, 61)])
    ones = np.ones_like(x)
    exact = oracle.exact_sums(oracle.unit_terms(activation, partial), ones, x, ones, ones * beta)
    terms = np.abs(np.stack(np.broadcast_arrays(*activation_terms(FloatMath(), activation, partial, x, beta))))
    # A few ulp a function, and e^-t amplifies half an ulp of t into t halves: up to 600 for gelu_tanh at -20.
    assert np.all(np.abs(np.max(terms, axis=0) - exact[2]) <= 1e-12 * exact[2])
    assert np.all(np.abs(summed(activation, partial, x, beta) - exact[0]) <= 1e-12 * exact[2])


# The conditions


def moved_argument(activation: str, partial: str, x: Float64, beta: float, relative: Float64 | float) -> Float64:
    """The function with the argument of its exponential, wherever it stands, off by the factor 1 + relative."""
    m = FloatMath()
    moved = 1 + relative
    s, phi = m.sigmoid, m.normal_pdf
    if activation == "gelu":
        y = x * moved
        return x * m.normal_cdf(y) if partial == "value" else m.normal_cdf(y) + y * phi(y)
    w = beta * x if activation == "swish" else 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    t = w * moved
    if partial == "value":
        return x * s(t)
    if partial == "beta":
        return x * x * s(t) * s(-t)
    # swish: z stands before the exponential too; gelu_tanh: x w' does, and is not rounded with w.
    factor = t if activation == "swish" else x * (2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x * x))
    return s(t) + factor * s(t) * s(-t)


@pytest.mark.parametrize(
    ("activation", "partial", "beta"),
    [("gelu", "value", 1.0), ("gelu", "x", 1.0), ("gelu_tanh", "value", 1.0), ("gelu_tanh", "x", 1.0)]
    + [("swish", partial, beta) for partial in ("value", "x", "beta") for beta in (-1.5, 0.1, 10.0)],
)
def test_the_condition_is_what_a_moved_argument_does(activation: str, partial: str, beta: float) -> None:
    x = np.linspace(-7, 7, 281)
    x = x[np.abs(x) > 1e-6]
    h = np.full_like(x, 2.0**-9)
    slope = central_difference(lambda e: moved_argument(activation, partial, x, beta, e), np.zeros_like(x), h)
    terms = np.abs(np.stack(np.broadcast_arrays(*activation_terms(FloatMath(), activation, partial, x, beta))))
    numeric = np.abs(slope) / np.max(terms, axis=0)
    condition = activation_condition(activation, partial, x, beta)
    # Arguments reach 70 here, so h times them is at most 0.14: the truncation is below (0.14)^9 / 630, relative, and
    # the rounding below 2^-52 * 70 * 2^9.
    assert np.all(np.abs(numeric - condition) <= 1e-8 * (1 + condition))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("partial", ["value", "x", "beta"])
def test_no_allowance_where_nothing_is_rounded(activation: str, partial: str) -> None:
    if activation not in ("gelu", "gelu_tanh"):
        assert not np.any(activation_condition(activation, partial, points(), 1.0))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bounds_are_those_of_the_design(activation: str, dtype: str) -> None:
    x = points()
    for name in ("numpy", "torch", "jax"):
        for gradient in (False, True):
            if dtype in ("float16", "bfloat16") or (name == "numpy" and dtype == "float32"):
                expected = 0.51
            elif name == "numpy":
                expected = 8.0 if activation in ("gelu", "gelu_tanh") else (6.0 if gradient else 4.0)
            else:
                expected = 8.0 if gradient else 5.0
            assert ceiling(name, dtype, gradient=gradient, activation=activation) <= expected
            for beta in (1.0, 0.5):
                bound = elementwise_bound(
                    name, dtype, activation=activation, partial="value", gate=x, beta=beta, gradient=gradient
                )
                allowed = name != "numpy" and dtype in ("float32", "float64")
                extra = 4 * activation_condition(activation, "value", x, beta) if allowed else 0.0
                assert np.all(bound <= expected + extra)


# The constants of the carried bounds


def dense() -> Float64:
    return np.concatenate([np.linspace(-12, 12, 400_001), np.linspace(-1e-3, 1e-3, 2001)])


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "gelu_tanh", "swish"])
def test_no_second_derivative_exceeds_its_constant(activation: str) -> None:
    x = dense()
    h = np.full_like(x, 2.0**-6)
    second = np.abs(central_difference(lambda t: summed(activation, "x", t, 1.0), x, h))
    # 8th order with h = 2^-6: the truncation, h^8 / 630 |f^(10)| with |f^(10)| < 1e6, is below 1e-11.
    assert np.max(second) <= carried._CURVATURE[activation] + 1e-9
    assert np.max(second) >= carried._CURVATURE[activation] * 0.999


def test_no_slope_of_the_beta_derivative_exceeds_its_constants() -> None:
    z = dense()
    h = np.full_like(z, 2.0**-6)
    slope = np.abs(central_difference(lambda t: summed("swish", "beta", t, 1.0), z, h))
    assert carried._BETA_SLOPE * 0.999 <= np.max(slope) <= carried._BETA_SLOPE + 1e-9
    # The other bound, |x| / 2.
    assert np.all(slope <= np.abs(z) / 2 + 1e-9)


# The carried bounds

SHAPES = {"x": (8, 12), "W": (12, 16), "V": (12, 16), "W2": (16, 6), "b": (16,), "c": (16,), "b2": (6,)}


def ffn_arguments(dtype: str, seed: int) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]:
    """A feed-forward block's arrays, a beta a channel and a cotangent, in a dtype."""
    rng = np.random.default_rng(seed)
    form = FORMATS[dtype]

    def drawn(shape: tuple[int, ...]) -> NDArray[Any]:
        return (rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) == 2 else 2)).astype(form.dtype)

    arguments = {name: drawn(shape) for name, shape in SHAPES.items()}
    return arguments, rng.uniform(-1, 2, 16).astype(form.dtype), drawn((8, 6))


def errors_over_bounds(
    one: Backend, dtype: str, activation: str, seed: int, *, swapped: bool = False
) -> dict[str, Float64]:
    """|computed - exact| over the carried bound, of the value and of every cotangent."""
    arguments, beta, cotangent = ffn_arguments(dtype, seed)
    wide = {name: array.astype(np.float64) for name, array in arguments.items()}
    wide_beta, wide_cotangent = beta.astype(np.float64), cotangent.astype(np.float64)
    exact = oracle.exact_projection(wide, wide_cotangent, activation=activation, beta=wide_beta)
    bounds = projection_bounds(one.name, dtype, dict(wide), wide_cotangent, activation=activation, beta=wide_beta)
    if swapped:
        arguments |= {"W": arguments["V"], "V": arguments["W"]}
    value, cotangents = one.vjp("gated_ffn", [*arguments.values(), beta], cotangent, activation=activation)
    ratios = {}
    for name, result in zip(("value", *arguments, "beta"), (value, *cotangents), strict=True):
        high, low = exact[name]
        assert result.shape == high.shape and result.dtype == FORMATS[dtype].dtype
        distance = np.abs((result.astype(np.float64) - high) - low)
        ratios[name] = np.divide(
            distance, bounds[name], out=np.where(distance > 0, np.inf, 0.0), where=bounds[name] > 0
        )
    return ratios


@every_backend
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["swish", "gelu", "relu"])
def test_the_carried_bounds_hold_and_are_not_vacuous(backend_name: str, dtype: str, activation: str) -> None:
    one = backend(backend_name)
    if backend_name == "jax" and dtype != "float32" and activation != "swish":
        return  # one rule behind all names, which JAX compiles for each
    for seed in range(3):
        ratios = errors_over_bounds(one, dtype, activation, seed)
        for name, ratio in ratios.items():
            assert np.all(ratio <= 1), (name, np.max(ratio))
        if activation == "relu" or backend_name == "numpy":
            continue
        for name in ("value", "x", "W", "V", "W2", "b", "c"):
            # Errors of ordinary rounding are within a factor of 10^4 of their bound.
            assert np.max(ratios[name]) >= 1e-4, name


@every_backend
@pytest.mark.parametrize("activation", ["sigmoid", "swish", "gelu"])
def test_swapped_weights_break_the_bounds_a_hundredfold(backend_name: str, activation: str) -> None:
    ratios = errors_over_bounds(backend(backend_name), "float32", activation, 0, swapped=True)
    for name in ("value", "x", "W", "V", "W2", "b", "c"):
        assert np.max(ratios[name]) >= 100, name
        assert np.median(ratios[name]) >= 100, name


@pytest.mark.parametrize("activation", ["swish", "gelu", "gelu_tanh", "sigmoid"])
def test_the_bounds_cover_rounded_intermediates(activation: str) -> None:
    """A forward pass that rounds every intermediate to bfloat16, as a framework's layers do, is within the bounds."""
    form = FORMATS["bfloat16"]

    def r(t: Float64) -> Float64:
        return t.astype(np.float32).astype(form.dtype).astype(np.float64)

    for seed in range(3):
        arguments, _, cotangent = ffn_arguments("bfloat16", seed)
        a = {name: array.astype(np.float64) for name, array in arguments.items()}
        gate, value = r(r(a["x"] @ a["W"]) + a["b"]), r(r(a["x"] @ a["V"]) + a["c"])
        hidden = r(summed(activation, "value", gate, 1.0) * value)
        result = r(r(hidden @ a["W2"]) + a["b2"])
        exact = reference.gated_ffn(*a.values(), activation=activation)
        bound = projection_bounds(
            "torch", "bfloat16", dict(a), cotangent.astype(np.float64), activation=activation, beta=np.array(1.0)
        )["value"]
        assert np.all(np.abs(result - exact) <= bound)


def test_the_bounds_cover_a_bias_that_the_product_starts_from() -> None:
    """A fused product adds its k terms to the bias one by one: k roundings of the size of the bias, not one."""
    rng = np.random.default_rng(9)
    rows, k, width = 64, 16, 4
    a = {
        name: rng.uniform(0.5, 1, shape).astype(np.float32)
        for name, shape in {"x": (rows, 1), "W": (1, k), "V": (1, k), "W2": (k, width)}.items()
    }
    a |= {"b": np.zeros(k, np.float32), "c": np.zeros(k, np.float32), "b2": np.full(width, 100.0, np.float32)}
    wide = {name: array.astype(np.float64) for name, array in a.items()}
    exact = reference.gated_ffn(*wide.values(), activation="identity")
    hidden = (a["x"] @ a["W"]) * (a["x"] @ a["V"])
    result = np.broadcast_to(a["b2"], (rows, width))
    for j in range(k):
        result = result + hidden[:, j : j + 1] * a["W2"][j]
    bounds = projection_bounds(
        "torch", "float32", dict(wide), np.ones((rows, width)), activation="identity", beta=np.array(1.0)
    )
    assert result.dtype == np.float32
    assert np.all(np.abs(result.astype(np.float64) - exact) <= bounds["value"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("activation", "beta"), [("swish", 2.0), ("gelu", 1.0), ("gelu_tanh", 1.0)])
def test_nothing_is_allowed_where_a_rounded_argument_changes_nothing(activation: str, beta: float, dtype: str) -> None:
    """e^-t times any three numbers of the dtype and a cotangent is zero beyond some t: so must the result be."""
    gate = -np.array([1.0, 10.0, 1e4, 1e30])
    keywords = {"activation": activation, "partial": "value", "beta": beta, "gradient": False}
    near, far, *beyond = elementwise_bound("torch", dtype, gate=gate, **keywords)
    assert 5 < near < far
    assert beyond == [5, 5]
