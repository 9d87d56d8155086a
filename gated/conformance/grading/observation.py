"""What was seen of a target on one case: its results beside the exact ones. The evidence for a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import Format
from gated.conformance.grading.claim import Claim
from gated.conformance.quantities import Quantity

__all__ = ["Observation", "Part"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One quantity of a case, and where its numbers are in a reply."""

    name: str
    """``"value"``, or ``"d x"``, ``"d gate"``, ``"d value"``, ``"d beta"``, ``"d W"``, ... For a packed target
    ``"d gate"`` and ``"d value"`` are the halves of the cotangent of its one array, by the claimed layout."""
    argument: str
    """The argument whose cotangent it is part of; ``""`` for the value."""
    quantity: Quantity
    """``quantity.unpack`` takes the part out of the whole result."""


@dataclass(frozen=True)
class Observation:
    """A call, its results, and which of them are wrong.

    Attributes:
        arguments: by name, what the target was called with.
        elements: ``gate``, ``value``, ``beta`` (or ``x``), each of the value's shape: the operands of each element of
            the value. Empty for the projected functions.
        cotangent: of the value's shape.
        results: by part name, the target's numbers, lined up with ``part.quantity.high``; absent where there are none
            (no gradient, a wrong dtype or shape, a gradient that stops).
        raw: by argument name (``""``: the value), the whole result as it came, whatever its dtype and shape; None where
            the gradient stops.
        wrong: by part name, where the results are past their bound.
    """

    claim: Claim
    form: Format
    arguments: Mapping[str, Array]
    elements: Mapping[str, Array]
    cotangent: Array
    parts: Sequence[Part]
    results: Mapping[str, Array]
    raw: Mapping[str, Array | None]
    wrong: Mapping[str, NDArray[np.bool_]]
