"""The projected forms of the reference are their formulas, whatever the tiles that they are worked in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest
from _bounds import projection_tangent_bound
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import strided

import gated.numpy_ref as reference
from gated.conformance.carried import projection_bounds
from gated.conformance.error import FORMATS
from gated.numpy_ref import _projection_tiles

Array = NDArray[Any]
Float64 = NDArray[np.float64]

LEADING = ((), (5,), (2, 3), (3, 1, 4), (2, 0, 3))
FLOAT64 = FORMATS["float64"]


@contextmanager
def tiles(gates: int, strip: int) -> Iterator[None]:
    """Tiles of up to so many gates, cut from rows and columns of up to so many numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_projection_tiles, "BLOCK", gates)
        patch.setattr(_projection_tiles, "STRIP", strip)
        yield


def in_the_large(
    a: dict[str, Float64], moved: dict[str, Float64], beta: Float64, dbeta: Float64, dy: Float64, activation: str
) -> tuple[Float64, Float64, dict[str, Float64]]:
    """The value, the tangent and the cotangents, every intermediate held whole; that of beta for each gate alone."""
    x, dx = a["x"], moved["x"]
    gate, value = x @ a["W"] + a["b"], x @ a["V"] + a["c"]
    dgate, dvalue = (dx @ a[w] + x @ moved[w] + moved[b] for w, b in (("W", "b"), ("V", "c")))
    hidden, dhidden = reference.jvp(
        reference.gated_unit, (gate, value, beta), (dgate, dvalue, dbeta), activation=activation
    )
    _, pullback = reference.vjp(reference.gated_unit, gate, value, beta, activation=activation)
    if "W2" not in a:
        pulled_gate, pulled_value, pulled_beta = pullback(dy)
        cotangents, y, tangent = {}, hidden, dhidden
    else:
        pulled_gate, pulled_value, pulled_beta = pullback(dy @ a["W2"].T)
        cotangents = {"W2": hidden.T @ dy, "b2": dy.sum(axis=0)}
        y, tangent = hidden @ a["W2"] + a["b2"], dhidden @ a["W2"] + hidden @ moved["W2"] + moved["b2"]
    cotangents |= {
        "x": pulled_gate @ a["W"].T + pulled_value @ a["V"].T,
        "W": x.T @ pulled_gate,
        "V": x.T @ pulled_value,
        "b": pulled_gate.sum(axis=0),
        "c": pulled_value.sum(axis=0),
        "beta": pulled_beta,
    }
    return y, tangent, cotangents


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("activation", ["swish", "gelu"])
@pytest.mark.parametrize("function", ["gated_linear", "gated_ffn"])
@settings(max_examples=40)
@given(data=st.data())
def test_the_projected_forms_are_their_formulas_in_tiles_of_any_size(
    function: str, activation: str, dtype: str, data: Any
) -> None:
    """Both are within the carried bound of the exact result, which holds for sums in any order."""
    form = FORMATS[dtype]
    lead = data.draw(st.sampled_from(LEADING))
    d_in, d_hidden, d_out = (data.draw(st.sampled_from(sizes)) for sizes in ((0, 1, 3), (0, 1, 4, 7), (0, 1, 5)))
    shapes = {"x": (*lead, d_in), "W": (d_in, d_hidden), "V": (d_in, d_hidden)}
    shapes |= {"W2": (d_hidden, d_out)} if function == "gated_ffn" else {}
    shapes |= {"b": (d_hidden,), "c": (d_hidden,)} | ({"b2": (d_out,)} if function == "gated_ffn" else {})
    gates = (*lead, d_hidden)
    beta_shapes = {one[i:] for one in product(*({1, size} for size in gates)) for i in range(len(gates) + 1)}
    beta_shape = data.draw(st.sampled_from(sorted(beta_shapes)))
    shapes["beta"] = beta_shape

    # Drawn arrays are often of one number, which hides what goes to the wrong place.
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def drawn(shape: tuple[int, ...]) -> Array:
        return data.draw(strided(rng.standard_normal(shape).astype(form.dtype)))

    primals, tangents = ({name: drawn(shape) for name, shape in shapes.items()} for _ in range(2))
    cotangent = drawn((*lead, d_out) if function == "gated_ffn" else gates)

    fn, static = getattr(reference, function), {"activation": activation}
    with tiles(data.draw(st.sampled_from([1, 2, 6, 20, 400])), data.draw(st.sampled_from([1, 6, 14, 400]))):
        value, pullback = reference.vjp(fn, *primals.values(), **static)
        pulled = dict(zip(primals, pullback(cotangent), strict=True))
        _, tangent = reference.jvp(fn, tuple(primals.values()), tuple(tangents.values()), **static)

    def flat(name: str, array: Array) -> Float64:
        wide = array.astype(np.float64)
        wide = np.broadcast_to(wide, gates) if name == "beta" else wide
        return wide.reshape(math.prod(lead), wide.shape[-1]) if name in ("x", "beta", "cotangent") else wide

    a, moved = ({name: flat(name, one) for name, one in each.items()} for each in (primals, tangents))
    dy, beta, dbeta = flat("cotangent", cotangent), a.pop("beta"), moved["beta"]
    y, expected_tangent, cotangents = in_the_large(a, moved, beta, dbeta, dy, activation)
    error = projection_bounds("numpy", "float64", dict(a), dy, activation=activation, beta=beta)
    error["tangent"] = projection_tangent_bound("numpy", "float64", a, moved, activation=activation, beta=beta)
    axes = tuple(range(-len(gates), -len(beta_shape)))
    axes += tuple(axis for axis in range(-len(beta_shape), 0) if beta_shape[axis] == 1)
    # n u sum |terms|, and the error of each.
    reach = np.abs(cotangents["beta"]) + error["beta"]
    error["beta"] = error["beta"] + math.prod(gates) * FLOAT64.unit_roundoff * reach
    for each in (cotangents, error):
        each["beta"] = each["beta"].reshape(gates).sum(axis=axes)

    def check(what: str, result: Array, expected: Float64) -> None:
        """Twice the error of the float64 arithmetic, and one rounding to a narrower dtype, 0.51 ulp of 2 u at most."""
        expected, bound = expected.reshape(result.shape), 2 * error[what].reshape(result.shape)
        if dtype != "float64":
            reach = np.abs(expected) + bound
            bound = bound + 1.02 * np.maximum(form.unit_roundoff * reach, form.smallest_subnormal / 2)
        distance = np.abs(result.astype(np.float64) - expected)
        assert result.dtype == form.dtype
        assert np.all(distance <= bound), f"{what} is off by {distance}, allowed {bound}"

    check("value", value, y)
    check("tangent", tangent, expected_tangent)
    for name, primal in primals.items():
        assert pulled[name].shape == primal.shape
        check(name, pulled[name], cotangents[name])
