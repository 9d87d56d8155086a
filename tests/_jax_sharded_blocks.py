"""Checks over eight devices: gated_ffn and gated_linear, sharded in every way; their numbers and what they send.

The output of the block is a sum over the devices of tensor parallelism, and so is the gradient of x. The gradient of a
scalar beta is a sum over all devices; those of the weights are sums over the devices that have other rows of x. Nothing
else need be sent. Under GSPMD, XLA's CPU compiler sends both addends of the gradient of x (through W and through V) and
adds afterwards, and it does so with a sum over two mesh axes, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _jax_sharded import check, compiled
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

import gated.jax_impl as G
import gated.numpy_ref as reference
from gated.conformance.carried import projection_bounds
from gated.jax_impl.sharding import partition_specs

__all__ = [
    "BATCH",
    "HIDDEN",
    "LENGTH",
    "OUT",
    "SIZE",
    "arguments",
    "block",
    "both",
    "cotangent",
    "expected",
    "mesh",
    "placed",
    "within",
]

BATCH, LENGTH, SIZE, HIDDEN, OUT = 8, 12, 16, 40, 24
Arguments = dict[str, Any]
Sent = dict[str, list[tuple[int, ...]]]
_SLOTS = ("x", "W", "V", "W2", "b", "c", "b2")


def mesh(data: int, tensor: int, kind: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh((data, tensor), ("data", "tp"), axis_types=(kind, kind))


def arguments() -> Arguments:
    shapes = [(BATCH, LENGTH, SIZE), (SIZE, HIDDEN), (SIZE, HIDDEN), (HIDDEN, OUT), (HIDDEN,), (HIDDEN,), (OUT,)]
    draw = np.random.default_rng(5)
    arrays = {name: draw.standard_normal(shape, np.float32) for name, shape in zip(_SLOTS, shapes, strict=True)}
    return arrays | {"beta": np.float32(1.5)}


def cotangent(size: int = OUT) -> NDArray[np.float32]:
    return np.random.default_rng(6).standard_normal((BATCH, LENGTH, size), np.float32)


def placed(tree: Any, on: Mesh, specs: Any) -> Any:
    return jax.device_put(tree, jax.tree.map(lambda spec: NamedSharding(on, spec), specs))


def expected(given: Mapping[str, Any], dy: NDArray[Any]) -> dict[str, tuple[Any, Any]]:
    """The value of the block, or without W2 of gated_linear, and every cotangent: by the definition in float64, and
    what rounding in float32 may add. The bounds hold for sums in any order, over devices too."""
    wide = {name: np.asarray(one, np.float64) for name, one in given.items()}
    beta = wide.pop("beta")
    wide["x"], flat = wide["x"].reshape(-1, SIZE), np.asarray(dy, np.float64).reshape(-1, dy.shape[-1])
    function, slots = (
        (reference.gated_ffn, _SLOTS) if "W2" in wide else (reference.gated_linear, ("x", "W", "V", "b", "c"))
    )
    value, pullback = reference.vjp(function, *(wide.get(name) for name in slots), beta)
    exact = {"value": value, **dict(zip([*slots, "beta"], pullback(flat), strict=True))}
    ours, own = (
        projection_bounds(backend, dtype, dict(wide), flat, activation="swish", beta=beta)
        for backend, dtype in (("jax", "float32"), ("numpy", "float64"))
    )
    return {name: (one, ours[name] + own[name]) for name, one in exact.items() if one is not None}


def within(results: Mapping[str, Any], true: Mapping[str, tuple[Any, Any]]) -> None:
    """Each result is as near to the exact one as the bound says, on the devices that have it."""
    for name, result in results.items():
        exact, bound = (np.reshape(one, result.shape) for one in true[name])
        for shard in result.addressable_shards:
            distance = np.abs(np.asarray(shard.data, np.float64) - exact[shard.index])
            assert np.all(distance <= bound[shard.index]), f"{name}: off by {np.max(distance / bound[shard.index])}"


def block(given: Arguments) -> Any:
    return G.gated_ffn(**given)


def _linear(given: Arguments) -> Any:
    return G.gated_linear(**{name: one for name, one in given.items() if name not in ("W2", "b2")})


def both(f: Callable[[Arguments], Any]) -> Callable[[Arguments, Any], Any]:
    """The value and every cotangent."""

    def value_and_cotangents(given: Arguments, dy: Any) -> Any:
        value, pullback = jax.vjp(f, given)
        return {"value": value, **pullback(dy)[0]}

    return value_and_cotangents


def _holds(
    f: Callable[[Arguments], Any], on: Mesh, specs: Any, result: P, forward: Sent, backward: Sent, *, ffn: bool = True
) -> None:
    """The numbers of ``f`` are right, each gradient is sharded as its argument, and this is what is sent."""
    given, dy = arguments(), cotangent(OUT if ffn else HIDDEN)
    if not ffn:
        given, specs = (
            {name: one for name, one in each.items() if name not in ("W2", "b2")} for each in (given, specs)
        )
    true = expected(given, dy)
    at, out = placed(given, on, specs), NamedSharding(on, result)
    ends = {"value": out} | {name: one.sharding for name, one in at.items()}
    one_way, what = compiled(f, at, out_shardings=out)
    assert what == _sorted(forward), what
    value = one_way(at)
    within({"value": value}, true)
    there_and_back, what = compiled(both(f), at, jax.device_put(dy, out), out_shardings=ends)
    assert what == _sorted(backward), what
    results = there_and_back(at, jax.device_put(dy, out))
    within(results, true)


def _sorted(what: Sent) -> Sent:
    """As ``sent`` has it."""
    return {name: sorted(tuple(sorted(shape)) for shape in shapes) for name, shapes in what.items()}


def _parts(data: int, tensor: int) -> dict[str, tuple[int, ...]]:
    """The shapes on one device."""
    rows, hidden = (BATCH // data, LENGTH), HIDDEN // tensor
    return {
        "x": (*rows, SIZE),
        "value": (*rows, OUT),
        "W": (SIZE, hidden),
        "V": (SIZE, hidden),
        "W2": (hidden, OUT),
        "b": (hidden,),
        "c": (hidden,),
        "b2": (OUT,),
    }


def _weights(part: dict[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [part[name] for name in _SLOTS[1:]]


@check("devices")
def tensor_parallelism_has_one_all_reduce_forward_and_one_backward(_: Path) -> None:
    part, specs = _parts(1, 8), partition_specs(arguments())
    sums = [part["value"], part["x"], part["x"], ()]
    _holds(block, mesh(1, 8), specs, P(), {"all-reduce": [part["value"]]}, {"all-reduce": sums})


@check("devices")
def a_data_axis_adds_the_sums_of_the_gradients_of_the_parameters(_: Path) -> None:
    part, specs = _parts(2, 4), partition_specs(arguments(), data="data")
    sums = [part["value"], part["x"], part["x"], (), (), *_weights(part)]
    _holds(block, mesh(2, 4), specs, P("data"), {"all-reduce": [part["value"]]}, {"all-reduce": sums})


@check("devices")
def an_explicit_mesh_sends_what_an_automatic_one_does(_: Path) -> None:
    part, specs = _parts(2, 4), partition_specs(arguments(), data="data")
    sums = [part["value"], part["x"], part["x"], (), (), *_weights(part)]
    on = mesh(2, 4, AxisType.Explicit)
    with jax.set_mesh(on):
        _holds(block, on, specs, P("data", None, None), {"all-reduce": [part["value"]]}, {"all-reduce": sums})


@check("devices")
def the_projected_unit_sends_nothing_forward(_: Path) -> None:
    part, specs = _parts(1, 8), partition_specs(arguments())
    sums = [part["x"], part["x"], ()]
    _holds(_linear, mesh(1, 8), specs, P(None, None, "tp"), {}, {"all-reduce": sums}, ffn=False)


def _summed(given: Arguments) -> Any:
    """The block within shard_map: the bias of the sum is added once, after it."""
    rest = {name: one for name, one in given.items() if name != "b2"}
    return lax.psum(G.gated_ffn(**rest), "tp") + given["b2"]


def _scattered(given: Arguments) -> Any:
    """The block within shard_map under sequence parallelism."""
    rest = {name: one for name, one in given.items() if name != "b2"}
    rest["x"] = lax.all_gather(given["x"], "tp", axis=1, tiled=True)
    return lax.psum_scatter(G.gated_ffn(**rest), "tp", scatter_dimension=1, tiled=True) + given["b2"]


@check("devices")
def shard_map_sends_the_least_there_is_to_send(_: Path) -> None:
    part, specs, on = _parts(2, 4), partition_specs(arguments(), data="data"), mesh(2, 4)
    f = jax.shard_map(_summed, mesh=on, in_specs=(specs,), out_specs=P("data"))
    sums = [part["value"], part["x"], (), *_weights(part)]
    _holds(f, on, specs, P("data"), {"all-reduce": [part["value"]]}, {"all-reduce": sums})


@check("devices")
def sequence_parallelism_gathers_and_scatters_in_place_of_the_all_reduce(_: Path) -> None:
    part, on = _parts(2, 4), mesh(2, 4)
    specs = partition_specs(arguments(), data="data") | {"x": P("data", "tp")}
    f = jax.shard_map(_scattered, mesh=on, in_specs=(specs,), out_specs=P("data", "tp"))
    quarter = {name: (part[name][0], LENGTH // 4, part[name][2]) for name in ("x", "value")}
    forward = {"all-gather": [part["x"]], "reduce-scatter": [quarter["value"]]}
    backward = {
        "all-gather": [part["x"], part["value"]],
        "all-reduce": [(), *_weights(part)],
        "reduce-scatter": [quarter["value"], quarter["x"]],
    }
    _holds(f, on, specs, P("data", "tp"), forward, backward)


@check("devices")
def fully_sharded_weights_are_gathered_and_nothing_of_hidden_size_is_sent(_: Path) -> None:
    on = mesh(2, 4)
    specs = partition_specs(arguments(), data="data", fsdp="data")
    given, dy, out = arguments(), cotangent(), NamedSharding(on, P("data"))
    at, true = placed(given, on, specs), expected(given, dy)
    ends = {"value": out} | {name: one.sharding for name, one in at.items()}
    one_way, forward = compiled(block, at, out_shardings=out)
    there_and_back, backward = compiled(both(block), at, jax.device_put(dy, out), out_shardings=ends)
    part = _parts(2, 4)
    gathered = [part[name] for name in ("W", "V", "W2")]
    assert forward == _sorted({"all-gather": gathered, "all-reduce": [part["value"]]}), forward
    for what in (forward, backward):
        assert set(what) <= {"all-gather", "all-reduce", "reduce-scatter"}, what
        activations = [shape for one in what.values() for shape in one if LENGTH in shape]
        assert not any(HIDDEN in shape or HIDDEN // 4 in shape for shape in activations), what
    within({"value": one_way(at)}, true)
    within(there_and_back(at, jax.device_put(dy, out)), true)
