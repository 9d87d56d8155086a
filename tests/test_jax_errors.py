"""What only JAX can be given that is wrong: tracers, keys, references. The contract's errors, at trace time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from _bad_calls import DTYPES, GATE, SOME_ARRAY, WITH_BETA  # noqa: E402
from _calls import ARRAYS, NATIVES, Array, call  # noqa: E402
from jax import lax  # noqa: E402

import gated.jax_impl as G  # noqa: E402 - G as the design has it

BACKEND = NATIVES["jax"]("jax")
ARGUMENTS = [(function, name) for function, shapes in ARRAYS.items() for name in shapes]
Run = Callable[..., Any]


def stacked(arrays: Any) -> list[Any]:
    return [jnp.stack([one, one]) for one in arrays]


# How a function comes to see tracers: of one example, under vmap, map and scan.
WAYS: dict[str, Callable[[Run, list[Any]], Any]] = {
    "jit": lambda fn, arrays: jax.jit(fn)(*arrays),
    "lower": lambda fn, arrays: jax.jit(fn).lower(*arrays),
    "eval_shape": lambda fn, arrays: jax.eval_shape(fn, *arrays),
    "make_jaxpr": lambda fn, arrays: jax.make_jaxpr(fn)(*arrays),
    "grad": lambda fn, arrays: jax.grad(lambda *a: fn(*a).sum(), range(len(arrays)))(*arrays),
    "vjp": lambda fn, arrays: jax.vjp(fn, *arrays),
    "jvp": lambda fn, arrays: jax.jvp(fn, tuple(arrays), tuple(arrays)),
    "linearize": lambda fn, arrays: jax.linearize(fn, *arrays),
    "checkpoint": lambda fn, arrays: jax.checkpoint(fn)(*arrays),
    "vmap": lambda fn, arrays: jax.vmap(fn)(*stacked(arrays)),
    "vmap of grad": lambda fn, arrays: jax.vmap(jax.grad(lambda *a: fn(*a).sum()))(*stacked(arrays)),
    "map": lambda fn, arrays: lax.map(lambda each: fn(*each), stacked(arrays)),
    "scan": lambda fn, arrays: lax.scan(lambda carry, each: (carry, fn(*each)), 0, stacked(arrays)),
    "while_loop": lambda fn, arrays: lax.while_loop(lambda s: s < 1, lambda s: s + fn(*arrays).sum(), 0.0),
    "cond": lambda fn, arrays: lax.cond(True, fn, fn, *arrays),
    "closed over": lambda fn, arrays: jax.jit(lambda: jax.jit(lambda *a: fn(*a, arrays[-1]))(*arrays[:-1]))(),
}


def text_of(error: type[Exception], attempt: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        attempt()
    assert type(caught.value) is error
    return str(caught.value)


def traced(function: str, changes: dict[str, Any], way: str) -> Callable[[], object]:
    """The call of a function, its arrays passed through a transform."""
    arguments = BACKEND.built(call(function) | changes)
    names = list(arguments)
    fn = lambda *arrays: BACKEND[function](**dict(zip(names, arrays, strict=True)))  # noqa: E731
    return lambda: WAYS[way](fn, list(arguments.values()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", WITH_BETA)
def test_a_traced_beta_of_a_wrong_shape_is_named_at_trace_time(function: str, way: str) -> None:
    gate = GATE[function]
    for shape in ((4,), (3, 2), (1, *gate), (2, 1, 1)):
        text = f"beta must broadcast to the shape of the gate, {gate}, without enlarging it, got {shape}"
        attempt = traced(function, {"beta": Array(shape)}, way)
        assert text_of(ValueError, attempt) == f"{function}: {text}"


@pytest.mark.parametrize("way", ["jit", "grad", "vmap", "scan"])
@pytest.mark.parametrize("function", WITH_BETA)
def test_a_traced_beta_of_a_wrong_dtype_is_named(function: str, way: str) -> None:
    first = next(iter(ARRAYS[function]))
    attempt = traced(function, {"beta": Array((), "bfloat16")}, way)
    text = f"{function}: beta must have the dtype of {first}, float32, got bfloat16"
    assert text_of(TypeError, attempt) == text


@pytest.mark.parametrize("way", ["jit", "jvp", "vmap", "scan", "checkpoint"])
def test_shapes_that_do_not_fit_are_named_with_those_of_one_example(way: str) -> None:
    for function, changes, text in (
        ("glu", {"x": Array((2, 5))}, "x must have an even size along axis 1, got 5 in shape (2, 5)"),
        ("gated_unit", {"value": Array((2, 1))}, "value must have the shape of gate, (2, 3), got (2, 1)"),
        ("gated_ffn", {"b2": Array((4,))}, "b2 must have shape (d_out,) with d_out = 5, got (4,)"),
    ):
        assert text_of(ValueError, traced(function, changes, way)) == f"{function}: {text}"


# What an argument is, and what the error says of it


def refused_arrays() -> dict[str, Any]:
    ones = jnp.ones((2, 6))
    return {
        "key<fry>": jax.random.split(jax.random.key(0), 2),
        "uint32": jax.random.PRNGKey(0),
        "complex64": ones + 0j,
        "float8_e5m2": ones.astype(jnp.float8_e5m2),
        "int4": ones.astype(jnp.int4),
        "bool": ones > 0,
    }


@pytest.mark.parametrize("dtype", refused_arrays())
@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_arrays_of_dtypes_that_jax_has_beside_numbers_are_refused(function: str, name: str, dtype: str) -> None:
    arguments = BACKEND.built(call(function)) | {name: refused_arrays()[dtype]}
    for run in (BACKEND[function], lambda **given: jax.eval_shape(BACKEND[function], **given)):
        text = text_of(TypeError, lambda run=run: run(**arguments))
        assert text == f"{function}: {name} must have dtype {DTYPES}, got {dtype}"


def no_arrays() -> dict[str, Any]:
    from flax import nnx
    from jax.experimental.sparse import BCOO

    ones = np.ones((2, 6), np.float32)
    return {
        "numpy.ndarray": ones,
        "numpy.float32": np.float32(1),
        "numpy.float64": np.float64(1),
        "numpy.ma.MaskedArray": np.ma.array(ones),
        "list": [1.0],
        "jax._src.core.ShapeDtypeStruct": jax.ShapeDtypeStruct((2, 6), jnp.float32),
        "jax._src.core.Ref": jax.new_ref(jnp.ones((2, 6))),
        "jax.experimental.sparse.bcoo.BCOO": BCOO.fromdense(jnp.ones((2, 6))),
        "flax.nnx.variablelib.Param": nnx.Param(jnp.ones((2, 6))),
    }


@pytest.mark.parametrize("kind", range(len(no_arrays())))
@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_what_is_no_jax_array_is_refused(function: str, name: str, kind: int) -> None:
    value = list(no_arrays().values())[kind]
    came = (
        type(value).__qualname__ if isinstance(value, list) else f"{type(value).__module__}.{type(value).__qualname__}"
    )
    number = "a Python number or " if name == "beta" else ""
    arguments = BACKEND.built(call(function)) | {name: value}
    text = text_of(TypeError, lambda: BACKEND[function](**arguments))
    assert text == f"{function}: {name} must be {number}{SOME_ARRAY}, got {came}"


def test_numpy_arrays_are_arrays_where_a_transform_made_them_so_and_else_refused() -> None:
    x = np.float32([-1.0, 2.0])
    expected = np.asarray(G.silu(jnp.asarray(x)))
    for found in (jax.jit(G.silu)(x), jax.vmap(G.silu)(x), jax.vjp(G.silu, x)[0], jax.checkpoint(G.silu)(x)):
        np.testing.assert_array_equal(found, expected)
    text = f"silu: x must be {SOME_ARRAY}, got numpy.ndarray"
    assert text_of(TypeError, lambda: jax.jit(lambda: G.silu(x))()) == text
    # What vmap does not map it passes on as it is.
    attempt = lambda: jax.vmap(G.swish, (0, None))(jnp.asarray(x), np.float32(1.5))  # noqa: E731
    assert text_of(TypeError, attempt) == f"swish: beta must be a Python number or {SOME_ARRAY}, got numpy.float32"


def test_an_int_that_a_transform_passes_on_is_a_number() -> None:
    x = jnp.asarray([-1.5, 0.25, 3.0])
    expected, slope = G.jvp(G.swish, (x,), (jnp.ones(3),), beta=2)
    value, pull = jax.vjp(G.swish, x, 2)
    np.testing.assert_array_equal(value, expected)
    by_x, by_beta = pull(jnp.ones(3))
    np.testing.assert_allclose(by_x, slope, rtol=2.0**-20)  # 8 ulp each, and at most one bit cancels
    assert by_beta.dtype == jax.dtypes.float0
    for run in (jax.vmap(G.swish, (0, None)), jax.jit(G.swish), jax.checkpoint(G.swish)):
        np.testing.assert_allclose(run(x, 2), expected, rtol=2.0**-20)
    with pytest.raises(ValueError, match=r"swish: beta must be 0 or of a magnitude"):
        jax.vmap(G.swish, (0, None))(x, 1e300)


def test_float64_where_x64_is_off_is_as_jax_has_it() -> None:
    numbers = np.array([-1.0, 0.5])
    assert jnp.asarray(numbers).dtype == jax.jit(G.silu)(numbers).dtype == jnp.float32
    assert jax.eval_shape(G.silu, jax.ShapeDtypeStruct((2,), jnp.float64)).dtype == jnp.float32
    with jax.enable_x64(True):
        wide = jnp.asarray(numbers)
        assert G.silu(wide).dtype == wide.dtype == jnp.float64
    # An array that was made while x64 was on: float32, and JAX says so.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"float64.*truncated to dtype float32"):
            G.relu(wide)
