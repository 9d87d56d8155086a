"""Symptoms of the ends of the range: infinities, exponentials that overflow, sums that cancel in a tail."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import scipy.special
from numpy.typing import NDArray

from gated.conformance.error import FORMATS
from gated.conformance.grading.results import Outcome, Results, Symptom

__all__ = ["RANGE_SYMPTOMS"]


def _nan_at_infinity(r: Results) -> Iterator[Outcome]:
    telling = r.infinite & ~np.isnan(r.exact) & r.wrong
    yield Outcome(
        telling,
        np.isnan(r.got),
        "nan at an infinite input, where the function has a limit: inf * 0 or inf / inf is computed",
        least=1,
    )


def _overflow_nan(r: Results) -> Iterator[Outcome]:
    lost = r.finite & np.isnan(r.got)
    for side, name in ((-1.0, "below"), (1.0, "above")):
        there = lost & (side * r.argument > 5)
        if there.any():
            first = float(np.min(np.abs(r.argument[there])))
            # A target that is nan everywhere has no threshold.
            nearer = r.finite & (side * r.argument > 0) & (side * r.argument < first)
            if np.mean(np.isnan(r.got[nearer])) > 0.05 or not nearer.any():
                continue
            yield Outcome(
                r.finite & (side * r.argument >= first),
                np.isnan(r.got),
                f"nan for finite inputs {name} {side * first:.6g}: an exponential overflows, and inf / inf is computed",
            )


def _lives(r: Results, there: NDArray[np.bool_]) -> bool:
    """Whether the target is other than 0 before its tail: one that is 0 everywhere has none."""
    before = r.normal & there
    return bool(before.any() and np.mean(r.got[before] == 0) < 0.05)


def _tail_underflow(r: Results) -> Iterator[Outcome]:
    for form in dict.fromkeys((r.form, FORMATS["float32"])):
        threshold = math.log(form.largest)
        if not _lives(r, r.argument > -threshold):
            continue
        yield Outcome(
            r.normal & (r.argument < -threshold - 0.1),
            r.got == 0,
            f"0 below {-threshold:.4g}, where the result is a number of the dtype: exp({threshold:.4g}) overflows",
            np.zeros_like(r.got),
            least=3,
        )


def _tail_cancellation(r: Results) -> Iterator[Outcome]:
    for form in dict.fromkeys((r.form, FORMATS["float32"])):
        small = 2.0 ** -(form.precision + 3)
        if r.claim.activation in ("gelu", "gelu_tanh"):
            side, lost = -1.0, -float(scipy.special.ndtri(small))
            what = "1 + erf(x / sqrt 2)" if r.claim.activation == "gelu" else "1 + tanh(...)"
            if r.claim.activation == "gelu_tanh":
                lost = 1.05 * lost
        else:
            side, lost = (1.0, -math.log(small)) if r.partial != "value" else (-1.0, -math.log(small))
            what = "1 - sigmoid(x)" if side > 0 else "1 + tanh(x / 2) or 1 - sigmoid(-x)"
        if not _lives(r, side * r.argument < lost):
            continue
        yield Outcome(
            r.normal & (side * r.argument > lost),
            r.got == 0,
            f"0 {'below' if side < 0 else 'above'} {side * lost:.4g}, where the result is a number of the dtype: "
            f"a difference such as {what} cancels",
            np.zeros_like(r.got),
        )
    if r.claim.activation in ("sigmoid", "swish") and r.partial == "value":
        yield _multiples(r)


def _multiples(r: Results) -> Outcome:
    """A sigmoid of 1/2 + tanh(x / 2) / 2 is a multiple of u / 2, however small."""
    gate, value, _, cotangent = r.operands
    unit = r.form.unit_roundoff / 2
    with np.errstate(all="ignore"):
        factor = value * cotangent * (gate if r.claim.activation == "swish" else 1.0)
        steps = r.got / factor / unit
        far = np.abs(steps - np.round(steps))
        true = scipy.special.expit(r.argument) / unit
        # Sixteen steps and more, so that the result's own rounding is far below one; few, so that it is no accident.
        telling = r.finite & r.wrong & (true < 2.0 ** (r.form.precision / 2)) & (true > 0.01) & (r.got != 0)
        matched = far <= 4 * r.form.unit_roundoff * np.maximum(np.abs(steps), 1)
    return Outcome(
        telling,
        matched,
        f"the sigmoid is a multiple of 2^{math.log2(unit):.0f} in the tail, as 1/2 + tanh(x / 2) / 2 leaves it",
        least=8,
    )


RANGE_SYMPTOMS: Final = (
    Symptom("tail-underflow", lambda r: r.elementwise and r.claim.activation in ("sigmoid", "swish"), _tail_underflow),
    Symptom("tail-cancellation", lambda r: r.elementwise and r.claim.activation != "identity", _tail_cancellation),
    Symptom("overflow-nan", lambda r: r.elementwise, _overflow_nan),
    Symptom("nan-at-infinity", lambda r: r.elementwise, _nan_at_infinity),
)
