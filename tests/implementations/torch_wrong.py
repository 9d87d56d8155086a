"""Wrong values in torch: functions and modules, as people write and port them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Swish(nn.Module):
    """speechbrain's: silu(beta x), off by the factor beta."""

    def __init__(self, beta=1.5):
        super().__init__()
        self.beta = beta
        self.silu = nn.SiLU()

    def forward(self, x):
        return self.silu(x * self.beta)


def swish_ignores(x, beta):
    del beta
    return F.silu(x)


class SiluAndMul(nn.Module):
    """The order of serving engines."""

    def forward(self, x):
        half = x.shape[-1] // 2
        return F.silu(x[..., :half]) * x[..., half:]


def glu_of_torch(x):
    """torch's own, whose gate is last, where the checkpoint has it first."""
    return F.glu(x, dim=-1)


def swiglu_activates_up(gate, up):
    return gate * F.silu(up)


def swiglu_of_product(x):
    value, gate = x.chunk(2, dim=-1)
    return F.silu(gate * value)


class NewGELU(nn.Module):
    """GPT-2's."""

    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x.pow(3))))


class GeluAndMul(nn.Module):
    """erf where the model's card says tanh."""

    def forward(self, x):
        value, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * value


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def swiglu_rounded_between(x):
    """silu rounds to the array's 16 bits, the product once more."""
    value, gate = x.chunk(2, dim=-1)
    return F.silu(gate) * value


def swiglu_in_half(x):
    """Half precision for speed, whatever comes."""
    value, gate = x.half().chunk(2, dim=-1)
    return (F.silu(gate) * value).to(x.dtype)


def silu_in_single(x):
    return F.silu(x.float()).to(x.dtype)


def silu_returns_single(x):
    return F.silu(x.float())


def silu_strides(x):
    """A kernel that is given data_ptr() and believes in rows without gaps."""
    rows = [1]
    for size in reversed(x.shape[1:]):
        rows.insert(0, rows[0] * size)
    return F.silu(torch.as_strided(x, x.shape, rows))


def swiglu_keeps_gate(x):
    """Sliced with the whole width left: the result is twice as wide."""
    value, gate = x.chunk(2, dim=-1)
    return torch.cat([F.silu(gate) * value, value], dim=-1)


def swiglu_in_place(gate, value):
    """Saves an allocation, and the caller's gate is gone."""
    with torch.no_grad():
        gate.copy_(F.silu(gate))
    return gate * value


def swiglu_dropout(x):
    """A dropout that does not look at training."""
    value, gate = x.chunk(2, dim=-1)
    return F.dropout(F.silu(gate) * value, p=0.01)


def clamped_interleaved(x, alpha=1.702, limit=7.0):
    """No + 1 on the up projection."""
    gate, up = x[..., ::2].clamp(max=limit), x[..., 1::2].clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * up


def clamped_both(x, alpha=1.702, limit=7.0):
    gate, up = x[..., ::2].clamp(-limit, limit), x[..., 1::2].clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def clamped_concatenated(x, alpha=1.702, limit=7.0):
    """An interleaved checkpoint, read as two halves."""
    gate, up = x.chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def mlp_transposed(x, W, V, W2):
    """F.linear transposes once more."""
    return F.linear(F.silu(F.linear(x, W)) * F.linear(x, V), W2)


def mlp_swapped(x, w1, w3, w2):
    return (F.silu(x @ w3) * (x @ w1)) @ w2


def geglu_linear_no_bias(x, W, V, b, c):
    del c
    return F.gelu(x @ W + b) * (x @ V)


def swiglu_linear_bias_twice(x, W, V, b, c):
    gate = torch.addmm(b, x, W) + b
    return F.silu(gate) * torch.addmm(c, x, V)


def swiglu_linear_biases_swapped(x, W, V, b, c):
    return F.silu(x @ W + c) * (x @ V + b)
