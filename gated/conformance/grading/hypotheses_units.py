"""Hypotheses on what is computed of a gate and a value: another order, another activation, beta."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.formulas import (
    ACTIVATION_FORMULAS,
    Activation,
    Ops,
    gelu_tanh,
)
from gated.conformance.grading.hypotheses import Hypothesis, has_beta, is_clamped, is_unit, swish
from gated.conformance.grading.hypotheses_clamp import CLAMP_HYPOTHESES
from gated.contract import ACTIVATIONS

__all__ = ["UNIT_HYPOTHESES"]

Combine = Callable[[Ops, Activation, Any, Any, Any], Any]


def _packed(*layouts: str) -> Callable[[Claim], bool]:
    return lambda claim: claim.form == "packed" and claim.layout in layouts


def _swapped(claim: Claim) -> Mapping[str, Any]:
    """The other half is the gate; of a pair, the other array."""
    others = {
        "gate_last": "gate_first",
        "gate_first": "gate_last",
        "interleaved": "interleaved, value first",
        "": "swapped",
    }
    return {"layout": others[claim.layout]}


def _reading(layout: str) -> Callable[[Claim], Mapping[str, Any]]:
    return lambda claim: {"layout": layout}


def _combining(combine: Combine) -> Callable[[Claim], Mapping[str, Any]]:
    return lambda claim: {"combine": combine}


def _activating(activation: Activation) -> Callable[[Claim], Mapping[str, Any]]:
    return lambda claim: {"activation": activation}


def _with_beta(beta: float) -> Activation:
    return lambda m, x, given: x * m.sigmoid(beta * x)


def _swish(m: Ops, x: Any, beta: Any) -> Any:
    return ACTIVATION_FORMULAS["swish"](m, x, beta)


_ORDER: Final = (
    Hypothesis(
        "gate-order",
        "the gate is the other half of the packed array",
        lambda claim: claim.form == "packed",
        _swapped,
    ),
    Hypothesis(
        "value-activated",
        "the activation is applied to the value, and the gate multiplies: gate * activation(value)",
        lambda claim: is_unit(claim) and claim.form != "projected" and claim.function != "clamped_swiglu",
        _combining(lambda m, A, gate, value, beta: A(m, value, beta) * gate),
        same_as="gate-order",
    ),
    Hypothesis(
        "gate-order",
        "the first array is taken for the value, the second for the gate",
        lambda claim: claim.form == "pair",
        _swapped,
        same_as="value-activated",
    ),
    *(
        Hypothesis(
            "interleaved-read-as-halves",
            f"the array is interleaved, but it is split into halves, the gate {place}",
            _packed("interleaved"),
            _reading(layout),
        )
        for layout, place in (("gate_first", "first"), ("gate_last", "last"))
    ),
    *(
        Hypothesis(
            "halves-read-as-interleaved",
            f"the array is two halves, but it is read as interleaved, the gate at the {place} indices",
            _packed("gate_first", "gate_last"),
            _reading(layout),
        )
        for layout, place in (("interleaved", "even"), ("interleaved, value first", "odd"))
    ),
    Hypothesis(
        "product-activated",
        "the activation is applied to the product: activation(gate * value)",
        is_unit,
        _combining(lambda m, A, gate, value, beta: A(m, gate * value, beta)),
    ),
    Hypothesis(
        "both-activated",
        "the activation is applied to both: activation(gate) * activation(value)",
        is_unit,
        _combining(lambda m, A, gate, value, beta: A(m, gate, beta) * A(m, value, beta)),
    ),
    Hypothesis(
        "value-missing",
        "the value does not take part: the result is activation(gate)",
        is_unit,
        _combining(lambda m, A, gate, value, beta: A(m, gate, beta)),
    ),
    Hypothesis(
        "sum-for-product",
        "activation(gate) and the value are added, not multiplied",
        is_unit,
        _combining(lambda m, A, gate, value, beta: A(m, gate, beta) + value),
    ),
)


def _of_another_beta(number: float) -> Callable[[Claim], bool]:
    return lambda claim: swish(claim) and not isinstance(claim.beta, str) and claim.beta != number


def _of_another_activation(name: str) -> Callable[[Claim], bool]:
    return lambda claim: claim.activation != name and {claim.activation, name} != {"gelu", "gelu_tanh"}


_BETA: Final = (
    Hypothesis(
        "beta-scales-output",
        "it computes silu(beta x) = beta x sigmoid(beta x): off by the factor beta",
        has_beta,
        _activating(lambda m, x, beta: beta * x * m.sigmoid(beta * x)),
    ),
    Hypothesis(
        "beta-outside-sigmoid",
        "beta is applied outside the sigmoid: beta x sigmoid(x)",
        has_beta,
        _activating(lambda m, x, beta: beta * x * m.sigmoid(x)),
    ),
    Hypothesis(
        "alpha-missing",
        "alpha is left out: the sigmoid is of the gate itself",
        lambda claim: is_clamped(claim) and has_beta(claim),
        _activating(_with_beta(1.0)),
    ),
    Hypothesis(
        "beta-ignored",
        "beta is ignored: the result is that of beta = 1",
        lambda claim: has_beta(claim) and not is_clamped(claim),
        _activating(_with_beta(1.0)),
    ),
    Hypothesis(
        "sigmoid-argument-negated",
        "the sigmoid's argument has the wrong sign: x sigmoid(-beta x)",
        swish,
        _activating(lambda m, x, beta: x * m.sigmoid(-(beta * x))),
    ),
    *(
        Hypothesis(
            "beta-value",
            f"another beta: x sigmoid({number:g} x)",
            _of_another_beta(number),
            _activating(_with_beta(number)),
            alone=True,
        )
        for number in (1.702, 1.0, 2.0, 0.5, 1.5957691216057308, 1.7, 10.0)
    ),
)


def _other(*claimed: str) -> Callable[[Claim], bool]:
    return lambda claim: claim.activation in claimed


_ACTIVATIONS: Final = (
    Hypothesis(
        "gelu-tanh-for-erf",
        "tanh GELU where erf was asked for",
        _other("gelu"),
        _activating(ACTIVATION_FORMULAS["gelu_tanh"]),
    ),
    Hypothesis(
        "gelu-erf-for-tanh",
        "erf GELU where the tanh form was asked for",
        _other("gelu_tanh"),
        _activating(ACTIVATION_FORMULAS["gelu"]),
    ),
    Hypothesis(
        "gelu-sigmoid",
        "sigmoid(1.702 x) GELU: x sigmoid(1.702 x)",
        _other("gelu", "gelu_tanh"),
        _activating(_with_beta(1.702)),
    ),
    *(
        Hypothesis(
            "gelu-constant",
            f"tanh GELU of other constants: {slope:.6g} (x + {cubic:g} x^3)",
            _other("gelu", "gelu_tanh"),
            _activating(gelu_tanh(slope, cubic)),
            alone=True,
        )
        for slope, cubic in (
            (0.7978845608028654, 0.0),
            (0.7978845608028654, 0.44715),
            (0.7978845608028654, 0.04715),
            (0.7978845608028654, 0.0044715),
            (0.6366197723675814, 0.044715),
            (1.5957691216057308, 0.044715),
        )
    ),
    *(
        Hypothesis(
            "other-activation",
            f"the activation is {name}",
            _of_another_activation(name),
            _activating(ACTIVATION_FORMULAS[name]),
            alone=name not in ACTIVATIONS,
        )
        for name in ACTIVATION_FORMULAS
    ),
)


UNIT_HYPOTHESES: Final = (*_ORDER, *_BETA, *_ACTIVATIONS, *CLAMP_HYPOTHESES)
"""Those on the value, in the order in which equally good ones are told."""
