r"""How far rounding may take a block's output: a probabilistic bound, carried through the products and the gate.

The worst case (:mod:`gated.conformance.carried`) grows with the number of terms; for a layer of 4096 x 11008 it is as
large as the output, and would tell nothing apart. Here each rounding error is an independent random variable, uniform
between plus and minus the unit roundoff u times what is rounded (the model of Higham and Mary, "A New Approach to
Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41, 2019, with a distribution). A uniform variable is
sub-Gaussian with its own variance, a third of the square of that, as its proxy; proxies add up, and a sum exceeds
:math:`\lambda` times the root of its proxy with a probability of at most :math:`2 e^{-\lambda^2 / 2}` (Hoeffding).
:math:`\lambda` is chosen such that this happens to none of the N outputs but with a probability of half of ``FAILURE``:
:math:`\lambda = \sqrt{2 \ln(4 N / \text{FAILURE})}`, 7.5 for 500 outputs and 8.5 for a million.

With :math:`t_i` the k terms of a sum s, accumulated with roundoff :math:`u_a` (float32 or wider) in any order, and
partial sums taken to be in mean square at most :math:`\sum t_i^2 + s^2`, the variances are:

- a stored sum: :math:`u_a^2 (k + 1) (\sum t_i^2 + s^2) / 3 + u^2 s^2 / 3`, and :math:`u^2 (s + b)^2 / 3` more with a
  bias b;
- an activation at a gate of variance :math:`v`: :math:`\min(|A'(g)| + \sup|A''| \lambda \sqrt v / 2, \sup|A'|)^2 v`
  (Taylor, and the mean value theorem), and :math:`u^2 (4 A(g)^2 + m^2)` for its own arithmetic, each step of which may
  be stored in the dtype, with m = |g| for swish and gelu, since 1 + tanh and 1 + erf cancel where g < 0; m = 1 for
  sigmoid; nothing for identity and relu;
- the product with the value, and the down projection: by the rules of products and sums.

A wrong function that is near is off by less than that in every output, but in all of them. So the mean square
:math:`q` of the errors over the roots of their variances is bounded too. The exponential moment of the square of one is
:math:`E\, e^{s z^2} \le (1 - 2 s)^{-1/2}`, that of a mean of squares in a row no larger, however the errors of a row
depend on one another (Jensen), and the R rows that differ have roundings of their own: the sum of their means has the
moments of a chi-square of R degrees or less, and with :math:`L = \ln(2 / \text{FAILURE})`
:math:`q > 1 + 2 \sqrt{L / R} + 2 L / R` has a probability of at most :math:`e^{-L}` (Laurent and Massart, "Adaptive
Estimation of a Quadratic Functional by Model Selection", Annals of Statistics 28, 2000, Lemma 1). Each of the two
bounds has half of ``FAILURE``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import FORMATS
from gated.interop.identification.functions import Function

__all__ = ["FAILURE", "Arithmetic", "Estimate"]

Float64 = NDArray[np.float64]

FAILURE: Final = 1e-9
"""The probability that rounding alone takes an output of the right candidate, or their mean square, past its bound."""


class Estimate(NamedTuple):
    """Exact values (to float64), and the variances of the rounding errors in computed ones."""

    value: Float64
    variance: Float64


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic that an output was computed in.

    Attributes:
        dtype: of intermediates.
        recorded: the dtype of the recorded output.
        outputs: how many numbers are compared.
    """

    dtype: str
    recorded: str
    outputs: int

    @property
    def store(self) -> float:
        """The unit roundoff of a stored intermediate."""
        return FORMATS[self.dtype].unit_roundoff

    @property
    def tiny(self) -> float:
        """What a stored intermediate may lose to underflow: float16 keeps its subnormals, others may flush them."""
        form = FORMATS[self.dtype]
        return form.smallest_subnormal if self.dtype == "float16" else form.smallest_normal

    @property
    def factor(self) -> float:
        """lambda: how many roots of the variance a bound is."""
        return math.sqrt(2 * math.log(4 * max(1, self.outputs) / FAILURE))

    def mean_bound(self, rows: int) -> float:
        """The bound on the root mean square of the errors over so many rows that differ, in units of their bounds."""
        few = math.log(2 / FAILURE) / rows
        return math.sqrt(1 + 2 * math.sqrt(few) + 2 * few) / self.factor

    def rounded(self, value: Float64) -> Float64:
        """The variance of the rounding of a stored intermediate."""
        return (self.store * value) ** 2 / 3 + self.tiny**2

    def spread(self, terms: int) -> float:
        """The variance of accumulation over ``sum t_i^2 + s^2``."""
        accumulated = FORMATS["float64" if self.dtype == "float64" else "float32"].unit_roundoff
        return accumulated**2 * (terms + 1) / 3

    def projected(self, total: Float64, squares: Float64, terms: int, bias: Float64 | None) -> Estimate:
        """A stored sum of ``terms`` exact products, whose squares sum to ``squares``, and its bias."""
        variance = self.spread(terms) * (squares + total**2) + self.rounded(total)
        if bias is None:
            return Estimate(total, variance)
        value = total + bias
        return Estimate(value, variance + self.rounded(value))

    def activated(self, function: Function, gate: Estimate, value: Estimate) -> Estimate:
        """The hidden features: activation(gate) * value."""
        g, v = function.clamped(gate.value, value.value)
        activation, slope = function.curve(g)
        reach = self.factor * np.sqrt(gate.variance)
        if function.activation == "relu":
            slope = np.where(np.abs(g) <= reach, 1.0, slope)
        match function.activation:
            case "identity" | "relu":
                own: Float64 | float = 0.0
            case "sigmoid":
                own = self.store**2 * (4 * activation**2 + 1)
            case _:
                own = self.store**2 * (4 * activation**2 + g**2)
        steepness = np.minimum(np.abs(slope) + function.curvature * reach / 2, function.steepest)
        moved = steepness**2 * gate.variance + own
        off = value.variance if function.clamp is None else value.variance + self.rounded(v)
        hidden = activation * v
        variance = moved * (np.abs(v) + self.factor * np.sqrt(off)) ** 2 + activation**2 * off + self.rounded(hidden)
        return Estimate(hidden, variance)

    def summed(self, hidden: Estimate) -> Float64:
        """What the squares of the down projection multiply: the variance of each of its terms over its square."""
        return hidden.variance + self.spread(hidden.value.shape[-1]) * hidden.value**2

    def projected_down(self, total: Float64, carried: Float64, terms: int, bias: Float64 | None) -> Estimate:
        """The output from ``hidden @ W2`` and ``summed(hidden) @ W2**2``."""
        variance = carried + self.spread(terms) * total**2 + self.rounded(total)
        if bias is None:
            return Estimate(total, variance)
        value = total + bias
        return Estimate(value, variance + self.rounded(value))

    def bound(self, output: Estimate) -> Float64:
        """The bound on |recorded - exact|. In float64 what is called exact here has errors of the same size."""
        recorded = (FORMATS[self.recorded].unit_roundoff * output.value) ** 2 / 3
        bound = self.factor * np.sqrt(output.variance + recorded)
        return 2 * bound if self.dtype == "float64" else bound
