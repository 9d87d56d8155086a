"""Error-free transformations: what a rounded product or sum has lost, as a number of its own.

They hold where nothing overflows and the loss is a normal number. No fused multiply-add is asked for: halves of a
significand have exact products (T. J. Dekker, "A floating-point technique for extending the available precision",
1971), which a compiler that fuses them cannot change.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from ._scaled import FORMATS

__all__ = ["Parts", "Word", "halves", "parts", "product", "total_of_two"]


class Parts(NamedTuple):
    """A Python number as the sum of two numbers of a dtype."""

    high: float
    """The nearest number of the dtype."""
    low: float


class Word(NamedTuple):
    """A number as the unevaluated sum of two tensors of one dtype, the second far smaller."""

    high: Tensor
    low: Tensor | None = None
    """None where it is zero."""


def parts(value: float, dtype: torch.dtype) -> Parts:
    """``value`` as high + low in ``dtype``, which is float32 or float64."""
    if dtype == torch.float64:
        return Parts(value, 0.0)
    high = ctypes.c_float(value).value
    return Parts(high, ctypes.c_float(value - high).value if abs(high) < float("inf") else 0.0)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` as high + low, each with half of the bits: the product of two halves is exact."""
    form = FORMATS[x.dtype]
    dropped = (form.fraction + 2) // 2
    high = ((x.view(form.integer) >> dropped) << dropped).view(x.dtype)
    return high, x - high


def product(a: Tensor, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """a b rounded, and the rest. A Python number is one of the dtype of ``a``."""
    b = b if isinstance(b, Tensor) else a.new_full((), b)
    rounded = a * b
    (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
    return rounded, ((a_high * b_high - rounded) + a_high * b_low + a_low * b_high) + a_low * b_low


def total_of_two(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b rounded, and the rest (D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2)."""
    rounded = a + b
    b_there = rounded - a
    return rounded, (a - (rounded - b_there)) + (b - b_there)
