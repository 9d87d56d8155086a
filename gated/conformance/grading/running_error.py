r"""Rounding errors carried along: float64 arrays that know which results a narrower arithmetic may give.

A :class:`Number` is the exact value of an expression, as float64 gives it, and an interval that holds both that and
whatever comes of evaluating the same expression with each operation rounded to a format of unit roundoff u (Higham,
"Accuracy and Stability of Numerical Algorithms", section 3.3: running error analysis; with an interval for the error,
so that an overflow is a bound like any other):

- an operation has a relative error of u, or, below the smallest normal number, an absolute one of half the smallest
  subnormal; but in float16, results there may be flushed to zero;
- what may pass the largest number may be infinite: 1 / (1 + [e^88, inf]) is [0, e^-88];
- exp, tanh and erf are off by :data:`LIBRARY` roundoffs u' of float32 or, in float64, its own; exp(t) by another
  :math:`|t| u'`, what is lost where it is taken as a power of 2 of a rounded t log2 e;
- a constant that the format does not have is rounded to it.

What has no bound (inf - inf, 0 * inf) is the whole line. Evaluating in a wider format and rounding less often stays
within: the interval contains the exact result of each operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.special
from numpy.typing import NDArray

from gated.conformance.error import FORMATS, Format

__all__ = ["LIBRARY", "Arithmetic", "Number"]

Float64 = NDArray[np.float64]

LIBRARY: Final = 8.0
"""The error of a library's exp, tanh and erf in unit roundoffs: 4 ulp. CUDA documents 2 ulp at most for the three, in
float32 and float64 (CUDA C++ Programming Guide, section "Mathematical Functions"), SLEEF, which PyTorch calls, 1 ulp,
NumPy 4 at most. tests/test_check_field_profile.py holds NumPy's and PyTorch's to it."""

_OVERFLOW_SLACK: Final = 8.0
"""Some exponentials are infinite a little before they must be: Cephes's from 88.376 in float32, where the largest
argument is 88.72."""


@dataclass(frozen=True, eq=False)
class Number:
    """An exact value, and bounds of what the arithmetic makes of it; all arrays of one shape, or that broadcast."""

    arithmetic: Arithmetic
    value: Float64
    low: Float64
    high: Float64

    @property
    def error(self) -> Float64:
        """The bound on the absolute error; infinite where there is none."""
        with np.errstate(invalid="ignore"):
            error = np.maximum(self.high - self.value, self.value - self.low)
        return np.where(np.isfinite(error), error, np.inf)

    @property
    def reach(self) -> Float64:
        """The largest magnitude that the computed number can have."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def least(self) -> Float64:
        """The smallest."""
        return np.where((self.low < 0) & (self.high > 0), 0.0, np.minimum(np.abs(self.low), np.abs(self.high)))

    def __neg__(self) -> Number:
        return Number(self.arithmetic, -self.value, -self.high, -self.low)

    def __add__(self, other: Number | float) -> Number:
        b = self.arithmetic.constant(other)
        with np.errstate(all="ignore"):
            return self.arithmetic.rounded(self.value + b.value, [self.low + b.low, self.high + b.high])

    __radd__ = __add__

    def __sub__(self, other: Number | float) -> Number:
        return self + (-self.arithmetic.constant(other))

    def __rsub__(self, other: float) -> Number:
        return self.arithmetic.constant(other) + (-self)

    def __mul__(self, other: Number | float) -> Number:
        b = self.arithmetic.constant(other)
        unchanged = _is_one(self) | _is_one(b)
        with np.errstate(all="ignore"):
            products = [one * two for one in (self.low, self.high) for two in (b.low, b.high)]
            return self.arithmetic.rounded(self.value * b.value, products, exact=unchanged)

    __rmul__ = __mul__

    def __truediv__(self, other: Number | float) -> Number:
        b = self.arithmetic.constant(other)
        around_zero = (b.low <= 0) & (b.high >= 0)
        with np.errstate(all="ignore"):
            quotients = [one / two for one in (self.low, self.high) for two in (b.low, b.high)]
            quotients.append(np.where(around_zero, np.nan, quotients[0]))
            return self.arithmetic.rounded(self.value / b.value, quotients)

    def __rtruediv__(self, other: float) -> Number:
        return self.arithmetic.constant(other) / self

    def hull(self, other: Number) -> Number:
        """Bounds of either number; the value is that of the first."""
        return Number(self.arithmetic, self.value, np.minimum(self.low, other.low), np.maximum(self.high, other.high))


class Arithmetic:
    """The arithmetic of a format.

    Args:
        form: what each operation is rounded to.
        library_sigmoid: in 16 bits, the sigmoid is one operation, computed in float32 and rounded once.
        absolute_sigmoid: the error of the sigmoid is one of its largest value, as of 1/2 + tanh(x / 2) / 2.
    """

    def __init__(self, form: Format, *, library_sigmoid: bool = False, absolute_sigmoid: bool = False) -> None:
        self.form = form
        self.absolute_sigmoid = absolute_sigmoid
        self._wide = Arithmetic(FORMATS["float32"]) if library_sigmoid and form.bits.itemsize == 2 else None
        compute = FORMATS["float64" if form.name == "float64" else "float32"]
        # The bounds themselves are computed in float64: in that format each operation counts twice.
        self.roundoff = 2 * form.unit_roundoff if form == compute and form.precision == 53 else form.unit_roundoff
        self.library = LIBRARY * compute.unit_roundoff
        self.argument = compute.unit_roundoff
        self.flushed = 0.0 if form.name == "float16" else form.smallest_normal

    # Numbers

    def number(self, x: Any, error: Any = 0.0) -> Number:
        """A number that is given, off by at most ``error``.

        One that the format does not have is rounded, and a subnormal one may be read as zero.
        """
        x = np.asarray(x, np.float64)
        read = np.where(np.abs(x) < self.flushed, 0.0, x)
        return self.rounded(x, [x - error, x + error, read], exact=self._has(x) & (np.asarray(error) == 0))

    def constant(self, x: Number | float | Float64) -> Number:
        """A number of the formula."""
        return x if isinstance(x, Number) else self.number(x)

    def _has(self, x: Float64) -> NDArray[np.bool_]:
        with np.errstate(all="ignore"):
            return np.asarray((x.astype(self.form.dtype).astype(np.float64) == x) | np.isnan(x))

    def rounded(self, value: Float64, ends: Sequence[Float64], *, exact: Any = False, library: Any = 0.0) -> Number:
        """The result of an operation: between ``ends`` before it is rounded.

        Args:
            exact: where it is a number of the format as it is.
            library: the relative error before the rounding.
        """
        with np.errstate(all="ignore"):
            low, high = np.minimum.reduce(np.broadcast_arrays(*ends)), np.maximum.reduce(np.broadcast_arrays(*ends))
            if self.form.precision < 53:
                exact = exact | ((low == high) & self._has(low) & (np.asarray(library) == 0))
            exact = exact | np.isnan(value)
            low_end, high_end = self._moved(low, -1.0, library), self._moved(high, 1.0, library)
            low, high = np.where(exact, low, low_end), np.where(exact, high, high_end)
            unknown = (np.isnan(low) | np.isnan(high)) & ~np.isnan(value)
            low, high = np.where(unknown, -np.inf, low), np.where(unknown, np.inf, high)
        return Number(self, np.asarray(value, np.float64), low, high)

    def _moved(self, end: Float64, way: float, library: Any) -> Float64:
        """An end of an interval moved out by a rounding; 0 is computed as 0, and no rounding changes a sign."""
        away = way * np.abs(end) * (self.roundoff + library) + way * self.form.smallest_subnormal / 2
        outward = np.sign(end) == way
        moved = np.where(
            (end == 0) | np.isinf(end), end, np.where(outward, end + away, way * np.minimum(way * (end + away), 0.0))
        )
        moved = np.where(~outward & (np.abs(moved) < self.flushed), 0.0, moved)
        return np.where(outward & (np.abs(moved) > self.form.largest), way * np.inf, moved)

    # Functions

    def _monotone(self, function: Callable[[Float64], Float64], t: Number, relative: Any) -> Number:
        with np.errstate(all="ignore"):
            return self.rounded(function(t.value), [function(t.low), function(t.high)], library=relative)

    def exp(self, t: Number) -> Number:
        """e^t."""
        largest = math.log(self.form.largest)
        reach = np.minimum(t.reach, 2 * largest)
        result = self._monotone(np.exp, t, self.library + self.argument * reach)
        early = result.high * _OVERFLOW_SLACK > self.form.largest
        return Number(self, result.value, result.low, np.where(early, np.inf, result.high))

    def tanh(self, t: Number) -> Number:
        """tanh t: at most 1 in magnitude, and 1 where it is nearer to 1 than a roundoff's square."""
        return self._saturating(np.tanh, t, -math.log(self.argument))

    def erf(self, t: Number) -> Number:
        """erf t, likewise; in float32 the error is one of erf's largest value.

        PyTorch's vectorised erf is formula 7.1.26 of Abramowitz and Stegun, of an absolute error of 1.5e-7 (2.5 u).
        """
        result = self._saturating(scipy.special.erf, t, math.sqrt(-2 * math.log(self.argument)))
        if self.form.precision == 53:
            return result
        low, high = np.maximum(result.low - self.library, -1.0), np.minimum(result.high + self.library, 1.0)
        return Number(self, result.value, low, high)

    def _saturating(self, function: Callable[[Float64], Float64], t: Number, farthest: float) -> Number:
        result = self._monotone(function, t, self.library)
        return Number(
            self,
            result.value,
            np.where(t.low > farthest, 1.0, np.maximum(result.low, -1.0)),
            np.where(t.high < -farthest, -1.0, np.minimum(result.high, 1.0)),
        )

    def sigmoid(self, t: Number) -> Number:
        """1 / (1 + e^-t)."""
        if self._wide is not None:
            wide = self._wide.sigmoid(Number(self._wide, t.value, t.low, t.high))
            result = self.rounded(wide.value, [wide.low, wide.high])
        else:
            result = 1.0 / (1.0 + self.exp(-t))
        slack = self.library if self.absolute_sigmoid else 0.0
        low, high = np.maximum(result.low - slack, 0.0), np.minimum(result.high + slack, 1.0)
        return Number(self, scipy.special.expit(t.value), low, high)

    def maximum(self, a: Number, bound: float) -> Number:
        """max(a, bound), nan for nan."""
        return Number(self, np.maximum(a.value, bound), np.maximum(a.low, bound), np.maximum(a.high, bound))

    def minimum(self, a: Number, bound: float) -> Number:
        """min(a, bound), nan for nan."""
        return Number(self, np.minimum(a.value, bound), np.minimum(a.low, bound), np.minimum(a.high, bound))

    def where(self, condition: NDArray[np.bool_], a: Number | float, b: Number | float) -> Number:
        """``a`` where the condition holds, else ``b``."""
        a, b = self.constant(a), self.constant(b)
        return Number(
            self,
            np.where(condition, a.value, b.value),
            np.where(condition, a.low, b.low),
            np.where(condition, a.high, b.high),
        )

    def product(self, *factors: Number) -> Number:
        """The product in any order: a partial product may leave the range where the product does not.

        With k factors other than 1 it has k - 1 roundings. Where a partial product may be infinite there is no bound
        but 0, if no factor can be 0; where one may fall below the smallest normal number, its absolute error is
        multiplied by those factors beyond 1 that may follow.
        """
        with np.errstate(all="ignore"):
            ends: list[Float64] = [np.ones(())]
            value, largest, smallest = np.ones(()), np.ones(()), np.ones(())
            count: Any = 0
            for factor in factors:
                products = [end * side for end in ends for side in (factor.low, factor.high)]
                ends = [np.minimum.reduce(products), np.maximum.reduce(products)]
                value = value * factor.value
                largest = largest * np.maximum(factor.reach, 1.0)
                least = np.where(factor.reach == 0, 1.0, factor.least)
                smallest = smallest * np.minimum(least, 1.0)
                count = count + ~_is_one(factor)
            roundings = np.maximum(count - 1, 0)
            relative = roundings * self.roundoff
            small = (smallest < self.form.smallest_normal) & (roundings > 0)
            lost = np.where(small, roundings * self.form.smallest_subnormal * largest, 0.0)
            # Nor does a rounding, to a subnormal number or not, more than double.
            low, high = (
                end + way * np.minimum(np.abs(end) * relative + lost, np.abs(end) * (2.0**roundings - 1))
                for end, way in zip(ends, (-1.0, 1.0), strict=True)
            )
            if self.flushed:
                low, high = np.where(small, np.minimum(low, 0.0), low), np.where(small, np.maximum(high, 0.0), high)
            unbounded = (largest > self.form.largest) | np.isnan(low) | np.isnan(high)
            # Of factors that are not 0 the sign stays, if no more.
            signed = np.logical_and.reduce(
                np.broadcast_arrays(*((factor.low > 0) | (factor.high < 0) for factor in factors))
            )
            below, above = unbounded & ~(signed & (low > 0)), unbounded & ~(signed & (high < 0))
            low, high = np.where(below, -np.inf, low), np.where(above, np.inf, high)
        return Number(self, value, low, high)


def _is_one(a: Number) -> NDArray[np.bool_]:
    """Whether the number is exactly 1 or -1."""
    return np.asarray((a.low == a.high) & (np.abs(a.low) == 1.0))
