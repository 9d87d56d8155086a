"""What can be asked of the model, whatever computes it."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import numpy as np
import torch
from blocks import BACKENDS, replace
from faults import break_layers
from torch import Tensor

__all__ = ["RUNNERS", "InTorch", "Runner", "broken", "runner"]

RUNNERS = (*BACKENDS, "flax")
"""The backends of the blocks, and ``"flax"``, where the whole model is a Flax NNX stack."""


class Runner(Protocol):
    """A model of text."""

    def generate(self, prompt: Tensor, count: int) -> list[int]:
        """The likeliest next tokens after a prompt (1, length), at most ``count``, fewer where the answer ends."""

    def logits(self, text: Tensor) -> Tensor:
        """Those of a text (1, length): (length, vocabulary)."""


class InTorch:
    """A model of transformers."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def generate(self, prompt: Tensor, count: int) -> list[int]:
        """With the cache of keys and values."""
        seen = torch.ones_like(prompt)
        text = self.model.generate(prompt, attention_mask=seen, do_sample=False, max_new_tokens=count)
        tokens: list[int] = text[0, prompt.shape[1] :].tolist()
        return tokens

    def logits(self, text: Tensor) -> Tensor:
        """In one pass."""
        with torch.no_grad():
            result: Tensor = self.model(text, use_cache=False).logits[0]
        return result


class InFlax:
    """The decoder of :mod:`decoder`, with the weights of a model of transformers."""

    def __init__(self, model: Any) -> None:
        from decoder import from_torch

        self.end = model.config.eos_token_id
        self.decoder = from_torch(model)

    def generate(self, prompt: Tensor, count: int) -> list[int]:
        """Without a cache: each token from the whole text."""
        from decoder import greedy

        return greedy(self.decoder, prompt[0].tolist(), count, self.end)

    def logits(self, text: Tensor) -> Tensor:
        """In one pass."""
        import jax

        return torch.from_numpy(np.array(self.decoder(jax.numpy.asarray(text[0].numpy()))))


def runner(model: Any, name: str) -> Runner:
    """The model with its feed-forward blocks by one of ``RUNNERS``; the model itself stays as it is."""
    if name == "flax":
        return InFlax(model)
    ours = copy.deepcopy(model)
    replace(ours, name)
    return InTorch(ours)


def broken(model: Any, fault: str, layers: list[int]) -> Runner:
    """The model with one of ``FAULTS`` in some of its layers."""
    theirs = copy.deepcopy(model)
    break_layers(theirs, fault, layers)
    return InTorch(theirs)
