"""Hypotheses on the weights and biases of projected functions: which array, how often, and which way round.

What is computed of the projected gate and value is in ``hypotheses_units``, which holds of projected functions too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.hypotheses import Hypothesis, projected

__all__ = ["PROJECTED_HYPOTHESES"]


def _weights(id: str, text: str, **weights: tuple[str, float, bool]) -> Hypothesis:
    """A hypothesis that other arrays take the place of some, where the claim has them all."""

    def applies(claim: Claim) -> bool:
        return projected(claim) and all(name in claim.arguments for name in weights)

    def change(claim: Claim) -> Mapping[str, Any]:
        return {"weights": weights}

    return Hypothesis(id, text, applies, change)


def _subsets(*names: str) -> list[tuple[str, ...]]:
    """All of them first: the simplest explanation of a result that none has touched."""
    return [part for size in range(len(names), 0, -1) for part in combinations(names, size)]


_BIASES: Final = ("b", "c", "b2")
_MATRICES: Final = ("W", "V", "W2")

PROJECTED_HYPOTHESES: Final = (
    _weights(
        "weights-swapped",
        "the weights of gate and value are swapped: W projects the value, and V the gate (with biases, they too)",
        W=("V", 1.0, False),
        V=("W", 1.0, False),
        b=("c", 1.0, False),
        c=("b", 1.0, False),
    ),
    _weights(
        "weights-swapped",
        "the weights of gate and value are swapped: W projects the value, and V the gate",
        W=("V", 1.0, False),
        V=("W", 1.0, False),
    ),
    _weights(
        "biases-swapped",
        "the biases of gate and value are swapped",
        b=("c", 1.0, False),
        c=("b", 1.0, False),
    ),
    *(
        _weights(
            "bias-dropped", f"not added: the bias {', '.join(names)}", **{name: (name, 0.0, False) for name in names}
        )
        for names in _subsets(*_BIASES)
    ),
    *(
        _weights(
            "bias-added-twice",
            f"added twice: the bias {', '.join(names)}",
            **{name: (name, 2.0, False) for name in names},
        )
        for names in _subsets(*_BIASES)
    ),
    *(
        _weights(
            "weight-not-transposed",
            f"the other way round: the weight {', '.join(names)} ((in, out) was handed over, (out, in) is taken)",
            **{name: (name, 1.0, True) for name in names},
        )
        for names in _subsets(*_MATRICES)
    ),
    _weights("weight-used-twice", "gate and value are both projected by W", V=("W", 1.0, False)),
    _weights("weight-used-twice", "gate and value are both projected by V", W=("V", 1.0, False)),
)
"""Those of projected functions."""
