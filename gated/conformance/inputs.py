"""The inputs that an implementation is tried on: every binade and sign, specials, thresholds, random bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import Format

__all__ = ["all_patterns", "betas", "cotangents", "line", "pairs", "specials"]

Array = NDArray[Any]


def all_patterns(form: Format) -> Array:
    """All 65,536 numbers of a 16-bit format."""
    return np.arange(2**16, dtype=np.uint32).astype(form.bits).view(form.dtype)


def specials(form: Format) -> Array:
    """Zeros, infinities, nan, both ends of the normal and subnormal ranges, and a few landmarks, in both signs."""
    landmarks = [0.5, 1.0, 1.2784645427610738, 1.702, 2.0, 7.0, 7.5]
    ends = [0.0, form.smallest_subnormal, form.smallest_normal - form.smallest_subnormal, form.smallest_normal]
    positive = np.array([*ends, *landmarks, form.largest, np.inf])
    return np.concatenate([positive, -positive, [np.nan]]).astype(form.dtype)


def binades(form: Format, rng: np.random.Generator, each: int) -> Array:
    """Random numbers of every binade, the subnormal ones included: ``each`` a binade and sign."""
    exponents = np.repeat(np.arange(form.lowest - form.precision + 1, form.highest + 1), 2 * each)
    signs = np.tile([1.0, -1.0], len(exponents) // 2)
    # Truncated to the precision, so that rounding does not carry into the next binade, past the largest number.
    steps = 2.0 ** (form.precision - 1)
    significands = 1 + np.floor(rng.random(len(exponents)) * steps) / steps
    return np.ldexp(signs * significands, exponents).astype(form.dtype)


def thresholds(form: Format, rng: np.random.Generator, count: int) -> Array:
    """Numbers where exponentials and their products underflow or overflow, and where derivatives cancel."""
    depth = 2.2 * np.log(2.0) * (form.highest + form.precision)
    spans = [(-depth, 0.0), (-depth / 2, depth / 2), (-40.0, 10.0), (-6.0, 6.0), (-1.3, -1.25)]
    return np.concatenate([rng.uniform(low, high, count) for low, high in spans]).astype(form.dtype)


def random_bits(form: Format, rng: np.random.Generator, count: int) -> Array:
    """Numbers of random bit patterns: nan and infinities come up in the 16-bit formats."""
    width = form.bits.itemsize * 8
    patterns = rng.integers(0, 2**width, count, dtype=np.uint64, endpoint=False)
    return patterns.astype(form.bits).view(form.dtype)


def line(form: Format, rng: np.random.Generator, size: int) -> Array:
    """About ``size`` numbers from all over the format, or all 65,536 of a 16-bit one when ``size`` admits them.

    From a size of 1024 on, every binade and sign comes up.
    """
    if form.bits.itemsize == 2 and size >= 2**16:
        return all_patterns(form)
    count = 2 * (form.highest - form.lowest + form.precision)
    spread = binades(form, rng, max(1, size // (2 * count)))
    if size < 1024 and len(spread) > size // 2:
        spread = rng.choice(spread, size // 2, replace=False)
    return np.concatenate(
        [
            specials(form),
            spread,
            thresholds(form, rng, max(1, size // 20)),
            random_bits(form, rng, size // 4),
        ]
    )


def pairs(form: Format, rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Gates and values: the specials in all combinations, then lines in random order."""
    special = specials(form)
    gate, value = np.meshgrid(special, special, indexing="ij")
    gates, values = line(form, rng, size), line(form, rng, size)
    values = rng.permutation(values)
    return np.concatenate([gate.ravel(), gates]), np.concatenate([value.ravel(), values])


def cotangents(form: Format, rng: np.random.Generator, count: int) -> Array:
    """Cotangents of magnitude 2^-16 to 2^16 (in float16 2^-10 to 2^10), at which gradients are graded."""
    reach = 10 if form.name == "float16" else 16
    return (rng.choice([-1.0, 1.0], count) * 2 ** rng.uniform(-reach, reach, count)).astype(form.dtype)


def betas(form: Format, rng: np.random.Generator, count: int) -> Array:
    """Values of beta: the usual ones, zeros, negative, small and large."""
    usual = np.array([1.0, 1.0, 0.5, 1.702, 2.0, 10.0, 0.1, 0.0, -0.0, -1.0, -1.5])
    wide = rng.choice([-1.0, 1.0], count) * 2 ** rng.uniform(-12, 12, count)
    return np.where(rng.random(count) < 0.7, rng.choice(usual, count), wide).astype(form.dtype)
