"""The activations in plain arithmetic, for numbers whose products and exponentials stay in the range of their dtype.

Every activation is a product of a base and a factor:

    A(x) = base q;   swish: x s(beta x);  gelu: x Phi(x), x s(w(x));  sigmoid: s(x);  relu, identity: the base alone

The operations write to memory that is given (``room``): on the CPU they are bound by memory, and fresh memory is slow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from ._arrays import Factor
from ._curves import GELU_TANH_CUBIC, GELU_TANH_SCALE

__all__ = ["ORDINARY", "NoRoom", "Ordinary", "Room", "is_one"]

_aten = torch.ops.aten


class Room:
    """Tensors of one dtype to compute in, used again for block after block."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._tensors: list[Tensor] = []
        self._shape = torch.Size()
        self._used = 0
        self._wider: Room | None = None

    def clear(self, shape: torch.Size) -> None:
        """Takes all of them back. The next ones are of ``shape``."""
        self._shape, self._used = shape, 0

    def new(self) -> Tensor | None:
        """What an operation takes as ``out``: an uninitialised tensor, or None for one of its own."""
        place = self._used
        self._used += 1
        if place == len(self._tensors):
            self._tensors.append(torch.empty(self._shape, dtype=self.dtype, device="cpu"))
        tensor = self._tensors[place]
        if tensor.shape == self._shape:
            return tensor
        size = self._shape.numel()
        if tensor.numel() < size:
            tensor = self._tensors[place] = torch.empty(self._shape, dtype=self.dtype, device="cpu")
        return tensor.view(-1)[:size].view(self._shape)

    def serves(self, x: Tensor) -> bool:
        """Whether ``x`` can be computed with, or in, where it lies: access to scattered numbers is slow."""
        return x.dtype == self.dtype and (x.dim() == 0 or x.stride(-1) == 1 or x.shape[-1] == 1)

    def read(self, x: Tensor) -> Tensor:
        """``x`` as it can be computed with: itself, or a copy."""
        return x if self.serves(x) else self.copy(x)

    def extremes(self, x: Tensor) -> tuple[float, float]:
        """The least and the greatest of the numbers; nan if one is."""
        return x.amin().item(), x.amax().item()

    def copy(self, x: Tensor) -> Tensor:
        """``x`` in the dtype of the room, to be overwritten."""
        tensor = self.new()
        assert tensor is not None
        return tensor.copy_(x)

    @property
    def wider(self) -> Room:
        """A room of float64."""
        if self._wider is None:
            self._wider = type(self)(torch.float64)
        return self._wider


class NoRoom(Room):
    """For one small block: operations make tensors of their own, which takes less time then. It keeps nothing."""

    def clear(self, shape: torch.Size) -> None:
        pass

    def new(self) -> None:
        return None

    def serves(self, x: Tensor) -> bool:
        return x.dtype == self.dtype

    def read(self, x: Tensor) -> Tensor:
        return x if x.dtype == self.dtype else x.to(self.dtype)

    def extremes(self, x: Tensor) -> tuple[float, float]:
        lowest, highest = torch.aminmax(x)  # one call, though a slower one for each number
        return lowest.item(), highest.item()

    def copy(self, x: Tensor) -> Tensor:
        return x.to(self.dtype, copy=True)


def is_one(beta: Factor) -> bool:
    """Whether beta is the number 1."""
    return type(beta) is float and beta == 1.0


_DEEP: Final = -700.0
"""In float64 e^_DEEP is a normal number, and no narrower dtype tells it from zero, whatever it is multiplied with.
Where the terms of a sum would underflow, and the sum lose its sign, those of _DEEP stand for them."""


_ONE: Final = 40.0
"""From here on the sigmoid rounds to 1, in float64 too."""


def _argument(x: Tensor, beta: Factor, room: Room) -> Tensor:
    """z = beta x"""
    if x.dtype != torch.float64:
        return x  # float32 is taken for beta = 1 alone, and not far from 0
    assert beta is not None
    return torch.mul(x, beta, out=room.new()).clamp_min_(_DEEP)


class Ordinary:
    """An activation A(x; beta) = base q."""

    exponential = True
    """Whether there is an exponential of x, which may leave the range."""
    hides_nan = False
    """Whether the slope at nan is a number."""
    fused = False
    """Whether torch has q and the slope as one operation each, good near 0."""

    def base(self, x: Tensor, room: Room) -> Tensor | None:
        return x

    def factor(self, x: Tensor, beta: Factor, room: Room) -> Tensor | None:
        """q"""
        return None

    def times_slope(self, c: Tensor, x: Tensor, q: Tensor | None, beta: Factor, near: bool, room: Room) -> None:
        """c A', in place of c. ``near`` says that 1 - q is good to a few units in the last place of q / x."""
        raise NotImplementedError

    def times_factor_fused(self, c: Tensor, x: Tensor) -> None:
        """c q, in place of c, if ``fused``."""
        raise NotImplementedError

    def times_slope_fused(self, c: Tensor, x: Tensor) -> None:
        """c A', in place of c, if ``fused``."""
        raise NotImplementedError

    def times_beta_slope(self, c: Tensor, x: Tensor, beta: Factor, room: Room) -> None:
        """c A_beta, in place of c. A does not depend on beta."""
        c.mul_(0)


class _Identity(Ordinary):
    """x"""

    exponential = False

    def times_slope(self, c: Tensor, x: Tensor, q: Tensor | None, beta: Factor, near: bool, room: Room) -> None:
        pass


class _Relu(Ordinary):
    """max(x, 0)"""

    exponential = False
    hides_nan = True

    def base(self, x: Tensor, room: Room) -> Tensor:
        # Unlike a maximum, whose sign IEEE 754 leaves open, this keeps -0.
        info = torch.finfo(x.dtype)
        result: Tensor = torch.threshold(x, -info.smallest_normal * info.eps, 0, out=room.new())
        return result

    def times_slope(self, c: Tensor, x: Tensor, q: Tensor | None, beta: Factor, near: bool, room: Room) -> None:
        c.mul_(torch.gt(x, 0, out=room.new()))


def _sigmoid_backward(c: Tensor, s: Tensor, out: Tensor | None) -> Tensor:
    """c s (1 - s)"""
    result: Tensor = (
        _aten.sigmoid_backward.default(c, s) if out is None else _aten.sigmoid_backward.grad_input(c, s, grad_input=out)
    )
    return result


def _times_logistic_slope(c: Tensor, z: Tensor) -> None:
    """c s(z) (1 - s(z)), in place of c and z: it is even in z, and the complement of s(-|z|) loses nothing."""
    _sigmoid_backward(c, z.abs_().neg_().sigmoid_(), c)


class _Sigmoid(Ordinary):
    """s(x)"""

    def base(self, x: Tensor, room: Room) -> None:
        return None

    def factor(self, x: Tensor, beta: Factor, room: Room) -> Tensor:
        return torch.sigmoid(x, out=room.new())

    def times_slope(self, c: Tensor, x: Tensor, q: Tensor | None, beta: Factor, near: bool, room: Room) -> None:
        """s (1 - s)"""
        _times_logistic_slope(c, room.copy(x))


class _Swish(Ordinary):
    """x s(z), z = beta x"""

    fused = True

    def factor(self, x: Tensor, beta: Factor, room: Room) -> Tensor:
        z = _argument(x, beta, room)
        return torch.sigmoid(z, out=room.new())

    def times_slope(self, c: Tensor, x: Tensor, q: Tensor | None, beta: Factor, near: bool, room: Room) -> None:
        """s + z s (1 - s)"""
        assert q is not None
        z = _argument(x, beta, room)
        if near:
            slope = _sigmoid_backward(z, q, room.new()).add_(q)
        else:
            slope = torch.neg(z, out=room.new()).sigmoid_().mul_(z)
            torch.addcmul(q, q, slope, out=slope)
        c.mul_(slope)

    def times_factor_fused(self, c: Tensor, x: Tensor) -> None:
        """s = e^x / (1 + e^x), the derivative of softplus; 1 beyond _ONE"""
        _aten.softplus_backward.grad_input(c, x, 1.0, _ONE, grad_input=c)

    def times_slope_fused(self, c: Tensor, x: Tensor) -> None:
        """s (1 + x (1 - s))"""
        _aten.silu_backward.grad_input(c, x, grad_input=c)

    def times_beta_slope(self, c: Tensor, x: Tensor, beta: Factor, room: Room) -> None:
        """x^2 s (1 - s)"""
        c.mul_(x).mul_(x)
        _times_logistic_slope(c, _argument(x, beta, room))


class _Gelu(Ordinary):
    """x Phi(x)"""

    def factor(self, x: Tensor, beta: Factor, room: Room) -> Tensor:
        """erfc(-x / sqrt 2) / 2"""
        return torch.mul(x, -math.sqrt(0.5), out=room.new()).erfc_().mul_(0.5)

    def times_slope(self, c: Tensor, x: Tensor, q: Tensor | None, beta: Factor, near: bool, room: Room) -> None:
        """Phi + x e^(-x^2 / 2) / sqrt(2 pi)"""
        assert q is not None
        x = torch.clamp(x, min=-math.sqrt(-2 * _DEEP), out=room.new())
        density = torch.mul(x, x, out=room.new()).mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
        c.mul_(torch.addcmul(q, x, density, out=density))


class _GeluTanh(Ordinary):
    """x s(w), w = x (scale + cubic x^2)"""

    def factor(self, x: Tensor, beta: Factor, room: Room) -> Tensor:
        w = torch.mul(x, x, out=room.new()).mul_(GELU_TANH_CUBIC).add_(GELU_TANH_SCALE).mul_(x)
        return w.clamp_min_(_DEEP).sigmoid_()

    def times_slope(self, c: Tensor, x: Tensor, q: Tensor | None, beta: Factor, near: bool, room: Room) -> None:
        """s + x w' s (1 - s), x w' = x (scale + 3 cubic x^2)"""
        assert q is not None
        slope = torch.mul(x, x, out=room.new()).mul_(3 * GELU_TANH_CUBIC).add_(GELU_TANH_SCALE).mul_(x)
        c.mul_(_sigmoid_backward(slope, q, slope).add_(q))


ORDINARY: Final[Mapping[str, Ordinary]] = {
    "identity": _Identity(),
    "sigmoid": _Sigmoid(),
    "relu": _Relu(),
    "gelu": _Gelu(),
    "gelu_tanh": _GeluTanh(),
    "swish": _Swish(),
}
