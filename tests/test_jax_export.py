"""jax.export: one artifact for every platform, which gives the bits of the call that it was made from."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flatbuffers", reason="an artifact is serialised by flatbuffers")

import jax.numpy as jnp  # noqa: E402
from _jax import assert_same  # noqa: E402
from _jax_export import (  # noqa: E402
    CALLS,
    PLATFORMS,
    arrays,
    assert_same_bits,
    forward,
    pulled,
    pushed,
    read_back,
    symbolic,
)
from jax import export  # noqa: E402

import gated.jax_impl as G  # noqa: E402
import gated.numpy_ref as reference  # noqa: E402
from gated.contract import ARRAY_PARAMETERS  # noqa: E402
from gated.jax_impl.linen import GatedFFN  # noqa: E402


def test_every_public_function_is_tried() -> None:
    assert set(CALLS) == set(ARRAY_PARAMETERS)


@pytest.mark.parametrize("name", CALLS)
def test_one_artifact_serves_every_platform_with_the_bits_of_the_call(name: str) -> None:
    given = arrays(CALLS[name].shapes, "float32")
    read = read_back(pulled(CALLS[name]), *given)
    assert read.platforms == PLATFORMS
    targets = set(re.findall(r"custom_call @([\w.$]+)", read.mlir_module()))
    assert not targets, "operations of StableHLO alone, which are kept readable"
    assert_same_bits(read.call(*given), jax.jit(pulled(CALLS[name]))(*given))


@pytest.mark.parametrize("name", ["relu", "glu", "gated_unit", "gated_ffn"])
def test_the_plain_call_and_the_tangent_are_exported_too(name: str) -> None:
    call = CALLS[name]
    given = arrays(call.shapes, "float32")
    read, read_tangent = read_back(forward(call), *given), read_back(pushed(call), *given)
    assert read.platforms == read_tangent.platforms == PLATFORMS
    assert_same_bits(read.call(*given), jax.jit(forward(call))(*given))
    assert_same_bits(read_tangent.call(*given), jax.jit(pushed(call))(*given))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_dtype_is_exported(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        given = arrays(CALLS["swiglu"].shapes, dtype)
        read = read_back(pulled(CALLS["swiglu"]), *given)
        assert {a.dtype.name for a in read.out_avals} == {dtype}
        assert_same_bits(read.call(*given), jax.jit(pulled(CALLS["swiglu"]))(*given))


# Derivatives of an artifact


def test_an_artifact_carries_its_derivatives() -> None:
    gate, value, _ = arrays(CALLS["gated_unit"].shapes, "float32")
    read = read_back(G.gated_unit, gate, value, vjp_order=2)

    def second(function: Any, gate: Any, value: Any) -> Any:
        """Value, gradients, and the gradients of a sum of theirs."""

        def first(gate: Any, value: Any) -> Any:
            result, pullback = jax.vjp(function, gate, value)
            return result, pullback(jnp.cos(result))

        made, pullback = jax.vjp(first, gate, value)
        return made, pullback(made)

    made, expected = (jax.jit(partial(second, function))(gate, value) for function in (read.call, G.gated_unit))
    assert_same_bits(made, expected)
    # The rule of the unit, and no derivative of its operations: exp(-91.2) * 1e30 is 2.5e-10.
    tails = jnp.full_like(gate, -91.2), jnp.full_like(value, 1e30)
    ones = jnp.ones_like(gate)
    in_gate, _ = jax.vjp(read.call, *tails)[1](ones)
    exact, *_ = reference.vjp(reference.gated_unit, *map(np.asarray, tails))[1](np.asarray(ones))
    assert_same(in_gate, exact, ulps=9)  # the contract's 8 and the reference's


# Symbolic shapes


@pytest.mark.parametrize("name", CALLS)
def test_every_function_its_gradients_and_its_tangent_are_exported_with_symbolic_sizes(name: str) -> None:
    ways = [way(CALLS[name]) for way in (forward, pulled, pushed)]
    sizes = symbolic(CALLS[name].letters, "float32")
    artifact = export.export(jax.jit(lambda *a: [way(*a) for way in ways]), platforms=PLATFORMS)(*sizes)
    out, (_, gradients), (_, tangent) = artifact.out_tree.unflatten(artifact.out_avals)
    assert tangent.shape == out.shape
    assert [a.shape for a in gradients] == [a.shape for a in sizes]


@pytest.mark.parametrize("layout", ["gate_last", "gate_first", "interleaved"])
def test_a_packed_unit_of_symbolic_size_serves_every_size(layout: str) -> None:
    def function(x: Any) -> Any:
        value, pullback = G.vjp(G.bilinear, x, layout=layout)
        return value, pullback(value)

    read = read_back(function, *symbolic(["b, 2*n"], "float32"))
    for size in ((3, 8), (1, 2))[: 2 if layout == "gate_last" else 1]:
        x = arrays([size], "float32")[0]
        assert_same_bits(read.call(x), jax.jit(function)(x))


def test_projections_of_symbolic_sizes_serve_every_size() -> None:
    letters = ("b, s, d", "d, h", "d, h", "d, h", "h", "h")

    def block(x: Any, W: Any, V: Any, W2: Any, b: Any, c: Any) -> Any:
        return G.gated_ffn(x, W, V, W2.T, b, c, activation="identity")

    read = read_back(block, *symbolic(letters, "float32"), vjp_order=2)
    given = arrays([(2, 3, 4), (4, 5), (4, 5), (4, 5), (5,), (5,)], "float32")
    given = [jnp.round(each) for each in given]  # integers: every sum is exact, in any order
    assert_same_bits(read.call(*given), block(*given))


@pytest.mark.parametrize(
    ("function", "letters", "text"),
    [
        (G.swiglu, ("b, n",), "swiglu: x must have an even size along axis 1, got n in shape (b, n)"),
        (G.gated_unit, ("b, n", "b, m"), "gated_unit: value must have the shape of gate, (b, n), got (b, m)"),
        (G.gated_linear, ("b, d", "e, h", "d, h"), "gated_linear: W must have shape (d_in, d_hidden) with d_in = d"),
    ],
)
def test_symbolic_sizes_that_may_not_fit_are_refused(function: Any, letters: tuple[str, ...], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        export.export(jax.jit(function))(*symbolic(letters, "float32"))


# Modules


def test_a_module_is_exported_with_its_parameters_as_an_argument() -> None:
    module = GatedFFN(4, 8, activation="relu", bias=True)
    x = arrays([(3, 4)], "float32")[0]
    parameters = module.init(jax.random.key(0), x)
    read = read_back(module.apply, parameters, x, vjp_order=1)
    assert_same_bits(read.call(parameters, x), jax.jit(module.apply)(parameters, x))
