"""The elementwise functions P(gate, value; beta) = A(gate; beta) B(value), with their gradients.

One :class:`Form` says which: the activation A, what is done to the value, and where gate and value are. Values and
gradients are computed in the compute dtype and rounded to the arrays' dtype once. ``value`` may be None: P is A then.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ._arrays import Factor, compute_dtype
from ._curves import CURVES
from ._scaled import Scaled
from ._words import Word, parts

__all__ = ["IN_BETA", "IN_VALUE", "IN_X", "Form", "evaluate", "pullback", "pushforward", "total", "wide"]

IN_X: Final = "x"
IN_VALUE: Final = "v"
IN_BETA: Final = "b"


class Form(NamedTuple):
    """An elementwise function.

    ``x`` is the activation's argument, the gate of a pair, or, where ``axis`` is given (and not negative), a packed
    array of both in ``layout``. ``limit`` and ``offset`` are those of the clamped SwiGLU, whose alpha is beta.
    """

    activation: str
    axis: int | None = None
    layout: str = "gate_last"
    limit: float | None = None
    offset: float = 0  # no float: that a compiler may take for a variable

    def split(self, x: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Gate and value, as views."""
        if self.axis is None:
            return x, value
        half = x.shape[self.axis] // 2
        if self.layout == "interleaved":
            pairs = x.reshape(*x.shape[: self.axis], half, 2, *x.shape[self.axis + 1 :])
            return pairs.select(self.axis + 1, 0), pairs.select(self.axis + 1, 1)
        first, last = x.narrow(self.axis, 0, half), x.narrow(self.axis, half, half)
        return (first, last) if self.layout == "gate_first" else (last, first)

    def join(self, gate: Tensor, value: Tensor) -> Tensor:
        """What ``split`` took apart. Not for a pair."""
        assert self.axis is not None
        if self.layout == "interleaved":
            return torch.stack((gate, value), self.axis + 1).flatten(self.axis, self.axis + 1)
        return torch.cat((gate, value) if self.layout == "gate_first" else (value, gate), self.axis)

    def parts(self, tangents: Sequence[Tensor | None]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The tangents of x, value and beta, or None, as those of gate, value and beta."""
        x, value, beta = tangents
        if self.axis is not None and x is not None:
            x, value = self.split(x, None)
        return x, value, beta

    # The limit is compared as the real number it is. The clamp's derivative is 1 on it, as torch.clamp has it, and nan
    # at nan.

    def _beyond(self, x: Tensor) -> Tensor:
        """x > limit"""
        assert self.limit is not None
        limit = parts(self.limit, x.dtype)
        return x >= limit.high if limit.low < 0 else x > limit.high

    def clamped_gate(self, gate: Tensor) -> Word:
        """min(gate, limit)"""
        if self.limit is None:
            return Word(gate)
        limit = parts(self.limit, gate.dtype)
        low = self._beyond(gate).to(gate.dtype) * limit.low if limit.low else None
        return Word(gate.clamp_max(limit.high), low)

    def gate_mask(self, gate: Tensor) -> Tensor | None:
        return None if self.limit is None else _mask(gate, ~self._beyond(gate))

    def value_factor(self, value: Tensor) -> Tensor:
        """B(value)"""
        if self.limit is None:
            return value
        limit, offset = parts(self.limit, value.dtype), parts(self.offset, value.dtype)
        clamped = value.clamp(-limit.high, limit.high)
        if self.offset == 0:
            return clamped  # a zero keeps its sign
        shifted = clamped + offset.high
        if limit.low:
            shifted = shifted + torch.sign(value) * (self._beyond(value.abs()).to(value.dtype) * limit.low)
        return shifted + offset.low if offset.low else shifted

    def value_mask(self, value: Tensor) -> Tensor | None:
        """B'(value), None where it is 1."""
        return None if self.limit is None else _mask(value, ~self._beyond(value.abs()))


def _mask(x: Tensor, inside: Tensor) -> Tensor:
    return torch.where(x.isnan(), x, inside.to(x.dtype))


def wide(x: Tensor) -> Tensor:
    """``x`` in its compute dtype, with its own bits: a view may have its sign in a flag (``torch.Tensor.is_neg``)."""
    return x.to(compute_dtype(x.dtype)).resolve_neg()


def total(terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of the terms that are there, None where there is none."""
    present = [term for term in terms if term is not None]
    return functools.reduce(torch.add, present) if present else None


def _product(factor: Scaled, *others: Tensor | None) -> Tensor:
    """The product of what is there, rounded to the compute dtype."""
    return factor.times(*(other for other in others if other is not None)).rounded()


class _Point:
    """The factors of P and of its derivatives at a point, in the compute dtype."""

    def __init__(self, form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> None:
        gate, value = form.split(x, value)
        gate = wide(gate)
        value = None if value is None else wide(value)
        self.curve = CURVES[form.activation](form.clamped_gate(gate), wide(beta) if isinstance(beta, Tensor) else beta)
        self.dtype = gate.dtype
        self.gate_mask = form.gate_mask(gate)
        self.value_factor = None if value is None else form.value_factor(value)
        self.value_mask = None if value is None else form.value_mask(value)

    def along_gate(self, c: Tensor) -> Tensor:
        """c A' B"""
        slope, exponent = self.curve.slope()
        slope = slope if self.gate_mask is None else slope * self.gate_mask
        return _product(Scaled(slope, exponent), c, self.value_factor)

    def along_value(self, c: Tensor) -> Tensor:
        """c A B'"""
        return _product(self.curve.value(), c, self.value_mask)

    def along_beta(self, c: Tensor) -> Tensor | None:
        """c A_beta B, None where A does not depend on beta."""
        slope = self.curve.beta_slope()
        return None if slope is None else _product(slope, c, self.value_factor)


def evaluate(form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
    """P"""
    at = _Point(form, x, value, beta)
    return _product(at.curve.value(), at.value_factor).to(x.dtype)


def pullback(
    form: Form, wanted: str, cotangent: Tensor, x: Tensor, value: Tensor | None, beta: Factor
) -> tuple[Tensor, ...]:
    """The cotangent times the derivatives of P that are ``wanted``, in the order x, value, beta; each in the dtype and
    the shape of its argument."""
    at = _Point(form, x, value, beta)
    c = wide(cotangent)
    results = []
    if IN_X in wanted:
        part = at.along_gate(c).to(x.dtype)
        results.append(part if form.axis is None else form.join(part, at.along_value(c).to(x.dtype)))
    if IN_VALUE in wanted:
        assert value is not None
        results.append(at.along_value(c).to(value.dtype))
    if IN_BETA in wanted:
        assert isinstance(beta, Tensor)
        terms = at.along_beta(c)
        results.append(torch.zeros_like(beta) if terms is None else terms.sum_to_size(beta.shape).to(beta.dtype))
    return tuple(results)


def pushforward(form: Form, tangents: Sequence[Tensor | None], x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
    """The derivative of P along the tangents of x, value and beta; None for those that do not move."""
    at = _Point(form, x, value, beta)
    gate_tangent, value_tangent, beta_tangent = form.parts(tangents)
    terms: list[Tensor | None] = []
    if gate_tangent is not None:
        terms.append(at.along_gate(wide(gate_tangent)))
    if value_tangent is not None:
        terms.append(at.along_value(wide(value_tangent)))
    if beta_tangent is not None:
        terms.append(at.along_beta(beta_tangent.to(at.dtype).resolve_neg()))
    moved = total(terms)
    return torch.zeros_like(form.split(x, value)[0]) if moved is None else moved.to(x.dtype)
