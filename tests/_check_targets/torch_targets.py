"""Targets of PyTorch, right and wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

forwards = []


def product(gate, value):
    forwards.append(1)
    return gate * value


class Product(torch.autograd.Function):
    """The product, with a backward pass that cannot be differentiated and no forward mode."""

    @staticmethod
    def forward(ctx, gate, value):
        ctx.save_for_backward(gate, value)
        return gate * value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        gate, value = ctx.saved_tensors
        return dy * value, dy * gate


class InPlaceBackward(torch.autograd.Function):
    """Writes the cotangents where the inputs were."""

    @staticmethod
    def forward(ctx, gate, value):
        ctx.saved = gate.detach(), value.detach()
        return gate * value

    @staticmethod
    def backward(ctx, dy):
        gate, value = ctx.saved
        d_value = dy * gate
        gate.copy_(dy * value)
        value.copy_(d_value)
        return gate, value


def stopped(gate, value):
    return gate.detach() * value


def all_stopped(gate, value):
    return (gate * value).detach()


def gives_numpy(gate, value):
    return (gate * value).detach().numpy()


class Scaled(nn.Module):
    """gate * value * a parameter that is 2."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 2.0))

    def forward(self, gate, value):
        return gate * value * self.scale


class NeedsAnArgument(nn.Module):
    """Cannot be made without one."""

    def __init__(self, size):
        super().__init__()


class Bilinear(nn.Module):
    """A feed-forward block of Llama's names, without an activation: sums of products, exact in small integers."""

    def __init__(self, bias=False):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(3, 5, bias=bias), nn.Linear(3, 5, bias=bias)
        self.down_proj = nn.Linear(5, 2, bias=bias)

    def forward(self, x):
        return self.down_proj(self.gate_proj(x) * self.up_proj(x))


class Biased(Bilinear):
    """With biases."""

    def __init__(self):
        super().__init__(bias=True)


class Nested(nn.Module):
    """The names one level down, of Meta's family, and another layer beside them."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.ModuleDict({"w1": nn.Linear(3, 5, bias=False), "w3": nn.Linear(3, 5, bias=False)})
        self.mlp["w2"] = nn.Linear(5, 2, bias=False)
        self.norm = nn.LayerNorm(3)

    def forward(self, x):
        return self.mlp["w2"](self.mlp["w1"](x) * self.mlp["w3"](x))


class OtherNames(nn.Module):
    """Layers of names that nobody knows."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 5), nn.Linear(3, 5)

    def forward(self, x):
        return self.left(x) * self.right(x)


def uses_numpy_too(x):
    return x * torch.from_numpy(np.ones(1, np.float32))


def names_nothing(x):
    return x * x.sigmoid()
