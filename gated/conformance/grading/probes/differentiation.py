"""Probes of differentiation: a second backward pass, f(x, x), double backward and forward mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.grading.exchange import Reply, Request
from gated.conformance.grading.probes.setting import Setting, in_words
from gated.conformance.grading.reference import reference_gradient
from gated.conformance.grading.report import ABSENT, FAILURE, NOTE, Finding

__all__ = ["MODES", "backward_twice", "other_mode", "same_array"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_GROSS: Final = 1 / 64
"""Second derivatives and tangents have no bound in the contract: past this share of the largest, the rule is wrong."""

MODES: Final = {"double": "double-backward", "forward": "forward-mode"}
"""The tasks of a request, and what a user calls them."""


def backward_twice(setting: Setting, plain: Reply) -> Iterator[Finding]:
    """Two backward passes of one forward pass."""
    (reply,) = setting.ask(setting.request(setting.trial, backwards=2))
    kind = "second-backward-differs"
    if reply.failure is not None:
        if reply.failure.kind != "absent":
            yield setting.finding(kind, FAILURE, f"a second backward pass fails: {reply.failure.text}")
        return
    for backward in (0, 1):
        apart = setting.distances(setting.trial, plain, reply, backward)
        share = {name: 2 * float(np.max(one, initial=0.0)) for name, one in apart.items() if name != "value"}
        if share and max(share.values()) > 0:
            name = max(share, key=lambda one: share[one])
            text = (
                f"backward pass {backward + 1} of two gives another {in_words(name)}, by up to {share[name]:.3g} bounds"
            )
            severity = FAILURE if share[name] > 2 else NOTE
            yield setting.finding(kind, severity, text, quantity=name, bounds_apart=share[name])
            return


def same_array(setting: Setting, rng: np.random.Generator) -> Iterator[Finding]:
    """f(x, x): the gradient of x is the sum of both."""
    claim, form = setting.claim, setting.form
    if claim.form != "pair":
        return
    x = (2 * rng.standard_normal((5, 67))).astype(form.dtype)
    trial = setting.trial
    handed = (x, x, *list(trial.arguments.values())[2:])
    (reply,) = setting.ask(Request("gradient", handed, trial.cotangent, arrangement="same"))
    if reply.failure is not None or reply.value is None:
        if reply.failure is not None and reply.failure.kind != "absent":
            text = f"with one array for gate and value the target fails: {reply.failure.text}"
            yield setting.finding("same-array-gradient", FAILURE, text)
        return
    wide = [one.astype(np.float64) for one in handed]
    value, cotangents = reference_gradient(claim, wide, trial.cotangent.astype(np.float64))
    terms = np.abs(cotangents[0]) + np.abs(cotangents[1])
    wanted = cotangents[0] + cotangents[1]
    found = reply.cotangents[0][0] if reply.cotangents else None
    for name, got, exact, largest in (("value", reply.value, value, np.abs(value)), ("gradient", found, wanted, terms)):
        if got is None or got.shape != exact.shape:
            continue
        off = np.abs(got.astype(np.float64) - exact) / np.maximum(largest, 1.0)
        # Each term is within its own bound of some ulp; another rule is off by a share of the terms.
        if np.any(off > max(_GROSS, 64 * form.unit_roundoff)):
            i = np.unravel_index(int(np.argmax(off)), off.shape)
            text = (
                f"f(x, x) has another {name} than the sum of the two: at x = {float(x[i]):.9g} it is "
                f"{float(got[i]):.9g} where {exact[i]:.9g} is exact"
            )
            yield setting.finding("same-array-gradient", FAILURE, text, quantity=name)
            return


def other_mode(setting: Setting, task: str, rng: np.random.Generator) -> Iterator[Finding]:
    """Double backward or forward mode: whether it is there, and whether its rule is the right one."""
    trial, mode = setting.trial, MODES[task]
    wrong = FAILURE if mode in setting.required else setting.profile.severity
    directions = tuple(rng.standard_normal(one.shape).astype(one.dtype) for one in trial.arguments.values())
    (reply,) = setting.ask(
        Request(task, tuple(trial.arguments.values()), trial.cotangent if task == "double" else None, directions)
    )
    if reply.failure is not None:
        absent = reply.failure.kind == "absent"
        severity = (FAILURE if mode in setting.required else ABSENT) if absent else wrong
        kind = f"{mode}-{'absent' if absent else 'wrong'}"
        yield setting.finding(kind, severity, f"{mode.replace('-', ' ')}: {reply.failure.text}")
        return
    wanted = _double(setting, directions) if task == "double" else [_tangent(setting, directions)]
    names = [*trial.arguments, "cotangent"] if task == "double" else ["tangent"]
    for name, got, exact in zip(names, reply.cotangents[0] if reply.cotangents else (), wanted, strict=False):
        found = np.zeros_like(exact) if got is None else got.astype(np.float64)
        largest = float(np.max(np.abs(exact), initial=0.0))
        if found.shape != exact.shape:
            text = f"{mode.replace('-', ' ')}: of {name} it has the shape {found.shape}, not {exact.shape}"
            yield setting.finding(f"{mode}-wrong", wrong, text, quantity=name)
            return
        off = np.abs(found - exact)
        room = max(_GROSS, 256 * setting.form.unit_roundoff) * max(largest, 2.0**-10)
        if not np.all(off <= room):
            i = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)
            text = (
                f"{mode.replace('-', ' ')}: of {name} an element is {float(found[i]):.6g} where {exact[i]:.6g} is exact"
            )
            yield setting.finding(f"{mode}-wrong", wrong, text, quantity=name)
            return


def _wide(setting: Setting) -> list[Float64]:
    return [one.astype(np.float64) for one in setting.trial.arguments.values()]


def _tangent(setting: Setting, directions: Sequence[Array]) -> Float64:
    """J d, by central differences of the reference in float64: good to some 1e-9."""

    def value(arguments: Sequence[Float64]) -> tuple[Float64, ...]:
        return (reference_gradient(setting.claim, arguments, None)[0],)

    return _difference(value, _wide(setting), directions)[0]


def _double(setting: Setting, directions: Sequence[Array]) -> list[Float64]:
    """The gradient of <d, J^T c> in the arguments, which is d/dh J(a + h d)^T c, and in c, which is J d."""
    cotangent = setting.trial.cotangent.astype(np.float64)

    def gradient(arguments: Sequence[Float64]) -> tuple[Float64, ...]:
        return reference_gradient(setting.claim, arguments, cotangent)[1]

    return [*_difference(gradient, _wide(setting), directions), _tangent(setting, directions)]


def _difference(
    function: Callable[[Sequence[Float64]], tuple[Float64, ...]], at: Sequence[Float64], directions: Sequence[Array]
) -> tuple[Float64, ...]:
    step = 2.0**-18
    wide = [direction.astype(np.float64) for direction in directions]
    above = function([one + step * direction for one, direction in zip(at, wide, strict=True)])
    below = function([one - step * direction for one, direction in zip(at, wide, strict=True)])
    return tuple((high - low) / (2 * step) for high, low in zip(above, below, strict=True))
