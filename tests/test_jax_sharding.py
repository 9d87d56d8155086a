"""The JAX backend over several devices: GSPMD, explicit meshes, shard_map, the modules of Flax, checkpoints.

What is proved stands in ``_jax_sharded_*.py``: checks that a process with eight virtual devices runs. Each is a test
here. The process is started once, also for all workers of pytest-xdist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("jax")
pytest.importorskip("flax")
pytest.importorskip("orbax.checkpoint")
pytest.importorskip("fcntl", reason="the workers share a group by a lock on a file")

import _jax_sharded as groups
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from gated.contract import LAYOUTS
from gated.jax_impl import linen
from gated.jax_impl.nnx import GatedFFN, GatedLinear
from gated.jax_impl.sharding import logical_axis_rules, partition_specs, repack

groups.import_checks("devices")


@pytest.mark.parametrize("name", groups.CHECKS["devices"])
def test_over_eight_devices(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    groups.fail_for("devices", name, groups.session_folder(tmp_path_factory))


# Specs


UP, DOWN = P("fsdp", "tp"), P("tp", "fsdp")
PROJECTIONS = {"gate_proj": UP, "up_proj": UP, "down_proj": DOWN}


def _ffn() -> GatedFFN:
    return GatedFFN(4, 6, 5, bias=True, learn_beta=True, rngs=nnx.Rngs(0))


def _flat(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): one for path, one in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _specs_of_a_module(tree: Any) -> None:
    """All arrays of a tree that is, or has in it, the parameters of a GatedFFN with all it can have."""
    found = _flat(partition_specs(tree, fsdp="fsdp"))
    assert len(found) == 7
    for path, spec in found.items():
        layer = next((name for name in PROJECTIONS if name in path), None)
        if layer is None:
            assert "beta" in path and spec == P()
        elif "kernel" in path:
            assert spec == PROJECTIONS[layer]
        else:
            assert "bias" in path and spec == P(None if layer == "down_proj" else "tp")


def test_the_parameters_of_a_module_are_known_in_every_form() -> None:
    ffn = _ffn()
    abstract = nnx.eval_shape(_ffn)
    module = linen.GatedFFN(4, 6, 5, bias=True, learn_beta=True)
    variables = module.init(jax.random.key(0), jnp.ones((2, 4)))
    boxed = linen.GatedFFN(
        4, 6, 5, bias=True, learn_beta=True, kernel_init=nn.with_partitioning(nn.initializers.ones, ("a", "b"))
    ).init(jax.random.key(0), jnp.ones((2, 4)))
    for tree in (ffn, nnx.state(ffn), nnx.to_pure_dict(nnx.state(ffn)), nnx.state(abstract), variables, boxed):
        _specs_of_a_module(tree)
    _specs_of_a_module({"layers": [{"mlp": nnx.state(ffn)}]})


def test_optimizer_state_and_stacked_layers_are_sharded_as_their_parameters() -> None:
    parameters = nnx.to_pure_dict(nnx.state(_ffn()))
    (moments, *_) = optax.adam(1e-3).init(parameters)
    specs = partition_specs(moments, fsdp="fsdp")
    assert specs.mu == specs.nu == partition_specs(parameters, fsdp="fsdp")
    assert specs.count == P()
    stacked = jax.eval_shape(lambda: jax.tree.map(lambda one: jnp.stack([one] * 3), parameters))
    for path, spec in _flat(partition_specs(stacked, fsdp="fsdp")).items():
        single = _flat(partition_specs(parameters, fsdp="fsdp"))[path]
        assert spec == (P() if "beta" in path else P(None, *single))


def test_other_arrays_are_replicated() -> None:
    tree = {"q_proj": {"kernel": jnp.ones((4, 6))}, "W": jnp.ones((4, 6)), "b": jnp.ones(6), "gate_proj": 1.0}
    tree |= {"up_proj": {"kernel": jnp.ones(6), "lora_a": jnp.ones((4, 2))}}
    assert set(_flat(partition_specs(tree)).values()) == {P()}


def test_projections_inside_lora_are_sharded_and_its_factors_replicated() -> None:
    ffn = _ffn()
    for name in PROJECTIONS:
        layer = getattr(ffn, name)
        sizes = layer.kernel.shape
        setattr(ffn, name, nnx.LoRA(sizes[0], 2, sizes[1], base_module=layer, rngs=nnx.Rngs(0)))
    for tree in (ffn, nnx.state(ffn), nnx.to_pure_dict(nnx.state(ffn))):
        found = _flat(partition_specs(tree, fsdp="fsdp"))
        factors = {path for path in found if "lora_" in path}
        assert len(factors) == 6 and {found[path] for path in factors} == {P()}
        kernels = {
            name: spec for path, spec in found.items() for name in PROJECTIONS if name in path and "kernel" in path
        }
        assert kernels == PROJECTIONS


@pytest.mark.parametrize("function", [lambda **axes: partition_specs({}, **axes), logical_axis_rules])
def test_axes_that_no_mesh_has_are_refused(function: Callable[..., Any]) -> None:
    name = "logical_axis_rules" if function is logical_axis_rules else "partition_specs"
    for axes in ({"tensor": 3}, {"fsdp": ["tp"]}, {"data": ("data", 1)}, {"tensor": {"tp"}}):
        with pytest.raises(TypeError, match=rf"{name}: {next(iter(axes))} must be the name of an axis, a tuple"):
            function(**axes)
    for axes in ({"fsdp": "tp"}, {"tensor": ("a", "b"), "fsdp": "b"}, {"tensor": "a", "fsdp": ("b", "a")}):
        with pytest.raises(ValueError, match=rf"{name}: tensor and fsdp must be different axes, got"):
            function(**axes)


def test_a_gated_linear_has_its_columns_sharded() -> None:
    state = nnx.state(GatedLinear(4, 6, bias=True, rngs=nnx.Rngs(0)))
    assert sorted(map(str, jax.tree.leaves(partition_specs(state)))) == sorted(
        map(str, [P("tp"), P("tp"), P(None, "tp"), P(None, "tp")])
    )


def test_the_arguments_of_the_functions_are_known_by_their_names() -> None:
    x, column, row = jnp.ones((2, 3, 4)), jnp.ones((4, 6)), jnp.ones((6, 5))
    arguments = {"x": x, "W": column, "V": column, "W2": row, "b": column[0], "c": column[0], "b2": row[0], "beta": 1.0}
    specs = partition_specs(arguments, tensor=("tp", "more"), fsdp="fsdp", data=("data", "fsdp"))
    assert specs == {
        "x": P(("data", "fsdp"), None, None),
        "W": P("fsdp", ("tp", "more")),
        "V": P("fsdp", ("tp", "more")),
        "W2": P(("tp", "more"), "fsdp"),
        "b": P(("tp", "more")),
        "c": P(("tp", "more")),
        "b2": P(None),
        "beta": P(),
    }
    # One for each column, for each example and column, for each row; and five, as for a vmap over them.
    for beta, spec in (((6,), P("tp")), ((2, 1, 6), P(None, None, "tp")), ((3, 1), P()), ((5,), P())):
        assert partition_specs(arguments | {"beta": jnp.ones(beta)})["beta"] == spec
    assert partition_specs({"model": [arguments, {"b": x}]})["model"][1] == {"b": P()}
    # Of three layers: a scalar for each, be there three columns too, or one for each column.
    for columns, beta, spec in ((6, (3,), P()), (3, (3,), P()), (3, (3, 1), P()), (6, (3, 6), P(None, "tp"))):
        stacked = {"W": jnp.ones((3, 4, columns)), "V": jnp.ones((3, 4, columns)), "beta": jnp.ones(beta)}
        assert partition_specs(stacked) == {"W": P(None, None, "tp"), "V": P(None, None, "tp"), "beta": spec}


@given(
    tensor=st.sampled_from((None, "tp", ("tp", "sp"))),
    fsdp=st.sampled_from((None, "fsdp")),
    data=st.sampled_from((None, "data", ("data", "fsdp"))),
)
def test_logical_axes_under_the_rules_are_the_specs(tensor: Any, fsdp: Any, data: Any) -> None:
    shape = jax.ShapeDtypeStruct
    tree = {"x": shape((2, 4), "float32"), "W": shape((4, 6), "float32"), "V": shape((4, 6), "float32")}
    tree |= {"W2": shape((6, 5), "float32"), "b": shape((6,), "float32"), "b2": shape((5,), "float32")}
    names = {"tensor": tensor, "fsdp": fsdp, "data": data}
    logical = partition_specs(tree, tensor="mlp", fsdp="embed", data="batch")
    assert logical["x"] == P("batch", None) and logical["W2"] == P("mlp", "embed")
    rules = logical_axis_rules(**names)
    assert nn.logical_to_mesh(logical, rules) == partition_specs(tree, **names)
    # An activation of both axes: what the batch has, the model size cannot have.
    shared = fsdp in np.atleast_1d(data or "")
    assert nn.logical_to_mesh(P("batch", "embed"), rules) == P(data, None if shared else fsdp)


# Packed weights


def _halves(x: Any, layout: str) -> tuple[Any, Any]:
    n = x.shape[-1] // 2
    return {
        "gate_last": (x[..., n:], x[..., :n]),
        "gate_first": (x[..., :n], x[..., n:]),
        "interleaved": (x[..., ::2], x[..., 1::2]),
    }[layout]


@settings(max_examples=40, deadline=None)  # of each shape, the first is compiled
@given(
    pairs=st.integers(0, 6),
    source=st.sampled_from(LAYOUTS),
    target=st.sampled_from(LAYOUTS),
    axis=st.sampled_from((0, 1, -1)),
)
def test_repacking_moves_gate_and_value_and_nothing_else(pairs: int, source: str, target: str, axis: int) -> None:
    shape = (2 * pairs, 3) if axis == 0 else (3, 2 * pairs)
    packed = jnp.arange(6.0 * pairs).reshape(shape)
    again = repack(packed, source, target, axis=axis)
    for ours, one in zip(
        _halves(np.moveaxis(np.asarray(again), axis, -1), target),
        _halves(np.moveaxis(np.asarray(packed), axis, -1), source),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, one)
    np.testing.assert_array_equal(repack(again, target, source, axis=axis), packed)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: repack(jnp.ones(3), "gate_first", "interleaved"), ValueError, "repack: x must have an even size"),
        (lambda: repack(jnp.ones(4), "first", "interleaved"), ValueError, 'repack: source must be "gate_last", '),
        (lambda: repack(jnp.ones(4), "gate_first", "x"), ValueError, 'repack: target must be "gate_last", '),
        (lambda: repack(jnp.ones(4), "gate_first", "interleaved", axis=1), ValueError, "repack: axis must be"),
        (lambda: repack([1.0], "gate_first", "interleaved"), TypeError, "repack: x must be an array of this backend"),
    ],
)
def test_repack_refuses_what_has_no_halves(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
