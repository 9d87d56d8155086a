"""What a model predicts for an observation: the results, and how far from them a sound implementation of it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import FORMATS, Format
from gated.conformance.grading.dual import Duals
from gated.conformance.grading.formulas import Model
from gated.conformance.grading.hypotheses import Gradients
from gated.conformance.grading.observation import Observation
from gated.conformance.grading.running_error import Arithmetic, Number
from gated.conformance.quantities import unpack

__all__ = ["ACCURACIES", "Elementwise", "Prediction", "Twist", "gradients"]

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]
Twist = Callable[[Gradients], Mapping[str, Number]]

ACCURACIES: Final = ("once", "plain", "loose")
"""How accurate the implementation of a hypothesis may be.

- ``"once"``: in 16 bits, computed in float32 and rounded once.
- ``"plain"``: each operation is rounded.
- ``"loose"``: as ``"plain"``, and the sigmoid has an absolute error.
"""

_PARTIALS: Final = ("d gate", "d value", "d beta")


@dataclass(frozen=True)
class Prediction:
    """Results of some elements, and the bound on the absolute error of each."""

    value: Float64
    error: Float64


def _stored(number: Number, form: Format) -> Prediction:
    """A result that is computed in a wider arithmetic and rounded to the format once."""
    error = number.error
    with np.errstate(all="ignore"):
        error = error + form.unit_roundoff * number.reach + form.smallest_subnormal / 2
        error = np.where(number.reach > form.largest, np.inf, error)
    return Prediction(np.asarray(number.value), np.where(np.isnan(error), np.inf, error))


def gradients(m: Arithmetic, model: Model, gate: Number, value: Number, beta: Number, cotangent: Number) -> Gradients:
    """The partial derivatives of a model, and what they are made of."""
    duals = Duals(m)
    operands = duals.variables([gate, value, beta])
    zero = m.constant(np.zeros_like(gate.value))
    result = model.result(duals, *operands)
    partials = [one or zero for one in result.partials]
    activated = model.activation(duals, model.lower(duals, operands[0]), operands[2])
    shifted = model.shift(duals, operands[1])
    return Gradients(
        result.number,
        partials[0],
        partials[1],
        partials[2],
        cotangent,
        activated.number,
        activated.partials[0] or zero,
        (gate, shifted.number, beta),
    )


@dataclass(frozen=True)
class Elementwise:
    """The elements of an observation of an activation or a unit, flat, in float64.

    Attributes:
        accuracy: one of :data:`ACCURACIES`.
    """

    observation: Observation
    accuracy: str = "plain"

    @property
    def form(self) -> Format:
        return self.observation.form

    @cached_property
    def arithmetic(self) -> Arithmetic:
        form = FORMATS["float32"] if self.accuracy == "once" else self.form
        return Arithmetic(form, library_sigmoid=True, absolute_sigmoid=self.accuracy == "loose")

    @cached_property
    def beta(self) -> Float64:
        """Of each element."""
        elements = self.observation.elements
        given: Any = elements.get("beta", self.observation.arguments.get("beta", self.observation.claim.fixed_beta))
        return np.broadcast_to(_wide(given), self.observation.cotangent.shape).ravel()

    @cached_property
    def cotangent(self) -> Float64:
        return _wide(self.observation.cotangent).ravel()

    def operands(self, layout: str) -> tuple[Float64, Float64]:
        """Gate and value of each element, of a packed array in the layout in which it is read."""
        elements = self.observation.elements
        if self.observation.claim.form == "packed" and layout != self.observation.claim.layout:
            gate, value = _read(_wide(self.observation.arguments["x"]), layout, self.observation.claim.axis)
            return gate.ravel(), value.ravel()
        if "value" not in elements:
            gate = _wide(elements["x"]).ravel()
            return gate, np.ones_like(gate)
        gate, value = _wide(elements["gate"]).ravel(), _wide(elements["value"]).ravel()
        return (value, gate) if layout == "swapped" else (gate, value)

    def value(self, model: Model, at: Indices) -> Prediction:
        """The result at some elements."""
        gate, value = self.operands(model.layout)
        m = self.arithmetic
        duals = Duals(m)
        with np.errstate(all="ignore"):
            operands = duals.constants([m.number(gate[at]), m.number(value[at]), m.number(self.beta[at])])
            return _stored(model.result(duals, *operands).number, self.form)

    def gradient(self, model: Model, part: str, at: Indices, twist: Twist | None = None) -> Prediction | None:
        """A cotangent at some elements; None where the twist has none of that name."""
        part = "d gate" if part == "d x" else part
        gate, value = self.operands(model.layout)
        owner, role = self._owners(model.layout, part, at)
        with np.errstate(all="ignore"):
            m = self.arithmetic
            chosen = (gate[owner], value[owner], self.beta[owner], self.cotangent[owner])
            made = gradients(m, model, *(m.number(one) for one in chosen))
            if twist is not None:
                twisted = twist(made)
                if part not in twisted:
                    return None
                return _stored(twisted[part], self.form)
            partial = m.where(role == 0, made.gate, m.where(role == 1, made.value, made.beta))
            return _stored(m.product(partial, made.cotangent), self.form)

    def summed(self, model: Model, shape: tuple[int, ...], twist: Twist | None = None) -> Prediction | None:
        """The cotangent of a beta that many elements share: sums in float32 or wider."""
        every = np.arange(self.cotangent.size)
        each = self.gradient(model, "d beta", every, twist)
        if each is None:
            return None
        full = self.observation.cotangent.shape
        lead = (1,) * (len(full) - len(shape)) + shape
        axes = tuple(axis for axis, size in enumerate(lead) if size == 1)
        u = FORMATS["float64" if self.form.name == "float64" else "float32"].unit_roundoff
        value, error = each.value.reshape(full), each.error.reshape(full)
        count = max(1, value.size // max(1, int(np.prod(shape))))
        with np.errstate(all="ignore"):
            total = value.sum(axis=axes).reshape(shape)
            reach = np.sum(np.abs(value) + error, axis=axes).reshape(shape)
            bound = error.sum(axis=axes).reshape(shape) + count * u * reach + self.form.unit_roundoff * np.abs(total)
        return Prediction(total.ravel(), np.where(np.isnan(bound), np.inf, bound).ravel())

    def _owners(self, layout: str, part: str, at: Indices) -> tuple[Indices, Any]:
        """Which element of the model's reading the numbers at ``at`` are operands of, and as what (0 gate, 1 value)."""
        role = _PARTIALS.index(part)
        claim = self.observation.claim
        if layout == "swapped" and part != "d beta":
            return at, np.full(at.shape, 1 - role)
        if claim.form != "packed" or layout == claim.layout or part == "d beta":
            return at, np.full(at.shape, role)
        x = self.observation.arguments["x"]
        places = np.arange(x.size).reshape(x.shape)
        element, as_what = np.empty(x.size, np.intp), np.empty(x.size, np.intp)
        for number, half in enumerate(_read(places, layout, claim.axis)):
            element[half.ravel()], as_what[half.ravel()] = np.arange(half.size), number
        claimed = _read(places, claim.layout, claim.axis)[role].ravel()[at]
        return element[claimed], as_what[claimed]


def _wide(x: Any) -> Float64:
    with np.errstate(invalid="ignore"):
        return np.asarray(x).astype(np.float64)


def _read(x: NDArray[Any], layout: str, axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    if layout == "interleaved, value first":
        value, gate = unpack(x, "interleaved", axis)
        return gate, value
    return unpack(x, layout, axis)
