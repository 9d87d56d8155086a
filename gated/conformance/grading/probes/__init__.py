"""The probes: what a target does beside computing: memory, repetition, batches, refusals, modes of differentiation.

Each probe compares a call with the plain call of the same numbers. Two results within their bounds are at most two
bounds apart; a result farther from the plain one than that depends on what it should not depend on, whichever of the
two is right. Results that differ by less are told, as notes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gated.conformance.error import FORMATS
from gated.conformance.grading.cases import moderate_trial, projected_trial
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Runner
from gated.conformance.grading.probes.batches import batches
from gated.conformance.grading.probes.differentiation import MODES, backward_twice, other_mode, same_array
from gated.conformance.grading.probes.memory import arranged, overwritten, repeated
from gated.conformance.grading.probes.refusals import refusals
from gated.conformance.grading.probes.replies import reply_findings
from gated.conformance.grading.probes.setting import Setting
from gated.conformance.grading.profiles import Profile
from gated.conformance.grading.report import FAILURE, Finding

__all__ = ["probe", "reply_findings"]


def probe(
    claim: Claim,
    dtype: str,
    profile: Profile,
    runner: Runner,
    *,
    gradients: bool,
    required: frozenset[str],
    seed: int,
) -> Iterator[Finding]:
    """The findings of all probes in a dtype.

    Args:
        gradients: whether there is a gradient that is graded.
        required: modes whose absence is a failure: ``"double-backward"``, ``"forward-mode"``.
    """
    form, facts = FORMATS[dtype], runner.facts
    rng = np.random.default_rng([seed, 7, list(FORMATS).index(dtype)])
    if claim.form == "projected":
        sizes = facts.sizes
        d_in, d_hidden = sizes.get("W", (24, 40))
        trial = projected_trial(claim, form, rng, (6, d_in, d_hidden, sizes.get("W2", (0, 16))[1]))
    else:
        trial = moderate_trial(claim, form, rng, (5, 67))
    setting = Setting(claim, form, profile, facts, runner, trial, gradients, required)
    (plain,) = setting.ask(setting.request(trial))
    if plain.value is None:
        return
    yield from overwritten(setting, plain)
    unsteady = list(repeated(setting, plain))
    yield from unsteady
    # What differs from call to call differs with strides and batches too: that would be said of it five times.
    steady = all(one.severity != FAILURE for one in unsteady)
    if steady:
        yield from arranged(setting, plain)
        yield from batches(setting, plain, rng)
    yield from refusals(setting)
    differentiable = gradients and bool(plain.cotangents)
    if differentiable and steady:
        yield from backward_twice(setting, plain)
        yield from same_array(setting, rng)
    for task, mode in MODES.items():
        if differentiable or mode in required:
            yield from other_mode(setting, task, rng)
