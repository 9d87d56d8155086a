"""The reference alone: all 16-bit inputs, samples of the wider dtypes against the oracle, memory, strides, blocks."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import SPECS, Spec, pack, strided

import gated.numpy_ref as reference
from gated.conformance import inputs
from gated.conformance.bounds import ceiling
from gated.conformance.closed_forms import FloatMath, activation_terms
from gated.conformance.error import FORMATS, error_in_ulp
from gated.conformance.oracle import exact_sums, unit_terms
from gated.numpy_ref import _arrays

Array = NDArray[Any]
Float64 = NDArray[np.float64]

UNARY = [spec for spec in SPECS if spec.kind == "unary" and spec.function != "silu"]
BETAS = (1.0, 0.1, -1.5, 0.0)
UNARY_BETAS = [(spec, beta) for spec in UNARY for beta in (BETAS if spec.has_beta else (1.0,))]


def truth(activation: str, partial: str, x: Float64, beta: float) -> tuple[Float64, Float64]:
    """The sum of the closed form's terms in float64, and the largest; at the infinities by the table of limits."""
    with np.errstate(all="ignore"):
        terms = np.stack(np.broadcast_arrays(*activation_terms(FloatMath(), activation, partial, x, beta), x)[:-1])
        total, scale = np.sum(terms, axis=0), np.max(np.abs(terms), axis=0)
        zero = 0.0 * np.nan_to_num(x)
    total = np.where(np.isnan(x), x, total)
    rising = (np.signbit(x) == (beta < 0)) if activation == "swish" else x > 0
    if activation == "swish" and beta == 0:
        limits = {"value": x, "x": np.full_like(x, 0.5), "beta": np.full_like(x, np.inf)}[partial]
    else:
        top = 1.0 if activation == "sigmoid" else x
        limits = {
            "value": np.where(rising, top, 0.0 if activation in ("sigmoid", "relu") else zero),
            "x": np.where(rising & (activation != "sigmoid"), 1.0, 0.0),
            "beta": np.zeros_like(x),
        }[partial]
    total = np.where(np.isinf(x), limits, total)
    return total, np.where(np.isinf(x), 0.0, scale)


# All inputs of the 16-bit dtypes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("spec", "beta"), UNARY_BETAS, ids=str)
def test_every_16_bit_input_is_correctly_rounded(spec: Spec, beta: float, dtype: str) -> None:
    form = FORMATS[dtype]
    x = inputs.all_patterns(form)
    with np.errstate(invalid="ignore"):  # signalling nans
        wide = x.astype(np.float64)
    primals = (x, np.full(x.shape, beta, form.dtype)) if spec.has_beta else (x,)
    if spec.has_beta:
        beta = float(primals[1].astype(np.float64)[0])
    value, pullback = reference.vjp(getattr(reference, spec.function), *primals, **dict(spec.keywords))
    cotangents = pullback(np.ones_like(x))
    results = {"value": value, "x": cotangents[0]} | ({"beta": cotangents[1]} if spec.has_beta else {})
    for partial, result in results.items():
        exact, scale = truth(spec.activation, partial, wide, beta)
        # Signs of zeros: products keep them, which float64 sums of terms do not.
        error = error_in_ulp(result, exact, form=form, scale=scale, zero_signs=False)
        # 0.51 is the contract. Past half an ulp lie only the ties that float64 cannot tell: its error, 2^-43 of the
        # largest term (the exponential's argument is at most 700, a function off by 16 ulp), in ulp of 2^-11.
        assert np.max(error) <= 0.5 + 2.0**-32
        # A derivative that cancels is rounded correctly too, which is more than the contract asks.
        own = error_in_ulp(result, exact, form=form, zero_signs=False)
        cancelled = np.abs(exact) < 2.0**-20 * scale
        assert np.max(np.where(cancelled, 0.0, own)) <= 0.5 + 2.0**-12


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish"])
def test_a_unit_of_every_16_bit_gate_is_correctly_rounded(activation: str, dtype: str) -> None:
    form = FORMATS[dtype]
    gate = inputs.all_patterns(form)
    gate = gate[np.isfinite(gate.astype(np.float32))]
    value = np.random.default_rng(0).permutation(gate)
    result = reference.gated_unit(gate, value, activation=activation)
    exact, _ = truth(activation, "value", gate.astype(np.float64), 1.0)
    exact = exact * value.astype(np.float64)
    assert np.max(error_in_ulp(result, exact, form=form, zero_signs=False)) <= 0.5 + 2.0**-32


# Samples of the wider dtypes against the oracle


# The last rounding, and a few roundings at 2^-5.8 (erfcx, exp) of an ulp of one or two factors. The contract asks less.
OWN = 0.5 + 4 * 2.0**-5.8


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish"])
def test_samples_of_every_binade_meet_the_contract(activation: str, dtype: str) -> None:
    form = FORMATS[dtype]
    rng = np.random.default_rng([3, len(activation)])
    gate, value = inputs.pairs(form, rng, 1200)
    beta = inputs.betas(form, rng, len(gate)) if activation == "swish" else np.ones_like(gate)
    cotangent = inputs.cotangents(form, rng, len(gate))
    finite = np.isfinite(gate) & np.isfinite(value)
    gate, value, beta, cotangent = (one[finite] for one in (gate, value, beta, cotangent))
    result, pullback = reference.vjp(reference.gated_unit, gate, value, beta, activation=activation)
    computed = dict(zip(("x", "half", "beta"), pullback(cotangent), strict=True)) | {"value": result}
    g, v, b, c = (one.astype(np.float64) for one in (gate, value, beta, cotangent))
    ones = np.ones_like(g)
    for name, partial, outer, inner in (
        ("value", "value", ones, v),
        ("x", "x", c, v),
        ("half", "value", c, ones),
        ("beta", "beta", c, v),
    ):
        high, low, scale = exact_sums(unit_terms(activation, partial), outer, g, inner, b)
        # Balls do not know the sign of an exact zero.
        high = np.where(high == 0, np.copysign(high, computed[name].astype(np.float64)), high)
        error = error_in_ulp(computed[name], high, low, form=form, scale=scale)
        bound = ceiling("numpy", dtype, gradient=name != "value", activation=activation)
        judged = np.isfinite(scale)
        assert np.max(np.where(judged, error, 0.0)) <= bound, name
        normal = judged & (np.abs(high) >= FORMATS["float64"].smallest_normal)
        assert np.max(np.where(normal, error, 0.0)) <= min(bound, OWN), name
        assert np.mean(judged) > 0.7


# Memory


def extra_memory(call: Callable[[], Any]) -> tuple[int, int]:
    """The peak of memory that a call takes beyond its results, and the size of the results."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        results = call()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del results
    return peak - after, after - before


SIZE = 2**22
# A formula holds some forty float64 arrays of a block at once.
ALLOWED = 48 * 8 * _arrays.BLOCK


@pytest.mark.parametrize("function", ["swish", "swiglu", "vjp of swiglu", "jvp of swiglu"])
def test_extra_memory_is_a_few_blocks_whatever_the_size(function: str) -> None:
    x = np.linspace(-9, 9, SIZE, dtype=np.float32).reshape(2, -1)
    if function == "vjp of swiglu":
        value, pullback = reference.vjp(reference.swiglu, x)
        extra, size = extra_memory(lambda: pullback(value))
    elif function == "jvp of swiglu":
        extra, size = extra_memory(lambda: reference.jvp(reference.swiglu, (x,), (x,)))
    else:
        extra, size = extra_memory(lambda: getattr(reference, function)(x))
    assert size >= x.nbytes // 2
    assert extra <= ALLOWED, f"{extra / 2**20:.1f} MiB beyond the result"


# The axes of x before the last, d_in and d_hidden: a weight, or x, is larger in float32 than what a call may hold.
PROJECTED = {"large weights": ((128,), 512, 6144), "many rows": ((256, 512), 16, 16)}


@pytest.mark.parametrize("kind", ["value", "vjp", "jvp"])
@pytest.mark.parametrize("case", PROJECTED)
def test_a_projection_holds_a_few_blocks_however_large_x_and_the_weights(case: str, kind: str) -> None:
    leading, d_in, d_hidden = PROJECTED[case]
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Array:
        return rng.standard_normal(shape, np.float32)

    # The axes of x are swapped, so that a reshape to rows would copy it.
    x = drawn(*leading[::-1], d_in).swapaxes(0, -2)
    beta = drawn(*leading, d_hidden)
    primals = (x, drawn(d_in, d_hidden), drawn(d_in, d_hidden), drawn(d_hidden, d_in), None, None, None, beta)
    # A tile is 128 by 128 gates of large weights, and 1024 by 16 of many rows.
    side = min(d_hidden, math.isqrt(_arrays.BLOCK))
    strip = d_in * _arrays.BLOCK // side
    # Rows of x and y, columns of W and V, rows of W2, or the sums of the weights' cotangents and the products added to
    # them, with the temporaries of rounding one: ten strips at once. And the formula's arrays, as above.
    allowed = 10 * 8 * strip + ALLOWED
    assert allowed < 4 * max(x.size, primals[1].size), "a copy would not show"
    if kind == "value":
        extra, size = extra_memory(lambda: reference.gated_ffn(*primals[:7], beta=beta))
    elif kind == "vjp":
        _, pullback = reference.vjp(reference.gated_ffn, *primals)
        extra, size = extra_memory(lambda: pullback(x))
    else:
        extra, size = extra_memory(lambda: reference.jvp(reference.gated_ffn, primals, primals))
    assert size >= 4 * x.size
    assert extra <= allowed, f"{extra / 2**20:.1f} of {allowed / 2**20:.1f} MiB beyond the result"


# Strides and blocks


def sample(spec: Spec, dtype: str) -> tuple[Array, ...]:
    """Arguments of 60 elements, from all over the dtype."""
    form = FORMATS[dtype]
    rng = np.random.default_rng(4)
    gate, value = (rng.permutation(one)[:60].reshape(3, 4, 5) for one in inputs.pairs(form, rng, 2000))
    if spec.kind == "unary":
        return (gate,)
    return (gate, value) if spec.kind == "pair" else (pack(gate, value, -1, "gate_last"),)


def all_results(spec: Spec, primals: tuple[Array, ...]) -> list[Array]:
    keywords = dict(spec.keywords)
    value, pullback = reference.vjp(getattr(reference, spec.function), *primals, **keywords)
    tangent = reference.jvp(getattr(reference, spec.function), primals, primals, **keywords)[1]
    cotangent = np.linspace(-2, 2, value.size).reshape(value.shape).astype(value.dtype)
    return [value, tangent, *pullback(cotangent)]


def same_bits(a: Array, b: Array) -> bool:
    bits = FORMATS[a.dtype.name].bits
    nan = np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64))
    return bool(np.all((np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)) | nan))


@pytest.mark.parametrize("dtype", list(FORMATS))
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_any_strides_give_the_same_bits(spec: Spec, dtype: str) -> None:
    primals = sample(spec, dtype)
    expected = all_results(spec, primals)

    @settings(max_examples=4)
    @given(st.data())
    def check(data: Any) -> None:
        views = tuple(data.draw(strided(one)) for one in primals)
        assert all(map(same_bits, expected, all_results(spec, views)))

    check()


@pytest.mark.parametrize("dtype", list(FORMATS))
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_any_block_size_gives_the_same_bits(spec: Spec, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    primals = sample(spec, dtype)
    expected = all_results(spec, primals)
    original = _arrays.blocks
    for size in (1, 7, 15, 32):

        def blocks(shape: tuple[int, ...], size: int = size) -> Any:
            return original(shape, size)

        monkeypatch.setattr(_arrays, "blocks", blocks)
        assert all(map(same_bits, expected, all_results(spec, primals)))


@settings(max_examples=60)
@given(shape=st.lists(st.integers(0, 5), max_size=4).map(tuple), size=st.integers(1, 40))
def test_blocks_cover_every_element_once(shape: tuple[int, ...], size: int) -> None:
    seen = np.zeros(shape, int)
    for index in _arrays.blocks(shape, size):
        seen[index] += 1
        assert seen[index].size <= size
    assert np.all(seen == 1)


def test_a_scalar_beta_is_summed_over_blocks() -> None:
    x = np.linspace(-4, 4, 50_000, dtype=np.float32).reshape(2, -1)
    for beta in (0.7, np.float32(0.7) * np.ones((), np.float32), np.full((2, 1), 0.7, np.float32)):
        _, pullback = reference.vjp(reference.swish, x, beta)
        dbeta = pullback(np.ones_like(x))[1]
        wide = x.astype(np.float64)
        terms = activation_terms(FloatMath(), "swish", "beta", wide, np.asarray(beta, np.float64))[0]
        expected = terms.sum(axis=1, keepdims=True) if np.ndim(beta) else terms.sum()
        assert dbeta.shape == np.shape(beta) and dbeta.dtype == np.float32
        # n u sum |terms| in float64 is far below the one rounding to float32.
        assert np.all(error_in_ulp(dbeta, expected, form=FORMATS["float32"]) <= 0.51)
