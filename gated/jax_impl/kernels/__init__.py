"""The projections and the gate in one kernel, for TPUs and GPUs, where a caller asks for it.

    with gated.jax_impl.kernels.fused_projections():
        y = gated_ffn(x, W, V, W2)

In the context, ``gated_linear``, ``glu_linear``, ``swiglu_linear`` and the first half of ``gated_ffn`` are Pallas
kernels on TPU, CUDA and ROCm: x @ W and x @ V accumulate side by side, and of what has the hidden size only their gated
product is written. Everywhere else, in float64, and where types say how arrays lie on a mesh, plain operations compute
the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from gated.jax_impl._arrays import Array, Factor
from gated.jax_impl.kernels._blocks import GPU, TPU, Blocks, Choice, checked_choice
from gated.jax_impl.kernels._context import choice, may_be_kernels

__all__ = ["GPU", "TPU", "Blocks", "fused", "fused_projections"]


def fused_projections(
    *, tpu: Blocks = TPU, gpu: Blocks = GPU, interpret: str | None = None
) -> AbstractContextManager[None]:
    """A context in which the projected forms use kernels: for this thread, and for what is traced inside.

    A function under ``jax.jit`` is traced again when it is called in another context than before. The Flax modules are
    not concerned: their projections are layers of their own.

    Args:
        tpu: the tile sizes on TPUs.
        gpu: the tile sizes on GPUs.
        interpret: ``"tpu"`` or ``"gpu"``, to run that kernel in Pallas' interpreter, on any device, slowly; or None.

    Raises:
        TypeError: ``tpu`` or ``gpu`` is no :class:`Blocks`.
        ValueError: a tile size does not fit the device, the tiles need more memory than a kernel has there even in 16
            bits and without a gradient, or ``interpret`` is unknown.
    """
    context: AbstractContextManager[None] = choice(checked_choice(tpu, gpu, interpret))
    return context


def fused(x: Array) -> Callable[[str, Array, Array, Array, Array | None, Array | None, Factor | None], Array] | None:
    """The fused projection of the context, as a function (activation, x, W, V, b, c, beta); None: plain operations.

    float64 has no kernel.
    """
    asked: Choice | None = choice.value
    if asked is None or x.dtype == np.float64 or not may_be_kernels(x):
        return None
    from gated.jax_impl.kernels._fused import linear  # imports Pallas

    return functools.partial(linear, asked)
