"""Checks over eight devices: activations and units are elementwise, and learned betas have their gradients summed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _jax import assert_same
from _jax_sharded import check, compiled
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

import gated.jax_impl as G
from gated.contract import ACTIVATIONS

ROWS, COLUMNS = 8, 16
GATE, VALUE, COTANGENT = np.random.default_rng(7).normal(0, 4, (3, ROWS, COLUMNS)).astype(np.float32)
# The forms of a beta: one number, one for each column, row, element.
BETAS = {
    "scalar": np.float32(0.75),
    "column": np.linspace(-2, 2, COLUMNS, dtype=np.float32),
    "row": np.linspace(0.5, 3, ROWS, dtype=np.float32)[:, None],
    "element": np.linspace(-1, 4, ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS),
}
UNARY: dict[str, Callable[[Any], Any]] = {
    "sigmoid": G.sigmoid,
    "swish": G.swish,
    "swish, beta 0.1": lambda x: G.swish(x, 0.1),
    "silu": G.silu,
    "gelu": G.gelu,
    "gelu_tanh": lambda x: G.gelu(x, approximate="tanh"),
    "relu": G.relu,
}
PACKED: dict[str, Callable[..., Any]] = {
    "glu": G.glu,
    "bilinear": G.bilinear,
    "reglu": G.reglu,
    "geglu": G.geglu,
    "swiglu": G.swiglu,
    "clamped_swiglu": G.clamped_swiglu,
}


def _mesh(kind: AxisType) -> Mesh:
    return jax.make_mesh((2, 4), ("data", "tp"), axis_types=(kind, kind))


def _there_and_back(f: Callable[..., Any]) -> Callable[..., Any]:
    """The value and the cotangents of ``f``."""

    def both(dy: Any, *primals: Any) -> Any:
        value, pullback = jax.vjp(f, *primals)
        return value, pullback(dy)

    return both


def _units(gate: Any, value: Any, dy: Any, half: Any) -> list[Any]:
    """A pair through every activation with its gradients, and a packed array of the pairs through a clamped unit."""
    results: list[Any] = []
    for activation in ACTIVATIONS:
        results.append(_there_and_back(lambda g, v, a=activation: G.gated_unit(g, v, activation=a))(dy, gate, value))
    results.append(_there_and_back(lambda x: G.clamped_swiglu(x, layout="interleaved"))(half, gate))
    return results


@check("devices")
def elementwise_functions_send_nothing_and_give_the_bits_of_one_device(_: Path) -> None:
    spec = P("data", "tp")
    arrays = (GATE, VALUE, COTANGENT, COTANGENT[:, ::2])
    placed = [jax.device_put(one, NamedSharding(_mesh(AxisType.Auto), spec)) for one in arrays]
    together, what = compiled(_units, *placed)
    assert what == {}, what
    alone = jax.jit(_units)(*arrays)
    for one, other in zip(jax.tree.leaves(together(*placed)), jax.tree.leaves(alone), strict=True):
        assert_same(one, other)
        assert one.sharding.spec == spec


def _types(f: Callable[..., Any], *arguments: Any) -> list[tuple[tuple[int, ...], P]]:
    """The shapes and shardings that ``f`` has at tracing."""
    kinds: list[Any] = []
    jax.eval_shape(lambda *tracers: kinds.extend(jax.tree.leaves(jax.tree.map(jax.typeof, f(*tracers)))), *arguments)
    return [(kind.shape, kind.sharding.spec) for kind in kinds]


@check("devices")
def every_function_traces_under_an_explicit_mesh(_: Path) -> None:
    mesh, spec = _mesh(AxisType.Explicit), P("data", "tp")
    with jax.set_mesh(mesh):
        x, v, dy = (jax.device_put(one, NamedSharding(mesh, spec)) for one in (GATE, VALUE, COTANGENT))
        half = jax.device_put(COTANGENT[:, ::2], NamedSharding(mesh, spec))
        same = (x.shape, spec)
        for name, unary in UNARY.items():
            assert _types(_there_and_back(unary), dy, x) == [same] * 2, name
        for activation in ACTIVATIONS:
            pair = _there_and_back(lambda g, v, a=activation: G.gated_unit(g, v, activation=a))
            assert _types(pair, dy, x, v) == [same] * 3, activation
        for name, unit in PACKED.items():
            for layout in ("gate_last", "interleaved"):
                packed = _there_and_back(lambda x, f=unit, at=layout: f(x, layout=at))
                assert _types(packed, half, x) == [(half.shape, spec), same], (name, layout)


@check("devices")
def gradients_of_betas_send_their_sums_alone(_: Path) -> None:
    """In every form, for every kind of mesh. The terms are those of one device, bit for bit; their sums may be in
    another order, and a product be fused with the addition: gamma_n = n u / (1 - n u) of the absolute terms."""
    places = {"scalar": P(), "column": P("tp"), "row": P("data", None), "element": P("data", "tp")}
    sums = {"scalar": {(): 1}, "column": {(4,): 1}, "row": {(4,): 1}, "element": {}}
    spec = P("data", "tp")

    def each(dy: Any, gate: Any, betas: dict[str, Any]) -> Any:
        return {name: jax.vjp(lambda b: G.swish(gate, b), beta)[1](dy)[0] for name, beta in betas.items()}

    ends = (spec, spec, places)
    auto, explicit = _mesh(AxisType.Auto), _mesh(AxisType.Explicit)
    mapped = jax.shard_map(each, mesh=auto, in_specs=ends, out_specs=places)
    for kind, f, mesh in (("auto", each, auto), ("explicit", each, explicit), ("manual", mapped, auto)):
        at = jax.tree.map(
            lambda one, to, on=mesh: jax.device_put(one, NamedSharding(on, to)), (COTANGENT, GATE, BETAS), ends
        )
        with jax.set_mesh(mesh):
            run, what = compiled(f, *at, out_shardings=jax.tree.map(lambda one: one.sharding, at[2]))
        # Each mesh axis that the beta is summed over in turn, or all at once.
        assert set(what) == {"all-reduce"}, (kind, what)
        assert set(what["all-reduce"]) == {shape for one in sums.values() for shape in one}, (kind, what)
        assert 3 <= len(what["all-reduce"]) <= 4, (kind, what)
        _check_sums(run(*at))


def _check_sums(results: dict[str, Any]) -> None:
    for name, result in results.items():
        beta = np.broadcast_to(BETAS[name], GATE.shape)
        terms = np.asarray(jax.vjp(lambda b: G.swish(jnp.asarray(GATE), b), jnp.asarray(beta))[1](COTANGENT)[0])
        wide = terms.astype(np.float64)
        over = tuple(axis for axis, size in enumerate(_columns(BETAS[name]).shape) if size == 1)
        exact, absolute = (
            np.sum(one, axis=over, keepdims=True).reshape(BETAS[name].shape) for one in (wide, np.abs(wide))
        )
        n = math.prod(GATE.shape[axis] for axis in over)
        u = float(np.finfo(np.float32).eps) / 2
        # The sum in float64 is off by 2^-53 n of the same absolute terms, which 1 % covers.
        assert np.all(np.abs(result - exact) <= 1.01 * n * u / (1 - n * u) * absolute), name


def _columns(beta: NDArray[Any]) -> NDArray[Any]:
    """Of as many axes as the gate."""
    return beta.reshape((1,) * (GATE.ndim - beta.ndim) + beta.shape)
