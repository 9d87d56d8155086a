"""Real numbers that floating point would lose: a mantissa times a power of two.

A gated product multiplies a gate, a value, a cotangent and e^-t, each of which may be near the end of the dtype's
range while their product is not. A :class:`Scaled` keeps mantissa and exponent apart, so that only the result is
rounded to the dtype's range. Powers of two are built from bits: they are exact on every device and in every compiler,
which ``exp2`` and ``ldexp`` (a ``pow``) do not promise.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

__all__ = ["FORMATS", "Format", "Scaled", "decay", "power_of_two", "select", "sign_mask"]


class Format(NamedTuple):
    """The layout of a binary floating-point dtype, and ln 2 in two parts for it."""

    integer: torch.dtype
    size: int
    """Bits."""
    fraction: int
    """Bits of the significand that are stored."""
    bias: int
    largest: float
    farthest: float
    """e^-farthest times any four numbers of the dtype is zero, and farthest / ln 2 times ``ln2`` is exact."""
    ln2: float
    """ln 2 cut to a few bits, so that its product with an integer is exact."""
    ln2_rest: float

    @property
    def one(self) -> int:
        """The bits of 1.0."""
        return self.bias << self.fraction

    @property
    def exponents(self) -> int:
        """The mask of an exponent field that was shifted down."""
        return 2 * self.bias + 1


FORMATS: Final = {
    # ln 2 as W. J. Cody and W. Waite cut it (355 / 512), and as fdlibm's e_exp.c does.
    torch.float32: Format(
        torch.int32, 32, 23, 127, torch.finfo(torch.float32).max, 500.0, 0.693359375, -2.1219444005469057e-4
    ),
    torch.float64: Format(
        torch.int64,
        64,
        52,
        1023,
        torch.finfo(torch.float64).max,
        4000.0,
        0.6931471803691238,
        1.9082149292705877e-10,
    ),
}
_LOG2_E: Final = 1.4426950408889634


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2^exponent, exact, for the exponents of the dtype's normal numbers."""
    form = FORMATS[dtype]
    return ((exponent + form.bias) << form.fraction).view(dtype)


def sign_mask(x: Tensor) -> Tensor:
    """An integer of all ones where the sign of ``x`` is negative, of all zeros elsewhere."""
    form = FORMATS[x.dtype]
    return x.view(form.integer) >> (form.size - 1)


def select(mask: Tensor, a: Tensor, b: Tensor | None = None) -> Tensor:
    """``a`` where the integer mask is all ones, ``b`` (without one, 1) where it is all zeros.

    In eager mode on the CPU it takes a tenth of the time of ``torch.where``, which has no vector instructions there.
    """
    form = FORMATS[a.dtype]
    bits_a = a.view(form.integer)
    bits_b = b.view(form.integer) if isinstance(b, Tensor) else form.one
    return (((bits_a ^ bits_b) & mask) ^ bits_b).view(a.dtype)


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` = mantissa 2^exponent, exact, |mantissa| in [1, 2). Subnormal numbers have less; 0, inf and nan stay."""
    form = FORMATS[x.dtype]
    field = (x.view(form.integer) >> form.fraction) & form.exponents
    # The inverse of the field 254 (of 1022 for float64) is the smallest normal number; that of 255 would be subnormal.
    field = field.clamp_max(form.exponents - 2)
    inverse = ((form.exponents - 1 - field) << form.fraction).view(x.dtype)
    return x * inverse, field - form.bias


class Scaled(NamedTuple):
    """mantissa 2^exponent, with a mantissa that is 0, infinite, nan or of moderate size: a few more products stay in
    range. A mantissa of zero is a mathematical zero, never an underflow.

    No exponent means an ordinary number, of any magnitude.
    """

    mantissa: Tensor
    exponent: Tensor | None = None

    def times(self, *factors: Tensor) -> Scaled:
        """The product with floating-point numbers of any magnitude, at most four in all."""
        mantissa, exponent = self
        if exponent is None:
            if len(factors) == 1:
                return Scaled(mantissa * factors[0])
            mantissa, exponent = _split(mantissa)
        for factor in factors:
            other, shift = _split(factor)
            mantissa = mantissa * other
            exponent = exponent + shift
        return Scaled(mantissa, exponent)

    def rounded(self) -> Tensor:
        """The number in its dtype: rounded at most once more, where the result is subnormal."""
        if self.exponent is None:
            return self.mantissa
        dtype = self.mantissa.dtype
        # Two factors within the normal range. Beyond twice that range every result is zero or infinite.
        reach = 2 * FORMATS[dtype].bias - 2
        exponent = self.exponent.clamp(-reach, reach)
        half = exponent >> 1
        return self.mantissa * power_of_two(half, dtype) * power_of_two(exponent - half, dtype)


def decay(t: Tensor, low: Tensor | None = None) -> Scaled:
    """e^-(t + low) for t >= 0 and |low| much smaller than t: mantissa in (0.6, 1.6), exponent <= 0.

    t = k ln 2 + r, so that e^-t = 2^-k e^-r with |r| <= ln 2 / 2 (Cody and Waite). The mantissa is zero at t = inf
    alone: at finite t, e^-t is a positive number, however small.
    """
    form = FORMATS[t.dtype]
    near = t.clamp_max(form.farthest)
    k = (near * _LOG2_E).round()
    r = (near - k * form.ln2) - k * form.ln2_rest
    if low is not None:
        r = r + low
    infinite = t - t.clamp_max(form.largest)
    return Scaled(torch.exp(-(r + infinite)), -k.to(form.integer))
