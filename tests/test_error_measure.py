"""The error measure against a slow one in exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import any_bits, every_dtype

from gated.conformance.error import FORMATS, Format, error_in_ulp, ulp_exponent


def exact_ulp(t: Fraction, form: Format) -> Fraction:
    """The spacing of the format's numbers in t's binade, as if the range had no end; at least a subnormal's."""
    exponent = form.lowest
    if t:
        exponent = abs(t.numerator).bit_length() - t.denominator.bit_length()
        exponent -= abs(t) < Fraction(2) ** exponent
    return Fraction(2) ** (max(exponent, form.lowest) - form.precision + 1)


def slow_error(
    computed: float, high: float, low: float, form: Format, *, scale: float | None, flush: bool, zero_signs: bool
) -> Fraction | float:
    """The error by the definition in the module's docstring, a branch a sentence."""
    if math.isnan(computed) or math.isnan(high):
        return Fraction(0) if math.isnan(computed) and math.isnan(high) else math.inf
    same_sign = math.copysign(1, computed) == math.copysign(1, high)
    if computed == 0 and flush and (same_sign or not zero_signs) and abs(high) < form.smallest_normal:
        return Fraction(0)
    if computed == 0 and zero_signs and not same_sign:
        return math.inf
    if math.isinf(high):
        return Fraction(0) if computed == high else math.inf
    exact = Fraction(high) + Fraction(low)
    at = max(abs(Fraction(high)), Fraction(0) if scale is None else _at_most(form.largest, abs(scale)))
    if math.isinf(computed):
        # An infinity stands for all numbers of its sign from 2^(highest + 1) on.
        if high == 0 or not same_sign:
            return math.inf
        short = Fraction(2) ** (form.highest + 1) - abs(Fraction(high))
        return max(short, Fraction(0)) / exact_ulp(at, form)
    return abs(Fraction(computed) - exact) / exact_ulp(at, form)


def _at_most(largest: float, scale: float) -> Fraction:
    return Fraction(largest if math.isinf(scale) else scale)


def values(form: Format) -> st.SearchStrategy[float]:
    return any_bits(form).one().map(lambda bits: float(np.array(bits).astype(form.bits).view(form.dtype)))


@st.composite
def samples(draw: st.DrawFn, form: Format) -> tuple[float, float, float]:
    """A computed number, and an exact one as high + low: anywhere, or a few ulp from the computed one."""
    computed = draw(values(form))
    if draw(st.booleans()) or not math.isfinite(computed):
        high = draw(values(FORMATS["float64"]))
    else:
        step = math.ldexp(1.0, int(ulp_exponent(np.float64(computed), form)))
        high = computed + draw(st.integers(-4096, 4096)) / 512 * step
    if not math.isfinite(high):
        return computed, high, 0.0
    half = math.ulp(high) / 2
    return computed, high, draw(st.integers(-1024, 1024)) / 1024 * half


@every_dtype
@settings(max_examples=300)
@given(data=st.data())
def test_the_error_is_the_exact_distance_over_the_exact_spacing(dtype: str, data: Any) -> None:
    form = FORMATS[dtype]
    computed, high, low = data.draw(samples(form))
    scale = data.draw(st.none() | values(FORMATS["float64"]).filter(lambda t: not math.isnan(t)))
    flush, zero_signs = data.draw(st.booleans()), data.draw(st.booleans())
    measured = error_in_ulp(
        np.array([computed]).astype(form.dtype),
        np.array([high]),
        np.array([low]),
        form=form,
        scale=None if scale is None else np.array([scale]),
        flush=flush,
        zero_signs=zero_signs,
    )[0]
    expected = slow_error(computed, high, low, form, scale=scale, flush=flush, zero_signs=zero_signs)
    if isinstance(expected, float) or math.isinf(measured):
        # An error past the largest float64 is infinity in float64.
        assert measured == expected or expected >= 2**1023
    else:
        # Two subtractions in float64; the first is exact where the second cancels.
        assert abs(Fraction(float(measured)) - expected) <= expected * Fraction(1, 2**50) + Fraction(1, 2**900)


@every_dtype
@settings(max_examples=200)
@given(data=st.data())
def test_an_ulp_is_the_distance_to_the_next_number(dtype: str, data: Any) -> None:
    form = FORMATS[dtype]
    t = data.draw(values(form).filter(lambda t: math.isfinite(t) and abs(t) < form.largest))
    bits = np.array([abs(t)]).astype(form.dtype).view(form.bits)
    following = (bits + form.bits.type(1)).view(form.dtype).astype(np.float64)[0]
    assert math.ldexp(1.0, int(ulp_exponent(np.float64(t), form))) == following - abs(t)


@every_dtype
def test_the_classes_come_before_the_distance(dtype: str) -> None:
    form = FORMATS[dtype]
    largest, tiny = form.largest, form.smallest_subnormal

    def error(computed: float, exact: float, **options: Any) -> float:
        return float(error_in_ulp(np.array([computed]).astype(form.dtype), np.array([exact]), form=form, **options)[0])

    assert error(np.nan, np.nan) == 0
    assert error(np.nan, 1.0) == error(1.0, np.nan) == error(np.nan, np.inf) == np.inf
    assert error(np.inf, np.inf) == error(-np.inf, -np.inf) == 0
    assert error(-np.inf, np.inf) == error(largest, np.inf) == error(0.0, np.inf) == np.inf
    assert error(np.inf, largest) == 1
    assert error(0.0, 0.0) == error(-0.0, -0.0) == 0
    assert error(-0.0, 0.0) == error(0.0, -0.0) == error(0.0, -tiny) == np.inf
    assert error(-0.0, 0.0, zero_signs=False) == 0
    assert error(0.0, tiny) == error(tiny, 0.0) == error(-tiny, -0.0) == 1
    assert error(0.0, form.smallest_normal / 2) == 2 ** (form.precision - 2)
    assert error(0.0, form.smallest_normal / 2, flush=True) == 0
    assert error(-0.0, form.smallest_normal / 2, flush=True) == np.inf
    assert error(0.0, form.smallest_normal, flush=True) == 2 ** (form.precision - 1)
    assert error(tiny, 2 * tiny, flush=True) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_beyond_the_range_only_an_infinity_is_right(dtype: str) -> None:
    form = FORMATS[dtype]
    exact = np.array([form.largest * 2.0**60])

    def error(computed: float, **options: Any) -> float:
        return float(error_in_ulp(np.array([computed]).astype(form.dtype), exact, form=form, **options)[0])

    for options in ({}, {"scale": exact}):
        assert error(np.inf, **options) == 0
        for wrong in (form.largest, 1.0, 0.0):
            assert error(wrong, **options) >= 2 ** (form.precision - 1)
        assert error(-np.inf, **options) == np.inf


def test_errors_are_measured_at_the_largest_term() -> None:
    form = FORMATS["float32"]
    computed, exact = np.array([2.0**-20], np.float32), np.array([0.0])
    assert error_in_ulp(computed, exact, form=form, scale=np.array([0.75]))[0] == 2.0**4
    assert error_in_ulp(computed, exact, form=form, scale=np.array([-1.5]))[0] == 2.0**3
    # A scale below the number itself changes nothing.
    assert error_in_ulp(computed, computed * 1.5, form=form, scale=np.array([2.0**-60]))[0] == 2.0**22


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_nearest_number_is_within_half_an_ulp(dtype: str) -> None:
    form = FORMATS[dtype]
    rng = np.random.default_rng(0)
    exact = rng.choice([-1.0, 1.0], 4000) * 2.0 ** rng.uniform(form.lowest - form.precision, form.highest + 1, 4000)
    rounded = np.array([float(_nearest(Fraction(float(t)), form)) for t in exact])
    assert np.max(error_in_ulp(rounded.astype(form.dtype), exact, form=form)) <= 0.5


def _nearest(t: Fraction, form: Format) -> Fraction:
    step = exact_ulp(t, form)
    return round(t / step) * step
