"""Probes of refusals: integers and unequal pairs, which the contract refuses, and empty arrays, which it takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gated.conformance.grading.exchange import Reply, Request
from gated.conformance.grading.probes.setting import Setting
from gated.conformance.grading.report import FAILURE, Finding

__all__ = ["refusals"]


def refusals(setting: Setting) -> Iterator[Finding]:
    """Integers and unequal pairs, which the contract refuses; and empty arrays, which it takes."""
    trial, claim = setting.trial, setting.claim
    arguments = list(trial.arguments.values())
    integers = Request(
        "value", tuple(np.round(8 * np.nan_to_num(one.astype(float))).astype(np.int32) for one in arguments)
    )
    empty = None
    if claim.form != "projected" and claim.beta != "vector":
        parts = {name: one[:0] if one.ndim else one for name, one in trial.arguments.items()}
        empty = Request("value", tuple(parts.values()))
    requests = [integers] + ([empty] if empty else [])
    if claim.form == "pair":
        gate, value, *rest = arguments
        requests.append(Request("value", (gate, value[:1], *rest)))
    replies = iter(setting.ask(*requests))
    reply = next(replies)
    if reply.value is not None:
        text = f"int32 arrays are taken in silence, the result is {reply.value.dtype}: the contract refuses them"
        yield setting.finding("integers-promoted", setting.profile.severity, text, dtype=str(reply.value.dtype))
    yield from _fatal(setting, reply, "with int32 arrays")
    if empty:
        reply = next(replies)
        yield from _fatal(setting, reply, "with an empty array")
        if reply.failure is not None and reply.failure.kind == "raised":
            text = f"an empty array is refused: {reply.failure.text}"
            yield setting.finding("raises", setting.profile.severity, text, quantity="empty")
    if claim.form == "pair":
        reply = next(replies)
        yield from _fatal(setting, reply, "with a pair of different shapes")
        if reply.value is not None:
            text = (
                f"a gate of shape {gate.shape} and a value of shape {value[:1].shape} give a result of shape "
                f"{reply.value.shape}: the contract refuses them"
            )
            yield setting.finding("pair-broadcast", setting.profile.severity, text)


def _fatal(setting: Setting, reply: Reply, how: str) -> Iterator[Finding]:
    if reply.failure is not None and reply.failure.kind in ("hang", "crash"):
        kind = "hangs" if reply.failure.kind == "hang" else "crashes"
        yield setting.finding(kind, FAILURE, f"{how}: {reply.failure.text}")
