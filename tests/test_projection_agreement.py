"""The projected forms of PyTorch and JAX against the definition: values and every gradient within the carried bounds.

The definition is evaluated in float64; where the backend computes in float64 too, the bounds of both are added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from _bounds import projection_tangent_bound
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import arrays, backend, beta_arrays, moderate_bits, strided, tried

import gated.numpy_ref as reference
from gated.conformance.carried import projection_bounds
from gated.conformance.error import FORMATS, Format
from gated.contract import ACTIVATIONS, DTYPES

Array = NDArray[Any]
Float64 = NDArray[np.float64]

PROJECTIONS = [
    ("glu_linear", "sigmoid"),
    ("swiglu_linear", "swish"),
    *(("gated_linear", activation) for activation in ("gelu", "relu")),
    *(("gated_ffn", activation) for activation in ACTIVATIONS),
]


def projections_by_backend(projections: Sequence[tuple[str, str]]) -> pytest.MarkDecorator:
    """Every combination of framework, dtype, function and activation that is tried.

    JAX compiles for each: it has one in every dtype and a few in float32.
    """
    return pytest.mark.parametrize(
        ("backend_name", "dtype", "function", "activation"),
        [
            pytest.param(name, dtype, *each, id=f"{'-'.join(each)}-{dtype}-{name}")
            for name in ("torch", "jax")
            for dtype in DTYPES
            for each in projections
            if name == "torch"
            or each == ("gated_ffn", "swish")
            or (dtype == "float32" and each[1] in ("swish", "gelu", "relu"))
        ],
    )


# rows of x, d_in, d_hidden, d_out
SIZES = (((), 3, 4, 2), ((1,), 1, 1, 1), ((5,), 6, 8, 4), ((2, 3), 4, 3, 5), ((0,), 3, 4, 2), ((2, 0, 1), 2, 3, 1))
JAX_SIZE = ((5,), 6, 8, 4)


@dataclass
class Projected:
    """A call of a projected form: arrays by name in the order of the signature, beta, cotangent, tangents."""

    arguments: dict[str, Array]
    beta: Array | float
    cotangent: Array
    tangents: dict[str, Array]

    def wide(self, arrays: dict[str, Array]) -> dict[str, Float64]:
        """In float64, x and beta by rows."""
        out = {name: array.astype(np.float64) for name, array in arrays.items()}
        if "x" in out:
            out["x"] = out["x"].reshape(math.prod(out["x"].shape[:-1]), out["x"].shape[-1])
        return out


@st.composite
def projected_calls(draw: st.DrawFn, function: str, form: Format, *, jax: bool) -> Projected:
    lead, d_in, d_hidden, d_out = JAX_SIZE if jax else draw(st.sampled_from(SIZES))
    ffn = function == "gated_ffn"
    shapes = {"x": (*lead, d_in), "W": (d_in, d_hidden), "V": (d_in, d_hidden)}
    shapes |= {"W2": (d_hidden, d_out)} if ffn else {}
    if jax or draw(st.booleans()):
        shapes |= {"b": (d_hidden,), "c": (d_hidden,)} | ({"b2": (d_out,)} if ffn else {})
    arguments = {name: draw(arrays(form, shape, moderate_bits(form, 2.0))) for name, shape in shapes.items()}
    tangents = {name: draw(arrays(form, shape, moderate_bits(form, 2.0))) for name, shape in shapes.items()}
    if not jax:
        arguments = {name: draw(strided(one)) for name, one in arguments.items()}
    beta: Array | float = 1.0
    if function != "glu_linear":
        kinds = ("channel",) if jax else ("number", "0-d", "channel")
        beta = draw(beta_arrays(form, (*lead, d_hidden), draw(st.sampled_from(kinds))))
        if isinstance(beta, np.ndarray):
            tangents["beta"] = draw(arrays(form, beta.shape, moderate_bits(form, 2.0)))
    cotangent = draw(arrays(form, (*lead, d_out if ffn else d_hidden), moderate_bits(form, 4.0)))
    return Projected(arguments, beta, cotangent, tangents)


def within(what: str, result: Array, exact: Float64, bound: Float64, form: Format) -> None:
    assert result.dtype == form.dtype and result.shape == exact.shape, what
    distance = np.abs(result.astype(np.float64) - exact)
    bound = bound.reshape(exact.shape)
    ratio = np.divide(distance, bound, out=np.where(distance > 0, np.inf, 0.0), where=bound > 0)
    assert np.all(ratio <= 1), f"{what} is off by {np.max(ratio)} of its bound"


@projections_by_backend(PROJECTIONS)
def test_projected_forms_are_within_the_carried_bounds(
    backend_name: str, dtype: str, function: str, activation: str
) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    jax = backend_name == "jax"
    own = {"glu_linear", "swiglu_linear"}

    def check(data: Any) -> None:
        call = data.draw(projected_calls(function, form, jax=jax))
        static: dict[str, Any] = {} if function in own else {"activation": activation}
        names = list(call.arguments)
        wide = call.wide(call.arguments)
        # The primals bind in the order of ARRAY_PARAMETERS: absent biases as None, then beta.
        order = ["x", "W", "V", *(["W2"] if function == "gated_ffn" else []), "b", "c"]
        order += ["b2"] if function == "gated_ffn" else []
        primals: list[Any] = [call.arguments.get(name) for name in order]
        if function != "glu_linear":
            primals.append(call.beta)
        value, cotangents = one.vjp(function, primals, call.cotangent, **static)
        pulled = dict(zip([*order, "beta"], cotangents, strict=False))
        assert all(pulled[name] is None for name in order if name not in names)

        beta = np.asarray(call.beta).astype(np.float64)
        if isinstance(call.beta, float | int) and form.name != "float64":
            # A number goes to float32: half an ulp of it, which the bounds do not count, is exact here.
            beta = beta.astype(np.float32).astype(np.float64)
        flat = call.cotangent.astype(np.float64).reshape(len(wide["x"]), call.cotangent.shape[-1])
        exact_primals = [wide.get(name) for name in order] + ([beta] if function != "glu_linear" else [])
        exact_value, pullback = reference.vjp(getattr(reference, function), *exact_primals, **static)
        exact = dict(zip([*order, "beta"], pullback(flat), strict=False))
        bounds = [
            projection_bounds(name, kind, dict(wide), flat, activation=activation, beta=beta)
            for name, kind in ((backend_name, dtype), ("numpy", "float64"))
        ]
        bound = {name: bounds[0][name] + bounds[1][name] for name in bounds[0]}
        within("value", value, exact_value.reshape(value.shape), bound["value"], form)
        for name in [*names, *(["beta"] if function != "glu_linear" else [])]:
            expected = exact[name]
            assert expected is not None
            result = pulled[name]
            shape = np.shape(call.beta) if name == "beta" else call.arguments[name].shape
            within(name, result, expected.reshape(shape), bound[name], form)
        if isinstance(call.beta, np.ndarray) or function == "glu_linear":
            given = [name for name in names if name in ("x", "W", "V", "W2")]
            rest = {name: call.arguments[name] for name in names if name not in given}
            rest |= {} if function == "glu_linear" else {"beta": call.beta}
            weights = [call.arguments[name] for name in given]
            result, own_cotangents = one.autodiff(function, weights, call.cotangent, **rest, **static)
            within("value by autodiff", result, exact_value.reshape(value.shape), bound["value"], form)
            for name, each in zip(given, own_cotangents, strict=True):
                expected = exact[name]
                assert expected is not None
                within(f"{name} by autodiff", each, expected.reshape(each.shape), bound[name], form)

    tried(backend_name, check, 8)


@projections_by_backend([("swiglu_linear", "swish"), ("gated_ffn", "gelu"), ("gated_ffn", "swish")])
def test_tangents_of_projected_forms_are_within_the_carried_bounds(
    backend_name: str, dtype: str, function: str, activation: str
) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    jax = backend_name == "jax"

    def check(data: Any) -> None:
        call = data.draw(projected_calls(function, form, jax=jax))
        static: dict[str, Any] = {} if function == "swiglu_linear" else {"activation": activation}
        order = ["x", "W", "V", *(["W2"] if function == "gated_ffn" else []), "b", "c"]
        order += ["b2"] if function == "gated_ffn" else []
        primals = [call.arguments.get(name) for name in order]
        tangents = [call.tangents.get(name) for name in order]
        beta = np.asarray(call.beta).astype(np.float64)
        if isinstance(call.beta, np.ndarray):
            primals.append(call.beta)
            tangents.append(call.tangents["beta"])
        else:
            static["beta"] = call.beta
            if form.name != "float64":
                beta = beta.astype(np.float32).astype(np.float64)
        value, tangent = one.jvp(function, primals, tangents, **static)
        wide, moved = call.wide(call.arguments), call.wide(call.tangents)
        exact_static = {name: kept for name, kept in static.items() if name != "beta"}
        exact_primals = [*(wide.get(name) for name in order), beta]
        zero = np.zeros_like(beta)
        exact_tangents = [*(moved.get(name) for name in order), moved.get("beta", zero)]
        exact_value, exact = reference.jvp(getattr(reference, function), exact_primals, exact_tangents, **exact_static)
        assert value.size == exact_value.size
        bound = sum(
            projection_tangent_bound(name, kind, wide, moved, activation=activation, beta=beta)
            for name, kind in ((backend_name, dtype), ("numpy", "float64"))
        )
        within("tangent", tangent, exact.reshape(value.shape), np.asarray(bound), form)

    tried(backend_name, check, 8)
