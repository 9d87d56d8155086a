"""What the vectors are of: each function by the name of its files, with its formula, arguments and quantities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["FUNCTIONS", "Function"]

_PAPERS: Final = {
    "swish": "https://arxiv.org/abs/1710.05941",
    "gelu": "https://arxiv.org/abs/1606.08415",
    "glu": "https://arxiv.org/abs/1612.08083",
    "units": "https://arxiv.org/abs/2002.05202",
    "gpt-oss": "https://github.com/openai/gpt-oss",
}


@dataclass(frozen=True)
class Function:
    """A function of which there are vectors.

    Attributes:
        name: in the names of the files.
        call: the public function.
        activation: that of the gate, or the function itself.
        kind: ``"activation"`` of x, ``"unit"`` of gate and value, or ``"projected"``.
        formula: in words that need no font.
        source: where it was published.
        static: the keywords of the call that make it this function.
        takes_beta: whether beta is an argument.
    """

    name: str
    call: str
    activation: str
    kind: str
    formula: str
    source: str
    static: Mapping[str, str] = field(default_factory=dict)
    takes_beta: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the inputs of an elementwise test, beta and the cotangent aside."""
        return ("gate", "value") if self.kind == "unit" else ("x",)

    @property
    def is_sum(self) -> bool:
        """Whether the derivative in x, or in the gate, is a sum of two terms."""
        return self.activation in ("swish", "gelu", "gelu_tanh")


_SIGMOID: Final = "sigmoid(t) = 1 / (1 + e^-t)"
_PHI: Final = "Phi(t) = erfc(-t / sqrt 2) / 2"
_TANH: Final = "T(t) = sigmoid(2 sqrt(2/pi) (t + 0.044715 t^3)) = (1 + tanh(sqrt(2/pi) (t + 0.044715 t^3))) / 2"

FUNCTIONS: Final[Mapping[str, Function]] = {
    function.name: function
    for function in (
        Function("sigmoid", "sigmoid", "sigmoid", "activation", _SIGMOID, ""),
        Function(
            "swish",
            "swish",
            "swish",
            "activation",
            f"x sigmoid(beta x), {_SIGMOID}; silu is the case beta = 1",
            _PAPERS["swish"],
            takes_beta=True,
        ),
        Function("gelu", "gelu", "gelu", "activation", f"x Phi(x), {_PHI}", _PAPERS["gelu"], {"approximate": "none"}),
        Function(
            "gelu_tanh", "gelu", "gelu_tanh", "activation", f"x T(x), {_TANH}", _PAPERS["gelu"], {"approximate": "tanh"}
        ),
        Function("relu", "relu", "relu", "activation", "max(x, 0)", ""),
        Function("glu", "glu", "sigmoid", "unit", f"sigmoid(gate) value, {_SIGMOID}", _PAPERS["glu"]),
        Function("bilinear", "bilinear", "identity", "unit", "gate value", _PAPERS["units"]),
        Function("reglu", "reglu", "relu", "unit", "max(gate, 0) value", _PAPERS["units"]),
        Function(
            "geglu", "geglu", "gelu", "unit", f"gate Phi(gate) value, {_PHI}", _PAPERS["units"], {"approximate": "none"}
        ),
        Function(
            "geglu_tanh",
            "geglu",
            "gelu_tanh",
            "unit",
            f"gate T(gate) value, {_TANH}",
            _PAPERS["units"],
            {"approximate": "tanh"},
        ),
        Function(
            "swiglu",
            "swiglu",
            "swish",
            "unit",
            f"gate sigmoid(beta gate) value, {_SIGMOID}",
            _PAPERS["units"],
            takes_beta=True,
        ),
        Function(
            "clamped_swiglu",
            "clamped_swiglu",
            "swish",
            "unit",
            f"g sigmoid(alpha g) (v + offset), g = min(gate, limit), v = clip(value, -limit, limit), {_SIGMOID}",
            _PAPERS["gpt-oss"],
        ),
        Function(
            "gated_ffn",
            "gated_ffn",
            "",
            "projected",
            "(activation(x W + b) * (x V + c)) W2 + b2, the activations those of the other files",
            _PAPERS["units"],
            takes_beta=True,
        ),
    )
}
"""By name, in the order of the files."""
