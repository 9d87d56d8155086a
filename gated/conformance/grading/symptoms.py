"""Explanations of a part of the failures: rounding, range, infinities, sums, and what the findings say by themselves.

Each is a prediction on its own inputs, as a hypothesis is: it holds where the target is as predicted on nearly all of
them and right on nearly none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.observation import Observation
from gated.conformance.grading.report import Diagnosis, Finding
from gated.conformance.grading.results import Outcome, Results, Symptom
from gated.conformance.grading.symptoms_range import RANGE_SYMPTOMS
from gated.conformance.grading.symptoms_rounding import NARROW_SYMPTOMS, ROUNDING_SYMPTOMS
from gated.conformance.grading.symptoms_sums import SCALE_SYMPTOMS, STOP_SYMPTOMS, beta_sums

__all__ = ["SYMPTOMS", "symptoms"]

_OF_A_WHOLE: Final = (*STOP_SYMPTOMS, *NARROW_SYMPTOMS, *SCALE_SYMPTOMS)
"""Those that are of a whole quantity: what else fails of it is their doing."""

SYMPTOMS: Final = (*_OF_A_WHOLE, *ROUNDING_SYMPTOMS, *RANGE_SYMPTOMS)
"""The table, in the order in which they are told."""


def symptoms(
    claim: Claim, observations: Sequence[Observation], findings: Sequence[Finding], explained: set[tuple[str, str]]
) -> list[Diagnosis]:
    """What explains some of the failures that no other function does.

    Args:
        explained: dtypes and parts that are another function's.
    """
    told = [*_from_findings(findings), *beta_sums(claim, observations)]
    results = [
        Results(observation, part)
        for observation in observations
        for part in observation.parts
        if part.name in observation.results
        and (observation.form.name, part.name) not in explained
        and observation.wrong[part.name].any()
    ]
    whole: set[tuple[int, str]] = set()
    for symptom in SYMPTOMS:
        seen: list[tuple[Results, Outcome]] = []
        for one in results:
            key = id(one.observation), one.part.name
            if key in whole or not symptom.applies(one):
                continue
            with np.errstate(all="ignore"):
                outcome = next((each for each in symptom.outcomes(one) if each.holds(one.wrong)), None)
            if outcome is not None:
                seen.append((one, outcome))
                # What explains every failure leaves nothing to explain.
                if not np.any(one.wrong & ~(outcome.matched & outcome.telling)) or symptom in _OF_A_WHOLE:
                    whole.add(key)
        if seen:
            told.append(_told(symptom, seen))
    return told


def _told(symptom: Symptom, seen: Sequence[tuple[Results, Outcome]]) -> Diagnosis:
    first, outcome = seen[0]
    hits = np.flatnonzero(outcome.telling & outcome.matched)
    index = int(hits[len(hits) // 2])
    at = {}
    if first.elementwise:
        at = {
            name: f"{float(one.ravel()[index]):.9g}"
            for name, one in {**first.observation.elements, "cotangent": first.observation.cotangent}.items()
            if name != "cotangent" or first.part.name != "value"
        }
    at |= {"computed": f"{first.got[index]:.9g}", "claimed function": f"{first.exact[index]:.9g}"}
    if outcome.predicted is not None:
        at["hypothesis"] = f"{outcome.predicted[index]:.9g}"
    evidence = {
        "quantities": sorted({f"{one.part.name} ({one.form.name})" for one, _ in seen}),
        "inputs that tell": sum(int(one.telling.sum()) for _, one in seen),
        "match the hypothesis": sum(int(np.sum(one.telling & one.matched)) for _, one in seen),
        "match the claimed function": sum(int(np.sum(one.telling & ~results.wrong)) for results, one in seen),
        "at": at,
    }
    return Diagnosis(symptom.id, outcome.text, evidence)


def _from_findings(findings: Sequence[Finding]) -> Iterator[Diagnosis]:
    """What a finding shows by itself."""
    texts = {
        "input-overwritten": "the target writes into what it is handed, and whoever reads it later reads other numbers",
        "gradient-stopped": "the gradient stops: the framework says that the value does not depend on an argument",
    }
    for one in findings:
        if one.id in texts and not one.known:
            yield Diagnosis(one.id, f"{texts[one.id]}: {one.text}", dict(one.evidence))
