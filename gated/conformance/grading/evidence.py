"""An observation made ready for hypotheses: samples of its results, the truth there, and matches against models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.carried import Carried
from gated.conformance.grading.formulas import Model, claimed_model
from gated.conformance.grading.hypotheses import Hypothesis
from gated.conformance.grading.matching import LEAST, Match, compare
from gated.conformance.grading.observation import Observation, Part
from gated.conformance.grading.predictions import Elementwise, Prediction, Twist
from gated.conformance.grading.projections import model_projection

__all__ = ["Witness"]

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

_ORDINARY: Final = (2.0**-10, 2.0**5)
"""Magnitudes of which most of a sample is, where there are enough: what is ordinary tells the most."""
_SHARES: Final = (3, 2, 2, 1)
"""Of eight elements of a sample: failing and ordinary, failing, ordinary, neither."""

_MANY: Final = 1000
"""The elements whose average tells."""
_LEANING: Final = 0.1
"""How far from 1 the slope of a match on average may be; its standard error is a third of that at most."""


class Witness:
    """An observation, and what hypotheses say of it.

    Args:
        accuracy: one of :data:`~gated.conformance.grading.predictions.ACCURACIES`.
        size: about how many elements of a quantity are looked at.
    """

    def __init__(self, observation: Observation, accuracy: str = "plain", size: int = 1024) -> None:
        self.observation = observation
        self.size = size
        self.elements = Elementwise(observation, accuracy)
        self.claimed = claimed_model(observation.claim)
        self.projected = observation.claim.form == "projected"
        self._samples: dict[str, Indices] = {}
        self._truths: dict[str, Prediction] = {}
        self._projections: tuple[tuple[Hypothesis, ...], bool, dict[str, Carried] | None] | None = None

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The parts that there are numbers of."""
        return {part.name: part for part in self.observation.parts if part.name in self.observation.results}

    def failing_parts(self) -> Iterator[str]:
        """The parts of which another function may be the reason: some of the sample is past any sound tolerance."""
        for name in self.parts:
            at, truth = self.sample(name), self.truth(name)
            off = np.abs(self.got(name)[at] - truth.value) > truth.error
            if np.sum(off) >= min(LEAST, at.size):
                yield name

    def got(self, name: str) -> Float64:
        """The results of a part, flat, in float64."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.observation.results[name]).astype(np.float64).ravel()

    def sample(self, name: str) -> Indices:
        """Elements of a part with finite operands and results: failing ones and others, ordinary ones and others."""
        if name not in self._samples:
            self._samples[name] = self._sampled(name)
        return self._samples[name]

    def _sampled(self, name: str) -> Indices:
        wrong, got = self.observation.wrong[name].ravel(), self.got(name)
        if self.projected or got.size != self.observation.cotangent.size:
            return np.arange(got.size)
        usable = np.isfinite(got)
        ordinary = usable.copy()
        with np.errstate(invalid="ignore"):
            for one in self.observation.elements.values():
                magnitude = np.abs(one.astype(np.float64).ravel())
                usable &= np.isfinite(magnitude)
                ordinary &= (magnitude >= _ORDINARY[0]) & (magnitude <= _ORDINARY[1])
        rng = np.random.default_rng(0)
        groups = [
            usable & (wrong == failing) & (ordinary == usual) for failing in (True, False) for usual in (True, False)
        ]
        orders = [rng.permutation(np.flatnonzero(group)) for group in groups]
        counts = [min(order.size, share * self.size // 8) for order, share in zip(orders, _SHARES, strict=True)]
        # What a group has not, ordinary elements make up for.
        counts[2] += self.size - sum(counts)
        return np.concatenate([order[:count] for order, count in zip(orders, counts, strict=True)])

    def truth(self, name: str) -> Prediction:
        """The exact results, and how far off a sound implementation in this arithmetic may be."""
        if name not in self._truths:
            exact = np.asarray(self.parts[name].quantity.high, np.float64).ravel()[self.sample(name)]
            predicted = self._predicted(name, ())
            assert predicted is not None
            with np.errstate(all="ignore"):
                error = predicted.error + np.abs(predicted.value - exact)
            self._truths[name] = Prediction(exact, np.where(np.isnan(error), np.inf, error))
        return self._truths[name]

    def match(self, name: str, *hypotheses: Hypothesis) -> Match | None:
        """The hypotheses together, held against a part; None where they say nothing of it."""
        predicted = self._predicted(name, hypotheses, backward=name != "value")
        if predicted is None:
            return None
        at = self.sample(name)
        wrong = self.observation.wrong[name].ravel()[at]
        return compare(self.got(name)[at], wrong, self.truth(name), predicted, self._operands(name, at))

    def leaning(self, hypothesis: Hypothesis) -> Match | None:
        """A match of values on the average of many elements, of a function that is nearer to the truth than a rounding.

        The slope of computed - truth against hypothesis - truth by least squares is 1 of the hypothesis and 0 of the
        truth; roundings are of either sign, and average out.
        """
        with np.errstate(all="ignore"):
            gate = np.abs(self.elements.operands(self.claimed.layout)[0])
            # Farther out a tail is lost to cancellation, which is no rounding.
            at = np.flatnonzero((gate > 2.0**-4) & (gate < 4.0) & np.isfinite(self.got("value")))
            got = self.got("value")[at]
            truth = np.asarray(self.parts["value"].quantity.high, np.float64).ravel()[at]
            claimed = self.elements.value(self.claimed, at)
            other = self.elements.value(self._model((hypothesis,))[0], at)
            usable = np.isfinite(claimed.error) & np.isfinite(other.error) & (claimed.error > 0) & np.isfinite(truth)
            off, apart, weight = (got - truth)[usable], (other.value - truth)[usable], claimed.error[usable] ** -2.0
            scale = np.sum(weight * apart**2)
            if off.size < _MANY or not scale > 0:
                return None
            slope = np.sum(weight * off * apart) / scale
            spread = np.sqrt(np.sum(weight * (off - slope * apart) ** 2) / off.size / scale)
        if not (abs(slope - 1) <= _LEANING and spread <= _LEANING / 3):
            return None
        nearer = np.abs(off - apart) < np.abs(off)
        wrong = self.observation.wrong["value"].ravel()[at][usable]
        shown = {"slope of computed - claimed against hypothesis - claimed": f"{slope:.3f} +- {spread:.3f}"}
        tie = np.abs(off - apart) == np.abs(off)
        counts = int(nearer.sum()), int(np.sum(~nearer & ~tie)), int(wrong.sum()), int(np.sum(wrong & nearer))
        return Match(off.size, *counts, 1.0, shown)

    def _operands(self, name: str, at: Indices) -> dict[str, Float64]:
        """What each result is of, where it is of one element."""
        elements = self.observation.elements
        if self.projected or self.got(name).size != self.observation.cotangent.size:
            return {}
        given = {one: array.ravel()[at].astype(np.float64) for one, array in elements.items()}
        if name != "value":
            given["cotangent"] = self.elements.cotangent[at]
        return given

    def _model(self, hypotheses: tuple[Hypothesis, ...]) -> tuple[Model, Twist | None]:
        changes: dict[str, Any] = {}
        for one in hypotheses:
            changes |= one.change(self.observation.claim)
        twists = [one.twist for one in hypotheses if one.twist is not None]
        return replace(self.claimed, **changes), twists[0] if twists else None

    def _predicted(self, name: str, hypotheses: tuple[Hypothesis, ...], backward: bool = True) -> Prediction | None:
        if self.projected:
            return self._projected(name, hypotheses, backward)
        model, twist = self._model(hypotheses)
        at = self.sample(name)
        if name == "value":
            return self.elements.value(model, at)
        high = self.parts[name].quantity.high
        if name == "d beta" and high.size != self.observation.cotangent.size:
            return self.elements.summed(model, high.shape, twist)
        return self.elements.gradient(model, name, at, twist)

    def _projected(self, name: str, hypotheses: tuple[Hypothesis, ...], backward: bool) -> Prediction | None:
        if self._projections is None or self._projections[:2] != (hypotheses, backward):
            self._projections = hypotheses, backward, self._projection(hypotheses, backward)
        results = self._projections[2]
        if results is None:
            return None
        one = results["value" if name == "value" else name.removeprefix("d ")]
        if one.value.shape != self.parts[name].quantity.high.shape:
            return None
        return Prediction(one.value.ravel(), np.where(np.isnan(one.error), np.inf, one.error).ravel())

    def _projection(self, hypotheses: tuple[Hypothesis, ...], backward: bool) -> dict[str, Carried] | None:
        model, twist = self._model(hypotheses)
        arguments = {one: array.astype(np.float64) for one, array in self.observation.arguments.items()}
        beta = np.asarray(arguments.pop("beta", np.asarray(self.observation.claim.fixed_beta)))
        cotangent = self.observation.cotangent.astype(np.float64)
        try:
            return model_projection(
                self.observation.form.name, arguments, cotangent if backward else None, model, beta, twist
            )
        except ValueError:
            # Transposed, the weights do not fit.
            return None
