"""Balls: the arithmetic of the closed forms in which every result comes with a proven error.

A ball (``flint.arb``) is a midpoint with a radius that bounds every rounding on the way. Its precision is raised until
what is asked of it is decided; where no precision decides, :class:`Undecided` is raised rather than a guess returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import flint

__all__ = [
    "PRECISIONS",
    "SATURATED_PRECISION",
    "BallMath",
    "BoundedBallMath",
    "SaturatedBallMath",
    "Straddles",
    "Undecided",
    "decide",
]

T = TypeVar("T")

PRECISIONS: Final = (192, 448, 1024, 2560, 6144, 16384)
"""The precisions that are tried, in bits.

An argument of magnitude 2^k costs k bits: beta x in float64 up to 2048, gelu's square as many, its cubic 3072. Second
derivatives that cancel near 0 cost up to 2 * 1074, a result near 1 that is almost a tie as many as its distance to 1.
"""

SATURATED_PRECISION: Final = 40960
"""The precision of :class:`SaturatedBallMath`: it holds 1 - 2^-28000 times four factors."""

# From here on erfc loses its argument, and the magnitude of Phi(-x) does not matter.
_FAR: Final = 1024
# e^-ARGUMENT times any four float64 numbers is below every subnormal, on the right side of zero.
_ARGUMENT: Final = 20000
_NORMAL_ARGUMENT: Final = 200


class Undecided(ArithmeticError):  # noqa: N818 - it says what happened
    """No precision that was tried proves the result."""


class Straddles(ArithmeticError):  # noqa: N818 - likewise
    """A ball is too wide for what was asked of it: more precision will tell."""


def decide(question: Callable[[], T], what: Callable[[], str], precisions: Sequence[int] = PRECISIONS) -> T:
    """The answer at the first precision at which ``question()`` does not raise :class:`Straddles`.

    Raises:
        Undecided: it does at every precision; ``what()`` says what it asks for.
    """
    for precision in precisions:
        with flint.ctx.workprec(precision):
            try:
                return question()
            except Straddles:
                continue
    raise Undecided(f"{what()} is not decided at {max(precisions)} bits")


class BallMath:
    """The functions of :class:`gated.conformance.closed_forms.Math` at flint's current precision, for any argument."""

    def sigmoid(self, t: flint.arb) -> flint.arb:
        return 1 / (1 + (-t).exp())

    def normal_cdf(self, x: flint.arb) -> flint.arb:
        if x < -_FAR:
            return self.normal_pdf(x) * _mills_ratio(-x)
        if x > _FAR:
            return 1 - self.normal_pdf(x) * _mills_ratio(x)
        return (-x / flint.arb(2).sqrt()).erfc() / 2

    def normal_pdf(self, x: flint.arb) -> flint.arb:
        return (-x * x / 2).exp() / (2 * flint.arb.pi()).sqrt()

    def positive(self, x: flint.arb) -> flint.arb:
        if not (x > 0 or x <= 0):
            raise Straddles
        return flint.arb(1 if x > 0 else 0)

    def tanh_slope(self) -> flint.arb:
        return 2 * (2 / flint.arb.pi()).sqrt()

    def tanh_cubic(self) -> flint.arb:
        return flint.arb(44715) / 1_000_000


class BoundedBallMath(BallMath):
    """Balls for results as float64 numbers: no exponential goes further than to below all of these.

    An argument past its bound counts as the bound: both results are below all numbers, or round to the same.
    """

    def sigmoid(self, t: flint.arb) -> flint.arb:
        return super().sigmoid(_bounded(t, _ARGUMENT))

    def normal_cdf(self, x: flint.arb) -> flint.arb:
        return super().normal_cdf(_bounded(x, _NORMAL_ARGUMENT))

    def normal_pdf(self, x: flint.arb) -> flint.arb:
        return super().normal_pdf(_bounded(x, _NORMAL_ARGUMENT))


class SaturatedBallMath(BallMath):
    r"""Balls for a result that differs from an exact one, E, by less than any precision tells: swish(10^30) and such.

    Of such a result only the side of E that it is on matters: with :math:`r = \sigma(-z)`, swish is :math:`x - x r` and
    its slope :math:`1 + r (z s - 1)`, on the same side of E for every r in (0, 1/2) where z > 2, and so it is for
    gelu. Here 2^-28000 stands for every :math:`\sigma(-t) < e^{-20000}`: larger, yet less than the distance from E to
    the next number at which a rounding changes. E has some 2300 bits at most (four factors, one a sum of two numbers
    of float64), decimal ties there are multiples of 10^-1400 or more, so that this distance is above 2^-8000 of E; and
    no factor z or x w' of r is above 2^4200.
    """

    _tiny: Final = flint.arb((1, -28000))

    def sigmoid(self, t: flint.arb) -> flint.arb:
        if t > _ARGUMENT:
            return 1 - self._tiny
        return self._tiny if t < -_ARGUMENT else super().sigmoid(t)

    def normal_cdf(self, x: flint.arb) -> flint.arb:
        if x > _NORMAL_ARGUMENT:
            return 1 - self._tiny
        return self._tiny if x < -_NORMAL_ARGUMENT else super().normal_cdf(x)

    def normal_pdf(self, x: flint.arb) -> flint.arb:
        return self._tiny if abs(x) > _NORMAL_ARGUMENT else super().normal_pdf(x)


def _bounded(t: flint.arb, limit: int) -> flint.arb:
    """t, or the limit of its sign where t is past it."""
    if t > limit:
        return flint.arb(limit)
    if t < -limit:
        return flint.arb(-limit)
    return t


def _mills_ratio(t: flint.arb) -> flint.arb:
    """Phi(-t) / phi(t), between 1/t - 1/t^3 and 1/t: wide, but phi(1024) is below 10^-200000."""
    return (1 / t).union(1 / t - 1 / (t * t * t))
