"""What a caller asked for, and whether a call is where a kernel can be."""

from __future__ import annotations

from typing import Any, Final

import jax
from jax import lax

from gated.jax_impl._arrays import Array
from gated.jax_impl._explicit import _varying

__all__ = ["choice", "may_be_kernels"]

choice: Final[Any] = jax.make_user_context(None)  # type: ignore[no-untyped-call]
"""The :class:`Choice` in force, None for plain operations. It is a part of the key of every jit cache."""


def may_be_kernels(*operands: Array) -> bool:
    """Whether the types of a kernel's operands and results say nothing of a mesh.

    JAX gives a kernel's results no sharding along explicit axes, nor the axes over which they vary, which
    ``jax.shard_map`` wants with ``check_vma=True``.
    """
    here = jax.sharding.get_abstract_mesh()
    meshes = (here, *(jax.typeof(each).sharding.mesh for each in operands))
    if any(mesh.explicit_axes for mesh in meshes):
        return False
    # With check_vma=True, and then alone, a device's index along an axis varies over it.
    return not any(_varying(lax.axis_index(name)) for name in here.manual_axes)
