"""The diagnosis: what a failing target computes instead of what it claims, with the match that shows it.

Hypotheses are held against the results on inputs that tell: those where the hypothesis and the claimed function differ
by more than the tolerances of both. One holds where the target is the hypothesis's on nearly all of them and the
claimed function's on nearly none; a target that is right can therefore match none. What explains more of the failing
quantities comes first; what explains nothing beyond that is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.evidence import Witness
from gated.conformance.grading.hypotheses import Hypothesis
from gated.conformance.grading.hypotheses_gradients import GRADIENT_HYPOTHESES
from gated.conformance.grading.hypotheses_projected import PROJECTED_HYPOTHESES
from gated.conformance.grading.hypotheses_units import UNIT_HYPOTHESES
from gated.conformance.grading.matching import Match, merged
from gated.conformance.grading.observation import Observation
from gated.conformance.grading.report import Diagnosis, Finding
from gated.conformance.grading.symptoms import symptoms

__all__ = ["diagnose"]

_OBSERVED: Final = 8
"""The observations that are looked at: the first failing one of each dtype, then the second, up to this number."""

_FEW: Final = 256
"""The elements that two hypotheses together are first tried on."""

Quantity = tuple[int, str]
"""An observation, by its ``id()``, and a part's name."""


@dataclass(frozen=True)
class Explanation:
    """Hypotheses that hold together, and of which quantities."""

    hypotheses: tuple[Hypothesis, ...]
    matches: dict[Quantity, Match]

    @property
    def rank(self) -> tuple[int, float, int]:
        """How many quantities it explains, which share of what fails, and on how many inputs that tell."""
        every = self.matches.values()
        return len(self.matches), sum(one.share for one in every), sum(one.matched for one in every)


def diagnose(claim: Claim, observations: Sequence[Observation], findings: Sequence[Finding]) -> list[Diagnosis]:
    """What the target computes instead, best explanation first; nothing where nothing fails or nothing matches.

    Args:
        observations: the calls and their results.
        findings: what was found; some are explanations in themselves.
    """
    chosen = _chosen(observations)
    told: list[Diagnosis] = []
    explained: set[Quantity] = set()
    accepted: list[tuple[Hypothesis, ...]] = []
    for explain in (_functions, _gradients):
        for accuracies in (("once", "plain"), ("loose",)):
            witnesses = [Witness(one, each) for one in chosen for each in accuracies if _may_be(one, each)]
            failing = {(id(one.observation), name) for one in witnesses for name in one.failing_parts()} - explained
            for hypotheses in accepted:
                explained |= set(_matches(hypotheses, witnesses, failing, sorted({name for _, name in failing})))
            failing -= explained
            for one in explain(claim, witnesses, failing):
                told += [_diagnosis(claim, each, one, chosen) for each in one.hypotheses]
                explained |= set(one.matches)
                accepted.append(one.hypotheses)
    dtypes = {id(one): one.form.name for one in chosen}
    told += symptoms(
        claim,
        [one for one in observations if _varies(one)],
        findings,
        {(dtypes[number], name) for number, name in explained},
    )
    return _once(told)


def _may_be(observation: Observation, accuracy: str) -> bool:
    """Whether an accuracy is one of its own for the dtype and the function."""
    if accuracy == "once":
        return observation.form.bits.itemsize == 2 and observation.claim.form != "projected"
    return accuracy == "plain" or observation.claim.form != "projected"


def _chosen(observations: Sequence[Observation]) -> list[Observation]:
    by_dtype: dict[str, list[Observation]] = {}
    for one in observations:
        if any(one.wrong[name].any() for name in one.results) and _varies(one):
            by_dtype.setdefault(one.form.name, []).append(one)
    return [one for place in range(_OBSERVED) for several in by_dtype.values() for one in several[place : place + 1]][
        :_OBSERVED
    ]


def _varies(observation: Observation) -> bool:
    """Whether the target computes: one that gives a few numbers again and again matches many functions in places."""
    value = observation.results.get("value")
    if value is None:
        return True
    with np.errstate(invalid="ignore"):
        return len(np.unique(value.astype(np.float64))) >= min(16, value.size // 4)


def _functions(claim: Claim, witnesses: Sequence[Witness], failing: set[Quantity]) -> list[Explanation]:
    """Those whose values are another function's."""
    table = [one for one in (*UNIT_HYPOTHESES, *PROJECTED_HYPOTHESES) if one.applies(claim)]
    if not any(name == "value" for _, name in failing):
        return _leaning(table, witnesses)
    found = [one for each in table if (one := _held((each,), witnesses, failing)) is not None]
    if found:
        return _ranked(found)
    if all(one.elements.accuracy == "loose" for one in witnesses):
        return []
    return _leaning(table, witnesses) or _pairs(claim, [one for one in table if not one.alone], witnesses, failing)


def _leaning(table: Sequence[Hypothesis], witnesses: Sequence[Witness]) -> list[Explanation]:
    """In 16 bits, those that are nearer to the truth than a rounding, and match on the average."""
    found = []
    for witness in witnesses:
        observation = witness.observation
        narrow = observation.form.bits.itemsize == 2 and witness.elements.accuracy == "plain" and not witness.projected
        if narrow and "value" in witness.parts and observation.wrong["value"].any():
            for one in table:
                match = witness.leaning(one) if one.change(observation.claim).keys() == {"activation"} else None
                if match is not None:
                    found.append(Explanation((one,), {(id(observation), "value"): match}))
    return _ranked(found)[:1]


def _apart(claim: Claim, *hypotheses: Hypothesis) -> bool:
    """Whether they change different parts of the model."""
    parts = [name for one in hypotheses for name in one.change(claim)]
    return len(parts) == len(set(parts))


def _pairs(
    claim: Claim, table: Sequence[Hypothesis], witnesses: Sequence[Witness], failing: set[Quantity]
) -> list[Explanation]:
    """Two hypotheses together: the best pair, where no single one explains a value."""
    plain = [one for one in witnesses if one.elements.accuracy == "plain"]
    first = next((one for one in plain if "value" in set(one.failing_parts())), None)
    if first is None:
        return []
    few = Witness(first.observation, size=_FEW)
    found = []
    for a, b in combinations(table, 2):
        if _apart(claim, a, b):
            match = few.match("value", a, b)
            if match is not None and match.holds and (explanation := _held((a, b), witnesses, failing)) is not None:
                found.append(explanation)
    return _ranked(found)[:1]


def _held(
    hypotheses: tuple[Hypothesis, ...], witnesses: Sequence[Witness], failing: set[Quantity]
) -> Explanation | None:
    """What hypotheses on the value explain, or None: a value is to be among it."""
    matches = _matches(hypotheses, witnesses, failing, ("value",))
    if not matches:
        return None
    others = {name for _, name in failing if name != "value"}
    return Explanation(hypotheses, matches | _matches(hypotheses, witnesses, failing, sorted(others)))


def _matches(
    hypotheses: tuple[Hypothesis, ...], witnesses: Sequence[Witness], failing: set[Quantity], names: Iterable[str]
) -> dict[Quantity, Match]:
    matches: dict[Quantity, Match] = {}
    for witness in witnesses:
        for name in names:
            quantity = id(witness.observation), name
            if quantity in failing and name in witness.parts:
                match = witness.match(name, *hypotheses)
                if match is not None and match.holds:
                    before = matches.get(quantity)
                    matches[quantity] = match if before is None or match.matched > before.matched else before
    return matches


def _gradients(claim: Claim, witnesses: Sequence[Witness], failing: set[Quantity]) -> list[Explanation]:
    """Those whose gradients are another function's; of calls whose value is wrong and unexplained, none is told."""
    unexplained = {number for number, name in failing if name == "value"}
    left = {(number, name) for number, name in failing if name != "value"}
    if not left:
        return []
    of_values = [
        replace(one, id="gradient-of-other-function", text=f"the gradient is that of another function: {one.text}")
        for one in (*UNIT_HYPOTHESES, *PROJECTED_HYPOTHESES)
    ]
    names = sorted({name for _, name in left})
    found = []
    for one in (*GRADIENT_HYPOTHESES, *of_values):
        if one.applies(claim):
            other = one.id == "gradient-of-other-function"
            within = {each for each in left if not (other and each[0] in unexplained)}
            matches = _matches((one,), witnesses, within, names)
            if matches:
                found.append(Explanation((one,), matches))
    return _ranked(found)


def _ranked(found: Sequence[Explanation]) -> list[Explanation]:
    """The best first; of the others those that explain what it does not, and the same ones by another name."""
    kept: list[Explanation] = []
    covered: set[Quantity] = set()
    for one in sorted(found, key=lambda each: each.rank, reverse=True):
        first = one.hypotheses[0]
        alias = any(first.same_as == each.hypotheses[0].id and one.rank == each.rank for each in kept)
        if alias or set(one.matches) - covered:
            kept.append(one)
            covered |= set(one.matches)
    return kept


def _diagnosis(
    claim: Claim, hypothesis: Hypothesis, explanation: Explanation, observations: Sequence[Observation]
) -> Diagnosis:
    names = {id(one): one.form.name for one in observations}
    whole = merged(list(explanation.matches.values()))
    quantities = sorted({f"{name} ({names[number]})" for number, name in explanation.matches})
    evidence: dict[str, Any] = {"quantities": quantities} | whole.evidence()
    if len(explanation.hypotheses) > 1:
        evidence["together with"] = [one.id for one in explanation.hypotheses if one is not hypothesis]
    text = hypothesis.text
    if hypothesis.same_as and len(explanation.hypotheses) == 1:
        text += f" (the same function as {hypothesis.same_as} gives, where that is told too)"
    return Diagnosis(hypothesis.id, f"{text}; {claim.describe()} was claimed", evidence)


def _once(told: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The first of each id."""
    first: dict[str, Diagnosis] = {}
    for one in told:
        first.setdefault(one.id, one)
    return list(first.values())
