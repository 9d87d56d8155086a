"""The derivatives of the elementwise functions: activations and gated units, by the product rule.

A :class:`Rule` is a function with its partial derivatives. Pulled back, a partial is multiplied by the cotangent;
pushed forward, by its tangent, and the terms are added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gated.numpy_ref._arrays import Array, Kernel, elementwise, rounded, summed
from gated.numpy_ref._pair import Float64
from gated.numpy_ref._partials import IN_BETA, IN_X
from gated.numpy_ref._wide import Wide, wide
from gated.numpy_ref.activations import FORMULAS, swish_formula
from gated.numpy_ref.units import clamped

__all__ = ["Rule", "activation_rule", "clamped_rule", "unit_rule"]

Operand = Array | float


@dataclass(frozen=True)
class Rule:
    """The inputs of an elementwise function and its partial derivatives in them.

    Attributes:
        inputs: by name; each broadcasts to the shape of ``like``.
        partials: for each input that the function depends on, a kernel of all inputs in order. The beta of an
            activation other than swish has none: its cotangent is 0, beside infinities and nan, too.
        like: an array of the shape and dtype of the result.
    """

    inputs: dict[str, Operand]
    partials: dict[str, Kernel]
    like: Array

    def pull(self, name: str, cotangent: Array, out: Array | None = None) -> Array:
        """The cotangent of the input ``name``."""

        def term(cotangent: Float64, *inputs: Float64) -> Wide:
            return wide(cotangent) * self.partials[name](*inputs)

        operands = (cotangent, *self.inputs.values())
        shape = np.shape(self.inputs[name])
        if name not in self.partials:
            return np.zeros(shape, self.like.dtype)
        if shape == self.like.shape and not isinstance(self.inputs[name], int | float):
            return elementwise(term, *operands, like=self.like, out=out)
        total = summed(term, *operands, over=self.like.shape, shape=shape)
        return rounded(total, self.like.dtype)

    def push(self, tangents: dict[str, Operand]) -> Array:
        """The tangent of the result: the sum over the named inputs of partial times tangent."""
        moving = {name: tangent for name, tangent in tangents.items() if name in self.partials}
        if not moving:
            return np.zeros_like(self.like)
        count = len(self.inputs)

        def total(*blocks: Float64) -> Wide:
            inputs, moved = blocks[:count], blocks[count:]
            terms = [self.partials[name](*inputs) * wide(each) for name, each in zip(moving, moved, strict=True)]
            return sum(terms[1:], start=terms[0])

        return elementwise(total, *self.inputs.values(), *moving.values(), like=self.like)


def activation_rule(activation: str, x: Array, beta: Operand = 1.0) -> Rule:
    """activation(x)."""
    partials = {"x": IN_X[activation]} | ({"beta": IN_BETA[activation]} if activation in IN_BETA else {})
    return Rule({"x": x, "beta": beta}, partials, like=x)


def unit_rule(activation: str, gate: Array, value: Array, beta: Operand = 1.0) -> Rule:
    """activation(gate) * value."""

    def in_gate(gate: Float64, value: Float64, beta: Float64) -> Wide:
        return IN_X[activation](gate, beta) * wide(value)

    def in_value(gate: Float64, value: Float64, beta: Float64) -> Wide:
        return FORMULAS[activation](gate, beta)

    def in_beta(gate: Float64, value: Float64, beta: Float64) -> Wide:
        return IN_BETA[activation](gate, beta) * wide(value)

    partials: dict[str, Kernel] = {"gate": in_gate, "value": in_value}
    if activation in IN_BETA:
        partials["beta"] = in_beta
    return Rule({"gate": gate, "value": value, "beta": beta}, partials, like=gate)


def clamped_rule(gate: Array, value: Array, *, alpha: float, limit: float, offset: float) -> Rule:
    """swish_alpha(min(gate, limit)) * (clip(value, -limit, limit) + offset).

    The derivative of min and clip is 1 inside and on the boundary, 0 outside.
    """

    def in_gate(gate: Float64, value: Float64) -> Wide:
        g, v = clamped(gate, value, limit, offset)
        inside = np.where(gate > limit, 0.0, 1.0)
        return IN_X["swish"](g, np.full_like(g, alpha)) * v * wide(inside)

    def in_value(gate: Float64, value: Float64) -> Wide:
        g, _ = clamped(gate, value, limit, offset)
        inside = np.where(np.isnan(value), value, np.where(np.abs(value) > limit, 0.0, 1.0))
        return swish_formula(g, np.full_like(g, alpha)) * wide(inside)

    return Rule({"gate": gate, "value": value}, {"gate": in_gate, "value": in_value}, like=gate)
