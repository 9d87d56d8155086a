"""Probes of memory and repetition: inputs that are written to, and results that depend on more than the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from gated.conformance.grading.exchange import Reply
from gated.conformance.grading.probes.replies import overwriting
from gated.conformance.grading.probes.setting import Setting, in_words
from gated.conformance.grading.report import FAILURE, NOTE, Finding

__all__ = ["arranged", "overwritten", "repeated"]

_ARRANGEMENTS: Final = {
    "strided": "depends-on-strides",
    "reversed": "depends-on-strides",
    "transposed": "depends-on-strides",
    "unaligned": "depends-on-alignment",
}


def overwritten(setting: Setting, reply: Reply) -> Iterator[Finding]:
    """Arguments whose bits the plain call has changed."""
    if reply.overwritten:
        yield overwriting(setting.form.name, reply)


def repeated(setting: Setting, plain: Reply) -> Iterator[Finding]:
    """Three more calls with the same arrays."""
    again = setting.ask(*(setting.request(setting.trial) for _ in range(3)))
    yield from _compared(setting, "nondeterministic", "called again with the same arrays", plain, again)


def arranged(setting: Setting, plain: Reply) -> Iterator[Finding]:
    """The same numbers, otherwise laid out in memory."""
    requests = [setting.request(setting.trial, arrangement=name) for name in _ARRANGEMENTS]
    replies = setting.ask(*requests)
    for name, reply in zip(_ARRANGEMENTS, replies, strict=True):
        if reply.failure is not None and reply.failure.kind == "absent":
            continue
        yield from _compared(setting, _ARRANGEMENTS[name], f"with {name} arrays", plain, [reply])


def _compared(setting: Setting, kind: str, how: str, plain: Reply, replies: Sequence[Reply]) -> Iterator[Finding]:
    """A finding where a reply is not the plain one: a failure past twice the bound."""
    worst: dict[str, float] = {}
    for reply in replies:
        if reply.value is None and reply.failure is not None:
            text = f"{how} the target fails: {reply.failure.text}"
            yield setting.finding(kind, FAILURE, text, failure=reply.failure.kind)
            return
        if reply.overwritten and not plain.overwritten:
            yield overwriting(setting.form.name, reply)
        if reply.value is not None and plain.value is not None and reply.value.shape != plain.value.shape:
            text = f"{how} the result has the shape {reply.value.shape}, not {plain.value.shape}"
            yield setting.finding(kind, FAILURE, text)
            return
        for name, apart in setting.distances(setting.trial, plain, reply).items():
            worst[name] = max(worst.get(name, 0.0), float(np.max(apart, initial=0.0)))
    if differing := {name: share for name, share in worst.items() if share > 0}:
        name = max(differing, key=lambda one: differing[one])
        share = 2 * differing[name]
        failing = share > 2
        text = f"{how} the {in_words(name)} is another, by up to {share:.3g} bounds"
        yield setting.finding(kind, FAILURE if failing else NOTE, text, quantity=name, bounds_apart=share)
