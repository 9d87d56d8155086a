"""Modules that hold their weights, as projected functions: by which names they hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.target import TargetError

__all__ = ["BIAS_OF", "NAMES", "beside_x", "layers_of"]

NAMES: Final = (
    ("gate_proj", "up_proj", "down_proj"),  # Llama, Qwen, Mistral, Gemma in Transformers; gated
    ("w1", "w3", "w2"),  # Meta's Llama, Mixtral
    ("wi_0", "wi_1", "wo"),  # T5 1.1, T5X, MaxText
    ("fc1_g", "fc1_x", "fc2"),  # timm
)
"""The names of the linear layers of the gate (W), the value (V) and, in a feed-forward block, the way down (W2)."""

BIAS_OF: Final = {"W": "b", "V": "c", "W2": "b2"}
"""The argument that is the bias of a weight's layer."""


def layers_of(claim: Claim, biased: Mapping[str, bool], kind: str) -> dict[str, str]:
    """The paths in a module of the linear layers W, V and W2 of a claim.

    Args:
        biased: by the dotted path of each linear layer, whether it has a bias.
        kind: the module's class, for the errors.

    Raises:
        TargetError: the module has no family of names, or biases where the claim has none.
    """
    weights = [name for name in claim.arguments if name in BIAS_OF]
    path_of = {path.rpartition(".")[2]: path for path in biased}
    for family in NAMES:
        names = family[: len(weights)]
        if all(name in path_of for name in names):
            found = {weight: path_of[name] for weight, name in zip(weights, names, strict=True)}
            break
    else:
        families = "; ".join(", ".join(family[: len(weights)]) for family in NAMES)
        has = ", ".join(path_of) or "none"
        raise TargetError(f"{kind}: {claim.function} needs linear layers named as one of: {families}; it has {has}")
    for path in found.values():
        if biased[path] != claim.bias:
            has, asked = ("has a bias", "without") if biased[path] else ("has no bias", "with")
            raise TargetError(f"{kind}: {path} {has}, and the claim is {asked} --bias")
    return found


def beside_x(claim: Claim, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """What such a module is called with: x, and beta where it is handed over."""
    return (arrays[0], *(arrays[-1:] if claim.arguments[-1] == "beta" else ()))
