"""Checks over eight devices: NNX and Linen modules, their annotations, what they keep, and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp
from _jax_sharded import check, compiled
from _jax_sharded_blocks import (
    HIDDEN,
    LENGTH,
    OUT,
    SIZE,
    arguments,
    block,
    both,
    cotangent,
    expected,
    mesh,
    placed,
    within,
)
from flax import nnx
from jax.nn.initializers import uniform, zeros
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gated.jax_impl import linen
from gated.jax_impl.nnx import GatedFFN
from gated.jax_impl.sharding import logical_axis_rules, partition_specs

RULES = logical_axis_rules(tensor="tp", fsdp="data", data="data")
# Uniform numbers are made by exact operations: they are the same however they are compiled.
_AXES: Mapping[str, tuple[Any, tuple[str | None, ...]]] = {
    "kernel_init": (uniform(), ("embed", "mlp")),
    "bias_init": (zeros, ("mlp",)),
    "down_kernel_init": (uniform(), ("mlp", "embed")),
    "down_bias_init": (zeros, (None,)),
}
# The names of the parameters in the functions and in the modules.
_NAMES = {
    "W": ("gate_proj", "kernel"),
    "V": ("up_proj", "kernel"),
    "W2": ("down_proj", "kernel"),
    "b": ("gate_proj", "bias"),
    "c": ("up_proj", "bias"),
    "b2": ("down_proj", "bias"),
}


def _annotated(annotate: Any) -> dict[str, Any]:
    return {name: annotate(init, axes) for name, (init, axes) in _AXES.items()}


def _nnx(*, annotate: bool = False, **options: Any) -> GatedFFN:
    own = _annotated(nnx.with_partitioning) if annotate else {}
    return GatedFFN(SIZE, HIDDEN, OUT, bias=True, learn_beta=True, **own, **options, rngs=nnx.Rngs(0))


def _linen(*, annotate: bool = False, **options: Any) -> linen.GatedFFN:
    own = _annotated(nn.with_logical_partitioning) if annotate else {}
    return linen.GatedFFN(SIZE, HIDDEN, OUT, bias=True, learn_beta=True, **own, **options)


def _shardings(on: Mesh, specs: Any) -> Any:
    return jax.tree.map(lambda spec: NamedSharding(on, spec), specs)


def _assert_sharded(arrays: Any, specs: Any, on: Mesh) -> None:
    """Each array is sharded as its spec says."""
    for one, spec in zip(jax.tree.leaves(arrays), jax.tree.leaves(specs), strict=True):
        assert one.sharding.is_equivalent_to(NamedSharding(on, spec), one.ndim), (one.sharding, spec)


@check("devices")
def annotated_nnx_parameters_are_created_where_the_specs_say(_: Path) -> None:
    on, alone = mesh(2, 4), _nnx(kernel_init=uniform())
    with jax.set_mesh(on), nnx.logical_axis_rules(RULES):
        ffn = nnx.jit(lambda: _nnx(annotate=True))()
        state = nnx.state(ffn)
        annotations = nnx.get_partition_spec(state)
    specs = partition_specs(state, tensor="tp", fsdp="data")
    assert jax.tree.leaves(annotations) == jax.tree.leaves(specs)
    _assert_sharded(state, specs, on)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(nnx.state(alone)), strict=True):
        np.testing.assert_array_equal(one, other)


@check("devices")
def plain_nnx_parameters_are_created_where_the_specs_say(_: Path) -> None:
    on = mesh(2, 4)
    graph, abstract = nnx.split(nnx.eval_shape(_nnx))
    specs = partition_specs(abstract, fsdp="data")
    state = jax.jit(lambda: nnx.state(_nnx()), out_shardings=_shardings(on, specs))()
    _assert_sharded(state, specs, on)
    assert {one.sharding.spec for one in jax.tree.leaves(state)} > {P("data", "tp"), P("tp", "data")}
    assert nnx.merge(graph, state).gate_proj.kernel.shape == (SIZE, HIDDEN)


@check("devices")
def annotated_linen_parameters_are_created_where_the_specs_say(_: Path) -> None:
    on, module, x = mesh(2, 4), _linen(annotate=True), arguments()["x"]
    abstract = jax.eval_shape(module.init, jax.random.key(0), x)
    logical = nn.get_partition_spec(abstract)
    plain = nn.unbox(abstract)
    assert logical == partition_specs(plain, tensor="mlp", fsdp="embed")
    specs = partition_specs(plain, fsdp="data")
    assert nn.logical_to_mesh(logical, RULES) == specs
    ends = nn.logical_to_mesh_sharding(logical, on, RULES)
    variables = nn.unbox(jax.jit(module.init, out_shardings=ends)(jax.random.key(0), x))
    _assert_sharded(variables, specs, on)


def _both(apply: Any) -> Any:
    """The value and the cotangents of parameters and x."""

    def value_and_cotangents(parameters: Any, x: Any, dy: Any) -> Any:
        value, pullback = jax.vjp(apply, parameters, x)
        return value, pullback(dy)

    return value_and_cotangents


def _parameters() -> dict[str, Any]:
    given = arguments()
    tree: dict[str, Any] = {"beta": given["beta"]}
    for name, (layer, parameter) in _NAMES.items():
        tree.setdefault(layer, {})[parameter] = given[name]
    return tree


def _applied(kind: str, recompute: str) -> Any:
    """The module as a function of a tree of parameters, of one form for both kinds, and x."""
    if kind == "linen":
        return lambda parameters, x: _linen(recompute=recompute).apply({"params": parameters}, x)
    graph, state = nnx.split(nnx.eval_shape(lambda: _nnx(recompute=recompute)))

    def apply(parameters: Any, x: Any) -> Any:
        nnx.replace_by_pure_dict(state, parameters)
        return nnx.merge(graph, state)(x)

    return apply


@check("devices")
def modules_send_what_the_functions_do_and_keep_their_residuals_sharded(_: Path) -> None:
    on, given, dy = mesh(1, 8), arguments(), cotangent()
    true, specs = expected(given, dy), partition_specs(_parameters())
    at = placed(_parameters(), on, specs), jax.device_put(given["x"], NamedSharding(on, P()))
    rows = given["x"].shape[:-1]
    for kind, recompute in (("nnx", "product"), ("nnx", "all"), ("linen", "product")):
        apply = _applied(kind, recompute)
        run, what = compiled(_both(apply), *at, jax.device_put(dy, NamedSharding(on, P())))
        activations = [shape for one in what.values() for shape in one if LENGTH in shape]
        assert set(what) == {"all-reduce"}, (kind, recompute, what)
        assert sorted(activations) == sorted(tuple(sorted((*rows, size))) for size in (OUT, SIZE, SIZE)), what
        assert [shape for one in what.values() for shape in one if LENGTH not in shape] == [()], what  # beta
        results = run(*at, jax.device_put(dy, NamedSharding(on, P())))
        within(_by_name(results), true)
        _assert_sharded(results[1][0], specs, on)

        kept = jax.tree.leaves(jax.jit(lambda *primals, f=apply: jax.vjp(f, *primals))(*at)[1])
        hidden = [one for one in kept if one.shape == (*rows, HIDDEN)]
        assert len(hidden) == (2 if recompute == "product" else 0), (kind, recompute)
        _assert_sharded(hidden, [P(None, None, "tp")] * len(hidden), on)


@check("devices")
def a_module_under_an_explicit_mesh_sums_or_scatters_its_output(_: Path) -> None:
    on, specs = mesh(2, 4, AxisType.Explicit), partition_specs(_parameters())
    with jax.set_mesh(on):
        parameters = placed(_parameters(), on, specs)
        x = jax.device_put(arguments()["x"], NamedSharding(on, P("data")))
        for kind in ("nnx", "linen"):
            apply = _applied(kind, "product")
            types = jax.tree.map(jax.typeof, jax.eval_shape(_both(apply), parameters, x, apply(parameters, x)))
            value, (gradients, dx) = types
            assert value.sharding.spec == P("data", None, None)
            assert dx.sharding.spec == P("data", None, None)
            for one, spec in zip(jax.tree.leaves(gradients), jax.tree.leaves(specs), strict=True):
                assert one.sharding.spec == spec, (kind, one, spec)
        graph, state = nnx.split(nnx.eval_shape(_nnx))
        nnx.replace_by_pure_dict(state, parameters)
        scattered = nnx.merge(graph, state)(x, out_sharding=P("data", "tp", None))
        assert jax.typeof(scattered).sharding.spec == P("data", "tp", None)


def _by_name(results: Any) -> dict[str, Any]:
    """The value and the gradients of a module, by the names that the functions have."""
    value, (gradients, x) = results
    named = {name: gradients[layer][parameter] for name, (layer, parameter) in _NAMES.items()}
    return {"value": value, "x": x, "beta": gradients["beta"], **named}


@check("devices")
def fully_sharded_parameters_are_gathered_under_an_explicit_mesh(_: Path) -> None:
    """As the specs of each way of sharding are: in the functions and in the modules, both of them with biases."""
    on, given, dy = mesh(2, 4, AxisType.Explicit), arguments(), cotangent()
    with_function, with_modules = both(block), [_both(_applied(kind, "product")) for kind in ("nnx", "linen")]

    def every(given: Any, parameters: Any, dy: Any) -> list[dict[str, Any]]:
        modules = [_by_name(one(parameters, given["x"], dy)) for one in with_modules]
        return [with_function(given, dy), *modules]

    every_axis: Any = ("data", "tp")
    with jax.set_mesh(on):
        for axes in (
            {"tensor": "tp", "fsdp": "data", "data": "data"},
            {"tensor": None, "fsdp": "data", "data": "data"},
            {"tensor": None, "fsdp": every_axis, "data": every_axis},
        ):
            specs = partition_specs(given, **axes)
            at = placed(given, on, specs), placed(_parameters(), on, partition_specs(_parameters(), **axes))
            end = jax.device_put(dy, NamedSharding(on, P(axes["data"])))
            value = {"value": P(axes["data"], None, None)}
            for one in jax.eval_shape(every, *at, end):
                assert {name: kind.sharding.spec for name, kind in one.items()} == specs | value, axes
            if axes["fsdp"] == "data":
                for one in jax.jit(every)(*at, end):
                    within(one, expected(given, dy))


@check("devices")
def a_checkpoint_is_restored_onto_another_mesh(folder: Path) -> None:
    parameters = _parameters()
    here = placed(parameters, mesh(2, 4), partition_specs(parameters, fsdp="data"))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", here)
        checkpointer.wait_until_finished()
        on = mesh(4, 2)
        specs = partition_specs(parameters, tensor="tp", fsdp="data")
        abstract = jax.tree.map(
            lambda one, spec: jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=NamedSharding(on, spec)),
            parameters,
            specs,
        )
        there = checkpointer.restore(folder / "checkpoint", abstract)
    _assert_sharded(there, specs, on)
    assert there["gate_proj"]["kernel"].addressable_shards[0].data.shape == (SIZE // 4, HIDDEN // 2)
    for one, other in zip(jax.tree.leaves(there), jax.tree.leaves(parameters), strict=True):
        np.testing.assert_array_equal(one, other)
