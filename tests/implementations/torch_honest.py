"""Sound implementations in torch, plain as users have them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function


def swiglu_chunk(x):
    value, gate = x.chunk(2, dim=-1)
    return F.silu(gate) * value


def swiglu_pair(gate, value):
    return F.silu(gate) * value


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


class LlamaAct(nn.Module):
    """A module without parameters, gate first."""

    def forward(self, x):
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate) * up


class GluLayer(nn.GLU):
    """torch's own, with its default dim."""


class SiluByHand(Function):
    """A rule by hand that saves the input alone."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.silu(x)

    @staticmethod
    def backward(ctx, dy):
        return torch.ops.aten.silu_backward(dy, ctx.saved_tensors[0])


def clamped(x, alpha=1.702, limit=7.0):
    """gpt-oss."""
    gate, up = x[..., ::2], x[..., 1::2]
    gate, up = gate.clamp(min=None, max=limit), up.clamp(min=-limit, max=limit)
    return (up + 1) * (gate * torch.sigmoid(gate * alpha))


def llama_mlp(x, W, V, W2):
    return (F.silu(x @ W) * (x @ V)) @ W2


def swish_learned(x, beta):
    return x * torch.sigmoid(beta * x)
