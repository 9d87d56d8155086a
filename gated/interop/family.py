"""What a row of the table of model families says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gated.contract import ACTIVATIONS, check_choice
from gated.interop.layouts import Pattern, parse, without

__all__ = ["BIASES", "PAIRS", "Clamp", "Family"]

PAIRS: Final[Mapping[str, tuple[str, str]]] = {"WV": ("W", "V"), "bc": ("b", "c")}
"""The parts that hold two letters, the gate's and the value's."""

BIASES: Final = ("b", "c", "bc", "b2")
"""The parts that may be missing from a state."""

_SEPARATE: Final = ("W", "V", "W2", "b", "c", "b2")
_TOGETHER: Final = ("WV", "W2", "bc", "b2")


@dataclass(frozen=True)
class Clamp:
    """The parameters of ``clamped_swiglu``.

    g = min(gate, limit), v = clip(value, -limit, limit): g sigmoid(alpha g) (v + offset).
    """

    alpha: float
    limit: float
    offset: float


@dataclass(frozen=True)
class Family:
    """A family of gated feed-forward blocks, and how it stores them.

    Attributes:
        name: in lower case, with hyphens.
        parts: the key of each array, less the prefix that says which layer. Separate weights: ``W`` (gate), ``V``
            (value), ``W2`` (down), and where the family can have biases ``b``, ``c``, ``b2``. Gate and value in one
            array: ``WV`` and ``bc``. ``{expert}`` in a key stands for the number of the expert. A family without
            ``W2`` has a unit and no block.
        up: the axes of the gate's and value's weights, as :func:`gated.interop.layouts.parse` reads them.
        down: the axes of the down projection.
        source: the URL, or package:path, and what was read there.
        gate: which of the pair is the gate, by its index on the axis ``2``.
        activation: of the family's published models, or its module's default.
        configurable: whether the module has other activations for the same arrays.
        clamp: of gpt-oss; None for the others.
        module: the class, dotted, with which the row is tested; empty where the test restates the source.
        models: which models store their blocks so.
    """

    name: str
    parts: Mapping[str, str]
    up: str
    down: str
    source: str
    gate: int = 0
    activation: str = "swish"
    configurable: bool = False
    clamp: Clamp | None = None
    module: str = ""
    models: str = ""
    up_pattern: Pattern = field(init=False, repr=False, compare=False)
    down_pattern: Pattern = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice(f"Family {self.name}", "activation", self.activation, ACTIVATIONS)
        object.__setattr__(self, "up_pattern", parse(self.up))
        object.__setattr__(self, "down_pattern", parse(self.down))
        allowed = _SEPARATE if self.packing == "separate" else _TOGETHER
        needed = {"W", "V"} if self.packing == "separate" else {"WV"}
        if not needed <= set(self.parts) <= set(allowed):
            raise ValueError(
                f"Family {self.name}: parts must be of {', '.join(allowed)} and have {' and '.join(sorted(needed))}, "
                f"got {', '.join(self.parts)}"
            )
        if self.gate != 0 and (self.gate != 1 or self.layout in (None, "interleaved")):
            raise ValueError(f"Family {self.name}: gate must be 0, or 1 of a pair of halves, got {self.gate!r}")

    def pattern(self, part: str) -> Pattern:
        """The axes of one of the ``parts``: a bias has its weight's, less the axis that is summed."""
        match part:
            case "W2":
                return self.down_pattern
            case "b2":
                return without(self.down_pattern, "f")
            case "b" | "c" | "bc":
                return without(self.up_pattern, "d")
        return self.up_pattern

    @property
    def packing(self) -> str:
        """``"separate"``: two arrays; ``"packed"``: one, the pair in the hidden axis; ``"stacked"``: its own."""
        if self.pair_axis is None:
            return "separate"
        return "stacked" if ("2",) in self.up_pattern else "packed"

    @property
    def pair_axis(self) -> int | None:
        """The axis of the stored array that holds the pair; None where weights are separate."""
        return next((axis for axis, group in enumerate(self.up_pattern) if "2" in group), None)

    @property
    def layout(self) -> str | None:
        """A layout of the contract, for a stacked pair by the gate's index; None where weights are separate."""
        if self.pair_axis is None:
            return None
        if self.up_pattern[self.pair_axis][0] != "2":
            return "interleaved"
        return "gate_last" if self.gate else "gate_first"

    @property
    def transposed(self) -> bool:
        """Whether gate and value weights are (out, in), as torch has them."""
        return _before("f", "d", self.up_pattern)

    @property
    def down_transposed(self) -> bool:
        """Whether the down projection is (out, in)."""
        return _before("o", "f", self.down_pattern)

    @property
    def experts(self) -> str | None:
        """``"axis"``: an axis of every array, its own or shared; ``"key"``: arrays of each expert; None: no experts."""
        if any("{expert}" in key for key in self.parts.values()):
            return "key"
        return "axis" if any("e" in group for group in self.up_pattern) else None

    @property
    def experts_folded(self) -> bool:
        """Whether experts share an axis with the features, so that no shape tells how many there are."""
        return any("e" in group and len(group) > 1 for group in self.up_pattern)


def _before(first: str, second: str, pattern: Pattern) -> bool:
    words = [word for group in pattern for word in group]
    return words.index(first) < words.index(second)
