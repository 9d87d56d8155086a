"""Dual numbers over the running-error arithmetic: a formula's value, its partial derivatives, and bounds of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gated.conformance.grading.running_error import Arithmetic, Number

__all__ = ["Dual", "Duals"]


@dataclass(frozen=True, eq=False)
class Dual:
    """A number and its partial derivatives: None for one that is 0 by form, none at all where no one asks."""

    number: Number
    partials: tuple[Number | None, ...]

    def __neg__(self) -> Dual:
        return Dual(-self.number, tuple(None if one is None else -one for one in self.partials))

    def __add__(self, other: Dual | float) -> Dual:
        if not isinstance(other, Dual):
            return Dual(self.number + other, self.partials)
        return Dual(self.number + other.number, tuple(map(_plus, self.partials, other.partials)))

    __radd__ = __add__

    def __sub__(self, other: Dual | float) -> Dual:
        return self + (-other)

    def __rsub__(self, other: float) -> Dual:
        return (-self) + other

    def __mul__(self, other: Dual | float) -> Dual:
        if not isinstance(other, Dual):
            return Dual(self.number * other, tuple(_times(one, other) for one in self.partials))
        a, b = self.number, other.number
        pairs = zip(self.partials, other.partials, strict=True)
        return Dual(a * b, tuple(_plus(_times(one, b), _times(two, a)) for one, two in pairs))

    __rmul__ = __mul__


def _plus(a: Number | None, b: Number | None) -> Number | None:
    return b if a is None else a if b is None else a + b


def _times(a: Number | None, b: Number | float) -> Number | None:
    return None if a is None else a * b


class Duals:
    """The arithmetic of dual numbers over ``m``."""

    def __init__(self, m: Arithmetic) -> None:
        self.m = m

    def variables(self, numbers: Sequence[Number]) -> list[Dual]:
        """Each number as the variable of its own partial derivative."""
        one = self.m.constant(1.0)
        count = len(numbers)
        return [Dual(number, tuple(one if i == k else None for k in range(count))) for i, number in enumerate(numbers)]

    def constants(self, numbers: Sequence[Number]) -> list[Dual]:
        """Numbers without derivatives."""
        return [Dual(number, ()) for number in numbers]

    def stop(self, x: Dual) -> Dual:
        """x, without its derivative."""
        return Dual(x.number, tuple(None for _ in x.partials))

    def through(self, y: Dual, x: Dual) -> Dual:
        """The value of y with the derivative of x."""
        return Dual(y.number, x.partials)

    def _chain(self, x: Dual, value: Number, slope: Callable[[], Number]) -> Dual:
        if all(one is None for one in x.partials):
            return Dual(value, x.partials)
        steep = slope()
        return Dual(value, tuple(_times(one, steep) for one in x.partials))

    def sigmoid(self, t: Dual) -> Dual:
        s = self.m.sigmoid(t.number)
        return self._chain(t, s, lambda: s * (1.0 - s))

    def tanh(self, t: Dual) -> Dual:
        y = self.m.tanh(t.number)
        return self._chain(t, y, lambda: 1.0 - y * y)

    def erf(self, t: Dual) -> Dual:
        y = self.m.erf(t.number)
        return self._chain(t, y, lambda: self.m.exp(-(t.number * t.number)) * (2 / math.sqrt(math.pi)))

    def maximum(self, a: Dual, bound: float) -> Dual:
        return self._masked(a, self.m.maximum(a.number, bound), a.number.value < bound)

    def minimum(self, a: Dual, bound: float) -> Dual:
        return self._masked(a, self.m.minimum(a.number, bound), a.number.value > bound)

    def _masked(self, a: Dual, value: Number, cut: NDArray[Any]) -> Dual:
        """An inexact number near the bound may be on either side of it, and its derivative is not known."""
        mask = np.where(cut, 0.0, 1.0)
        same = (value.low == a.number.low) & (value.high == a.number.high)
        unsure = ~same & ~((value.low == value.high) & cut)
        step = Number(self.m, mask, np.where(unsure, 0.0, mask), np.where(unsure, 1.0, mask))
        return Dual(value, tuple(_times(one, step) for one in a.partials))
