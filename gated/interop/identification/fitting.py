"""The beta of swish that an output was made with, where it is none of those that were tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from gated.interop.identification.candidates import Assignment, Candidate
from gated.interop.identification.functions import Function
from gated.interop.identification.trial import Trial

__all__ = ["BETAS", "fitted"]

Float64 = NDArray[np.float64]

_GRID: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_KEPT: Final = 4
_NEWTON_STEPS: Final = 4
_UNSEEN: Final = 0.05
"""Of its bound: a beta that moves no output by more is written with fewer digits."""


BETAS: Final = tuple(Function("swish", sign * beta) for beta in _GRID for sign in (1, -1))
"""From where the fit sets out."""


def fitted(trial: Trial, ranked: Sequence[Candidate], y: Float64) -> list[Candidate]:
    """The likeliest of candidates with a beta of ``BETAS``, each with the beta that makes its sum of squares least."""
    found: list[tuple[Candidate, float]] = []
    for start in ranked[:_KEPT]:
        candidate, within = _refined(trial, start, y)
        if not any(_same(candidate, other, 2 * within) for other, _ in found):
            found.append((candidate, within))
    return [candidate for candidate, _ in found]


def _same(one: Candidate, other: Candidate, within: float) -> bool:
    """Whether two starts have led to the same beta of the same arrays."""
    a, b = one.assignment, other.assignment
    same = a.pair is b.pair and a.down is b.down and a.biases.arrays == b.biases.arrays and a.b2 is b.b2
    return same and abs(one.function.beta - other.function.beta) <= within


def _refined(trial: Trial, candidate: Candidate, y: Float64) -> tuple[Candidate, float]:
    """The candidate with its best beta, and how far off that may be without being seen."""
    own, beta = candidate.assignment, candidate.function.beta

    def squares(beta: float) -> float:
        return float(np.sum(_residual(trial, own, beta, y) ** 2))

    ends = sorted((beta / 2, 2 * beta))
    least = float(minimize_scalar(squares, bounds=ends, method="bounded", options={"xatol": 1e-6 * abs(beta)}).x)
    for _ in range(_NEWTON_STEPS):
        # Gauss-Newton: the residual is nearly linear in beta this close, and its square flat beyond half the digits.
        curve = _slope(trial, own, least)
        step = float(np.sum(curve * _residual(trial, own, least, y)) / np.sum(curve**2))
        least += step if math.isfinite(step) and abs(step) < abs(beta) else 0.0
    bound = trial.arithmetic.bound(trial.output(Candidate(own, Function("swish", least))))
    within = _UNSEEN * float(np.nanmin(bound / np.abs(_slope(trial, own, least)), initial=abs(beta)))
    return Candidate(own, Function("swish", _shortest(least, within))), within


def _residual(trial: Trial, own: Assignment, beta: float, y: Float64) -> Float64:
    return y - trial.output(Candidate(own, Function("swish", beta))).value


def _slope(trial: Trial, own: Assignment, beta: float) -> Float64:
    """The output's derivative in beta."""
    gate = trial.features(own.pair.gate, own.biases.b).value
    value = trial.features(own.pair.value, own.biases.c).value
    return trial.down_linear(Function("swish", beta).in_beta(gate) * value, own.down)


def _shortest(number: float, within: float) -> float:
    """The number of fewest digits this close."""
    for digits in range(1, 18):
        short = float(f"{number:.{digits}g}")
        if abs(short - number) <= within:
            return short
    return number
