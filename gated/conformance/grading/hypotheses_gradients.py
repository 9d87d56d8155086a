"""Hypotheses on gradients alone: the value is right, what comes back is not.

That the gradient is the one of another function needs no entry: every hypothesis on the value is tried on the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.formulas import Ops, clip, shifted
from gated.conformance.grading.hypotheses import Gradients, Hypothesis, always, is_clamped, is_unit, swish
from gated.conformance.grading.running_error import Number

__all__ = ["GRADIENT_HYPOTHESES"]


def _twisted(
    id: str,
    text: str,
    applies: Callable[[Claim], bool],
    twist: Callable[[Gradients], Mapping[str, Number]],
) -> Hypothesis:
    return Hypothesis(id, text, applies, twist=twist, gradient=True)


def _changed(id: str, text: str, applies: Callable[[Claim], bool], **change: Any) -> Hypothesis:
    return Hypothesis(id, text, applies, lambda claim: change, gradient=True)


def _sigmoid_like(claim: Claim) -> bool:
    return claim.activation == "sigmoid"


def _straight(claim: Claim) -> Mapping[str, Any]:
    """The clamps, with the derivative of none."""
    return {
        "lower": lambda m, gate: m.through(m.minimum(gate, claim.limit), gate),
        "shift": lambda m, value: m.through(shifted(clip(m, value, -claim.limit, claim.limit), claim.offset), value),
    }


def _masked_below(claim: Claim) -> Mapping[str, Any]:
    def lower(m: Ops, gate: Any) -> Any:
        return m.through(m.minimum(gate, claim.limit), clip(m, gate, -claim.limit, claim.limit))

    return {"lower": lower}


GRADIENT_HYPOTHESES: Final = (
    _twisted(
        "gradient-halves-swapped",
        "the gradient is for the other half: that of the gate stands where that of the value belongs, and the reverse",
        is_unit,
        lambda g: {"d gate": g.cotangent * g.value, "d value": g.cotangent * g.gate},
    ),
    _twisted(
        "gradient-without-cotangent",
        "the gradient is not multiplied with the cotangent",
        always,
        lambda g: {"d gate": g.gate, "d value": g.value, "d beta": g.beta},
    ),
    _twisted(
        "gradient-without-value",
        "the gradient of the gate is not multiplied with the value",
        is_unit,
        lambda g: {"d gate": g.cotangent * g.slope},
    ),
    _twisted(
        "gradient-without-activation",
        "the gradient of the value is the cotangent times the gate, not times activation(gate)",
        lambda claim: is_unit(claim) and claim.activation != "identity",
        lambda g: {"d value": g.cotangent * g.operands[0]},
    ),
    _twisted(
        "gradient-without-derivative",
        "the gradient of the gate is the cotangent times the value: the activation's derivative is left out",
        lambda claim: claim.activation != "identity",
        lambda g: {"d gate": g.cotangent * g.operands[1]},
    ),
    _twisted(
        "gradient-of-activation-for-derivative",
        "the gradient of the gate has the activation in the place of its derivative",
        lambda claim: claim.activation != "identity",
        lambda g: {"d gate": g.cotangent * g.activated * g.operands[1]},
    ),
    _changed(
        "gradient-stopped",
        "the gradient stops at the sigmoid: only the factor x outside it is differentiated",
        swish,
        activation=lambda m, x, beta: x * m.stop(m.sigmoid(beta * x)),
    ),
    _changed(
        "gradient-stopped",
        "the gradient stops at the factor x: only the sigmoid is differentiated",
        swish,
        activation=lambda m, x, beta: m.stop(x) * m.sigmoid(beta * x),
    ),
    _changed(
        "gradient-without-beta",
        "the inner derivative beta is left out of the gradient",
        lambda claim: swish(claim) and claim.beta != 1,
        activation=lambda m, x, beta: x * m.sigmoid(x + m.stop(beta * x - x)),
    ),
    _twisted(
        "gradient-sigmoid-squared",
        "the gradient has sigmoid(x)^2 for sigmoid(x) (1 - sigmoid(x))",
        _sigmoid_like,
        lambda g: {"d gate": g.cotangent * g.activated * g.activated * g.operands[1]},
    ),
    Hypothesis(
        "gradient-not-masked",
        "the gradient passes the clamp: it is to be 0 where the clamp holds the gate or the value",
        is_clamped,
        _straight,
        gradient=True,
    ),
    Hypothesis(
        "gradient-masked-below",
        "the gradient of the gate is 0 below -limit too, where nothing is clamped",
        is_clamped,
        _masked_below,
        gradient=True,
    ),
    Hypothesis(
        "gradient-without-offset",
        "the gradient of the gate is that without the offset",
        lambda claim: claim.offset != 0,
        lambda claim: {"shift": lambda m, value: clip(m, value, -claim.limit, claim.limit)},
        gradient=True,
    ),
)
"""Those on gradients, in the order in which equally good ones are told."""
