"""The feed-forward block of each backend, with the weights of the model's own, in the place of the model's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gated.interop import convert, to_reference

__all__ = ["BACKENDS", "replace"]

State = dict[str, Tensor]


class Foreign(nn.Module):
    """A block of another framework inside a torch model: values alone, no gradients."""

    def __init__(self, block: Callable[[Any], Any]) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """The block's result, of the shape and dtype of ``x``."""
        return torch.from_numpy(np.array(self.block(x.numpy(force=True))))


def torch_block(state: State) -> nn.Module:
    """A torch module, whose children have the names of Llama's: its state dict is the block's."""
    from gated.torch_impl.nn import GatedFFN

    hidden, features = state["gate_proj.weight"].shape
    block = GatedFFN(features, hidden)
    block.load_state_dict(state)
    return block


def numpy_block(state: State) -> nn.Module:
    """The reference, on views of the same weights."""
    from gated.numpy_ref import gated_ffn

    W, V, W2, *_ = to_reference(_arrays(state), "llama")
    return Foreign(lambda x: gated_ffn(x, W, V, W2))


def jax_block(state: State) -> nn.Module:
    """A Flax NNX module."""
    import jax
    from flax import nnx

    hidden, features = state["gate_proj.weight"].shape
    weights = convert(_arrays(state), "llama", "gated-flax-nnx")
    kernels = {tuple(key.split(".")): jax.numpy.asarray(array) for key, array in weights.items()}
    params = nnx.State(nnx.traversals.unflatten_mapping(kernels))
    run = _jax_runner(features, hidden)
    return Foreign(lambda x: run(params, x))


@functools.cache
def _jax_runner(features: int, hidden: int) -> Callable[[Any, Any], Any]:
    """One function for the blocks of all layers, so that it is compiled once for each shape of its input."""
    import jax
    from flax import nnx

    from gated.jax_impl.nnx import GatedFFN

    graph, _ = nnx.split(nnx.eval_shape(lambda: GatedFFN(features, hidden, rngs=nnx.Rngs(0))))
    return jax.jit(lambda params, x: nnx.merge(graph, params)(x))


def _arrays(state: State) -> dict[str, Any]:
    return {key: weight.numpy() for key, weight in state.items()}


BACKENDS: dict[str, Callable[[State], nn.Module]] = {"torch": torch_block, "jax": jax_block, "numpy": numpy_block}


def replace(model: Any, backend: str) -> None:
    """Puts a block of ``backend``, with the same weights, in the place of each of the model's."""
    for layer in model.model.layers:
        layer.mlp = BACKENDS[backend](layer.mlp.state_dict())
