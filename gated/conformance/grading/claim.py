"""What an implementation under test claims to be: a function of the contract, and how it is called."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from gated.conformance.calls import UNARY, UNITS
from gated.contract import ACTIVATIONS, APPROXIMATIONS, ARRAY_PARAMETERS, LAYOUTS

__all__ = ["BETA_FORMS", "FORMS", "Claim"]

FORMS: Final = ("packed", "pair")
"""The forms of a gated unit: one array of two halves, or a gate and a value."""

BETA_FORMS: Final = ("scalar", "vector", "array")
"""How a target that takes beta as its last argument is handed it: as an array of no dimensions, as a vector along the
last axis, or in all shapes, one of the gate's own among them."""

_PROJECTED: Final = {"glu_linear": "sigmoid", "swiglu_linear": "swish", "gated_linear": "", "gated_ffn": ""}


@dataclass(frozen=True)
class Claim:
    """A function of the contract in one of its forms, with fixed keywords: what a target says that it computes.

    All functions but the projected ones are ``activation(min(gate, limit), beta) * (clip(value, -limit, limit) +
    offset)``, an activation alone being one without a value.

    Attributes:
        function: the name, as the contract has it.
        form: ``"unary"``, ``"packed"``, ``"pair"`` or ``"projected"``.
        layout: of a packed array; ``""`` for the other forms.
        axis: along which a packed array is split.
        activation: one of ``contract.ACTIVATIONS``.
        beta: the number that is fixed in the target (``alpha`` of the clamped unit), or one of :data:`BETA_FORMS`.
        limit, offset: of the clamped unit; infinity and 0 for the others.
        bias: a projected target takes its biases.
    """

    function: str
    form: str
    layout: str
    axis: int
    activation: str
    beta: float | str
    limit: float = math.inf
    offset: float = 0.0
    bias: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arrays that the target is called with, by position."""
        last = ("beta",) if isinstance(self.beta, str) else ()
        match self.form:
            case "unary" | "packed":
                return ("x", *last)
            case "pair":
                return ("gate", "value", *last)
        weights = ("x", "W", "V", "W2") if self.function == "gated_ffn" else ("x", "W", "V")
        biases = ("b", "c", "b2") if self.function == "gated_ffn" else ("b", "c")
        return (*weights, *(biases if self.bias else ()), *last)

    @property
    def fixed_beta(self) -> float:
        """beta where it is a number of the claim, 1 where the target is handed it."""
        return 1.0 if isinstance(self.beta, str) else self.beta

    def describe(self) -> str:
        """The claim in words."""
        parts = [f"{self.function}, {self.form}"]
        if self.layout:
            parts.append(self.layout)
        if self.function in ("gelu", "geglu", "gated_unit", "gated_linear", "gated_ffn"):
            parts.append(f"activation {self.activation}")
        if isinstance(self.beta, str):
            parts.append(f"beta handed over ({self.beta})")
        elif self.activation == "swish" and self.beta != 1:
            parts.append(f"{'alpha' if self.function == 'clamped_swiglu' else 'beta'} = {self.beta:g}")
        if self.function == "clamped_swiglu":
            parts.append(f"limit = {self.limit:g}, offset = {self.offset:g}")
        if self.form == "projected":
            parts.append("with biases" if self.bias else "without biases")
        return ", ".join(parts)

    @classmethod
    def of(
        cls,
        function: str,
        *,
        form: str | None = None,
        layout: str | None = None,
        axis: int = -1,
        activation: str | None = None,
        approximate: str | None = None,
        beta: float | str | None = None,
        alpha: float | None = None,
        limit: float | None = None,
        offset: float | None = None,
        bias: bool = False,
    ) -> Claim:
        """A claim from the options of ``gated check``; what is None has the function's own default.

        Args:
            form: ``"packed"`` (default) or ``"pair"``, for a gated unit. ``gated_unit`` is a pair by default.
            layout: of a packed array, ``"gate_last"`` by default.
            activation: of ``gated_unit``, ``gated_linear`` and ``gated_ffn``, ``"swish"`` by default.
            approximate: of ``gelu`` and ``geglu``, ``"none"`` by default.
            beta: a number that is fixed in the target, 1 by default, or one of :data:`BETA_FORMS`.
            alpha, limit, offset: of ``clamped_swiglu``, 1.702, 7 and 1 by default.
            bias: the projected target takes its biases.

        Raises:
            ValueError: a name is unknown, or an option does not go with the function.
        """
        _one_of("function", function, tuple(ARRAY_PARAMETERS))
        unit, projected, clamped = function in UNITS, function in _PROJECTED, function == "clamped_swiglu"

        def belongs(name: str, given: Any, belonging: bool) -> None:
            if given is not None and not belonging:
                raise ValueError(f"check: {name} does not go with {function}, got {given!r}")

        belongs("form", form, unit)
        belongs("approximate", approximate, function in ("gelu", "geglu"))
        belongs("activation", activation, function in ("gated_unit", "gated_linear", "gated_ffn"))
        belongs("bias", bias or None, projected)
        for name, number in (("alpha", alpha), ("limit", limit), ("offset", offset)):
            belongs(name, number, clamped)
            if number is not None and not (number >= 0 if name == "limit" else math.isfinite(number)):
                raise ValueError(f"check: {name} must be {'at least 0' if name == 'limit' else 'finite'}, got {number}")
        if unit:
            form = form or ("pair" if function == "gated_unit" else "packed")
            _one_of("form", form, FORMS)
        form = form or ("projected" if projected else "unary")
        belongs("layout", layout, form == "packed")
        belongs("axis", None if axis == -1 else axis, form == "packed")
        if axis not in (-2, -1, 0, 1):
            raise ValueError(f"check: axis must be from -2 to 1, of arrays of two axes, got {axis!r}")
        layout = (layout or "gate_last") if form == "packed" else ""
        if layout:
            _one_of("layout", layout, LAYOUTS)
        if approximate is not None:
            _one_of("approximate", approximate, APPROXIMATIONS)
        if activation is not None:
            _one_of("activation", activation, ACTIVATIONS)
        activation = activation or UNARY.get(function) or UNITS.get(function) or _PROJECTED.get(function) or "swish"
        if approximate == "tanh":
            activation = "gelu_tanh"
        takes_beta = "beta" in ARRAY_PARAMETERS[function] and activation == "swish"
        belongs("beta", beta, takes_beta)
        if isinstance(beta, str):
            _one_of("beta", beta, BETA_FORMS)
        elif beta is not None and not math.isfinite(beta):
            raise ValueError(f"check: beta must be finite, got {beta}")
        if clamped:
            beta = 1.702 if alpha is None else float(alpha)
            limit, offset = 7.0 if limit is None else float(limit), 1.0 if offset is None else float(offset)
        beta = 1.0 if beta is None else beta if isinstance(beta, str) else float(beta)
        limit, offset = math.inf if limit is None else limit, 0.0 if offset is None else offset
        return cls(function, form, layout, axis, activation, beta, limit, offset, bias)


def _one_of(name: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ValueError(f"check: {name} must be one of {', '.join(allowed)}, got {given!r}")
