r"""The error measure: how far a computed number is from the exact one, in ulp.

.. math:: \text{error} = |\text{computed} - \text{exact}| / \operatorname{ulp}(t)

with ulp(t) the spacing of the dtype's numbers in t's binade, and in the subnormal range the smallest subnormal. t is
the exact value; for a derivative or any sum with cancellation, the largest absolute term of its closed form. The
exact value is a pair of float64 numbers, ``high + low``, so that fractions of an ulp of float64 can be told.

Class comes first: nan for nan, an infinity for an exact infinity, a zero for the zero of its sign; a mismatch is an
error of infinity. An infinity for a finite exact value stands for the number that would follow the largest: as wrong
as the exact value is short of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["FORMATS", "Format", "error_in_ulp", "ulp_exponent"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes:
        name: the dtype's name.
        dtype: the NumPy dtype.
        bits: an unsigned integer dtype of the same width, for bit patterns.
        precision: bits of the significand, the leading one included.
        lowest: the exponent e of the smallest normal number, 2^e.
        highest: the exponent of the largest binade: all finite numbers are below 2^(highest + 1).
    """

    name: str
    dtype: np.dtype[Any]
    bits: np.dtype[Any]
    precision: int
    lowest: int
    highest: int

    @property
    def unit_roundoff(self) -> float:
        """Half an ulp of 1."""
        return 2.0**-self.precision

    @property
    def smallest_normal(self) -> float:
        """2^lowest."""
        return 2.0**self.lowest

    @property
    def smallest_subnormal(self) -> float:
        """The spacing of the subnormal numbers."""
        return 2.0 ** (self.lowest - self.precision + 1)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.highest


FORMATS: Final[dict[str, Format]] = {
    "float16": Format("float16", np.dtype(np.float16), np.dtype(np.uint16), 11, -14, 15),
    "bfloat16": Format("bfloat16", np.dtype(ml_dtypes.bfloat16), np.dtype(np.uint16), 8, -126, 127),
    "float32": Format("float32", np.dtype(np.float32), np.dtype(np.uint32), 24, -126, 127),
    "float64": Format("float64", np.dtype(np.float64), np.dtype(np.uint64), 53, -1022, 1023),
}


def ulp_exponent(t: Float64, form: Format) -> NDArray[np.int32]:
    """The exponent e of ulp(t) = 2^e; at t = 0 that of the smallest subnormal number."""
    _, exponent = np.frexp(t)
    exponent = np.where(np.asarray(t) == 0, form.lowest, exponent)
    least: NDArray[np.int32] = np.maximum(exponent - 1, form.lowest) - np.int32(form.precision - 1)
    return least


def error_in_ulp(
    computed: NDArray[Any],
    high: Float64,
    low: Float64 | float = 0.0,
    *,
    form: Format,
    scale: Float64 | None = None,
    flush: bool = False,
    zero_signs: bool | NDArray[np.bool_] = True,
) -> Float64:
    """The error of each computed number.

    Args:
        computed: numbers of the format's dtype.
        high: the exact values rounded to float64, its largest number for values up to a few ulp past it; an infinity
            or nan where that is the exact result or the exact value is farther out.
        low: what ``high`` leaves of the exact values.
        form: the format.
        scale: the largest absolute term of the closed form, at which ulp is taken; the exact value if None.
        flush: excuse a zero of the right sign where the exact magnitude is below the smallest normal number.
        zero_signs: whether (or where) a zero's sign counts. Sums whose terms cancel have no sign to keep.

    Returns:
        The errors in ulp; inf where the class is wrong.
    """
    with np.errstate(invalid="ignore"):  # a signalling nan
        got = np.asarray(computed).astype(np.float64)
    high = np.broadcast_to(np.asarray(high, np.float64), got.shape)
    at = np.abs(high) if scale is None else np.maximum(np.abs(scale), np.abs(high))
    with np.errstate(all="ignore"):
        exponent = ulp_exponent(np.where(np.isinf(at), form.largest, at), form)
        high_in_ulp, low_in_ulp = np.ldexp(high, -exponent), np.ldexp(low, -exponent)
        error = np.abs((np.ldexp(got, -exponent) - high_in_ulp) - low_in_ulp)
        # An overflow is as wrong as the exact value is short of the number that would follow the largest.
        short = np.ldexp(1.0, form.highest + 1 - exponent) - np.abs(high_in_ulp)
        overflow = np.where(np.sign(got) == np.sign(high), np.maximum(short, 0.0), np.inf)
    error = np.where(np.isinf(got), overflow, error)
    error = np.where(np.isinf(high), np.where(got == high, 0.0, np.inf), error)
    right_sign = (np.signbit(got) == np.signbit(high)) | ~np.asarray(zero_signs)
    error = np.where((got == 0) & ~right_sign, np.inf, error)
    if flush:
        error = np.where((got == 0) & right_sign & (np.abs(high) < form.smallest_normal), 0.0, error)
    both_nan = np.isnan(got) & np.isnan(high)
    return np.where(both_nan, 0.0, np.where(np.isnan(got) | np.isnan(high), np.inf, error))
