"""The numbers next to which a function changes its kind, found by bisection over bit patterns with the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from gated.conformance.error import Format
from gated.conformance.oracle import correctly_rounded
from gated.conformance.vectors._numbers import bits_of, decode, infinity, nearest, order, sign_bit, unorder
from gated.conformance.vectors.catalogue import Function

__all__ = ["activation_thresholds", "bend", "boundary"]

_LN_2: Final = Fraction("0.693147180559945309417232121458176568075500134360255254120680009")


def boundary(holds: Callable[[int], bool], start: float, end: float, form: Format) -> tuple[int, int] | None:
    """Two neighbouring numbers between start and end: the condition holds at the first, and not at the second.

    None where it does not hold at the start, or still holds at the end.
    """
    inside, outside = order(bits_of(start, form), form), order(bits_of(end, form), form)
    if not holds(unorder(inside, form)) or holds(unorder(outside, form)):
        return None
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        if holds(unorder(middle, form)):
            inside = middle
        else:
            outside = middle
    return unorder(inside, form), unorder(outside, form)


class _Activation:
    """An activation by its results in a format, as magnitudes that count the numbers from 0 up."""

    def __init__(self, function: Function, form: Format) -> None:
        self._function, self._form = function, form

    def bits(self, quantity: str, x: int) -> int:
        inputs = {"x": decode(x, self._form)}
        return correctly_rounded(self._function.call, quantity, self._form, inputs, static=self._function.static).bits

    def is_normal(self, quantity: str) -> Callable[[int], bool]:
        return lambda x: self.bits(quantity, x) & (sign_bit(self._form) - 1) >= 1 << (self._form.precision - 1)

    def is_not_zero(self, quantity: str) -> Callable[[int], bool]:
        return lambda x: self.bits(quantity, x) & (sign_bit(self._form) - 1) > 0

    def is_below_its_limit(self, x: int) -> bool:
        limit = bits_of(1.0, self._form) if self._function.activation == "sigmoid" else x
        return self.bits("result", x) != limit

    def slopes_otherwise_than_its_limit(self, x: int) -> bool:
        return self.bits("d_x", x) != bits_of(1.0, self._form)

    def rises(self, x: int) -> bool:
        return self.bits("d_x", x) < sign_bit(self._form)


def activation_thresholds(function: Function, form: Format) -> dict[int, str]:
    """The two numbers at each threshold of an activation, with what is so at the one and no more at the other."""
    of = _Activation(function, form)
    largest, least = decode(infinity(form) - 1, form), decode(1, form)
    searches: list[tuple[str, Callable[[int], bool], float, float]] = [
        ("a derivative not below 0", of.rises, -0.5, -4.0),
        ("a result not rounded to its limit", of.is_below_its_limit, 1.0, largest),
        ("a derivative not rounded to 1", of.slopes_otherwise_than_its_limit, 2.0, largest),
    ]
    for quantity, name in (("result", "result"), ("d_x", "derivative")):
        for start, end in ((-2.0, -largest), (2.0, largest), (1.0, least), (-0.25, -least)):
            searches += [
                (f"a normal {name}", of.is_normal(quantity), start, end),
                (f"a {name} not rounded to 0", of.is_not_zero(quantity), start, end),
            ]
    found: dict[int, str] = {}
    for text, holds, start, end in searches:
        pair = boundary(holds, start, end, form)
        if pair is not None:
            found.setdefault(pair[0], f"last with {text}")
            found.setdefault(pair[1], f"first without {text}")
    if function.activation in ("sigmoid", "swish"):
        overflow = nearest(-(form.highest + 1) * _LN_2, form)
        for bits in (overflow - 1, overflow, overflow + 1):
            found.setdefault(bits, "e^-x reaches the end of the range")
    return found


def bend(function: Function, form: Format) -> int:
    """The k for which an activation at -2^k and below is rounded to 0."""
    of = _Activation(function, form)
    pair = boundary(of.is_not_zero("result"), -2.0, decode(infinity(form) - 1 | sign_bit(form), form), form)
    assert pair is not None
    return math.ceil(-decode(pair[1], form)).bit_length()
