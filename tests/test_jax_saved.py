"""What is kept for the backward pass: the inputs, and of a projected form the gate and the value too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from _calls import ARRAYS  # noqa: E402
from _jax import ACTIVATIONS, assert_same, residuals, weights  # noqa: E402
from flax import nnx  # noqa: E402

import gated.jax_impl as G  # noqa: E402
from gated.contract import ARRAY_PARAMETERS, DTYPES, LAYOUTS  # noqa: E402
from gated.jax_impl import linen  # noqa: E402
from gated.jax_impl import nnx as gated_nnx  # noqa: E402

GATE_AND_VALUE = [(5, 8), (5, 8)]


def products(f: Callable[..., Any], *arguments: Any) -> tuple[int, int]:
    """The products of matrices in the forward pass and in the backward pass."""
    forward = jax.make_jaxpr(lambda *arguments: jax.vjp(f, *arguments))(*arguments)
    value, pullback = jax.eval_shape(lambda *arguments: jax.vjp(f, *arguments), *arguments)
    backward = jax.make_jaxpr(lambda pullback, cotangent: pullback(cotangent))(pullback, value)
    return count(forward.jaxpr), count(backward.jaxpr)


def count(jaxpr: Any) -> int:
    inner = (
        one for equation in jaxpr.eqns for one in jax.tree.leaves(equation.params, is_leaf=is_jaxpr) if is_jaxpr(one)
    )
    own = sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)
    return own + sum(count(getattr(one, "jaxpr", one)) for one in inner)


def is_jaxpr(one: Any) -> bool:
    return hasattr(one, "eqns") or hasattr(getattr(one, "jaxpr", None), "eqns")


# Activations and units


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_activations_and_units_keep_their_arguments_alone(dtype: str) -> None:
    x, beta = jnp.ones((4, 6), dtype), jnp.full((), 0.5, dtype)
    for name in ("sigmoid", "swish", "silu", "gelu", "relu"):
        assert residuals(getattr(G, name), x=x) == ({"x"}, []), name
    for name in ("glu", "bilinear", "reglu", "geglu", "swiglu", "clamped_swiglu"):
        for layout in LAYOUTS if dtype == "bfloat16" else LAYOUTS[:1]:
            packed = functools.partial(getattr(G, name), layout=layout)
            assert residuals(packed, x=x) == ({"x"}, []), (name, layout)
    assert residuals(G.swiglu, x=x, beta=beta) == ({"x", "beta"}, [])
    assert residuals(jax.jit(G.gated_unit), gate=x, value=x + 1) == ({"gate", "value"}, [])
    for shape in ((), (6,)):
        each = jnp.ones(shape, dtype)
        assert residuals(G.swish, x=x, beta=each) == ({"x", "beta"}, [])
        assert residuals(G.gated_unit, gate=x, value=x + 1, beta=each) == ({"gate", "value", "beta"}, [])
    for activation in ACTIVATIONS:
        unit = lambda gate, value, activation=activation: G.gated_unit(gate, value, activation=activation)  # noqa: E731
        assert residuals(unit, gate=x, value=x + 1) == ({"gate", "value"}, []), activation


# Projected forms


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("bfloat16", "bfloat16"), ("float16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_projected_forms_keep_x_the_weights_and_two_arrays_of_hidden_size(dtype: str, stored: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        a = weights(dtype)
        linear = {name: a[name] for name in ("x", "W", "V", "b", "c")}
        beta = jnp.asarray(0.7, dtype)
        pair = [(shape, stored) for shape in GATE_AND_VALUE]
        assert residuals(G.glu_linear, **linear) == ({"x", "W", "V"}, pair)
        assert residuals(G.swiglu_linear, **linear, beta=beta) == ({"x", "W", "V", "beta"}, pair)
        assert residuals(G.gated_linear, **linear) == ({"x", "W", "V"}, pair)
        assert residuals(G.gated_ffn, **a, beta=beta) == ({"x", "W", "V", "W2", "beta"}, pair)
        assert residuals(lambda x, W2: G.gated_ffn(x, a["W"], a["V"], W2), x=a["x"], W2=a["W2"])[1].count(pair[0]) == 2
        assert residuals(jax.jit(G.gated_ffn), **a) == ({"x", "W", "V", "W2"}, pair)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_no_product_of_matrices_is_computed_twice(dtype: str) -> None:
    a = weights(dtype)
    forms = ["x", "W", "V"], ["x", "W", "V", "W2"]
    assert products(G.gated_linear, *(a[name] for name in forms[0])) == (2, 4)
    assert products(G.gated_ffn, *(a[name] for name in forms[1])) == (3, 6)
    assert products(lambda x: G.gated_ffn(x, a["W"], a["V"], a["W2"]), a["x"]) == (3, 3)


def test_a_half_precision_ffn_has_the_derivatives_at_the_gate_and_value_that_it_keeps() -> None:
    a = weights("bfloat16")
    # Quarters, so that bfloat16 has the cotangent of the hidden product, a sum of six of their halves.
    a["W2"] = jnp.round(a["W2"] * 4) / 4
    wide = {name: jnp.asarray(array, jnp.float32) for name, array in a.items()}
    gate, value = wide["x"] @ wide["W"] + wide["b"], wide["x"] @ wide["V"] + wide["c"]
    cotangent = jnp.full((5, 6), 0.5)
    by_name = dict(zip(a, jax.vjp(G.gated_ffn, *a.values())[1](cotangent.astype(jnp.bfloat16)), strict=True))

    def expected(gate: Any, value: Any) -> dict[str, Any]:
        hidden, pullback = jax.vjp(G.gated_unit, gate, value)
        by_gate, by_value = pullback(cotangent @ wide["W2"].T)
        return {"W2": half(hidden).T @ cotangent, "b": by_gate.sum(0), "c": by_value.sum(0)}

    def agrees(name: str, expected: Any) -> bool:
        # Sums of five terms in float32, the order of which is the compiler's, rounded once: 0.51 ulp.
        ulp = np.asarray(np.spacing(np.abs(expected).astype(jnp.bfloat16)), np.float64)
        return bool(np.all(np.abs(np.asarray(by_name[name], np.float64) - np.asarray(expected)) <= 0.51 * ulp))

    assert all(agrees(name, one) for name, one in expected(half(gate), half(value)).items())
    assert not any(agrees(name, one) for name, one in expected(gate, value).items())


def test_a_gate_beyond_float16_has_the_derivatives_that_float16_has() -> None:
    x, W, V, cotangent = (jnp.full((1, 1), one, jnp.float16) for one in (2.0, 4e4, 1e-3, 2.0**-10))
    gate, value = 8e4, 2 * float(V[0, 0])
    # The gate's sigmoid is 1: the unit is a product, and each derivative one too, rounded once.
    for form in (G.swiglu_linear, lambda *arrays: G.gated_linear(*arrays, activation="identity")):
        by_x, by_W, by_V = jax.vjp(form, x, W, V)[1](cotangent)
        expected = (2 * gate * float(V[0, 0]) / 1024, 2 * value / 1024, 2 * gate / 1024)
        for actual, exact in zip((by_x, by_W, by_V), expected, strict=True):
            assert abs(float(actual[0, 0]) - exact) <= 0.51 * np.spacing(np.asarray(actual))[0, 0]


def half(x: Any) -> Any:
    """Rounded to bfloat16."""
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def through_layers(x: Any, *stack: Any) -> Any:
    return jax.lax.scan(lambda x, one: (x + G.gated_ffn(x, *one), None), x, stack)[0]


def test_what_is_kept_composes_with_transformations() -> None:
    shapes = {"W": (3, 4, 8), "V": (3, 4, 8), "W2": (3, 8, 4), "x": (5, 4)}
    keys = jax.random.split(jax.random.key(0), 4)
    given = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    hidden = [((3, 5, 8), "float32")] * 2
    scanned = residuals(lambda x, W, V, W2: through_layers(x, W, V, W2), **given)
    assert scanned == ({"W", "V", "W2"}, [((3, 5, 4), "float32"), *hidden])
    names, others = residuals(lambda x, W, V, W2: jax.vmap(G.gated_ffn, (None, 0, 0, 0))(x, W, V, W2), **given)
    assert names == set(given)
    assert [(sorted(shape), dtype) for shape, dtype in others] == [([3, 5, 8], "float32")] * 2


def test_an_outer_checkpoint_decides_what_is_residuals() -> None:
    a = {name: array for name, array in weights().items() if name in ("x", "W", "V", "W2")}

    def loss(x: Any, W: Any, V: Any, W2: Any) -> Any:
        return (G.gated_ffn(x, W, V, W2) ** 2).sum()

    def gradients(loss: Any) -> Any:
        return jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*a.values())

    for policy, outputs in ((None, 0), (jax.checkpoint_policies.dots_saveable, 1)):
        outer = jax.checkpoint(loss, policy=policy)
        names, others = residuals(outer, **a)
        assert names == set(a)
        assert others.count(((5, 8), "float32")) == 2 * outputs
        assert others.count(((5, 6), "float32")) == outputs
    for one, other in zip(gradients(jax.checkpoint(loss)), gradients(loss), strict=True):
        assert_same(one, other, ulps=2)


# Modules


@pytest.mark.parametrize(("recompute", "hidden", "again"), [("product", 2, 0), ("all", 0, 2)])
def test_modules_keep_what_they_say_in_the_dtype_of_their_projections(recompute: str, hidden: int, again: int) -> None:
    x = weights("bfloat16")["x"]
    settings = {"beta": 0.7, "learn_beta": True, "bias": True, "recompute": recompute, "dtype": jnp.bfloat16}
    module = gated_nnx.GatedFFN(4, 8, 6, **settings, rngs=nnx.Rngs(0))
    graph, state = nnx.split(module)
    other = linen.GatedFFN(4, 8, 6, **settings)
    for f, parameters in (
        (lambda parameters, x: nnx.merge(graph, parameters)(x), state),
        (lambda parameters, x: other.apply({"params": parameters}, x), nnx.to_pure_dict(state)),
    ):
        _, others = residuals(f, parameters=parameters, x=x)
        assert others.count(((5, 8), "bfloat16")) == hidden
        assert not [one for one in others if one[0] in ((5, 8), (5, 6)) and one[1] != "bfloat16"]
        assert products(f, parameters, x) == (3, 6 + again)


def test_a_gated_linear_module_keeps_its_gate_and_value() -> None:
    x = weights("bfloat16")["x"]
    settings = {"beta": 0.7, "learn_beta": True, "bias": True, "param_dtype": jnp.bfloat16}
    graph, state = nnx.split(gated_nnx.GatedLinear(4, 8, **settings, rngs=nnx.Rngs(0)))
    other = linen.GatedLinear(4, 8, **settings)
    pair = [((5, 8), "bfloat16")] * 2
    assert residuals(lambda state, x: nnx.merge(graph, state)(x), state=state, x=x)[1] == pair
    parameters = nnx.to_pure_dict(state)
    assert (
        residuals(lambda parameters, x: other.apply({"params": parameters}, x), parameters=parameters, x=x)[1] == pair
    )


# Cotangents


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_cotangent_has_the_shape_and_the_dtype_of_its_primal(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        for name, parameters in ARRAY_PARAMETERS.items():
            primals = [jax.ShapeDtypeStruct(ARRAYS[name][each], jnp.dtype(dtype)) for each in parameters]

            def pulled(*primals: Any, name: str = name, parameters: Any = parameters) -> Any:
                function = getattr(G, name)
                value, pullback = jax.vjp(lambda *a: function(**dict(zip(parameters, a, strict=True))), *primals)
                return pullback(value)

            cotangents = jax.eval_shape(pulled, *primals)
            assert [(one.shape, one.dtype, one.weak_type) for one in cotangents] == [
                (one.shape, one.dtype, False) for one in primals
            ], name
