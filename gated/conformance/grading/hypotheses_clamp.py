"""Hypotheses on the clamped unit: which side is clamped, when, and where the offset goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.formulas import Ops, clip, clipped, shifted
from gated.conformance.grading.hypotheses import Hypothesis, is_clamped

__all__ = ["CLAMP_HYPOTHESES"]


def _lowering(lower: Callable[[Claim], Callable[[Ops, Any], Any]]) -> Callable[[Claim], Mapping[str, Any]]:
    return lambda claim: {"lower": lower(claim)}


def _shifting(shift: Callable[[Claim], Callable[[Ops, Any], Any]]) -> Callable[[Claim], Mapping[str, Any]]:
    return lambda claim: {"shift": shift(claim)}


def _as_is(m: Ops, x: Any) -> Any:
    return x


def _has_offset(claim: Claim) -> bool:
    return claim.offset != 0


CLAMP_HYPOTHESES: Final = (
    Hypothesis(
        "offset-missing",
        "the offset is not added to the value",
        _has_offset,
        _shifting(lambda claim: lambda m, value: clipped(m, value, claim.limit)),
    ),
    Hypothesis(
        "offset-on-gate",
        "the offset is added to the gate, and not to the value",
        _has_offset,
        lambda claim: {
            "lower": lambda m, gate: m.minimum(gate, claim.limit) + claim.offset,
            "shift": lambda m, value: clipped(m, value, claim.limit),
        },
    ),
    Hypothesis(
        "offset-on-gate",
        "the offset is added to the activated gate, and not to the value",
        _has_offset,
        lambda claim: {
            "shift": lambda m, value: clipped(m, value, claim.limit),
            "combine": lambda m, A, gate, value, beta: (A(m, gate, beta) + claim.offset) * value,
        },
    ),
    Hypothesis(
        "offset-clamped",
        "the offset is added before the value is clamped",
        _has_offset,
        _shifting(lambda claim: lambda m, value: clipped(m, value + claim.offset, claim.limit)),
    ),
    Hypothesis(
        "offset-after-product",
        "the offset is added to the product, and not to the value",
        _has_offset,
        lambda claim: {
            "shift": lambda m, value: clipped(m, value, claim.limit),
            "combine": lambda m, A, gate, value, beta: A(m, gate, beta) * value + claim.offset,
        },
    ),
    Hypothesis(
        "clamp-missing",
        "the clamp is missing: neither gate nor value is limited",
        is_clamped,
        lambda claim: {"lower": _as_is, "shift": lambda m, value: shifted(value, claim.offset)},
    ),
    Hypothesis(
        "clamp-missing",
        "the clamp of the gate is missing",
        is_clamped,
        _lowering(lambda claim: _as_is),
    ),
    Hypothesis(
        "clamp-missing",
        "the clamp of the value is missing",
        is_clamped,
        _shifting(lambda claim: lambda m, value: shifted(value, claim.offset)),
    ),
    Hypothesis(
        "clamp-both-sides",
        "the gate is clamped from below too: it is to be clamped from above alone",
        is_clamped,
        _lowering(lambda claim: lambda m, gate: clip(m, gate, -claim.limit, claim.limit)),
    ),
    Hypothesis(
        "clamp-wrong-side",
        "the gate is clamped from below, not from above",
        is_clamped,
        _lowering(lambda claim: lambda m, gate: m.maximum(gate, -claim.limit)),
    ),
    Hypothesis(
        "clamp-wrong-side",
        "the gate is at least the limit: max(gate, limit) for min(gate, limit)",
        is_clamped,
        _lowering(lambda claim: lambda m, gate: m.maximum(gate, claim.limit)),
    ),
    Hypothesis(
        "clamp-one-side",
        "the value is clamped from above alone: it is to be clamped from both sides",
        is_clamped,
        _shifting(lambda claim: lambda m, value: shifted(m.minimum(value, claim.limit), claim.offset)),
    ),
    Hypothesis(
        "clamp-one-side",
        "the value is clamped from below alone: it is to be clamped from both sides",
        is_clamped,
        _shifting(lambda claim: lambda m, value: shifted(m.maximum(value, -claim.limit), claim.offset)),
    ),
    Hypothesis(
        "clamp-from-zero",
        "the value is clamped to [0, limit]",
        is_clamped,
        _shifting(lambda claim: lambda m, value: shifted(clip(m, value, 0.0, claim.limit), claim.offset)),
    ),
    Hypothesis(
        "clamp-from-zero",
        "the gate is clamped to [0, limit]",
        is_clamped,
        _lowering(lambda claim: lambda m, gate: clip(m, gate, 0.0, claim.limit)),
    ),
    Hypothesis(
        "clamp-after-activation",
        "the gate is clamped after its activation: min(activation(gate), limit)",
        is_clamped,
        lambda claim: {
            "lower": _as_is,
            "combine": lambda m, A, gate, value, beta: m.minimum(A(m, gate, beta), claim.limit) * value,
        },
    ),
    Hypothesis(
        "clamp-inside-sigmoid",
        "the gate is clamped inside the sigmoid alone",
        is_clamped,
        lambda claim: {
            "lower": _as_is,
            "combine": lambda m, A, gate, value, beta: gate * m.sigmoid(beta * m.minimum(gate, claim.limit)) * value,
        },
    ),
)
