"""Exact derivatives of every public function, of any order and along any directions: Taylor jets in ball arithmetic.

A jet is a number a + sum over S of a_S e_S, S the non-empty sets of directions, with e_i e_i = 0: of f evaluated at
x + e_1 u + e_2 v + e_3 w the part at {1, 2, 3} is the third derivative of f along u, v and w, and so for every subset.
The parts are balls, so that every number is proven; a smooth function is applied by its Taylor series, which
``flint.arb_series`` computes. No formula of a derivative is written here, and none of the backends' code.

Beside each part stands its reach, the sum of the magnitudes of all terms that any expanded closed form of it adds up:
what rounding errors are proportional to.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

__all__ = ["PRECISION", "UNITS_OF_REACH", "Jet", "Jets", "activation", "constants", "part"]

Jets = NDArray[Any]
"""An array of jets, dtype object."""

PRECISION = 160
"""Bits: the working precision of flint under which jets are to be computed."""

UNITS_OF_REACH = 256
"""How many unit roundoffs of its reach a float64 result may be off.

A result is a sum of products of at most six factors: cotangent, tangents, a value and a derivative of the activation.
Such a derivative is within 16 + 4 |t| ulp (two unit roundoffs each) of the sum of its terms, as tests/
test_oracle_second_order.py derives, and t, the exponential's argument, is below 20 in every row: 192. Products of
matrices over at most 5 terms, sums over at most 12 elements and products of 5 further factors are the rest.
"""


class Jet:
    """A jet of balls with its reach. Directions are bits of the keys; 0 is the value."""

    def __init__(self, parts: dict[int, Any], reach: dict[int, float]) -> None:
        self.parts, self.reach = parts, reach

    @staticmethod
    def of(value: float) -> Jet:
        return Jet({0: flint.arb(value)}, {0: abs(value)})

    def along(self, direction: int, slope: float) -> Jet:
        """This number moved: ``slope`` times the direction is added."""
        return self if slope == 0 else self + Jet({1 << direction: flint.arb(slope)}, {1 << direction: abs(slope)})

    def __add__(self, other: Jet) -> Jet:
        parts, reach = dict(self.parts), dict(self.reach)
        for key, one in other.parts.items():
            parts[key] = parts[key] + one if key in parts else one
            reach[key] = reach.get(key, 0.0) + other.reach[key]
        return Jet(parts, reach)

    def __mul__(self, other: Jet) -> Jet:
        parts: dict[int, Any] = {}
        reach: dict[int, float] = {}
        for i, a in self.parts.items():
            for j, b in other.parts.items():
                if not i & j:
                    key = i | j
                    parts[key] = parts[key] + a * b if key in parts else a * b
                    reach[key] = reach.get(key, 0.0) + self.reach[i] * other.reach[j]
        return Jet(parts, reach)

    def through(self, series: Callable[[Any], Sequence[Any]], reaches: Callable[[float, int], Sequence[float]]) -> Jet:
        """f of this number, by the Taylor coefficients of f at its value and by their reaches."""
        moving = Jet({key: one for key, one in self.parts.items() if key}, {k: r for k, r in self.reach.items() if k})
        order = functools.reduce(lambda a, b: a | b, moving.parts, 0).bit_count()
        old, flint.ctx.cap = flint.ctx.cap, order + 1
        try:
            taylor = series(flint.arb_series([self.parts[0], 1]))
            taylor = [taylor[k] for k in range(order + 1)]
        finally:
            flint.ctx.cap = old
        spread = reaches(float(self.parts[0]), order)
        result = Jet({0: taylor[order]}, {0: spread[order]})
        for k in reversed(range(order)):
            result = result * moving + Jet({0: taylor[k]}, {0: spread[k]})
        return result

    def without(self, direction: int) -> Jet:
        """The derivative along a direction, as a number of its own."""
        bit = 1 << direction
        keys = [key for key in self.parts if key & bit]
        result = Jet({key ^ bit: self.parts[key] for key in keys}, {key ^ bit: self.reach[key] for key in keys})
        return result + Jet.of(0.0)


def constants(values: NDArray[np.float64]) -> Jets:
    """An array of numbers that do not move."""
    result = np.empty(values.shape, object)
    for index, value in np.ndenumerate(values):
        result[index] = Jet.of(float(value))
    return result


def part(jets: Jets, key: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A part of each jet as a float64, and its reach."""
    exact, reach = np.zeros(jets.shape), np.zeros(jets.shape)
    for index, jet in np.ndenumerate(jets):
        if key in jet.parts:
            ball = jet.parts[key]
            assert ball.rel_accuracy_bits() > 60 or abs(ball) < 1e-30, ball
            exact[index], reach[index] = float(ball.mid()), jet.reach[key]
    return exact, reach


# The activations


def _stirling(k: int) -> dict[int, float]:
    """s^(k) = the sum of a_j s^j: the magnitudes of the a_j."""
    result = {1: 1.0}
    for _ in range(k):
        higher: dict[int, float] = {}
        for j, a in result.items():
            higher[j] = higher.get(j, 0.0) + j * a
            higher[j + 1] = higher.get(j + 1, 0.0) + j * a
        result = higher
    return result


def _logistic_reaches(t: float, order: int) -> list[float]:
    """Of polynomials in s, s(-|t|) for all but the value."""
    low = 1 / (1 + math.exp(abs(t)))
    value = 1 / (1 + math.exp(-t))
    rest = [sum(a * low**j for j, a in _stirling(k).items()) / math.factorial(k) for k in range(1, order + 1)]
    return [value, *rest]


def _normal_reaches(x: float, order: int) -> list[float]:
    """Of Phi, and of Hermite polynomials times the density, all terms positive."""
    hermite = [1.0, abs(x)]
    for k in range(1, order):
        hermite.append(abs(x) * hermite[k] + k * hermite[k - 1])
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    phi = math.erfc(-x / math.sqrt(2)) / 2
    return [phi, *(hermite[k - 1] * density / math.factorial(k) for k in range(1, order + 1))]


def _logistic(t: Jet) -> Jet:
    return t.through(lambda s: 1 / (1 + (-s).exp()), _logistic_reaches)


def _normal_cdf(x: Jet) -> Jet:
    return x.through(lambda s: (-s / flint.arb(2).sqrt()).erfc() / 2, _normal_reaches)


def _times(factor: Any, jet: Jet) -> Jet:
    return Jet({0: flint.arb(factor)}, {0: abs(float(factor))}) * jet


def activation(name: str, x: Jet, beta: Jet) -> Jet:
    """A(x; beta). A rectifier is not asked for at its kink."""
    if name == "identity":
        return x
    if name == "relu":
        assert x.parts[0] != 0
        return x if x.parts[0] > 0 else Jet.of(0.0)
    if name == "sigmoid":
        return _logistic(x)
    if name == "gelu":
        return x * _normal_cdf(x)
    if name == "gelu_tanh":
        slope = 2 * (2 / flint.arb.pi()).sqrt()
        return x * _logistic(_times(slope, x + _times(flint.arb(44715) / 1_000_000, x * x * x)))
    assert name == "swish"
    return x * _logistic(beta * x)
