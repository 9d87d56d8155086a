"""Inputs that are hard to round: products that lie so close to a tie that a wider format rounds them onto it.

Rounded to the wider format first, such a product becomes the tie itself, and its second rounding goes to the even
neighbour, which is the wrong one of the two half of the time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

__all__ = ["double_rounded"]

_SCALE: Final = 1 << 160


def double_rounded(factor: Fraction, precision: int, wider: int) -> Iterator[int]:
    """Significands n of ``precision`` bits for which factor * n is rounded otherwise by way of ``wider`` bits.

    With the unit u of the product's last place, those are the n where factor n / u is within 2^-(wider - precision + 1)
    of an odd multiple of 1/2, and on the far side of it from the even neighbour.
    """
    least, end = 1 << (precision - 1), 1 << precision
    factor = abs(factor)
    product = factor * least
    binade = product.numerator.bit_length() - product.denominator.bit_length()
    if Fraction(2) ** binade > product:
        binade -= 1
    # The product passes into the next binade, with its own unit, at one n.
    carry = min(end, -int(-(Fraction(2) ** (binade + 1)) // factor))
    for low, high, unit in ((least, carry, binade - precision + 1), (carry, end, binade - precision + 2)):
        yield from _near_ties(int(factor / Fraction(2) ** unit * _SCALE), low, high, precision, wider)


def _near_ties(step: int, low: int, high: int, precision: int, wider: int) -> Iterator[int]:
    """The n in [low, high) for which step * n, in units of ``_SCALE``, is that close to a tie.

    All n = a B + b are looked through at once: the fractional parts of step * b are sorted, and for each a those are
    looked up that bring the sum into the interval.
    """
    reach = _SCALE >> (wider - precision + 1)
    block = 1 << (precision // 2)
    inner = sorted(((step * b) % _SCALE, b) for b in range(block))
    for a in range(low // block, -(-high // block)):
        first = (_SCALE // 2 - reach - step * a * block) % _SCALE
        index = bisect_left(inner, (first, 0))
        near = []
        while index < len(inner) and inner[index][0] < first + 2 * reach:
            near.append(inner[index][1])
            index += 1
        # The interval may go round the end.
        index = 0
        while index < len(inner) and inner[index][0] + _SCALE < first + 2 * reach:
            near.append(inner[index][1])
            index += 1
        yield from (n for b in near if low <= (n := a * block + b) < high and _differs(step * n))


def _differs(product: int) -> bool:
    """Whether a product next to a tie is nearer to the odd neighbour."""
    whole, rest = divmod(product, _SCALE)
    return rest != _SCALE // 2 and (rest > _SCALE // 2) == (whole % 2 == 0)
