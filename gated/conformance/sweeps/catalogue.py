"""What is swept: every number of a format through an activation, or every pair through a gated unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gated.conformance.error import FORMATS, Format

__all__ = ["SWEEPS", "Sweep", "find"]


@dataclass(frozen=True)
class Sweep:
    """Every input of a function in one dtype, value and derivatives, cut into units of work.

    Attributes:
        name: for files and tables, such as ``"swish-float32"``.
        function: the public function that is called.
        activation: the activation inside it.
        dtype: the dtype's name.
        pairs: every (gate, value) pair of a packed unit, rather than every number of an activation.
        static: keywords of the call.
        quantities: ``"value"`` and a ``"d "`` for each argument, all at a cotangent of 1.
        unit: inputs in a unit of work.
    """

    name: str
    function: str
    activation: str
    dtype: str
    pairs: bool = False
    static: Mapping[str, Any] = field(default_factory=dict)
    quantities: tuple[str, ...] = ("value", "d x")
    unit: int = 1 << 20

    @property
    def form(self) -> Format:
        """The format of the inputs."""
        return FORMATS[self.dtype]

    @property
    def inputs(self) -> int:
        """How many inputs there are."""
        numbers = 1 << (8 * self.form.bits.itemsize)
        return numbers * numbers if self.pairs else numbers

    @property
    def units(self) -> int:
        """How many units of work there are."""
        return self.inputs // self.unit


def _catalogue() -> dict[str, Sweep]:
    tanh = {"approximate": "tanh"}
    pair = ("value", "d gate", "d value")
    sweeps = [
        Sweep("swish-float32", "swish", "swish", "float32"),
        Sweep("swiglu-bfloat16", "swiglu", "swish", "bfloat16", pairs=True, quantities=pair),
        Sweep("sigmoid-float32", "sigmoid", "sigmoid", "float32"),
        Sweep("gelu-float32", "gelu", "gelu", "float32"),
        Sweep("gelu_tanh-float32", "gelu", "gelu_tanh", "float32", static=tanh),
        Sweep("glu-bfloat16", "glu", "sigmoid", "bfloat16", pairs=True, quantities=pair),
    ]
    for dtype in ("float16", "bfloat16"):
        sweeps += [
            Sweep(f"sigmoid-{dtype}", "sigmoid", "sigmoid", dtype, unit=1 << 14),
            Sweep(f"swish-{dtype}", "swish", "swish", dtype, quantities=("value", "d x", "d beta"), unit=1 << 14),
            Sweep(f"gelu-{dtype}", "gelu", "gelu", dtype, unit=1 << 14),
            Sweep(f"gelu_tanh-{dtype}", "gelu", "gelu_tanh", dtype, static=tanh, unit=1 << 14),
            Sweep(f"relu-{dtype}", "relu", "relu", dtype, unit=1 << 14),
        ]
    return {sweep.name: sweep for sweep in sweeps}


SWEEPS: Final[Mapping[str, Sweep]] = _catalogue()
"""By name, in the order in which they are run."""


def find(functions: Sequence[str] | None, dtypes: Sequence[str] | None) -> list[Sweep]:
    """The sweeps of these functions and dtypes; all of them where None is given."""
    return [
        sweep
        for sweep in SWEEPS.values()
        if (functions is None or sweep.function in functions) and (dtypes is None or sweep.dtype in dtypes)
    ]
