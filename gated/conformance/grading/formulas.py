r"""The parts that a gated unit is made of, and what other implementations put in their places.

A :class:`Model` is :math:`\text{combine}(A, \text{lower}(g), \text{shift}(v), \beta)`, by default
:math:`A(\min(g, L), \beta) \cdot (\operatorname{clip}(v, -L, L) + o)` with the activation A of the claim, on operands
that are read from the arguments in some way. A hypothesis replaces some parts. The formulas are those of an arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gated.conformance.grading.claim import Claim

__all__ = [
    "ACTIVATION_FORMULAS",
    "Activation",
    "Model",
    "Ops",
    "claimed_model",
    "clip",
    "clipped",
    "gelu_tanh",
    "shifted",
]


class Ops(Protocol):
    """Numbers with + - *, and these functions, as :class:`gated.conformance.grading.dual.Duals` has them."""

    def sigmoid(self, t: Any) -> Any: ...
    def tanh(self, t: Any) -> Any: ...
    def erf(self, t: Any) -> Any: ...
    def maximum(self, a: Any, bound: float) -> Any: ...
    def minimum(self, a: Any, bound: float) -> Any: ...
    def stop(self, x: Any) -> Any: ...
    def through(self, y: Any, x: Any) -> Any: ...


Activation = Callable[[Ops, Any, Any], Any]
"""A(m, x, beta)."""


def _gelu(m: Ops, x: Any, beta: Any) -> Any:
    return 0.5 * x * (1.0 + m.erf(x * math.sqrt(0.5)))


def gelu_tanh(slope: float = math.sqrt(2 / math.pi), cubic: float = 0.044715) -> Activation:
    """gelu by tanh, of any constants."""
    return lambda m, x, beta: 0.5 * x * (1.0 + m.tanh(slope * (x + cubic * (x * x * x))))


def clip(m: Ops, x: Any, low: float, high: float) -> Any:
    """x kept in [low, high]."""
    return m.minimum(m.maximum(x, low), high)


ACTIVATION_FORMULAS: Final[Mapping[str, Activation]] = {
    "identity": lambda m, x, beta: x,
    "sigmoid": lambda m, x, beta: m.sigmoid(x),
    "relu": lambda m, x, beta: m.maximum(x, 0.0),
    "gelu": _gelu,
    "gelu_tanh": gelu_tanh(),
    "swish": lambda m, x, beta: x * m.sigmoid(beta * x),
    "tanh": lambda m, x, beta: m.tanh(x),
    "hard swish": lambda m, x, beta: x * clip(m, x * (1 / 6) + 0.5, 0.0, 1.0),
    "hard sigmoid": lambda m, x, beta: clip(m, x * (1 / 6) + 0.5, 0.0, 1.0),
    "squared relu": lambda m, x, beta: m.maximum(x, 0.0) * m.maximum(x, 0.0),
}
"""The activations of the contract, and those that are taken for them."""


@dataclass(frozen=True)
class Model:
    """What an implementation computes.

    Attributes:
        layout: how a packed array is read: one of ``contract.LAYOUTS``, or ``"interleaved, value first"``.
        weights: of a projected function, what takes an argument's place: (name, factor, transposed).
        activation: A(m, x, beta).
        lower: what is done to the gate first: lower(m, gate).
        shift: what is done to the value first: shift(m, value).
        combine: combine(m, A, gate, value, beta).
    """

    layout: str
    activation: Activation
    lower: Callable[[Ops, Any], Any]
    shift: Callable[[Ops, Any], Any]
    combine: Callable[[Ops, Activation, Any, Any, Any], Any]
    weights: Mapping[str, tuple[str, float, bool]] = field(default_factory=dict)

    def result(self, m: Ops, gate: Any, value: Any, beta: Any) -> Any:
        """The formula, over an arithmetic."""
        return self.combine(m, self.activation, self.lower(m, gate), self.shift(m, value), beta)


def claimed_model(claim: Claim) -> Model:
    """What the claim says."""
    return Model(
        claim.layout,
        ACTIVATION_FORMULAS[claim.activation],
        lambda m, gate: m.minimum(gate, claim.limit) if math.isfinite(claim.limit) else gate,
        lambda m, value: shifted(clipped(m, value, claim.limit), claim.offset),
        lambda m, activation, gate, value, beta: activation(m, gate, beta) * value,
    )


def clipped(m: Ops, value: Any, limit: float) -> Any:
    """The value within the limit, where there is one."""
    return clip(m, value, -limit, limit) if math.isfinite(limit) else value


def shifted(value: Any, offset: float) -> Any:
    """The value with the offset, where there is one."""
    return value + offset if offset else value
