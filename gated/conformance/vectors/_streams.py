"""Random numbers that are the same on every machine and for ever: SHA-256 of a label and a count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from gated.conformance.error import Format
from gated.conformance.vectors._numbers import infinity, sign_bit, width

__all__ = ["Stream"]


class Stream:
    """A stream of random integers named by its labels: no other stream moves it."""

    def __init__(self, *labels: str) -> None:
        self._label = "/".join(labels)
        self._count = 0

    def below(self, count: int) -> int:
        """An integer in [0, count); 64 random bits choose it."""
        digest = hashlib.sha256(f"{self._label}/{self._count}".encode()).digest()
        self._count += 1
        return (int.from_bytes(digest[:8]) * count) >> 64

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + self.below(high - low + 1)

    def in_binade(self, exponent: int, form: Format, *, sign: int | None = None) -> int:
        """The bit pattern of a number in plus or minus [2^exponent, 2^(exponent + 1)), subnormal or not."""
        negative = self.below(2) if sign is None else int(sign < 0)
        if exponent < form.lowest:
            leading = 1 << (exponent - form.lowest + form.precision - 1)
            magnitude = leading + self.below(leading)
        else:
            steps = 1 << (form.precision - 1)
            magnitude = ((exponent - form.lowest + 1) << (form.precision - 1)) + self.below(steps)
        return magnitude | (sign_bit(form) if negative else 0)

    def shuffled(self, items: Iterable[int]) -> list[int]:
        """The items in a random order (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def spread(self, low: int, high: int, form: Format, *, sign: int | None = None) -> int:
        """A number whose binade is one of 2^low to 2^high, all alike."""
        least, most = form.lowest - form.precision + 1, form.highest
        return self.in_binade(self.between(max(low, least), min(high, most)), form, sign=sign)

    def pattern(self, form: Format) -> int:
        """A random bit pattern that is a finite number."""
        while True:
            bits = self.below(1 << width(form))
            if bits & (sign_bit(form) - 1) < infinity(form):
                return bits

    def cotangent(self, form: Format) -> int:
        """A number of the magnitudes at which gradients are graded: 2^-16 to 2^16, in float16 2^-10 to 2^10."""
        reach = 10 if form.name == "float16" else 16
        return self.spread(-reach, reach - 1, form)
