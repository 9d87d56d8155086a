"""What the type of an array says of a mesh: the sharding along its explicit axes, and the manual axes it varies over.

A mesh axis is explicit where ``jax.sharding.AxisType.Explicit`` made it so, and manual inside ``jax.shard_map``. Where
neither is, as on one device and under GSPMD, nothing here does anything.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from gated.jax_impl._arrays import Array

__all__ = ["broadcast_like", "dot_general", "is_sharded", "product_sharding", "varying_like"]


def is_sharded(x: Array, axis: int) -> bool:
    """Whether explicit axes of a mesh shard this axis of ``x``, counted from the front."""
    return _entries(jax.typeof(x).sharding.spec, x.ndim)[axis] is not None


def product_sharding(x: Array, W: Array) -> NamedSharding | None:
    """The sharding of ``x @ W``, W a matrix, where JAX needs to be told; None where it decides by itself.

    It refuses a product whose summed axis is sharded on both sides: the result may be whole on every device, or
    scattered over them. Here it is whole: an all-reduce, as under GSPMD. It also refuses one whose rows and columns are
    on one mesh axis, as those of a batch and of fully sharded weights. Here the rows keep it: the weights are sent.
    """
    rows, columns = jax.typeof(x).sharding, jax.typeof(W).sharding
    (*leading, summed), (matching, trailing) = _entries(rows.spec, x.ndim), _entries(columns.spec, W.ndim)
    taken = {name for entry in leading for name in _names(entry)}
    if (summed is None or matching is None) and taken.isdisjoint(_names(trailing)):
        return None
    left = tuple(name for name in _names(trailing) if name not in taken)
    spec = PartitionSpec(*leading, left or None)  # type: ignore[no-untyped-call]
    return NamedSharding(rows.mesh, spec)


def dot_general(x: Array, W: Array, dimension_numbers: Any, *, out_sharding: Any = None, **options: Any) -> Array:
    """``jax.lax.dot_general`` as the linear layers of Flax call it, with :func:`product_sharding`."""
    if out_sharding is None:
        out_sharding = product_sharding(x, W)
    return lax.dot_general(x, W, dimension_numbers, out_sharding=out_sharding, **options)


def broadcast_like(a: Array, x: Array) -> Array:
    """``a`` with the shape of ``x``, and its place on the mesh.

    The cotangent of ``a`` is so summed where it is, and the sums sent. Left to the product with ``x``, JAX would send
    the cotangents of all elements.
    """
    sharding = jax.typeof(x).sharding
    sharded = any(entry is not None for entry in sharding.spec)
    return jnp.broadcast_to(varying_like(a, x), x.shape, out_sharding=sharding if sharded else None)


def varying_like(a: Array, x: Array) -> Array:
    """``a``, varying over the manual axes over which ``x`` does: its cotangent is summed over them here, once."""
    missing = tuple(sorted(_varying(x) - _varying(a)))
    if not missing:
        return a
    # JAX 0.8 has pvary, and the axes as vma; 0.10 has them no more.
    names: Any = lax
    result: Array = names.pcast(a, missing, to="varying") if hasattr(lax, "pcast") else names.pvary(a, missing)
    return result


def _varying(x: Array) -> frozenset[str]:
    kind = jax.typeof(x)
    axes: frozenset[str] = kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
    return axes


def _entries(spec: PartitionSpec, ndim: int) -> tuple[Any, ...]:
    """An entry for every axis."""
    return (*spec, *(None,) * (ndim - len(spec)))


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of an entry."""
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)
