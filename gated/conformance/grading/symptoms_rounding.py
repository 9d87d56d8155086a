"""Symptoms of rounding: twice, towards zero, or in a narrower arithmetic than the dtype's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import scipy.special
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance.error import FORMATS, Format, ulp_exponent
from gated.conformance.grading.results import Outcome, Results, Symptom

__all__ = ["NARROW_SYMPTOMS", "ROUNDING_SYMPTOMS"]

Float64 = NDArray[np.float64]


def _rounded(x: Float64, form: Format) -> Float64:
    with np.errstate(all="ignore"):
        return x.astype(form.dtype).astype(np.float64)


def _activation_alone(r: Results, partial: str) -> Float64:
    """The exact activation or its derivative, without cotangent and value."""
    gate, _, beta, _ = r.operands
    one = np.ones_like(gate)
    with np.errstate(all="ignore"):
        if partial == "value":
            return np.asarray(reference.gated_unit(gate, one, activation=r.claim.activation, beta=beta))
        _, pullback = reference.vjp(reference.gated_unit, gate, one, beta, activation=r.claim.activation)
        return np.asarray(pullback(one)[0 if partial == "x" else 2])


def _double_rounding(r: Results) -> Iterator[Outcome]:
    gate, value, _, cotangent = r.operands
    name = r.form.name

    def fl(x: Float64) -> Float64:
        return _rounded(x, r.form)

    with np.errstate(all="ignore"):
        a = _activation_alone(r, r.partial)
        value = fl(value)
        candidates = [
            (fl(fl(fl(a) * value) * cotangent), f"the activation is rounded to {name} before the product"),
            (fl(fl(a) * fl(cotangent * value)), f"the activation's derivative is rounded to {name} before the product"),
            (fl(fl(fl(a) * cotangent) * value), f"the product with the activation is rounded to {name} twice"),
        ]
        if r.claim.activation == "swish":
            z = fl(r.argument)
            by_library = [fl(scipy.special.expit(one)) for one in (r.argument, z)]
            e = fl(np.exp(-np.abs(z)))
            step_by_step = [fl(1 / fl(1 + fl(np.exp(-z)))), fl(np.where(z < 0, e, 1.0) / fl(1 + e))]
            for s in (*by_library, *step_by_step):
                if r.partial == "value":
                    swish = fl(gate * s)
                    text = f"the sigmoid is rounded to {name} before the product"
                    candidates.append((fl(fl(swish * value) * cotangent), text))
                    candidates.append((fl(swish * fl(value * cotangent)), text))
                elif r.partial == "x":
                    slope = fl(s * fl(1 + fl(z * fl(1 - s))))
                    candidates.append(
                        (fl(fl(cotangent * value) * slope), f"each step of the derivative is rounded to {name}")
                    )
        if r.claim.activation == "gelu" and r.partial == "value":
            step = fl(1 + fl(scipy.special.erf(fl(gate * fl(np.asarray(math.sqrt(0.5)))))))
            for one in (fl(fl(0.5 * gate) * step), fl(gate * fl(0.5 * step))):
                candidates.append((fl(one * value), f"each step is rounded to {name}"))
        once = fl(r.exact)
    ordinary = r.finite & (np.abs(r.exact) >= r.form.smallest_normal)
    for predicted, text in candidates:
        telling = ordinary & (predicted != once) & np.isfinite(predicted)
        matched = r.got == predicted
        # A target computes in float32 or wider, and is off the prediction where that is near a tie.
        failing = ordinary & r.wrong
        if np.sum(failing & matched) >= 0.5 * np.sum(failing):
            yield Outcome(telling, matched, text, predicted, least=8)


def _truncation(r: Results) -> Iterator[Outcome]:
    with np.errstate(all="ignore"):
        predicted = _truncated(r.exact, r.form)
        once = _rounded(r.exact, r.form)
        # Not where a small error before the truncation decides, and not in a tail, where more may be lost.
        decided = np.abs(r.exact - once) > 2.0**-6 * r.form.unit_roundoff * np.abs(r.exact)
        ordinary = r.finite & decided & (np.abs(r.exact) >= r.form.smallest_normal) & (np.abs(r.argument) < 60)
        telling = ordinary & (predicted != once) & np.isfinite(predicted)
    yield Outcome(telling, r.got == predicted, f"the result is truncated to {r.form.name}, not rounded", predicted, 64)


def _truncated(x: Float64, form: Format) -> Float64:
    """Rounded towards zero."""
    exponent = ulp_exponent(x, form)
    return np.ldexp(np.trunc(np.ldexp(x, -exponent)), exponent)


def _narrow_arithmetic(narrow: str) -> Callable[[Results], Iterator[Outcome]]:
    form = FORMATS[narrow]

    def outcomes(r: Results) -> Iterator[Outcome]:
        with np.errstate(all="ignore"):
            size = np.abs(r.exact)
            within = (
                np.isfinite(r.got)
                & np.isfinite(r.exact)
                & (size > 4 * form.smallest_normal)
                & (size < form.largest / 4)
            )
            generic = within & (_rounded(r.exact, form) != r.exact)
            if len(np.unique(r.got[generic])) < 16:
                # A few numbers again and again are no arithmetic.
                return
            yield Outcome(
                generic,
                (_rounded(r.got, form) == r.got) & (r.got != 0),
                f"every result is a number of {narrow}: it is computed in {narrow}",
                _rounded(r.exact, form),
                least=16,
            )
            if not r.elementwise or r.partial != "value":
                return
            gate, value, _, cotangent = r.operands
            # Nearer to 0 the activation is a power series of few terms.
            ordinary = generic & (np.abs(r.argument) > 2.0**-4) & (np.abs(r.argument) < 30) & r.wrong & (r.got != 0)
            factor = r.got / (value * cotangent * (1.0 if r.claim.activation == "sigmoid" else gate))
            text = f"a factor of each result is a number of {narrow}: a part is computed in {narrow}"
            for part in (factor, 1 / factor, 1 / factor - 1, 2 * factor - 1):
                slack = 8 * r.form.unit_roundoff * (1 + np.abs(part))
                near = np.abs(_rounded(part, form) - part) <= slack
                # Where that many numbers of the narrow format are not near by accident.
                sparse = form.unit_roundoff * np.abs(part) > 64 * slack
                # Nor where the part is saturated: 1, whatever the arithmetic.
                told = np.isfinite(part) & (np.abs(np.abs(part) - 1) > 4 * form.unit_roundoff)
                yield Outcome(ordinary & sparse & told, near, text, least=64)

    return outcomes


def _narrow(narrow: str, wide: str) -> Symptom:
    return Symptom(f"{narrow}-arithmetic-in-{wide}", lambda r: r.form.name == wide, _narrow_arithmetic(narrow))


NARROW_SYMPTOMS: Final = (
    _narrow("float32", "float64"),
    _narrow("bfloat16", "float32"),
    _narrow("float16", "float32"),
)
ROUNDING_SYMPTOMS: Final = (
    Symptom("truncation", lambda r: r.elementwise and r.form.bits.itemsize == 2, _truncation),
    Symptom("double-rounding", lambda r: r.elementwise and r.form.bits.itemsize == 2, _double_rounding),
)
