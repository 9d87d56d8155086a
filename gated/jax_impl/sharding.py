r"""The blocks over several devices: partition specs, the rules of logical axes, and a layout for packed projections.

The projections of gate and value are sharded by columns and the projection down by rows: each device computes with a
part of the hidden size, and the output is the sum of what they have,

.. math:: y = \sum_i (A(x W_i + b_i) \odot (x V_i + c_i)) \, W_{2,i} + b_2.

That sum is the one all-reduce of the forward pass; the gradient of x is the one of the backward pass.

Source: M. Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism",
arXiv:1909.08053, section 3.
"""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gated import contract
from gated.jax_impl._arrays import Array, checks
from gated.jax_impl._explicit import is_sharded

__all__ = ["logical_axis_rules", "partition_specs", "repack"]

MeshAxes = str | tuple[str, ...] | None
"""The axes of a mesh that shard one axis of an array; None: it is not sharded."""

_BATCH, _EMBED, _MLP = "batch", "embed", "mlp"

# The logical axes of each parameter, by its name in the arguments of the functions and in the modules. The bias of the
# result has few numbers and meets an output that the batch shards: it is whole on every device.
_ARGUMENTS: Final[dict[str, tuple[str | None, ...]]] = {
    "W": (_EMBED, _MLP),
    "V": (_EMBED, _MLP),
    "W2": (_MLP, _EMBED),
    "b": (_MLP,),
    "c": (_MLP,),
    "b2": (None,),
}
_MODULES: Final[dict[tuple[str, ...], tuple[str | None, ...]]] = {
    ("gate_proj", "kernel"): (_EMBED, _MLP),
    ("up_proj", "kernel"): (_EMBED, _MLP),
    ("down_proj", "kernel"): (_MLP, _EMBED),
    ("gate_proj", "bias"): (_MLP,),
    ("up_proj", "bias"): (_MLP,),
    ("down_proj", "bias"): (None,),
}
_WRAPPED: Final = "base_module"
"""What ``flax.nnx.LoRA`` calls the layer that it adds to."""


def logical_axis_rules(
    *, tensor: MeshAxes = "tp", fsdp: MeshAxes = None, data: MeshAxes = None
) -> tuple[tuple[str, MeshAxes], ...]:
    """The rules that bring the logical axes ``"batch"``, ``"embed"`` and ``"mlp"`` onto a mesh.

    They are what ``flax.linen.logical_axis_rules``, ``flax.linen.logical_to_mesh`` and ``flax.core.spmd`` (for NNX)
    take; where those of a whole model have the same names, as MaxText's do, these are not needed.

    Args:
        tensor: of ``"mlp"``, the hidden size: tensor parallelism.
        fsdp: of ``"embed"``, the model size, in the parameters: fully sharded data parallelism.
        data: of ``"batch"``, the first axis of x.

    Returns:
        Pairs of a logical axis and its mesh axes, the batch first: it has its mesh axes before the model size.

    Raises:
        TypeError: an argument is neither a name, nor a tuple of names, nor None.
        ValueError: ``tensor`` and ``fsdp`` have a mesh axis in common.
    """
    _check_axes("logical_axis_rules", tensor=tensor, fsdp=fsdp, data=data)
    return (_BATCH, data), (_EMBED, fsdp), (_MLP, tensor)


def partition_specs(tree: Any, *, tensor: MeshAxes = "tp", fsdp: MeshAxes = None, data: MeshAxes = None) -> Any:
    """The partition spec of every array in a tree: parameters of NNX or Linen, or arguments of the functions.

    Each array is known by its path. Kernels and biases of ``gate_proj``, ``up_proj`` and ``down_proj`` are sharded
    wherever they are in the tree: in an NNX module or its state, the parameters of a Linen module, a whole model, or
    the state of an optimizer, which has the same paths; inside ``flax.nnx.LoRA`` too, whose own factors are replicated.
    So are ``W``, ``V``, ``W2``, ``b``, ``c``, ``b2``, ``x`` and an array ``beta`` in any mapping with a ``"W"`` and a
    ``"V"``, by the names that :func:`gated.jax_impl.gated_ffn` has for them. All else is replicated, a learnt beta too.
    Axes in front, as those of stacked layers, are not sharded.

    | | spec |
    |---|---|
    | ``gate_proj.kernel``, ``up_proj.kernel``; ``W``, ``V`` | (fsdp, tensor) |
    | ``down_proj.kernel``; ``W2`` | (tensor, fsdp) |
    | ``gate_proj.bias``, ``up_proj.bias``; ``b``, ``c`` | (tensor,) |
    | ``down_proj.bias``; ``b2`` | (None,) |
    | ``x`` | (data, None, ...) |
    | ``beta``, an array of the hidden size in its last axis | (..., tensor) |

    ``partition_specs(tree, tensor="mlp", fsdp="embed", data="batch")`` gives the logical axes, for any rules.

    Args:
        tree: a tree of arrays, or of ``jax.ShapeDtypeStruct`` as ``jax.eval_shape`` makes them.
        tensor: the mesh axis of tensor parallelism, or several; None: none.
        fsdp: the mesh axis that shards the parameters in their other axis, or several; None: none.
        data: the mesh axis of the batch, or several; None: none.

    Returns:
        The tree with a ``jax.sharding.PartitionSpec`` in the place of each array.

    Raises:
        TypeError: ``tensor``, ``fsdp`` or ``data`` is neither a name, nor a tuple of names, nor None.
        ValueError: ``tensor`` and ``fsdp`` have a mesh axis in common.
    """
    _check_axes("partition_specs", tensor=tensor, fsdp=fsdp, data=data)
    mesh_axes = dict(logical_axis_rules(tensor=tensor, fsdp=fsdp, data=data))
    shapes = {_names(path): _shape(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}

    def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        names, shape = _names(path), _shape(leaf)
        axes: tuple[str | None, ...] | None = _MODULES.get(names[-2:])
        if axes is None and {(*names[:-1], "W"), (*names[:-1], "V")} <= shapes.keys():
            axes = _argument_axes(names[-1], shape, shapes[*names[:-1], "W"])
        entries: list[MeshAxes] = []
        if axes is not None and len(axes) <= len(shape):
            stacked = len(shape) - len(axes)
            entries = [*(None,) * stacked, *(mesh_axes.get(axis) if axis else None for axis in axes)]
        return PartitionSpec(*entries)  # type: ignore[no-untyped-call]

    return jax.tree_util.tree_map_with_path(spec, tree)


def repack(x: Array, source: str, target: str, *, axis: int = -1) -> Array:
    """A packed array, as of the weights of a packed projection, in another layout.

    Contiguous shards of an ``"interleaved"`` array hold whole pairs of gate and value, for any number of shards that
    divides the number of pairs. Those of the other layouts do not: the first of two shards is all gate, or all value,
    and every call sends half of it elsewhere. So a packed kernel (d_in, 2 d_hidden) that is to be sharded by columns is
    repacked to ``"interleaved"`` first, its bias too, with a unit of that layout behind it.

    Args:
        x: of an even size along ``axis``; float16, bfloat16, float32 or float64.
        source: the layout of ``x``: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``. A wrong layout is silent:
            it swaps gate and value, or mixes them, and no shape tells.
        target: the layout of the result.
        axis: the axis that holds gate and value; the last of a Flax kernel and its bias.

    Returns:
        An array of the shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype, or ``axis`` no int.
        ValueError: ``x`` is 0-d or of an odd size along ``axis``, ``axis`` is out of range, or a layout is unknown; or
            a mesh of explicit axes shards ``x`` along ``axis``.
    """
    axis = checks.packed("repack", x, axis=axis, layout="gate_last")
    for name, layout in (("source", source), ("target", target)):
        contract.check_choice("repack", name, layout, contract.LAYOUTS)
    if is_sharded(x, axis):
        spec = jax.typeof(x).sharding.spec
        raise ValueError(f"repack: x must be whole along axis {axis}, got {spec}: repack it before it is sharded")
    n = x.shape[axis] // 2
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    # Gate and value along an axis of their own: the one before n, or, interleaved, the one after.
    if source == "interleaved":
        pair = jnp.moveaxis(x.reshape(*before, n, 2, *after), axis + 1, axis)
    else:
        pair = x.reshape(*before, 2, n, *after)
    if (source == "gate_last") != (target == "gate_last"):
        pair = jnp.flip(pair, axis)
    if target == "interleaved":
        pair = jnp.moveaxis(pair, axis, axis + 1)
    return pair.reshape(x.shape)


def _check_axes(function: str, **axes: Any) -> None:
    for name, value in axes.items():
        if value is not None and not all(isinstance(one, str) for one in _each(value)):
            raise TypeError(f"{function}: {name} must be the name of an axis, a tuple of names, or None, got {value!r}")
    tensor, fsdp = axes["tensor"], axes["fsdp"]
    if not set(_each(tensor)).isdisjoint(_each(fsdp)):
        raise ValueError(f"{function}: tensor and fsdp must be different axes, got {tensor!r} and {fsdp!r}")


def _each(axes: Any) -> tuple[Any, ...]:
    return () if axes is None else axes if isinstance(axes, tuple) else (axes,)


def _shape(leaf: Any) -> tuple[int, ...]:
    """Of an array; a number has no axes."""
    shape: tuple[int, ...] = getattr(leaf, "shape", ())
    return shape


def _argument_axes(name: str, shape: tuple[int, ...], of_W: tuple[int, ...]) -> tuple[str | None, ...] | None:
    """The logical axes of an argument of the functions, beside a W of a shape."""
    if name == "x" and len(shape) > 1:
        return _BATCH, *(None,) * (len(shape) - 1)
    # Beside stacked projections the axes in front are those of the stack, for a beta too.
    if name == "beta" and len(shape) > len(of_W) - 2 and shape[-1:] == of_W[-1:]:
        return (_MLP,)
    return _ARGUMENTS.get(name)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The keys of a path, without those of what a framework puts around an array or a layer."""
    names = tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
    names = names[:-1] if names[-1:] == ("value",) else names
    return tuple(name for name in names if name != _WRAPPED)
