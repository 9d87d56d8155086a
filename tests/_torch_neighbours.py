"""What the tests of the neighbours' habits share: a feed-forward block's exact results, and how far float32 may be off.

The bounds are those of running error analysis (:mod:`gated.conformance.carried`). A weight or an input that is itself
off by something known, a quantisation step for one, carries that error in.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import gated.numpy_ref as reference  # noqa: E402
from gated.conformance.bounds import elementwise_bound  # noqa: E402
from gated.conformance.carried import Carried, Rounding, _activation, projection_bounds  # noqa: E402

Array = np.ndarray[Any, Any]
FLOAT32 = Rounding("torch", "float32")
# The functions' letters for the tensors of a state dict.
LETTERS = {
    "W": "gate_proj.weight",
    "V": "up_proj.weight",
    "W2": "down_proj.weight",
    "b": "gate_proj.bias",
    "c": "up_proj.bias",
    "b2": "down_proj.bias",
}


class Eager(nn.Module):
    """Llama's block in plain operations, with copies of the projections of ``like``."""

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        for name, child in like.named_children():
            self.add_module(name, copy.deepcopy(child))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


def double(x: Tensor) -> Array:
    """A tensor's numbers in float64."""
    return x.detach().double().numpy()


def carried(x: Tensor | Array, error: Array | float = 0.0) -> Carried:
    """Numbers with a bound on how far they are off."""
    value = double(x) if isinstance(x, Tensor) else np.asarray(x, np.float64)
    return Carried(value, np.broadcast_to(error, value.shape).astype(np.float64))


def letters(tensors: dict[str, Tensor | None]) -> dict[str, Array]:
    """The tensors of a state dict, or their gradients, by letter: weights as (in, out)."""
    return {letter: double(one).T for letter, name in LETTERS.items() if (one := tensors.get(name)) is not None}


def exact_and_bounds(module: nn.Module, x: Tensor, cotangent: Tensor, activation: str) -> tuple[Any, Any]:
    """The exact output and gradients of a block with the weights of ``module``, by letter, and their float32 bounds."""
    arguments = {"x": double(x).reshape(-1, x.shape[-1])} | letters(dict(module.named_parameters()))
    c = double(cotangent).reshape(-1, cotangent.shape[-1])
    names = ("x", "W", "V", "W2", "b", "c", "b2")
    value, pullback = reference.vjp(
        reference.gated_ffn, *(arguments.get(name) for name in names), activation=activation
    )
    exact = {"value": value} | dict(zip(names, pullback(c), strict=True))
    bounds = projection_bounds("torch", "float32", arguments, c, activation=activation, beta=np.float64(1.0))
    return exact, bounds


def results(module: nn.Module, x: Tensor, cotangent: Tensor) -> dict[str, Array]:
    """The output and the gradients that a module gives, by letter, rows flattened."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = module(x)
    y.backward(cotangent)
    found = {"value": double(y).reshape(-1, y.shape[-1]), "x": double(x.grad).reshape(-1, x.shape[-1])}
    return found | letters({name: one.grad for name, one in module.named_parameters()})


def ffn_forward(
    x: Carried, W: Carried, V: Carried, W2: Carried, *, biases: dict[str, Array], hidden_step: Array | float = 0.0
) -> Carried:
    """silu(x W + b) * (x V + c) W2 + b2 in float32, with what its inputs are off by and a step added to the product."""

    def bias(name: str) -> Carried | None:
        return carried(biases[name]) if name in biases else None

    return down(FLOAT32.product(x, W, bias("b")), FLOAT32.product(x, V, bias("c")), W2, bias("b2"), hidden_step)


def down(gate: Carried, value: Carried, W2: Carried, b2: Carried | None, hidden_step: Array | float = 0.0) -> Carried:
    """The rest of the block, from gate and value."""
    beta = np.ones_like(gate.value)
    ulps = elementwise_bound(
        "torch", "float32", activation="swish", partial="value", gate=gate.value, beta=beta, gradient=False
    )
    hidden = FLOAT32.times(_activation("swish", gate, beta)["value"], value, ulps)
    return FLOAT32.product(Carried(hidden.value, hidden.error + hidden_step), W2, b2)
