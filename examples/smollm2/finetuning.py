"""Some steps of training with the torch module, each gradient held against the original block's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from blocks import replace
from rounding import Float64
from torch import Tensor, nn

from gated.conformance.carried import projection_bounds

__all__ = ["Step", "finetune"]


@dataclass(frozen=True)
class Step:
    """What one step gave.

    Attributes:
        loss: of the model with our blocks.
        original: of the original model with the same weights.
        share: over all blocks, the largest difference between our gradient and the original block's of the same input
            and cotangent, as a share of twice the rounding bound: each may be off by the bound once.
        distance: of the whole model's gradient from the same in float64, relative, in the Euclidean norm.
        original_distance: that of the original model.
    """

    loss: float
    original: float
    share: float
    distance: float
    original_distance: float


def finetune(model: Any, batches: list[Tensor], rate: float = 1e-4) -> Iterator[Step]:
    """Trains a copy of the model with our blocks by AdamW, a step a batch, beside the original."""
    ours = copy.deepcopy(model)
    replace(ours, "torch")
    optimiser = torch.optim.AdamW(ours.parameters(), lr=rate)
    for tokens in batches:
        # The names are the same: what was trained so far goes back into the original.
        model.load_state_dict(ours.state_dict())
        exact = copy.deepcopy(model).double()
        with Float64():
            _, true = _gradients(exact, tokens)
        seen = _Seen(ours)
        loss, found = _gradients(ours, tokens)
        original, expected = _gradients(model, tokens)
        share = max(
            _share(a.mlp, b.mlp, *pair)
            for a, b, pair in zip(ours.model.layers, model.model.layers, seen.pairs(), strict=True)
        )
        yield Step(loss, original, share, _distance(found, true), _distance(expected, true))
        for name, parameter in ours.named_parameters():
            parameter.grad = found[name]
        optimiser.step()


def _gradients(model: Any, tokens: Tensor) -> tuple[float, dict[str, Tensor]]:
    """The loss of predicting each next token, and its gradient in every parameter."""
    parameters = dict(model.named_parameters())
    logits = model(tokens, use_cache=False).logits[:, :-1]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return loss.item(), dict(zip(parameters, gradients, strict=True))


class _Seen:
    """The input of every block, and the cotangent of its result."""

    def __init__(self, model: Any) -> None:
        self._inputs: list[Tensor] = []
        self._cotangents: dict[int, Tensor] = {}
        self._hooks = [layer.mlp.register_forward_hook(self._note) for layer in model.model.layers]

    def _note(self, block: nn.Module, inputs: tuple[Tensor], result: Tensor) -> None:
        number = len(self._inputs)
        self._inputs.append(inputs[0].detach())
        result.register_hook(lambda cotangent: self._cotangents.__setitem__(number, cotangent.detach()))

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(rows, features) of each block; no more are noted."""
        for hook in self._hooks:
            hook.remove()
        return [(x.flatten(0, -2), self._cotangents[n].flatten(0, -2)) for n, x in enumerate(self._inputs)]


_NAMES = {"W": "gate_proj", "V": "up_proj", "W2": "down_proj"}


def _share(ours: nn.Module, original: nn.Module, x: Tensor, cotangent: Tensor) -> float:
    """The largest difference of the gradients in x and the weights, as a share of twice the bound."""
    weights = {letter: getattr(original, name).weight for letter, name in _NAMES.items()}
    arguments = {"x": _wide(x)} | {letter: _wide(weight).T for letter, weight in weights.items()}
    bounds = projection_bounds("torch", "float32", arguments, _wide(cotangent), activation="swish", beta=np.ones(()))
    one, other = (_block_gradients(block, x, cotangent) for block in (ours, original))
    return max(float(np.max(np.abs(one[name] - other[name]) / (2 * bounds[name]))) for name in one)


def _block_gradients(block: nn.Module, x: Tensor, cotangent: Tensor) -> dict[str, np.ndarray]:
    x = x.clone().requires_grad_()
    weights = [getattr(block, name).weight for name in _NAMES.values()]
    in_x, *in_weights = torch.autograd.grad(block(x), [x, *weights], cotangent)
    transposed = {letter: _wide(gradient).T for letter, gradient in zip(_NAMES, in_weights, strict=True)}
    return {"x": _wide(in_x)} | transposed


def _wide(array: Tensor) -> np.ndarray:
    return array.detach().double().numpy()


def _distance(found: dict[str, Tensor], true: dict[str, Tensor]) -> float:
    """The relative distance between two gradients."""
    apart = sum(float((found[name].double() - gradient).square().sum()) for name, gradient in true.items())
    size = sum(float(gradient.square().sum()) for gradient in true.values())
    return (apart / size) ** 0.5
