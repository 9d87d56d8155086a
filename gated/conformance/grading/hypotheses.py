"""The type of a hypothesis: what an implementation may have computed instead, as a change of the claimed model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.running_error import Number

__all__ = ["Gradients", "Hypothesis", "always", "has_beta", "is_clamped", "is_unit", "projected", "swish"]


@dataclass(frozen=True)
class Gradients:
    """The cotangents that a model has, and what they are made of: each element's own.

    Attributes:
        result: the value.
        gate, value, beta: the partial derivatives of the result.
        cotangent: of the result.
        activated: the activation.
        slope: its derivative in the gate.
        operands: the gate, the value and beta.
    """

    result: Number
    gate: Number
    value: Number
    beta: Number
    cotangent: Number
    activated: Number
    slope: Number
    operands: tuple[Number, Number, Number]


@dataclass(frozen=True)
class Hypothesis:
    """One explanation. Adding one is adding it to a table: ``hypotheses_units``, ``_projected`` or ``_gradients``.

    Attributes:
        id: stable: users match on it. Several hypotheses may share one, as variants.
        text: what the target computes.
        applies: whether it is different from the claim at all.
        change: the parts of the :class:`~gated.conformance.grading.formulas.Model` that it replaces.
        twist: what the cotangents are instead, of a hypothesis on gradients alone: from :class:`Gradients`, by part
            name.
        gradient: whether it is one on gradients alone: the value is the claimed one.
        alone: whether it is too special to be tried together with others.
        same_as: the id of a hypothesis that may be the same function under another name: it is told after it.
    """

    id: str
    text: str
    applies: Callable[[Claim], bool]
    change: Callable[[Claim], Mapping[str, Any]] = lambda claim: {}
    twist: Callable[[Gradients], Mapping[str, Number]] | None = None
    gradient: bool = False
    alone: bool = False
    same_as: str = ""


def always(claim: Claim) -> bool:
    """Of every claim."""
    return True


def is_unit(claim: Claim) -> bool:
    """There is a value to multiply with."""
    return claim.form != "unary"


def is_clamped(claim: Claim) -> bool:
    """The clamped unit."""
    return claim.function == "clamped_swiglu"


def swish(claim: Claim) -> bool:
    """The activation is swish."""
    return claim.activation == "swish"


def has_beta(claim: Claim) -> bool:
    """The activation is swish, of a beta that is handed over or is not 1."""
    return swish(claim) and claim.beta != 1


def projected(claim: Claim) -> bool:
    """The target takes weights."""
    return claim.form == "projected"
