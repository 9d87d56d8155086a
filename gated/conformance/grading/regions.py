"""The regions of the line in which implementations go wrong in ways of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import scipy.special
from numpy.typing import NDArray

from gated.conformance.error import Format
from gated.conformance.grading.claim import Claim
from gated.conformance.quantities import Quantity

__all__ = ["REGIONS", "regions_of"]

Float64 = NDArray[np.float64]

REGIONS: Final = (
    "ordinary",
    "cancellation",
    "tail",
    "subnormal",
    "zero",
    "overflow",
    "infinity",
    "nan",
    "sum",
)
"""In rising precedence: an element belongs to the last that it meets.

- ``"ordinary"``: none of the others.
- ``"cancellation"``: the terms of a derivative cancel: the largest is more than eight times their sum.
- ``"tail"``: the activation is saturated towards zero: its sigmoid or Phi is below the unit roundoff.
- ``"subnormal"``: the exact result is below the smallest normal number.
- ``"zero"``: the exact result is 0, or below all numbers.
- ``"overflow"``: the exact result is past the largest number, the operands are finite.
- ``"infinity"``: an operand is infinite.
- ``"nan"``: an operand is nan.
- ``"sum"``: the number is a sum over elements, or a product of matrices.
"""

_CODES: Final = {name: code for code, name in enumerate(REGIONS)}


def regions_of(
    claim: Claim, form: Format, elements: Mapping[str, NDArray[Any]], quantity: Quantity
) -> NDArray[np.int8]:
    """The region of each element of a quantity, as an index into :data:`REGIONS`."""
    high = quantity.high
    gate = elements.get("gate", elements.get("x"))
    if gate is None or gate.shape != high.shape:
        return np.full(high.shape, _CODES["sum"], np.int8)
    with np.errstate(all="ignore"):
        wide = {name: operand.astype(np.float64) for name, operand in elements.items()}
        scale = np.abs(high) if quantity.scale is None else quantity.scale
        met = {
            "cancellation": scale > 8 * np.abs(high),
            "tail": _sigma(claim, wide) < form.unit_roundoff,
            "subnormal": np.abs(high) < form.smallest_normal,
            "zero": np.abs(high) <= form.smallest_subnormal / 2,
            "overflow": np.abs(high) > form.largest,
            "infinity": np.any([np.isinf(operand) for operand in wide.values()], axis=0),
            "nan": np.any([np.isnan(operand) for operand in wide.values()], axis=0),
        }
    codes = np.zeros(high.shape, np.int8)
    for name, where in met.items():
        codes[where] = _CODES[name]
    return codes


def _sigma(claim: Claim, elements: Mapping[str, Float64]) -> Float64:
    """The factor of the activation between 0 and 1 that saturates; 1 where there is none."""
    gate = np.minimum(elements["gate"] if "gate" in elements else elements["x"], claim.limit)
    if claim.activation in ("sigmoid", "swish"):
        beta = elements.get("beta", np.asarray(claim.fixed_beta)) if claim.activation == "swish" else 1.0
        sigma: Float64 = scipy.special.expit(beta * gate)
    elif claim.activation in ("gelu", "gelu_tanh"):
        sigma = scipy.special.ndtr(gate)
    else:
        sigma = np.ones_like(gate)
    return sigma
