"""Right values in torch with wrong gradients: rules written by hand, graphs that were cut, buffers used again."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd import Function


def _slope(x):
    s = torch.sigmoid(x)
    return s + x * s * (1 - s)


class SwigluHalvesSwapped(Function):
    """The two gradients, concatenated in the other order."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * value

    @staticmethod
    def backward(ctx, dy):
        value, gate = ctx.saved_tensors[0].chunk(2, dim=-1)
        return torch.cat([dy * value * _slope(gate), dy * F.silu(gate)], dim=-1)


class SwigluPairSwapped(Function):
    @staticmethod
    def forward(ctx, gate, value):
        ctx.save_for_backward(gate, value)
        return F.silu(gate) * value

    @staticmethod
    def backward(ctx, dy):
        gate, value = ctx.saved_tensors
        return dy * F.silu(gate), dy * value * _slope(gate)


class SwigluOverwrites(Function):
    """Liger's way: the gradients are written into the saved inputs, which are the caller's."""

    @staticmethod
    def forward(ctx, gate, value):
        ctx.save_for_backward(gate, value)
        return F.silu(gate) * value

    @staticmethod
    def backward(ctx, dy):
        gate, value = (saved.data for saved in ctx.saved_tensors)
        activated, slope = F.silu(gate), _slope(gate)
        gate.copy_(dy * value * slope)
        value.copy_(dy * activated)
        return gate, value


class SwigluScratch(Function):
    """The gradient of one is written over the cotangent that the other still needs the next time."""

    @staticmethod
    def forward(ctx, gate, value):
        ctx.save_for_backward(gate, value)
        ctx.activated = F.silu(gate)
        return ctx.activated * value

    @staticmethod
    def backward(ctx, dy):
        gate, value = ctx.saved_tensors
        dvalue = dy * ctx.activated
        ctx.activated.mul_(0)
        return dy * value * _slope(gate), dvalue


class SiluWithoutX(Function):
    """s + s (1 - s): the x of the product rule is lost."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.silu(x)

    @staticmethod
    def backward(ctx, dy):
        s = torch.sigmoid(ctx.saved_tensors[0])
        return dy * (s + s * (1 - s))


class GeluMixed(Function):
    """erf forward, the derivative of the tanh form backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx, dy):
        return torch.ops.aten.gelu_backward(dy, ctx.saved_tensors[0], approximate="tanh")


class ClampedStraightThrough(Function):
    """The gradient passes through the clamps as if they were not there."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        gate, value = x[..., ::2].clamp(max=7), x[..., 1::2].clamp(-7, 7)
        return gate * torch.sigmoid(1.702 * gate) * (value + 1)

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        gate, value = x[..., ::2].clamp(max=7), x[..., 1::2].clamp(-7, 7)
        s = torch.sigmoid(1.702 * gate)
        dx = torch.empty_like(x)
        dx[..., ::2] = dy * (value + 1) * (s + 1.702 * gate * s * (1 - s))
        dx[..., 1::2] = dy * gate * s
        return dx


class SwishBetaOfOneRow(Function):
    """The gradient of a vector beta is the last row's, not the sum over the rows."""

    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x, beta)
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx, dy):
        x, beta = ctx.saved_tensors
        s = torch.sigmoid(beta * x)
        dbeta = dy * x * x * s * (1 - s)
        return dy * (s + beta * x * s * (1 - s)), dbeta.reshape(-1, dbeta.shape[-1])[-1]


class SiluOfSavedOutput(Function):
    """A double backward that is silently wrong: the slope is computed from a detached copy."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.silu(x)

    @staticmethod
    def backward(ctx, dy):
        return dy * _slope(ctx.saved_tensors[0].detach())


def swish_detached_sigmoid(x):
    """The gate is meant to be a constant, and was not."""
    return x * torch.sigmoid(x).detach()


def swiglu_value_by_data(gate, value):
    """`.data`, as in code of 2018."""
    return F.silu(gate) * value.data


def silu_through_numpy(x):
    """A round trip through NumPy: no graph is left."""
    array = x.detach().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(array / (1 + np.exp(-array)))


@torch.no_grad()
def gelu_no_grad(x):
    return F.gelu(x)


class SigmoidInHalf(Function):
    """Keeps its output in half precision to save memory."""

    @staticmethod
    def forward(ctx, x):
        s = torch.sigmoid(x)
        ctx.save_for_backward(s.half())
        return s

    @staticmethod
    def backward(ctx, dy):
        s = ctx.saved_tensors[0].to(dy.dtype)
        return dy * s * (1 - s)


class BilinearForgets(Function):
    """The second gradient is left out."""

    @staticmethod
    def forward(ctx, gate, value):
        ctx.save_for_backward(gate, value)
        return gate * value

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.saved_tensors[1], None
