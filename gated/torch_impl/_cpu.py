"""The gated forms on the CPU in eager mode: block by block, so that what is computed in stays in cache.

A block is computed by the first of these that its numbers admit:

1. plain arithmetic in the compute dtype, for activations whose exponential's argument needs no rounding: no exponential
   may leave the range (the gate's extremes tell), nor any product (a sum of the results tells);
2. plain arithmetic in float64, for float32 and narrower: of finite numbers no product leaves its range, and its
   roundings are far below the narrower dtype's;
3. the exact arithmetic of :mod:`gated.torch_impl._forms`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from . import _forms as exact
from ._arrays import Factor, compute_dtype
from ._forms import IN_BETA, IN_VALUE, IN_X, Form
from ._memory import new_like
from ._ordinary import ORDINARY, Room, is_one
from ._threads import block_size, shared

__all__ = ["evaluate", "is_plain", "pullback"]

_Block = tuple[int | slice, ...]

_FAR: Final = {torch.float32: 80.0, torch.float64: 700.0}
"""e^-_FAR, also times _FAR, is a normal number, and so is its inverse."""
_NEAR: Final = 6.0
"""Up to here 1 - s serves in s + z s (1 - s): s(z) is off by 1.5 2^-24 in float32, and the sum by 4.2 2^-23."""
_NAMES: Final = (IN_X, IN_VALUE, IN_BETA)
_TENSORS: Final = (Tensor, nn.Parameter)


def is_plain(*operands: object) -> bool:
    """Whether the operands are ordinary CPU tensors (or no tensors), which may be computed with outside autograd."""
    for operand in operands:
        if isinstance(operand, Tensor) and not (type(operand) in _TENSORS and operand.device.type == "cpu"):
            return False
    return not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


def _blocks(shape: Sequence[int], size: int) -> Iterator[_Block]:
    """Indices of parts of an array of ``shape``, of about ``size`` elements each, the first the largest."""
    inner = math.prod(shape)
    if inner <= size:
        yield ()
        return
    axis = -1
    while inner > size:
        axis += 1
        inner //= shape[axis]
    step = max(1, size // inner)
    for lead in itertools.product(*map(range, shape[:axis])):
        for start in range(0, shape[axis], step):
            yield (*lead, slice(start, start + step))


def _part(x: Any, block: _Block) -> Any:
    return x[block] if block and isinstance(x, Tensor) else x


def _memory_order(x: Tensor) -> list[int]:
    """The axes of ``x`` in the order in which it lies in memory."""
    strides = x.stride()
    return sorted(range(x.dim()), key=lambda axis: -strides[axis])


def _permuted(x: Any, order: Sequence[int]) -> Any:
    return x.permute(order) if isinstance(x, Tensor) and len(order) > 1 else x


def _is_dense(x: Tensor) -> bool:
    """Whether neighbours along the last axis are neighbours in memory: strided access is slow."""
    return x.dim() == 0 or x.stride(-1) == 1 or x.shape[-1] == 1


class _Arithmetic:
    """P and its derivatives on blocks, in plain arithmetic of one dtype.

    Args:
        far: how far from 0 an exponential's argument may be.
        near: up to which argument the complement of a sigmoid may be had by subtraction.
    """

    def __init__(self, form: Form, dtype: torch.dtype, far: float, near: float) -> None:
        self.form, self.far, self.near = form, far, near
        self.activation = ORDINARY[form.activation]
        self.room = Room(dtype)

    # Where the numbers come from and where they go

    def _read(self, x: Tensor) -> Tensor:
        return x if x.dtype == self.room.dtype and _is_dense(x) else self.room.new().copy_(x)

    def _target(self, result: Tensor) -> Tensor:
        return result if result.dtype == self.room.dtype and _is_dense(result) else self.room.new()

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
        return torch.le(magnitude, self.form.limit, out=self.room.new())

    # P and its gradient. They return False, with anything in the results, where a number may have left the range.

    def value(self, gate: Tensor, value: Tensor | None, beta: Factor, result: Tensor) -> bool:
        """P in ``result``"""
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

    def gradient(
        self,
        cotangent: Tensor,
        gate: Tensor,
        value: Tensor | None,
        beta: Factor,
        results: Sequence[Tensor | None],
    ) -> bool:
        """The cotangent times the derivatives of P in gate, value and beta, where there is a result for them."""
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
        if activation.exponential:
            highest = x.amax().item()
            if not (x.amin().item() >= -self.far and highest <= self.far):
                return False
            near = highest <= self.near
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
    first, *others = (factor for factor in factors if factor is not None)
    if not others:
        out.copy_(first)
        return
    torch.mul(first, others[0], out=out)
    for factor in others[1:]:
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


def _arithmetics(form: Form, dtype: torch.dtype, beta: Factor) -> list[_Arithmetic]:
    """The plain arithmetics to be tried on numbers of ``dtype``, in this order."""
    result = []
    compute = compute_dtype(dtype)
    rounded = form.activation in ("gelu", "gelu_tanh") or (form.activation == "swish" and not is_one(beta))
    if not rounded:
        result.append(_Arithmetic(form, compute, _FAR[compute], _NEAR))
    if dtype != torch.float64:
        result.append(_Arithmetic(form, torch.float64, math.inf, math.inf))
    return result


def evaluate(form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
    """P"""
    gate, value = form.split(x, value)
    result = new_like(gate)
    if isinstance(beta, Tensor):
        beta = beta.expand(gate.shape)
    order = _memory_order(gate)
    operands = [_permuted(one, order) for one in (gate, value, beta, result)]

    def task(blocks: Sequence[_Block]) -> None:
        arithmetics = _arithmetics(form, x.dtype, beta)
        for block in blocks:
            g, v, b, out = (_part(one, block) for one in operands)
            if not any(arithmetic.value(g, v, b, out) for arithmetic in arithmetics):
                out.copy_(exact.evaluate(form._replace(axis=None), g, v, b))

    shared(task, list(_blocks(operands[0].shape, block_size())), gate.numel())
    return result


def pullback(
    form: Form, wanted: str, cotangent: Tensor, x: Tensor, value: Tensor | None, beta: Factor
) -> tuple[Tensor, ...]:
    """The cotangent times the derivatives of P that are ``wanted``, in the order x, value, beta; each in the dtype and
    the shape of its argument."""
    gate, factor = form.split(x, value)
    results: dict[str, Tensor] = {}
    outs: list[Tensor | None] = [None, None, None]
    summed: tuple[int, ...] | None = None
    if IN_X in wanted:
        results[IN_X] = new_like(x)
        outs[:2] = form.split(results[IN_X], None)
    if IN_VALUE in wanted:
        assert value is not None
        results[IN_VALUE] = outs[1] = new_like(value)
    if IN_BETA in wanted:
        assert isinstance(beta, Tensor)
        results[IN_BETA] = torch.zeros_like(beta)
        if form.activation == "swish" and beta.shape == gate.shape:
            outs[2] = results[IN_BETA]
        elif form.activation == "swish":
            summed = (1,) * (gate.dim() - beta.dim()) + beta.shape
    order = _memory_order(gate)
    full_beta = beta.expand(gate.shape) if isinstance(beta, Tensor) else beta
    operands = [_permuted(one, order) for one in (gate, cotangent, factor, full_beta, *outs)]

    def task(blocks: Sequence[_Block]) -> Tensor | None:
        arithmetics = _arithmetics(form, x.dtype, beta)
        sums = None if summed is None else torch.zeros(summed, dtype=torch.float64, device="cpu")
        for block in blocks:
            g, c, v, b, *parts = (_part(one, block) for one in operands)
            if sums is not None:
                parts[2] = torch.empty(g.shape, dtype=torch.float64, device="cpu")
            if not any(arithmetic.gradient(c, g, v, b, parts) for arithmetic in arithmetics):
                _exact_gradient(form, c, g, v, b, parts)
            if sums is not None:
                _accumulate(_permuted(sums, order), block, parts[2])
        return sums

    sums = shared(task, list(_blocks(operands[0].shape, block_size())), gate.numel())
    if summed is not None:
        total = torch.stack([one for one in sums if one is not None]).sum(0)
        results[IN_BETA].copy_(total.view(results[IN_BETA].shape))
    return tuple(results[name] for name in wanted)


def _exact_gradient(
    form: Form, c: Tensor, gate: Tensor, value: Tensor | None, beta: Factor, results: Sequence[Tensor | None]
) -> None:
    there = [(name, result) for name, result in zip(_NAMES, results, strict=True) if result is not None]
    wanted = "".join(name for name, _ in there)
    if isinstance(beta, Tensor):
        beta = beta.to(torch.float64)  # terms of a sum are not to be rounded to 16 bits
    parts = exact.pullback(form._replace(axis=None), wanted, c, gate, value, beta)
    for (_, result), part in zip(there, parts, strict=True):
        result.copy_(part)


def _accumulate(sums: Tensor, block: _Block, terms: Tensor) -> None:
    """Adds the terms of a block to the sums, along whose axes of size 1 all terms are added up."""
    if block:
        places = (0 if isinstance(i, int) else slice(None) for i in block)
        block = tuple(place if size == 1 else i for place, i, size in zip(places, block, sums.shape, strict=False))
    part = sums[block]
    part.add_(terms.sum_to_size(part.shape))
