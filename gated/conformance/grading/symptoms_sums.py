"""Symptoms of sums and scales: a factor too many, a gradient that stops, a gradient that is not summed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.formulas import claimed_model
from gated.conformance.grading.observation import Observation
from gated.conformance.grading.plain import field_bound
from gated.conformance.grading.predictions import Elementwise
from gated.conformance.grading.report import Diagnosis
from gated.conformance.grading.results import Outcome, Results, Symptom

__all__ = ["SCALE_SYMPTOMS", "STOP_SYMPTOMS", "beta_sums"]

Float64 = NDArray[np.float64]

_NEARLY_ALL: Final = 0.95


def _scaled(r: Results) -> Iterator[Outcome]:
    with np.errstate(all="ignore"):
        size = np.abs(r.exact)
        ordinary = np.isfinite(r.got) & np.isfinite(r.exact) & (size > 2.0**-12) & (size < 2.0**12)
        if ordinary.sum() < 4:
            return
        factor = float(np.median(r.got[ordinary] / r.exact[ordinary]))
        # Of sums of products, half the digits: they may cancel.
        error = math.sqrt(r.form.unit_roundoff) * size
        if r.elementwise:
            error = field_bound(r.form, r.claim.activation, r.partial, *r.operands)
            # The factor has an error of its own.
            error = error + 16 * r.form.unit_roundoff * size
        matched = np.abs(r.got - factor * r.exact) <= abs(factor) * error
        # Where the tolerances of the two are apart.
        ordinary &= (1 + abs(factor)) * error < abs(factor - 1) * size
        what = "the value" if r.part.name == "value" else f"the gradient ({r.part.name})"
        shown = f"{factor:.6g}" if abs(factor - 1) > 1e-4 else f"1 {'+' if factor > 1 else '-'} {abs(factor - 1):.3g}"
        if abs(factor) > 1e-6 and abs(factor - 1) > 16 * r.form.unit_roundoff:
            yield Outcome(ordinary, matched, f"{what} is {shown} times what it should be", factor * r.exact, least=4)


def _stopped(r: Results) -> Iterator[Outcome]:
    with np.errstate(all="ignore"):
        # Where an exponential overflows or a sum cancels, 0 may be what is left.
        telling = (np.abs(r.exact) > 2.0**-10) & (np.abs(r.exact) < 2.0**10)
        if r.elementwise:
            for one in r.operands:
                telling &= np.abs(one) < 2.0**10
    yield Outcome(telling, r.got == 0, f"the gradient stops: {r.part.name} is 0 everywhere", np.zeros_like(r.got))


def beta_sums(claim: Claim, observations: Sequence[Observation]) -> Iterator[Diagnosis]:
    """A beta that many elements share, whose cotangent is not the sum over them."""
    for observation in observations:
        raw, part = observation.raw.get("beta"), next((one for one in observation.parts if one.name == "d beta"), None)
        shape, full = np.shape(observation.arguments.get("beta", 0.0)), observation.cotangent.shape
        if raw is None or part is None or claim.form == "projected" or shape == full:
            continue
        each = Elementwise(observation).gradient(claimed_model(claim), "d beta", np.arange(observation.cotangent.size))
        assert each is not None
        terms, error = each.value.reshape(full), each.error.reshape(full)
        with np.errstate(invalid="ignore"):
            got = np.asarray(raw).astype(np.float64)
        lead = (1,) * (len(full) - len(shape)) + shape
        axes = tuple(axis for axis, size in enumerate(lead) if size == 1)
        count = observation.cotangent.size // max(1, math.prod(shape))
        candidates: list[tuple[Float64, Float64, str]] = [(terms, error, "each element's own is given")]
        if got.shape == shape:
            last = (*(slice(-1, None) if axis in axes else slice(None) for axis in range(len(full))),)
            head = (*(slice(0, 1) if axis in axes else slice(None) for axis in range(len(full))),)
            total = terms.sum(axis=axes).reshape(shape)
            slack = (error + 2.0**-20 * np.abs(terms)).sum(axis=axes).reshape(shape)
            candidates = [
                (total / count, slack / count, "their mean is given, not their sum"),
                (terms[head].reshape(shape), error[head].reshape(shape), "the first element's is given, not the sum"),
                (terms[last].reshape(shape), error[last].reshape(shape), "the last element's is given, not the sum"),
            ]
        else:
            for kept in range(1, len(full)):
                some = tuple(range(kept))
                candidates.append(
                    (
                        terms.sum(axis=some),
                        (error + 2.0**-20 * np.abs(terms)).sum(axis=some),
                        "only some axes are summed over",
                    )
                )
        wrong = "d beta" in observation.wrong and observation.wrong["d beta"].any()
        for predicted, bound, how in candidates:
            squeezed = got.reshape(predicted.shape) if got.size == predicted.size else None
            if squeezed is None or (got.shape == shape and not wrong):
                continue
            with np.errstate(invalid="ignore"):
                near = np.abs(squeezed - predicted) <= bound + observation.form.unit_roundoff * np.abs(predicted)
            telling = np.isfinite(bound)
            if telling.any() and np.mean(near[telling]) >= _NEARLY_ALL:
                yield Diagnosis(
                    "beta-gradient-not-summed",
                    f"the gradient of beta is not summed over the elements that share it: {how}",
                    {
                        "quantities": [f"d beta ({observation.form.name})"],
                        "shape": list(got.shape),
                        "shape of beta": list(shape),
                        "inputs that tell": int(telling.sum()),
                        "match the hypothesis": int(np.sum(near & telling)),
                        "match the claimed function": 0,
                    },
                )
                return


STOP_SYMPTOMS: Final = (Symptom("gradient-stopped", lambda r: r.part.name != "value", _stopped),)
SCALE_SYMPTOMS: Final = (
    Symptom("scaled", lambda r: r.part.name == "value", _scaled),
    Symptom("gradient-scaled", lambda r: r.part.name != "value", _scaled),
)
