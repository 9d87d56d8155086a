"""P and its gradient on blocks of CPU tensors, in plain arithmetic that knows where it may not be trusted.

A block is computed by the first of these that its numbers admit, and else by the caller:

1. in the compute dtype, for activations whose exponential's argument needs no rounding: no exponential may leave the
   range (the gate's extremes tell), nor any product (a sum of the results tells);
2. in float64, for float32 and narrower: of finite numbers no product leaves its range, and its roundings are far below
   the narrower dtype's. Where a number is infinite or nan, a result is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ._arrays import Factor, compute_dtype
from ._forms import Form
from ._ordinary import ORDINARY, Room, is_one
from ._words import parts

__all__ = ["Arithmetic", "arithmetic"]

_FAR: Final = {torch.float32: 80.0, torch.float64: 700.0}
"""e^-_FAR, also times _FAR, is a normal number, and so is its inverse."""
_NEAR: Final = 5.0
"""Up to here 1 - s serves in s + x s (1 - s). In float32 s(x) is off by up to 1.5 2^-24, which makes 0.75 x 2^-23 of a
sum near 1: with a cotangent near a power of two twice as many units in the last place, and 6.8 in all (measured)."""
_FUSED: Final = 8.0
"""Down to minus this (c s) (1 + x (1 - s)) serves as c A', in torch's fused operation. Where c s is subnormal it is off
by half a unit, and its product with 1 + x (1 - s), at least -7, by 3.5 more."""


class Arithmetic:
    """P and its derivatives on blocks, in plain arithmetic of one dtype.

    Args:
        dtype: what is computed in, and what the rooms of the calls are of.
        far: how far from 0 an exponential's argument may be.
        near: up to which argument the complement of a sigmoid may be had by subtraction.
        fused: how far below 0 torch's fused operations serve.
        widens: whether what is too far or too large may be tried in float64.
    """

    def __init__(self, form: Form, dtype: torch.dtype, far: float, near: float, fused: float, *, widens: bool) -> None:
        self.dtype = dtype
        self.activation = ORDINARY[form.activation]
        self.limit, self.offset = form.limit, form.offset
        self.far = far if self.activation.exponential else math.inf
        self.near, self.fused = near, fused if self.activation.fused else -math.inf
        self.wider = _of_finite_numbers(form) if widens else None

    def _clamped(self, gate: Tensor, value: Tensor, room: Room) -> tuple[Tensor, Tensor]:
        """min(gate, limit) and B(value)"""
        limit = self.limit
        assert limit is not None
        factor = torch.clamp(value, -limit, limit, out=room.new())
        if self.offset:
            factor.add_(self.offset)
        return torch.clamp(gate, max=limit, out=room.new()), factor

    def _within_limit(self, magnitude: Tensor, room: Room) -> Tensor:
        """The derivative of a clamp."""
        assert self.limit is not None
        return torch.le(magnitude, self.limit, out=room.new())

    # P and its gradient. Where this arithmetic does not serve there may be anything in the results.

    def value(
        self, gate: Tensor, value: Tensor | None, beta: Factor, result: Tensor | None, room: Room
    ) -> Tensor | None:
        """P, in ``result`` if that is given; None where plain arithmetic does not serve."""
        product = self._value(gate, value, beta, result, room)
        if product is None and self.wider is not None:
            product = self.wider._value(gate, value, beta, result, room.wider)
        return product

    def gradient(
        self,
        cotangent: Tensor,
        gate: Tensor,
        value: Tensor | None,
        beta: Factor,
        results: Sequence[Tensor | None],
        room: Room,
    ) -> bool:
        """The cotangent times the derivatives of P in gate, value and beta, where there is a result for them; False
        where plain arithmetic does not serve."""
        if self._gradient(cotangent, gate, value, beta, results, room):
            return True
        return self.wider is not None and self.wider._gradient(cotangent, gate, value, beta, results, room.wider)

    def _value(
        self, gate: Tensor, value: Tensor | None, beta: Factor, result: Tensor | None, room: Room
    ) -> Tensor | None:
        activation, out = self.activation, None
        if result is not None:
            room.clear(gate.shape)
            out = _target(result, room)
        x = room.read(gate)
        b = None if value is None else room.read(value)
        if self.limit is not None and b is not None:
            x, b = self._clamped(x, b, room)
        base = activation.base(x, room)
        product = _product(out, base, b) if base is None or b is None else torch.mul(base, b, out=out)
        if activation.exponential:
            if not x.amin().item() >= -self.far:
                return None
            # q comes last: it is at most 1, so that what it makes subnormal is rounded there alone.
            q = activation.factor(x, room.read(beta) if isinstance(beta, Tensor) else beta, room)
            assert q is not None
            product = _product(out, q) if product is None else product.mul_(q)
        assert product is not None
        if not math.isfinite(product.sum().item()):
            return None
        if result is None:
            return product if gate.dtype == self.dtype else product.to(gate.dtype)
        return result if product is result else result.copy_(product)

    def _gradient(
        self,
        cotangent: Tensor,
        gate: Tensor,
        value: Tensor | None,
        beta: Factor,
        results: Sequence[Tensor | None],
        room: Room,
    ) -> bool:
        activation, limited = self.activation, self.limit is not None
        room.clear(gate.shape)
        to_gate, to_value, to_beta = results
        c, x = room.read(cotangent), room.read(gate)
        b = None if value is None else room.read(value)
        raw_gate, raw_value = x, b
        if limited and b is not None:
            x, b = self._clamped(x, b, room)
        # The products of what is in memory first: the rest is in cache then.
        along_gate = None if to_gate is None else _product(_target(to_gate, room), c, b)
        along_value = None if to_value is None else _product(_target(to_value, room), c, activation.base(x, room))
        lowest = highest = 0.0
        if activation.exponential or activation.hides_nan:
            lowest, highest = room.extremes(x)
            # At -inf a slope is +0, and not the -0 of a negative one that underflows: neither is infinity in range.
            if not (lowest > -self.far and highest < self.far):
                return False
        if isinstance(beta, Tensor):
            beta = room.read(beta)
            if not math.isfinite(beta.sum().item()):
                return False
        if -self.fused <= lowest and highest <= self.near:
            if along_gate is not None:
                activation.times_slope_fused(along_gate, x)
            if along_value is not None:
                activation.times_factor_fused(along_value, x)
        else:
            q = activation.factor(x, beta, room)
            if along_gate is not None:
                activation.times_slope(along_gate, x, q, beta, highest <= self.near, room)
            if along_value is not None and q is not None:
                along_value.mul_(q)
        if limited:
            if along_gate is not None:
                along_gate.mul_(self._within_limit(raw_gate, room))
            if along_value is not None:
                assert raw_value is not None
                along_value.mul_(self._within_limit(torch.abs(raw_value, out=room.new()), room))
        along_beta = None
        if to_beta is not None:
            along_beta = _product(_target(to_beta, room), c, b)
            assert along_beta is not None
            activation.times_beta_slope(along_beta, x, beta, room)
        return _deliver((along_gate, along_value, along_beta), results)


def _target(result: Tensor | None, room: Room) -> Tensor | None:
    """Where ``result`` is computed: itself, another tensor, or None for one that the operation makes."""
    return room.new() if result is None or not room.serves(result) else result


def _product(out: Tensor | None, a: Tensor | None, b: Tensor | None = None) -> Tensor | None:
    """The product of the factors that are there, in memory of its own or in ``out``."""
    if a is None or b is None:
        one = b if a is None else a
        return None if one is None else one.clone() if out is None else out.copy_(one)
    return torch.mul(a, b, out=out)


def _deliver(products: Sequence[Tensor | None], results: Sequence[Tensor | None]) -> bool:
    """Brings what was computed to its place, if all of it is finite (and its sum, which is quicker to ask)."""
    for product in products:
        if product is not None and not math.isfinite(product.sum().item()):
            return False
    for product, result in zip(products, results, strict=True):
        if result is not None and product is not None and product is not result:
            result.copy_(product)
    return True


def _of_finite_numbers(form: Form) -> Arithmetic:
    return Arithmetic(form, torch.float64, math.inf, math.inf, -math.inf, widens=False)


def _new(form: Form, dtype: torch.dtype, beta_is_one: bool) -> Arithmetic | None:
    narrow, compute = dtype != torch.float64, compute_dtype(dtype)
    rounded = form.activation in ("gelu", "gelu_tanh") or (form.activation == "swish" and not beta_is_one)
    # The limit is compared, and the offset added, as the real number it is.
    if rounded or any(number != parts(number, compute).high for number in (form.limit or 0, form.offset)):
        return _of_finite_numbers(form) if narrow else None
    far = _FAR[compute]
    # The errors that the bounds keep small are below 100 units, of which an ulp of 16 bits has 2^13 or more.
    near, fused = (far, far) if dtype.itemsize == 2 else (_NEAR, _FUSED)
    return Arithmetic(form, compute, far, near, fused, widens=narrow)


_cached: Final = functools.cache(_new)


def arithmetic(form: Form, dtype: torch.dtype, beta: Factor) -> Arithmetic | None:
    """The plain arithmetic for tensors of ``dtype``; None for float64 where an exponential's argument is rounded, and
    for an infinite beta."""
    one = is_one(beta)
    if not one and isinstance(beta, float) and math.isinf(beta):
        return None
    # There are as many forms as activations and axes; the numbers of a clamp are any, and may be zeros of two signs.
    return (_cached if form.limit is None else _new)(form, dtype, one)
