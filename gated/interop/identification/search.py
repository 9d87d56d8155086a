"""The search: every candidate on a few outputs, and those that are left on all of them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gated.interop.conversion import Reference
from gated.interop.errors import InteropError
from gated.interop.identification.candidates import Candidate, Parts
from gated.interop.identification.fitting import fitted
from gated.interop.identification.functions import FUNCTIONS, Function
from gated.interop.identification.naming import reference, same_arrays
from gated.interop.identification.rounding import Arithmetic
from gated.interop.identification.trial import Products, Trial

__all__ = ["Found", "search"]

Float64 = NDArray[np.float64]

_SCREENED_ROWS: Final = 8
_SCREENED_COLUMNS: Final = 32
_NEAREST: Final = 4
_ENOUGH: Final = 4
_FEW: Final = 64
_ROWS: Final = 256
_KEPT_BLOCKS: Final = 4
_MOST: Final = 200_000


class Found(NamedTuple):
    """A candidate, its arrays, and its largest error over all outputs."""

    error: float
    candidate: Candidate
    reference: Reference


def search(
    parts: Parts,
    betas: tuple[float, ...],
    x: Float64,
    y: Float64,
    arithmetic: Arithmetic,
    rng: np.random.Generator,
) -> tuple[list[Found], int]:
    """Distinct candidates, best first, and how many there were.

    A candidate whose error on a part of the outputs is more than 1 has no smaller one on all of them: it keeps that.

    Raises:
        InteropError: there are too many candidates.
    """
    functions = tuple(dict.fromkeys((*FUNCTIONS, *(Function("swish", beta) for beta in betas))))
    rows = rng.permutation(len(x))[:_SCREENED_ROWS]
    columns = np.sort(rng.permutation(y.shape[1])[:_SCREENED_COLUMNS])
    whole = _Whole(arithmetic, x, y)
    trial, seen = whole.part(rows, columns), y[np.ix_(rows, columns)]
    tried: list[tuple[float, Candidate]] = []
    for one in trial.errors(parts, functions, seen):
        tried.append(one)
        if len(tried) > _MOST:
            raise InteropError(
                f"identify: state must leave at most {_MOST} ways to read it, got more; prefix names one block of it"
            )
    tried.sort(key=lambda one: one[0])
    found = _checked(tried, whole)
    if tried and found[0].error > 1:
        refined = fitted(trial, parts, seen)
        found += _checked(sorted(((trial.error(one, seen), one) for one in refined), key=lambda one: one[0]), whole)
        found.sort(key=lambda one: one.error)
    return _distinct(found), len(tried)


def _checked(tried: list[tuple[float, Candidate]], whole: _Whole) -> list[Found]:
    """All outputs for those candidates that the few leave, until there are enough matches; some of the rest as is."""
    found: list[Found] = []
    for error, candidate in tried:
        matched = sum(one.error <= 1 for one in found)
        if len(found) >= _NEAREST and (error > 1 or matched >= _ENOUGH):
            break
        taken = reference(candidate)
        if not any(_same_function(candidate, taken, one) for one in found):
            found.append(Found(whole.error(candidate) if error <= 1 else error, candidate, taken))
    return sorted(found, key=lambda one: one.error)


def _distinct(found: list[Found]) -> list[Found]:
    kept: list[Found] = []
    for one in found:
        if not any(_same_function(one.candidate, one.reference, other) for other in kept):
            kept.append(one)
    return kept


def _same_function(candidate: Candidate, taken: Reference, other: Found) -> bool:
    """Whether two candidates give the same on every input: equal arrays, or gate and value swapped in a product."""
    if candidate.function != other.candidate.function:
        return False
    if same_arrays(taken, other.reference):
        return True
    W, V, W2, b, c, b2 = taken
    swapped = Reference(V, W, W2, c, b, b2)
    return candidate.function.activation == "identity" and same_arrays(swapped, other.reference)


class _Whole:
    """All rows and output features, some rows at a time."""

    def __init__(self, arithmetic: Arithmetic, x: Float64, y: Float64) -> None:
        self._arithmetic = arithmetic
        self._x = x
        starts = range(0, len(x), _ROWS)
        self._blocks = [(Products(x[start : start + _ROWS]), y[start : start + _ROWS]) for start in starts]

    def part(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Trial:
        """Some rows and columns. Where there are few rows their products are all made, and made once."""
        if len(self._x) <= _FEW:
            return Trial(self._arithmetic, self._blocks[0][0], rows, columns)
        return Trial(self._arithmetic, Products(self._x[rows]), None, columns)

    def error(self, candidate: Candidate) -> float:
        """The largest error, in units of the bound."""
        error = 0.0
        for products, y in self._blocks:
            error = max(error, Trial(self._arithmetic, products).error(candidate, y))
            if len(self._blocks) > _KEPT_BLOCKS:
                products.forget()
        return error
