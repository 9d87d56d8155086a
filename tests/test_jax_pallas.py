"""The fused projections in Pallas' interpreter: values and gradients within the bounds, and at the limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from _jax import ACTIVATIONS, COTANGENT, GATE, VALUE, assert_same  # noqa: E402

import gated.jax_impl as G  # noqa: E402
import gated.numpy_ref as reference  # noqa: E402
from gated.conformance.carried import projection_bounds  # noqa: E402
from gated.conformance.error import FORMATS  # noqa: E402
from gated.jax_impl.kernels import Blocks, fused_projections  # noqa: E402

# Several tiles along every axis, none of which is whole.
SMALL: dict[str, Any] = {"tpu": Blocks(32, 128, 128), "gpu": Blocks(16, 64, 64)}
ROWS, D_IN, D_HIDDEN = (2, 19), 150, 140


def pulled(activation: str) -> Callable[..., Any]:
    def function(cotangent: Any, *primals: Any) -> Any:
        value, pullback = G.vjp(G.gated_linear, *primals, activation=activation)
        return value, *pullback(cotangent)

    return function


@pytest.mark.parametrize(
    ("kernel", "activation", "dtype"),
    [
        *(("tpu", activation, "float32") for activation in ACTIVATIONS),
        ("gpu", "swish", "float32"),
        ("tpu", "gelu", "bfloat16"),
        ("gpu", "swish", "float16"),
    ],
)
def test_fused_projections_are_within_the_carried_bounds(kernel: str, activation: str, dtype: str) -> None:
    random = np.random.default_rng(7)
    shapes = {"x": (*ROWS, D_IN), "W": (D_IN, D_HIDDEN), "V": (D_IN, D_HIDDEN), "b": (D_HIDDEN,), "c": (D_HIDDEN,)}
    # Gates from about -40 to 40: in some rows x is small, in others large.
    numbers = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    numbers["x"] *= np.geomspace(0.02, 1.0, ROWS[1])[:, None]
    cotangent = jnp.asarray(random.standard_normal((*ROWS, D_HIDDEN)), dtype)
    beta = jnp.asarray(random.uniform(0.5, 1.5, D_HIDDEN), dtype)
    operands = {name: jnp.asarray(each, dtype) for name, each in numbers.items()}

    with fused_projections(interpret=kernel, **SMALL):
        made = jax.jit(pulled(activation))(cotangent, *operands.values(), beta)
    computed = dict(zip(("value", *operands, "beta"), made, strict=True))

    wide = {name: np.asarray(each, np.float64) for name, each in operands.items()}
    wide["x"] = wide["x"].reshape(-1, D_IN)
    flat = np.asarray(cotangent, np.float64).reshape(-1, D_HIDDEN)
    wide_beta = np.asarray(beta, np.float64)
    value, pullback = reference.vjp(reference.gated_linear, *wide.values(), wide_beta, activation=activation)
    exact = dict(zip(("value", *operands, "beta"), (value, *pullback(flat)), strict=True))
    # Of 16 bits too: nothing is rounded to them but the results, once.
    bounds = [
        projection_bounds(name, kind, dict(wide), flat, activation=activation, beta=wide_beta)
        for name, kind in (("jax", "float32"), ("numpy", "float64"))
    ]
    form = FORMATS[dtype]
    once = 0.0 if dtype == "float32" else 1.0
    for name, result in computed.items():
        assert result.dtype == dtype
        allowed = bounds[0][name] + bounds[1][name]
        reach = np.abs(exact[name]) + allowed.reshape(exact[name].shape)
        allowed = allowed.reshape(reach.shape) + once * np.maximum(form.unit_roundoff * reach, form.smallest_subnormal)
        distance = np.abs(np.asarray(result, np.float64).reshape(exact[name].shape) - exact[name])
        assert np.all(distance <= allowed), name
        # The bound says something: it is far below the result's own size.
        assert activation == "identity" or name == "beta" or np.median(allowed) < 0.3 * np.abs(exact[name]).max()


@pytest.mark.parametrize("kernel", ["tpu", "gpu"])
@pytest.mark.parametrize("activation", ["swish", "gelu"])
def test_the_tails_and_the_limits_are_those_of_the_unit(activation: str, kernel: str) -> None:
    # Sums of one product, 1 * gate: the kernel's gate is the number itself, and a bias has the gate's gradient.
    gate = np.concatenate([GATE, np.float32([-np.inf, np.inf, np.nan, -95.0, -8.0, 2.0])])
    value = np.concatenate([VALUE, np.float32([2.0, -3.0, 1.0, 1e20, -np.inf, np.inf])])
    cotangent = np.concatenate([COTANGENT, np.float32([1.0, 2.0, 1.0, 2.0**-16, 3.0, 1.0])])
    exact, pullback = reference.vjp(reference.gated_unit, gate, value, activation=activation)
    in_gate, in_value = pullback(cotangent)
    zeros = jnp.zeros(gate.shape)
    rows = [jnp.asarray(each)[None] for each in (cotangent, gate, value)]
    with fused_projections(interpret=kernel):
        result, *_, of_gate, of_value = jax.jit(pulled(activation))(rows[0], jnp.ones((1, 1)), *rows[1:], zeros, zeros)
    # The contract's 5 and 8 ulp and the reference's; at -1.28 swish' is 2^-5 of its terms.
    assert_same(result[0] + 0.0, exact + np.float32(0), ulps=6)
    assert_same(of_value + 0.0, in_value + np.float32(0), ulps=9)
    assert_same(of_gate + 0.0, in_gate + np.float32(0), ulps=9 * 2**5)
    # What is too small for a float on the way is there: swish(-95) and its slope are, times 1e20.
    assert activation != "swish" or (abs(result[0][11]) > 1e-20 and abs(of_gate[11]) > 1e-25)


@pytest.mark.parametrize("kernel", ["tpu", "gpu"])
def test_beta_may_have_any_shape_that_broadcasts(kernel: str) -> None:
    random = np.random.default_rng(3)
    # Integers: the gate and the value are exact.
    x, W, V, ct = (random.integers(-2, 3, shape).astype(np.float32) for shape in ((2, 3, 4), (4, 5), (4, 5), (2, 3, 5)))
    betas: list[Any] = [random.uniform(0.5, 2.0, shape).astype(np.float32) for shape in ((3, 1), (2, 1, 5))]

    def function(x: Any, W: Any, V: Any, ct: Any, beta: Any) -> Any:
        value, pullback = G.vjp(G.swiglu_linear, x, W, V, None, None, beta)
        return value, pullback(ct)[5]

    for beta in (betas[0], 0.7) if kernel == "tpu" else betas[1:]:
        arrays = [jnp.asarray(each) for each in (x, W, V, ct)]
        given = beta if isinstance(beta, float) else jnp.asarray(beta)
        with fused_projections(interpret=kernel):
            value, in_beta = jax.jit(lambda *arrays, given=given: function(*arrays, given))(*arrays)
        wide = (np.float64(each) for each in (x @ W, x @ V, np.broadcast_to(beta, ct.shape)))
        exact, pullback = reference.vjp(reference.gated_unit, *wide)
        assert_same(value, np.float32(exact), ulps=6)
        terms = pullback(np.float64(ct))[2]
        # The contract's 8 ulp of a term, an ulp being 2 u at most, and a sum of at most all of them.
        u = FORMATS["float32"].unit_roundoff
        shape = np.shape(beta)
        summed = tuple(i for i, size in enumerate((1,) * (ct.ndim - len(shape)) + shape) if size == 1)
        allowed = (16 + terms.size) * u * np.abs(terms).sum(summed).reshape(shape)
        assert in_beta.shape == shape
        assert np.all(np.abs(in_beta - terms.sum(summed).reshape(shape)) <= allowed)
