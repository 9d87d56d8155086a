"""The functions between the projections that identification tries."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gated.conformance.closed_forms import FloatMath, activation_terms
from gated.contract import ACTIVATIONS
from gated.interop.family import Clamp

__all__ = ["FUNCTIONS", "QUICK_GELU", "Function"]

Float64 = NDArray[np.float64]

QUICK_GELU: Final = 1.702
"""The beta with which swish stands for gelu."""

# sup |A''| of sigmoid, and of swish for beta = 1; of gelu, and to 1e-6 of its tanh form.
_CURVATURE: Final = {"identity": 0.0, "relu": 0.0, "sigmoid": 0.0963, "swish": 0.5, "gelu": 0.7979, "gelu_tanh": 0.7979}

# sup |A'|, of swish for any beta, rounded up.
_STEEPEST: Final = {"identity": 1.0, "relu": 1.0, "sigmoid": 0.25, "swish": 1.0999, "gelu": 1.1290, "gelu_tanh": 1.1290}

_MATH: Final = FloatMath()


class Function(NamedTuple):
    """activation(gate) * value, or ``clamped_swiglu`` where there is a clamp, whose alpha is then beta."""

    activation: str
    beta: float = 1.0
    clamp: Clamp | None = None

    def clamped(self, gate: Float64, value: Float64) -> tuple[Float64, Float64]:
        """The factors before the activation: min(gate, limit) and clip(value, -limit, limit) + offset."""
        if self.clamp is None:
            return gate, value
        limit = self.clamp.limit
        return np.minimum(gate, limit), np.clip(value, -limit, limit) + self.clamp.offset

    def curve(self, gate: Float64) -> tuple[Float64, Float64]:
        """A(g) and A'(g)."""
        return self._partial("value", gate), self._partial("x", gate)

    def in_beta(self, gate: Float64) -> Float64:
        """dA/dbeta."""
        return self._partial("beta", gate)

    def _partial(self, partial: str, gate: Float64) -> Float64:
        total: Float64 = np.asarray(sum(activation_terms(_MATH, self.activation, partial, gate, self.beta)))
        return total

    @property
    def curvature(self) -> float:
        """sup |A''|."""
        return _CURVATURE[self.activation] * (abs(self.beta) if self.activation == "swish" else 1.0)

    @property
    def steepest(self) -> float:
        """sup |A'|."""
        return _STEEPEST[self.activation]


_GPT_OSS: Final = Clamp(alpha=QUICK_GELU, limit=7.0, offset=1.0)

FUNCTIONS: Final = (
    *(Function(activation) for activation in ACTIVATIONS),
    Function("swish", QUICK_GELU),
    *(
        Function("swish", clamp.alpha, clamp)
        # gpt-oss's, and what its ports have made of it: the clamp lost, and the offset lost.
        for clamp in (_GPT_OSS, Clamp(QUICK_GELU, math.inf, 1.0), Clamp(QUICK_GELU, 7.0, 0.0))
    ),
)
"""The contract's activations, quick gelu, and the clamped unit of gpt-oss with two of its misreadings."""
