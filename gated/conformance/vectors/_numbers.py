"""Numbers as the vectors write them: bit patterns in hex, decimals, and the steps between bit patterns.

Integers and fractions alone, so that every machine writes the same bytes.
"""

from __future__ import annotations

import math
import struct
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import Final

from gated.conformance.error import Format

__all__ = [
    "DIGITS",
    "Exact",
    "as_hex",
    "bits_of",
    "canonical_nan",
    "decode",
    "double_hex",
    "from_hex",
    "infinity",
    "nearest",
    "order",
    "shorten",
    "sign_bit",
    "unorder",
    "up_to_digits",
    "width",
]

DIGITS: Final = 40
"""Significant digits of an exact value: enough for fractions of an ulp of float64 to 23 digits."""

_FAR: Final = 400
"""Decimal exponents past this, of either sign, are past every number of every format."""


def width(form: Format) -> int:
    """The bits of a number."""
    return 8 * form.bits.itemsize


def sign_bit(form: Format) -> int:
    """The bit pattern of -0.0."""
    return 1 << (width(form) - 1)


def infinity(form: Format) -> int:
    """The bit pattern of +inf; below it, in order, those of the finite numbers from +0.0 up."""
    return sign_bit(form) - (1 << (form.precision - 1))


def canonical_nan(form: Format) -> int:
    """The quiet nan with a positive sign and no payload."""
    return infinity(form) | 1 << (form.precision - 2)


def decode(bits: int, form: Format) -> float:
    """The number of a bit pattern."""
    magnitude = bits & (sign_bit(form) - 1)
    if magnitude > infinity(form):
        return math.nan
    if magnitude == infinity(form):
        number = math.inf
    else:
        exponent, fraction = divmod(magnitude, 1 << (form.precision - 1))
        significand = fraction if exponent == 0 else fraction | 1 << (form.precision - 1)
        number = math.ldexp(significand, max(exponent, 1) - 1 + form.lowest - form.precision + 1)
    return -number if bits & sign_bit(form) else number


def nearest(value: Fraction, form: Format) -> int:
    """The bit pattern of the number nearest to a fraction, ties to even; an infinity past the largest."""
    sign = sign_bit(form) if value < 0 else 0
    value = abs(value)
    if value == 0:
        return sign
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if Fraction(2) ** exponent > value:
        exponent -= 1
    exponent = max(exponent, form.lowest)
    # The pattern counts the numbers below: a carry into the next binade is a step like any other.
    steps = round(value / Fraction(2) ** (exponent - form.precision + 1))
    return sign | min(infinity(form), ((exponent - form.lowest) << (form.precision - 1)) + steps)


def bits_of(number: float, form: Format) -> int:
    """The bit pattern of a number of the format (or of the one nearest to it)."""
    if math.isnan(number):
        return canonical_nan(form)
    sign = sign_bit(form) if math.copysign(1.0, number) < 0 else 0
    if math.isinf(number):
        return sign | infinity(form)
    return sign | nearest(Fraction(abs(number)), form)


def order(bits: int, form: Format) -> int:
    """The place of a number on the line of all numbers; -0.0 comes just before +0.0."""
    return -1 - (bits ^ sign_bit(form)) if bits & sign_bit(form) else bits


def unorder(place: int, form: Format) -> int:
    """The bit pattern at a place."""
    return (-1 - place) | sign_bit(form) if place < 0 else place


def as_hex(bits: int, form: Format) -> str:
    """``"0x"`` and all digits of the bit pattern."""
    return f"0x{bits:0{width(form) // 4}x}"


def from_hex(text: str, form: Format) -> int:
    """The bit pattern of :func:`as_hex`'s text.

    Raises:
        ValueError: the text has not as many digits as the format.
    """
    digits = width(form) // 4
    if len(text) != digits + 2:
        raise ValueError(f"expected 0x and {digits} hex digits for {form.name}, got {text!r}")
    return int(text, 16)


def double_hex(number: float) -> str:
    """The float64 bit pattern of a Python number."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016x}"


def shorten(decimal: str) -> str:
    """A decimal in scientific notation cut to :data:`DIGITS` digits, rounded to nearest, without trailing zeros."""
    if "e" not in decimal or decimal[0] in "<>":
        return decimal
    mantissa, _, power = decimal.partition("e")
    digits, exponent = mantissa.lstrip("-").replace(".", ""), int(power)
    rounded = str(round(Fraction(int(digits), 10 ** (len(digits) - DIGITS)))) if len(digits) > DIGITS else digits
    # 9.99...9 may have become 10.
    exponent += max(0, len(rounded) - DIGITS)
    rounded = rounded.rstrip("0")
    sign = "-" if mantissa.startswith("-") else ""
    return f"{sign}{rounded[0]}{'.' if len(rounded) > 1 else ''}{rounded[1:]}e{exponent}"


def up_to_digits(value: float, digits: int = 4) -> str:
    """A bound rounded up to so many digits: past the last bits of the arithmetic that it was computed in."""
    if value == 0:
        return "0"
    context = Context(prec=digits, rounding=ROUND_CEILING)
    return f"{context.create_decimal(Decimal(value) * (1 - Decimal('1e-12'))).normalize():f}"


class Exact:
    """An exact value read from its decimal, as the oracle or a file of vectors gives it.

    Attributes:
        finite: it is a number, not an infinity and not nan.
        zero: it is exactly zero.
        vanishing: it is not zero, and far below every format's smallest number.
        beyond: it is finite, and far past every format's largest.
    """

    def __init__(self, text: str) -> None:
        self._text = text.lstrip("<>")
        self.finite = text not in ("nan", "inf", "-inf")
        self.zero = text in ("0", "-0")
        self._power = 0
        if self.finite and not self.zero:
            self._power = int(self._text.rpartition("e")[2])
        self.vanishing = self._power < -_FAR
        self.beyond = self._power > _FAR

    @property
    def fraction(self) -> Fraction:
        """The value; 0 where it vanishes. Not for what is no number or beyond."""
        if self.zero or self.vanishing:
            return Fraction(0)
        mantissa = self._text.rpartition("e")[0]
        return Fraction(mantissa) * Fraction(10) ** self._power

    def below(self, bound: Fraction) -> bool:
        """Whether its magnitude, which is not 0, is below a positive bound of a format's size."""
        if not self.finite or self.zero or self.beyond:
            return False
        return self.vanishing or abs(self.fraction) < bound
