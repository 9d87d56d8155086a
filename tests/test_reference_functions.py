"""The reference's own exponential and erfcx, its constants, and arguments that count for nothing."""

from __future__ import annotations

import numpy as np
import pytest
from flint import arb, ctx
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.numpy_ref import activations
from gated.numpy_ref._erfcx import erfcx
from gated.numpy_ref._exponential import exp
from gated.numpy_ref._pair import Pair

Float64 = NDArray[np.float64]

# Three roundings and an expm1 good to 3 ulp, or nine terms, each of at most 2^-5.8 of the result.
ROUNDOFF = 8 * 2.0**-5.8 * 2.0**-53


def ball(high: float, low: float) -> arb:
    return arb(float(high)) + arb(float(low))


def drawn(scales: tuple[float, ...]) -> Pair:
    rng = np.random.default_rng(5)
    t = np.concatenate([rng.uniform(0, scale, 500) for scale in scales])
    return Pair(t, t * rng.uniform(-1, 1, t.size) * 2.0**-53)


def test_exp_is_good_to_a_fraction_of_a_roundoff() -> None:
    t = -drawn((1e-9, 1.0, 40.0, 750.0, 6000.0))
    result = exp(t)
    with ctx.workprec(200):
        for high, low, exponent, *argument in zip(
            result.mantissa.high, result.mantissa.low, result.exponent, t.high, t.low, strict=True
        ):
            ratio = ball(high, low) * arb(2) ** int(exponent) / ball(*argument).exp()
            assert abs(ratio - 1) < ROUNDOFF, argument


def test_erfcx_is_good_to_a_fraction_of_a_roundoff() -> None:
    t = drawn((0.1, 2.5, 8.0, 61.9))
    # Both ends of every cell, where the series is worst.
    edges = np.concatenate([np.linspace(2.0**k, 2.0 ** (k + 1), 65) - 2 for k in range(1, 6)])[:-1]
    edges = np.concatenate([edges, np.nextafter(edges[1:], 0)])
    t = Pair(np.concatenate([t.high, edges]), np.concatenate([t.low, 0 * edges]))
    result = erfcx(t)
    with ctx.workprec(400):
        for high, low, *argument in zip(result.high, result.low, t.high, t.low, strict=True):
            m = ball(*argument)
            # e^(m^2) erfc(m) needs no cancellation in balls of enough precision.
            ratio = ball(high, low) / ((m * m).exp() * m.erfc())
            assert abs(ratio - 1) < ROUNDOFF, argument


@pytest.mark.parametrize("name", ["SQRT_HALF", "INVERSE_SQRT_2PI", "SLOPE", "CUBIC", "THREE_CUBIC"])
def test_constants_have_a_hundred_bits(name: str) -> None:
    given: Pair = getattr(activations, name)
    with ctx.workprec(200):
        expected = {
            "SQRT_HALF": 1 / arb(2).sqrt(),
            "INVERSE_SQRT_2PI": 1 / (2 * arb.pi()).sqrt(),
            "SLOPE": 2 * (2 / arb.pi()).sqrt(),
            "CUBIC": arb(44715) / 10**6,
            "THREE_CUBIC": arb(134145) / 10**6,
        }[name]
        assert abs(ball(given.high, given.low) / expected - 1) < 2.0**-104


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "relu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("value", [1.0, np.inf, np.nan])
def test_beta_counts_for_swish_alone(activation: str, value: float, dtype: str) -> None:
    gate, half, one = (np.array([number], dtype) for number in (1.5, value, 1.0))
    for beta in (np.array([np.inf], dtype), np.array(np.nan, dtype), np.inf, 0.5):
        _, pullback = reference.vjp(reference.gated_unit, gate, half, beta, activation=activation)
        for cotangent in (one, half):
            dbeta = pullback(cotangent)[2]
            assert dbeta.shape == np.shape(beta) and dbeta.dtype == gate.dtype
            assert np.all(dbeta == 0)
        moved = (one, one, beta)
        _, tangent = reference.jvp(reference.gated_unit, (gate, half, beta), moved, activation=activation)
        _, without = reference.jvp(reference.gated_unit, (gate, half), moved[:2], activation=activation, beta=beta)
        np.testing.assert_array_equal(tangent, without)
