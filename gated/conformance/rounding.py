"""Exact results, correctly rounded: a ball to the bits of a format, to a decimal, and to the unit of its error.

Each is given only if it is the same for all numbers of the ball. Rounding is monotone, so that the two ends decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import flint

from gated.conformance.balls import Straddles, Undecided
from gated.conformance.error import Format

__all__ = ["DIGITS", "SMALLEST_EXPONENT", "Rounded", "round_ball", "rounded_special", "rounded_sum", "shifted"]

DIGITS: Final = 45
"""The significant digits of a decimal."""

SMALLEST_EXPONENT: Final = -20000
"""A magnitude below 10 to this is given as a bound: its exponent alone can have a thousand digits."""

_LOG10_2: Final = math.log10(2)


@dataclass(frozen=True, slots=True)
class Rounded:
    """An exact result in a format.

    Attributes:
        bits: the bit pattern of the result rounded to nearest, ties to even; past the largest number an infinity, as in
            IEEE 754. A nan is the positive quiet one with an empty payload.
        decimal: the exact result rounded to 45 significant digits, ties to even, as in ``"-2.25...e-38"``, also where
            it is outside the range of the format. A zero is ``"0"`` or ``"-0"``, an infinite limit ``"inf"`` or
            ``"-inf"``, what has no limit ``"nan"``. A magnitude below 10^-20000 is bounded: ``"<1e-20000"``, or
            ``">-1e-20000"`` for a negative number.
        ulp_exponent: e, where an error is measured in units of 2^e: the ulp of the largest absolute term of the closed
            form, or of the result if that is larger, in the format as if it had no largest number. None where
            ``decimal`` is an infinity or nan.
    """

    bits: int
    decimal: str
    ulp_exponent: int | None


def round_ball(ball: flint.arb, form: Format) -> int:
    """The bit pattern to which every number of a ball is rounded in a format.

    A ball that is exactly zero is +0; one that is below all numbers a zero of its sign.

    Raises:
        Undecided: numbers of the ball are rounded to different bits, or the ball is not finite.
    """
    try:
        return _bits(ball, form)
    except Straddles:
        raise Undecided(f"round_ball: {ball} is not one number of {form.name}") from None


def rounded_sum(terms: Sequence[flint.arb], form: Format, zero_sign: float = 1.0) -> Rounded:
    """The sum of the terms of a closed form; an exact zero has the sign of ``zero_sign``.

    Raises:
        Straddles: flint's current precision does not decide it.
    """
    total = sum(terms[1:], start=terms[0])
    # The sign of a term is nothing to its magnitude.
    unit = _ulp_exponent([*terms, total], form)
    if total == 0:
        return Rounded(_sign_bit(zero_sign < 0, form), "-0" if zero_sign < 0 else "0", unit)
    return Rounded(_bits(total, form), _decimal(total), unit)


def rounded_special(result: float, form: Format) -> Rounded:
    """A nan or an infinity."""
    if math.isnan(result):
        return Rounded(_infinity(form) | 1 << (form.precision - 2), "nan", None)
    return Rounded(_infinity(form) | _sign_bit(result < 0, form), "inf" if result > 0 else "-inf", None)


def _infinity(form: Format) -> int:
    return (form.highest - form.lowest + 2) << (form.precision - 1)


def _sign_bit(negative: bool, form: Format) -> int:
    return 1 << (8 * form.bits.itemsize - 1) if negative else 0


def _ends(ball: flint.arb) -> tuple[tuple[int, int], tuple[int, int]]:
    """Numbers m 2^e at or below, and at or above, all of a ball, as pairs (m, e)."""
    if not ball.is_finite():
        raise Straddles
    ends = (ball, ball) if ball.is_exact() else (ball.lower(), ball.upper())
    (low, low_power), (high, high_power) = (end.man_exp() for end in ends)
    return (int(low), int(low_power)), (int(high), int(high_power))


def _bits(ball: flint.arb, form: Format) -> int:
    low, high = _ends(ball)
    bits = _nearest(*low, form)
    if bits != _nearest(*high, form) or (low[0] < 0) != (high[0] < 0):
        raise Straddles
    return bits


def _nearest(mantissa: int, power: int, form: Format) -> int:
    """The bit pattern of mantissa 2^power rounded to nearest, ties to even."""
    sign = _sign_bit(mantissa < 0, form)
    magnitude = abs(mantissa)
    binade = power + magnitude.bit_length() - 1
    if magnitude == 0 or binade < form.lowest - form.precision:
        return sign
    if binade > form.highest:
        return sign | _infinity(form)
    # In units of the last place, a normal number has `precision` bits, the leading one of which the exponent absorbs:
    # a step of the exponent is 2^(precision - 1) steps of the last place.
    unit = max(binade, form.lowest) - (form.precision - 1)
    steps = shifted(magnitude, power - unit)
    return sign | (((max(binade, form.lowest) - form.lowest) << (form.precision - 1)) + steps)


def shifted(magnitude: int, shift: int) -> int:
    """magnitude 2^shift rounded to an integer, ties to even."""
    if shift >= 0:
        return magnitude << shift
    whole, rest, half = magnitude >> -shift, magnitude & ((1 << -shift) - 1), 1 << (-shift - 1)
    return whole + (rest > half or (rest == half and whole & 1 == 1))


def _ulp_exponent(balls: Sequence[flint.arb], form: Format) -> int:
    """The exponent of ulp(t), t the largest magnitude among the balls."""
    least = most = form.lowest
    for ball in balls:
        low, high = _ends(ball)
        binades = [power + abs(mantissa).bit_length() - 1 for mantissa, power in (low, high) if mantissa]
        if not binades:
            continue
        most = max(most, *binades)
        if len(binades) == 2 and (low[0] < 0) == (high[0] < 0):
            least = max(least, min(binades))
    if least != most:
        raise Straddles
    return most - (form.precision - 1)


def _decimal(ball: flint.arb) -> str:
    """The decimal of a ball that is not zero."""
    sign, magnitude = ("-", -ball) if ball < 0 else ("", ball)
    mantissa, power = magnitude.mid().man_exp()
    binade = int(power) + int(mantissa).bit_length() - 1
    if binade < SMALLEST_EXPONENT * 4:
        # 2^-80000 is below 10^-20000.
        return ">-1e-20000" if sign else "<1e-20000"
    exponent = math.floor(binade * _LOG10_2)
    scaled = _scaled(magnitude, DIGITS - 1 - exponent)
    if scaled >= 10**DIGITS:
        exponent += 1
        scaled = _scaled(magnitude, DIGITS - 1 - exponent)
    nearest = (scaled + flint.arb(0.5)).floor().unique_fmpz()
    if nearest is None:
        raise Straddles
    digits = int(nearest)
    if scaled == digits - flint.arb(0.5) and digits % 2:
        digits -= 1
    if digits == 10**DIGITS:
        digits, exponent = 10 ** (DIGITS - 1), exponent + 1
    if exponent < SMALLEST_EXPONENT:
        return ">-1e-20000" if sign else "<1e-20000"
    text = str(digits)
    return f"{sign}{text[0]}.{text[1:]}e{exponent:+d}"


def _scaled(magnitude: flint.arb, power: int) -> flint.arb:
    """magnitude 10^power, exactly where the precision admits it."""
    return magnitude * flint.arb(10) ** power if power >= 0 else magnitude / flint.arb(10) ** -power
