"""The search: every candidate on a few outputs, and those that are left on all of them."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gated.interop.conversion import Reference
from gated.interop.identification.candidates import Candidate, Parts
from gated.interop.identification.fitting import BETAS, fitted
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
_AGAIN: Final = 64


class Found(NamedTuple):
    """A candidate, its arrays, and its error over all outputs."""

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
    """
    functions = tuple(dict.fromkeys((*FUNCTIONS, *(Function("swish", beta) for beta in betas))))
    whole = _Whole(arithmetic, x, y)
    screen = whole.screen(rng)
    tried = screen.ranked(parts, functions)
    found = _checked(tried, whole)
    if tried and found[0].error > 1:
        beta_candidates = screen.ranked(parts, BETAS)
        refined = fitted(screen.some, [one for _, one in beta_candidates], screen.seen)
        found += _checked(sorted(((screen.some.error(one, screen.seen), one) for one in refined), key=_error), whole)
        found.sort(key=_error)
    return _distinct(found), len(tried)


def _error(one: tuple[float, Candidate] | Found) -> float:
    return one[0]


class _Screen(NamedTuple):
    """A few outputs: those of one row for every candidate, those of some rows for the nearest.

    Attributes:
        one: the trial on one row.
        some: the trial on some rows, that one among them.
        seen: the outputs of ``some``.
        row: which of them ``one`` is.
    """

    one: Trial
    some: Trial
    seen: Float64
    row: int

    def ranked(self, parts: Parts, functions: tuple[Function, ...]) -> list[tuple[float, Candidate]]:
        """Every candidate, by its error on the outputs that it was held against."""
        tried = sorted(self.one.errors(parts, functions, self.seen[self.row : self.row + 1]), key=_error)
        again = [(self.some.error(candidate, self.seen), candidate) for _, candidate in tried[:_AGAIN]]
        return sorted([*again, *tried[_AGAIN:]], key=_error)


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
        self._x, self._y = x, y
        self._distinct = np.zeros(len(x), bool)
        self._distinct[np.unique(x, axis=0, return_index=True)[1]] = True
        starts = range(0, len(x), _ROWS)
        self._blocks = [(Products(x[start : start + _ROWS]), y[start : start + _ROWS]) for start in starts]

    def screen(self, rng: np.random.Generator) -> _Screen:
        """Some rows and columns. Where there are few rows their products are all made, and made once."""
        rows = rng.permutation(len(self._x))[:_SCREENED_ROWS]
        columns = np.sort(rng.permutation(self._y.shape[1])[:_SCREENED_COLUMNS])
        seen = self._y[np.ix_(rows, columns)]
        # The row of the largest outputs says most: that of a padding token would say nothing.
        row = int(np.argmax(np.max(np.abs(seen), axis=1, initial=0.0)))
        if len(self._x) <= _FEW:
            products, chosen = self._blocks[0][0], rows
        else:
            products, chosen = Products(self._x[rows]), np.arange(len(rows))
        one, some = (Trial(self._arithmetic, products, which, columns) for which in (chosen[row : row + 1], chosen))
        return _Screen(one, some, seen, row)

    def error(self, candidate: Candidate) -> float:
        """The largest error or their root mean square, whichever is more in units of its bound."""
        error = squares = 0.0
        for start, (products, y) in zip(range(0, len(self._x), _ROWS), self._blocks, strict=True):
            off = Trial(self._arithmetic, products).errors_of(candidate, y)
            error = max(error, float(np.max(off)))
            squares += float(np.sum(np.mean(off[self._distinct[start : start + _ROWS]] ** 2, axis=1)))
            if len(self._blocks) > _KEPT_BLOCKS:
                products.forget()
        rows = int(np.sum(self._distinct))
        return max(error, math.sqrt(squares / rows) / self._arithmetic.mean_bound(rows))
