"""An input that tells candidates apart which the recorded one does not."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import FORMATS
from gated.interop.identification.candidates import Candidate
from gated.interop.identification.rounding import Arithmetic
from gated.interop.identification.trial import Products, Trial

__all__ = ["Separation", "separate"]

Float64 = NDArray[np.float64]

_SCALES: Final = tuple(4.0**power for power in range(-3, 4))
_GATES: Final = (-16.0, -5.0, -2.0, -1.0, 1.0, 2.0, 5.0, 16.0)
_EACH: Final = 3


@dataclass(frozen=True)
class Separation:
    """Rows of input, and which matches each pair of them tells apart.

    Attributes:
        x: (rows, d_in), of the dtype of the recorded input. Record the output of these rows too.
        distances: by the ranks of two matches, how far apart their outputs are under the best of the rows, in units of
            the sum of their bounds: more than 1, and no output is within the bounds of both.
    """

    x: NDArray[Any]
    distances: dict[tuple[int, int], float]

    @property
    def complete(self) -> bool:
        """Whether every two matches are told apart."""
        return all(distance > 1 for distance in self.distances.values())


def separate(
    arithmetic: Arithmetic, candidates: list[Candidate], x: NDArray[Any], rng: np.random.Generator
) -> Separation:
    """The best rows out of a pool: recorded and random ones on many scales, rows that take one gate somewhere, and 0.

    A row counts only where no candidate's output leaves the range of the dtype.
    """
    pool = _pool(candidates[0], np.asarray(x, np.float64), rng)
    with np.errstate(over="ignore"):
        pool = np.asarray(pool.astype(x.dtype), np.float64)
    pool = pool[np.all(np.isfinite(pool), axis=1)]
    trial = Trial(arithmetic, Products(pool))
    outputs = [trial.output(candidate) for candidate in candidates]
    bounds = [arithmetic.bound(output) for output in outputs]
    largest = FORMATS[arithmetic.dtype].largest / 4
    usable = np.all([np.all(np.abs(output.value) < largest, axis=1) for output in outputs], axis=0)
    chosen: list[int] = []
    distances = {}
    for first, second in combinations(range(len(candidates)), 2):
        apart = np.abs(outputs[first].value - outputs[second].value) / (bounds[first] + bounds[second])
        by_row = np.where(usable, np.max(apart, axis=1, initial=0.0), 0.0)
        row = int(np.argmax(np.nan_to_num(by_row)))
        chosen.append(row)
        distances[first, second] = float(by_row[row])
    return Separation(pool[sorted(set(chosen))].astype(x.dtype), distances)


def _pool(candidate: Candidate, x: Float64, rng: np.random.Generator) -> Float64:
    size = float(np.sqrt(np.mean(x**2))) if x.size else 0.0
    random = rng.standard_normal((_EACH, x.shape[1])) * (size or 1.0)
    some = x[rng.permutation(len(x))[:_EACH]]
    scaled = [scale * rows for scale in _SCALES for rows in (some, random)]
    weights = candidate.assignment.pair.gate.matrix.plain
    units = rng.permutation(weights.shape[1])[:_EACH]
    towards = weights[:, units].astype(np.float64).T
    lengths = np.sum(towards**2, axis=1, keepdims=True)
    towards = towards[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
    return np.concatenate([*scaled, *(gate * towards for gate in _GATES), np.zeros((1, x.shape[1]))])
