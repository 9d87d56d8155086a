"""P and its gradient on blocks of CPU tensors, in plain arithmetic that knows where it may not be trusted.

A block is computed by the first of these that its numbers admit, and else by the caller:

1. in the compute dtype, for activations whose exponential's argument needs no rounding: no exponential may leave the
   range (the gate's extremes tell), nor any product (a sum of the results tells);
2. in float64, for float32 and narrower: of finite numbers no product leaves its range, and its roundings are far below
   the narrower dtype's. Where a number is infinite or nan, a result is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ._arrays import Factor, compute_dtype
from ._forms import Form
from ._ordinary import ORDINARY, Room, is_one

__all__ = ["Arithmetic", "arithmetic"]

_FAR: Final = {torch.float32: 80.0, torch.float64: 700.0}
"""e^-_FAR, also times _FAR, is a normal number, and so is its inverse."""
_NEAR: Final = 6.0
"""Up to here 1 - s serves in s + z s (1 - s): s(z) is off by 1.5 2^-24 in float32, and the sum by 4.2 2^-23."""


def _is_dense(x: Tensor) -> bool:
    """Whether neighbours along the last axis are neighbours in memory: strided access is slow."""
    return x.dim() == 0 or x.stride(-1) == 1 or x.shape[-1] == 1


class Arithmetic:
    """P and its derivatives on blocks, in plain arithmetic of one dtype.

    Args:
        far: how far from 0 an exponential's argument may be.
        near: up to which argument the complement of a sigmoid may be had by subtraction.
        widens: whether what is too far or too large may be tried in float64.
        once: for one small block.
    """

    def __init__(self, form: Form, dtype: torch.dtype, far: float, near: float, *, widens: bool, once: bool) -> None:
        self.form, self.near, self.widens = form, near, widens
        self.activation = ORDINARY[form.activation]
        self.far = far if self.activation.exponential else math.inf
        self.room = Room(dtype, once=once)
        self._wider: Arithmetic | None = None

    def _in_float64(self) -> Arithmetic:
        if self._wider is None:
            self._wider = _of_finite_numbers(self.form, self.room.once)
        return self._wider

    # Where the numbers come from and where they go

    def _serves(self, x: Tensor) -> bool:
        return x.dtype == self.room.dtype and (self.room.once or _is_dense(x))

    def _read(self, x: Tensor) -> Tensor:
        return x if self._serves(x) else self.room.copy(x)

    def _target(self, result: Tensor) -> Tensor:
        return result if self._serves(result) else self.room.tensor()

    def _beta(self, beta: Factor) -> Factor:
        return self._read(beta) if isinstance(beta, Tensor) else beta

    def _clamped_gate(self, gate: Tensor) -> Tensor:
        """min(gate, limit)"""
        limit = self.form.limit
        return gate if limit is None else torch.clamp(gate, max=limit, out=self.room.new())

    def _value_factor(self, value: Tensor) -> Tensor:
        """B(value)"""
        limit, offset = self.form.limit, self.form.offset
        if limit is None:
            return value
        factor = torch.clamp(value, -limit, limit, out=self.room.new())
        return factor.add_(offset) if offset else factor

    def _within_limit(self, magnitude: Tensor) -> Tensor:
        """The derivative of a clamp."""
        assert self.form.limit is not None
        return torch.le(magnitude, self.form.limit, out=self.room.tensor())

    # P and its gradient. With False there may be anything in the results.

    def value(self, gate: Tensor, value: Tensor | None, beta: Factor, result: Tensor) -> bool:
        """P in ``result``; False where plain arithmetic does not serve."""
        if self._value(gate, value, beta, result):
            return True
        return self.widens and self._in_float64()._value(gate, value, beta, result)

    def gradient(
        self,
        cotangent: Tensor,
        gate: Tensor,
        value: Tensor | None,
        beta: Factor,
        results: Sequence[Tensor | None],
    ) -> bool:
        """The cotangent times the derivatives of P in gate, value and beta, where there is a result for them; False
        where plain arithmetic does not serve."""
        if self._gradient(cotangent, gate, value, beta, results):
            return True
        return self.widens and self._in_float64()._gradient(cotangent, gate, value, beta, results)

    def _value(self, gate: Tensor, value: Tensor | None, beta: Factor, result: Tensor) -> bool:
        room, activation = self.room, self.activation
        room.clear(gate.shape)
        out = self._target(result)
        x = self._clamped_gate(self._read(gate))
        b = None if value is None else self._value_factor(self._read(value))
        # q comes last: it is at most 1, so that what it makes subnormal is rounded there alone.
        _multiply(out, activation.base(x, room), b, activation.factor(x, self._beta(beta), room))
        if activation.exponential and not x.amin().item() >= -self.far:
            return False
        return _deliver((out,), (result,))

    def _gradient(
        self,
        cotangent: Tensor,
        gate: Tensor,
        value: Tensor | None,
        beta: Factor,
        results: Sequence[Tensor | None],
    ) -> bool:
        room, activation, limited = self.room, self.activation, self.form.limit is not None
        room.clear(gate.shape)
        outs = [None if result is None else self._target(result) for result in results]
        along_gate, along_value, along_beta = outs
        c, raw_gate, beta = self._read(cotangent), self._read(gate), self._beta(beta)
        raw_value = None if value is None else self._read(value)
        x = self._clamped_gate(raw_gate)
        b = None if raw_value is None else self._value_factor(raw_value)
        # The products of what is in memory first: the rest is in cache then.
        if along_gate is not None:
            _multiply(along_gate, c, b)
        if along_value is not None:
            _multiply(along_value, c, activation.base(x, room))
        near = True
        if activation.exponential or activation.hides_nan:
            highest = x.amax().item()
            # At -inf a slope is +0, and not the -0 of a negative one that underflows: neither is infinity in range.
            if not (x.amin().item() > -self.far and highest < self.far):
                return False
            near = highest <= self.near
        if isinstance(beta, Tensor) and not math.isfinite(beta.sum().item()):
            return False
        q = activation.factor(x, beta, room)
        if along_gate is not None:
            activation.times_slope(along_gate, x, q, beta, near, room)
            if limited:
                along_gate.mul_(self._within_limit(raw_gate))
        if along_value is not None:
            if q is not None:
                along_value.mul_(q)
            if limited:
                assert raw_value is not None
                along_value.mul_(self._within_limit(torch.abs(raw_value, out=room.new())))
        if along_beta is not None:
            _multiply(along_beta, c, b)
            activation.times_beta_slope(along_beta, x, beta, room)
        return _deliver(outs, results)


def _multiply(out: Tensor, *factors: Tensor | None) -> None:
    """The product of the factors that are there, one at least, in ``out``."""
    present = [factor for factor in factors if factor is not None]
    if len(present) == 1:
        out.copy_(present[0])
        return
    torch.mul(present[0], present[1], out=out)
    for factor in present[2:]:
        out.mul_(factor)


def _deliver(outs: Sequence[Tensor | None], results: Sequence[Tensor | None]) -> bool:
    """Brings what was computed to its place, if all of it is finite (and its sum, which is quicker to ask)."""
    for out in outs:
        if out is not None and not math.isfinite(out.sum().item()):
            return False
    for out, result in zip(outs, results, strict=True):
        if result is not None and out is not None and out is not result:
            result.copy_(out)
    return True


def _of_finite_numbers(form: Form, once: bool) -> Arithmetic:
    return Arithmetic(form, torch.float64, math.inf, math.inf, widens=False, once=once)


def arithmetic(form: Form, dtype: torch.dtype, beta: Factor, *, once: bool) -> Arithmetic | None:
    """The plain arithmetic for tensors of ``dtype``; None for float64 where an exponential's argument is rounded, and
    for an infinite beta."""
    if isinstance(beta, float) and math.isinf(beta):
        return None
    if form.activation in ("gelu", "gelu_tanh") or (form.activation == "swish" and not is_one(beta)):
        return None if dtype == torch.float64 else _of_finite_numbers(form, once)
    compute = compute_dtype(dtype)
    return Arithmetic(form, compute, _FAR[compute], _NEAR, widens=dtype != torch.float64, once=once)
