"""The gated forms on the CPU in eager mode: block by block, so that what is computed in stays in cache.

What the plain arithmetic of :mod:`gated.torch_impl._arithmetic` cannot do, the scaled arithmetic of
:mod:`gated.torch_impl._forms` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from . import _forms as exact
from ._arithmetic import Arithmetic, arithmetic
from ._arrays import Factor
from ._blocks import SMALL, blocks
from ._forms import IN_BETA, IN_VALUE, IN_X, Form
from ._memory import new_like
from ._ordinary import NoRoom, Room
from ._plain import is_watched

__all__ = ["evaluate", "is_plain", "pullback"]

_NAMES: Final = (IN_X, IN_VALUE, IN_BETA)


def is_plain(*operands: object) -> bool:
    """Whether the operands are ordinary CPU tensors (or no tensors), which may be computed with outside autograd."""
    for operand in operands:
        kind = type(operand)
        if kind is Tensor or kind is nn.Parameter:
            if not operand.is_cpu:  # type: ignore[attr-defined]
                return False
        elif kind is not float and isinstance(operand, Tensor):
            return False
    return not is_watched()


def _split(form: Form, x: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """``form.split``, in less time."""
    if form.axis is None or form.layout == "interleaved":
        return form.split(x, value)
    first, last = x.chunk(2, form.axis)
    return (first, last) if form.layout == "gate_first" else (last, first)


_NO_ROOM: Final = {dtype: NoRoom(dtype) for dtype in (torch.float32, torch.float64)}


def _dtype(plain: Arithmetic | None) -> torch.dtype:
    """What the plain arithmetic, if there is one, computes in."""
    return torch.float64 if plain is None else plain.dtype


def evaluate(form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
    """P"""
    gate, factor = _split(form, x, value)
    plain = arithmetic(form, x.dtype, beta)
    full_beta = beta.expand(gate.shape) if isinstance(beta, Tensor) else beta
    size = gate.numel()
    if size <= SMALL:
        product = None
        if size and plain is not None:
            product = plain.value(gate, factor, full_beta, None, _NO_ROOM[plain.dtype])
        return exact.evaluate(form, x, value, beta) if product is None else product
    result = new_like(gate)
    room = Room(_dtype(plain))
    for g, v, b, out in blocks((gate, factor, full_beta, result)):
        if plain is None or plain.value(g, v, b, out, room) is None:
            out.copy_(exact.evaluate(form._replace(axis=None), g, v, b))
    return result


def pullback(
    form: Form, wanted: str, cotangent: Tensor, x: Tensor, value: Tensor | None, beta: Factor
) -> tuple[Tensor, ...]:
    """The cotangent times the derivatives of P that are ``wanted``, in the order x, value, beta; each in the dtype and
    the shape of its argument."""
    gate, factor = _split(form, x, value)
    results: list[Tensor] = []
    outs: list[Tensor | None] = [None, None, None]
    sums = None
    if IN_X in wanted:
        results.append(new_like(x))
        outs[:2] = _split(form, results[0], None)
    if IN_VALUE in wanted:
        assert value is not None
        results.append(new_like(value))
        outs[1] = results[-1]
    if IN_BETA in wanted:
        assert isinstance(beta, Tensor)
        results.append(torch.zeros_like(beta))
        if form.activation == "swish" and beta.shape == gate.shape:
            outs[2] = results[-1]
        elif form.activation == "swish":
            shape = (1,) * (gate.dim() - beta.dim()) + beta.shape
            sums = torch.zeros(shape, dtype=torch.float64, device="cpu")
    if gate.numel():
        full_beta = beta.expand(gate.shape) if isinstance(beta, Tensor) else beta
        plain = arithmetic(form, x.dtype, beta)
        dtype = _dtype(plain)
        room = _NO_ROOM[dtype] if gate.numel() <= SMALL else Room(dtype)
        for g, c, v, b, total, *parts in blocks((gate, cotangent, factor, full_beta, sums, *outs)):
            if total is not None:
                parts[2] = torch.empty(g.shape, dtype=torch.float64, device="cpu")
            if plain is None or not plain.gradient(c, g, v, b, parts, room):
                _exact_gradient(form, c, g, v, b, parts)
            if total is not None:
                total.add_(parts[2].sum_to_size(total.shape))
    if sums is not None:
        results[-1].copy_(sums.view(results[-1].shape))
    return tuple(results)


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
