"""Probes of batches: the same elements, or rows of a projection, in calls of other shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.grading.cases import Trial
from gated.conformance.grading.exchange import Reply
from gated.conformance.grading.measuring import in_format
from gated.conformance.grading.probes.setting import Setting, apart, fitting, in_words, whole
from gated.conformance.grading.report import FAILURE, NOTE, Finding
from gated.conformance.quantities import pack

__all__ = ["batches"]

Array = NDArray[Any]

_SHAPES: Final = ((1, 1), (1, 7), (7,), (3, 16), (2, 3, 16), (31, 33), (2, 1031))
"""Shapes, beside the plain one of two axes, in which the same elements are tried."""

Take = Callable[[Array], Array]
"""What takes the elements of a piece out of a result of the plain call."""


def batches(setting: Setting, plain: Reply, rng: np.random.Generator) -> Iterator[Finding]:
    """The same elements (or rows, of a projection) in calls of other shapes."""
    if setting.facts.kind == "model" and setting.facts.sizes:
        return
    trial = setting.trial
    pieces = list(_row_pieces(trial)) if setting.claim.form == "projected" else list(_element_pieces(setting, rng))
    worst: dict[str, tuple[float, str]] = {}
    for piece, take in pieces:
        (reply,) = setting.ask(setting.request(piece))
        shape = f"in a call of shape {tuple(piece.cotangent.shape)}"
        if reply.value is None or reply.value.shape != piece.cotangent.shape:
            if setting.facts.kind == "model" and piece.cotangent.ndim != 2 and reply.failure is not None:
                # A model declares the rank of its inputs.
                continue
            reason = reply.failure.text if reply.failure else "the result has another shape"
            # Arrays of other than two axes are of the contract, and not of every kernel.
            severity = FAILURE if piece.cotangent.ndim == 2 else setting.profile.severity
            yield setting.finding("depends-on-batch", severity, f"{shape} the target fails: {reason}")
            if severity == FAILURE:
                return
            continue
        for name, distance in _piece_distances(setting, reply, plain, take).items():
            worst[name] = max(worst.get(name, (0.0, "")), (distance, shape))
    if differing := {name: one for name, one in worst.items() if one[0] > 0}:
        name = max(differing, key=lambda one: differing[one][0])
        share, shape = 2 * differing[name][0], differing[name][1]
        text = f"{shape} the {in_words(name)} of the same elements is another, by up to {share:.3g} bounds"
        severity = FAILURE if share > 2 else NOTE
        yield setting.finding("depends-on-batch", severity, text, quantity=name, bounds_apart=share)


def _row_pieces(trial: Trial) -> Iterator[tuple[Trial, Take]]:
    def first(x: Array) -> Array:
        return x[:1]

    def some(x: Array) -> Array:
        return x[2:5]

    def stacked(x: Array) -> Array:
        return x.reshape(2, -1, x.shape[-1])

    for take in (first, some, stacked):
        handed = {**trial.arguments, "x": take(trial.arguments["x"])}
        yield Trial(trial.claim, trial.form, handed, {}, take(trial.cotangent), trial.parts), take


def _element_pieces(setting: Setting, rng: np.random.Generator) -> Iterator[tuple[Trial, Take]]:
    trial, claim = setting.trial, setting.claim
    rows, columns = trial.cotangent.shape
    for shape in _SHAPES:
        if not -len(shape) <= claim.axis < len(shape):
            continue
        # Whole columns: a vector beta belongs to them.
        where = rng.integers(0, rows, shape) * columns + rng.integers(0, columns, shape[-1])
        take = partial(_taken, where)
        pieces = {name: take(one) for name, one in trial.elements.items()}
        gate = pieces.get("gate", pieces.get("x"))
        assert gate is not None
        handed = {"x": gate}
        if claim.form == "packed":
            handed = {"x": pack(gate, pieces["value"], claim.layout, claim.axis)}
        elif claim.form == "pair":
            handed = {"gate": gate, "value": pieces["value"]}
        if isinstance(claim.beta, str):
            beta = pieces["beta"]
            vector = beta.reshape(-1, shape[-1])[0]
            handed["beta"] = {"scalar": trial.arguments["beta"], "vector": vector, "array": beta}[claim.beta]
        yield Trial(claim, trial.form, handed, pieces, take(trial.cotangent), trial.parts), take


def _taken(where: NDArray[np.int64], x: Array) -> Array:
    return x.ravel()[where]


def _piece_distances(setting: Setting, reply: Reply, plain: Reply, take: Take) -> dict[str, float]:
    """How far the parts of a piece that line up with elements of the plain call are from them, in twice the bound."""
    trial, distances = setting.trial, {}
    projected = setting.claim.form == "projected"
    for part in trial.parts:
        if projected and part.argument not in ("", "x"):
            continue
        if not projected and part.quantity.high.shape != trial.cotangent.shape:
            continue
        all_of_it, found = fitting(trial, part, plain), whole(trial, part, reply)
        found = None if found is None else in_format(found, trial.form)
        if all_of_it is None or found is None:
            continue
        taken, got = take(part.quantity.unpack(all_of_it)), part.quantity.unpack(found)
        if got.shape != taken.shape:
            distances[part.name] = np.inf
            continue
        distances[part.name] = float(np.max(apart(got, taken, take(setting.room(part))), initial=0.0))
    return distances
