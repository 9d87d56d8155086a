r"""The scaled complementary error function, erfcx(t) = e^(t^2) erfc(t), from a table of Taylor series.

That of scipy is off by up to eight units of roundoff, which is more than all else in a gelu.
"""

from __future__ import annotations

import decimal
from decimal import Decimal
from functools import cache

import numpy as np

from gated.numpy_ref._pair import Float64, Pair, constants, joined

__all__ = ["erfcx"]

# t + 2 is in [2, 64): five binades of 64 cells, each so wide that its half is at most (t + 2) / 128.
_SHIFT = 2.0
_BINADES = 5
_CELL_BITS = 6
_DROPPED = 52 - _CELL_BITS
_FIRST = 1024 << _CELL_BITS  # the exponent and the leading bits of 2.0
_DEGREE = 9
_DIGITS = 60


def erfcx(t: Pair) -> Pair:
    r"""e^(t^2) erfc(t) for 0 <= t < 62, by its Taylor series to degree 9 about the middle m of t's cell.

    .. math::
        \operatorname{erfcx}(m + h) = \sum_n a_n h^n, \qquad
        (-1)^n a_n = \frac{2}{\sqrt\pi} \int_0^\infty \frac{(2 s)^n}{n!} e^{-s^2 - 2 m s} \, ds

    Over a_0, this is the mean of (2 s)^n / n! under a density whose likelihood ratio to that of m = 0, and to
    2 m e^(-2 m s), falls with s. So \|a_n\| / a_0 is at most 1 / Gamma(n/2 + 1), its value at m = 0, and at most m^-n.
    In the first binade \|h\| is at most 1/64: the terms from n = 10 on are below 64^-10 / 118 < 2^-66 of a_0. Beyond,
    m > 2 and \|h\| <= m / 64: they are below 64^-10 (1 + 1/63) < 2^-59. The others but a_0 itself add up to at most
    0.018 of it: their rounding errors are that small beside an ulp of the result.
    """
    shifted = np.asarray(t.high + _SHIFT).view(np.int64) >> _DROPPED
    middle = ((shifted << _DROPPED) | (1 << (_DROPPED - 1))).view(np.float64) - _SHIFT
    h = (t.high - middle) + t.low
    leading, others = _table()
    # The cell of a nan is past the end.
    cell = shifted - _FIRST
    a_0 = leading.take(cell)
    total = np.take(others[-1], cell, mode="clip")
    for coefficient in others[-2::-1]:
        total *= h
        total += np.take(coefficient, cell, mode="clip")
    return joined(a_0.high, total * h + a_0.low)


@cache
def _table() -> tuple[Pair, Float64]:
    """a_0 of every cell, and the rows a_1 to a_9."""
    cells = np.arange(_BINADES << _CELL_BITS, dtype=np.int64) + _FIRST
    middles = ((cells << _DROPPED) | (1 << (_DROPPED - 1))).view(np.float64) - _SHIFT
    with decimal.localcontext(prec=_DIGITS):
        series = [_coefficients(Decimal(float(middle))) for middle in middles]
        return constants([a[0] for a in series]), np.array([[float(one) for one in a[1:]] for a in series]).T.copy()


def _coefficients(m: Decimal) -> list[Decimal]:
    """a_0 to a_9 at m, to 40 digits or more.

    y = erfcx has y' = 2 t y - 2 / sqrt(pi), so that a_1 = 2 m a_0 - 2 / sqrt(pi) and (n + 1) a_(n+1) = 2 m a_n +
    2 a_(n-1). Upwards that loses all digits where m is large. There it is run downwards from any start, where the error
    dies out (Miller; Gautschi, "Computational aspects of three-term recurrence relations", 1967), and then scaled.
    """
    two_over_root_pi = 2 / _PI.sqrt()
    if m < _SHIFT:
        a = [_from_power_series(m)]
        a.append(2 * m * a[0] - two_over_root_pi)
        for n in range(1, _DEGREE):
            a.append((2 * m * a[n] + 2 * a[n - 1]) / (n + 1))
        return a
    start = _DEGREE + 40 + int(1600 / (m * m))
    a = [Decimal(0)] * start + [Decimal(1), Decimal(0)]
    for n in range(start, 0, -1):
        a[n - 1] = (n + 1) * a[n + 1] / 2 - m * a[n]
    scale = two_over_root_pi / (2 * m * a[0] - a[1])
    return [scale * one for one in a[: _DEGREE + 1]]


def _from_power_series(m: Decimal) -> Decimal:
    """erfcx(m) = e^(m^2) - (2 m / sqrt(pi)) sum of (2 m^2)^k / (1 * 3 * ... * (2 k + 1)), for small m."""
    total, term, k = Decimal(0), Decimal(1), 0
    while term > Decimal(10) ** -_DIGITS:
        total += term
        k += 1
        term *= 2 * m * m / (2 * k + 1)
    return (m * m).exp() - 2 * m / _PI.sqrt() * total


_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")
