"""Where a search looks: fresh points, steps from known ones, and the archive of the worst."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance import inputs
from gated.conformance.error import Format

__all__ = ["Archive", "Points", "generation"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Points = dict[str, Array]
"""The inputs by name, the first one a gate, and the cotangent last: arrays of one length."""

_PARENTS: Final = 512
_GROUP: Final = 64


class Archive:
    """The worst point of every eighth of a binade of the first input, by sign."""

    def __init__(self, form: Format) -> None:
        self._form = form
        # Three bits of the significand stay.
        self._shift = max(form.precision - 1 - 3, 0)
        self._scores = np.full(1 << (8 * form.bits.itemsize - self._shift), -np.inf)
        self._points: Points = {}

    @property
    def filled(self) -> bool:
        """Whether there is a point."""
        return bool(self._points)

    def add(self, scores: Float64, points: Points) -> None:
        """Takes in the points that are worse than those of their cells."""
        if not self._points:
            self._points = {name: np.zeros(len(self._scores), array.dtype) for name, array in points.items()}
        first = next(iter(points.values()))
        cells = (first.view(self._form.bits) >> self._form.bits.type(self._shift)).astype(np.intp)
        # In ascending order, so that of several points of a cell the worst is the one that is assigned last.
        order = np.argsort(scores, kind="stable")
        order = order[scores[order] > self._scores[cells[order]]]
        self._scores[cells[order]] = scores[order]
        for name, array in points.items():
            self._points[name][cells[order]] = array[order]

    def worst(self, count: int) -> Points:
        """Up to ``count`` points, the worst first."""
        return self._at(self._order()[:count])

    def ranking(self) -> Iterator[tuple[float, Points]]:
        """All points in groups, the worst first, each with its highest score."""
        order = self._order()
        for start in range(0, len(order), _GROUP):
            group = order[start : start + _GROUP]
            yield float(self._scores[group[0]]), self._at(group)

    def _order(self) -> NDArray[np.intp]:
        order = np.argsort(-self._scores, kind="stable")
        return order[self._scores[order] >= 0]

    def _at(self, cells: NDArray[np.intp]) -> Points:
        return {name: array[cells] for name, array in self._points.items()}


def generation(
    form: Format, names: Sequence[str], archives: Sequence[Archive], rng: np.random.Generator, count: int
) -> Points:
    """``count`` points: fresh ones, and three in four of them near the worst that are known."""
    fresh = _fresh(form, names, rng, count)
    parents = [archive.worst(_PARENTS) for archive in archives if archive.filled]
    if not parents:
        return fresh
    pool = {name: np.concatenate([one[name] for one in parents]) for name in fresh}
    # Each archive has as many children, and its worst points more of them than the others.
    which = rng.integers(0, len(parents), count)
    sizes = np.array([len(one["cotangent"]) for one in parents])
    starts = np.cumsum(sizes) - sizes
    chosen = starts[which] + np.floor(sizes[which] * rng.random(count) ** 2).astype(np.intp)
    is_fresh, together, alone = rng.random(count) < 0.25, rng.random(count) < 0.3, rng.integers(0, len(pool), count)
    points = {}
    for i, name in enumerate(pool):
        parent = pool[name][chosen]
        child = _stepped(parent, form, rng)
        moves = (together | (alone == i)) & _allowed(name, child, form)
        points[name] = np.where(is_fresh, fresh[name], np.where(moves, child, parent))
    return points


def _stepped(x: Array, form: Format, rng: np.random.Generator) -> Array:
    """Each number a random step of up to 2^k bit patterns away, k drawn too."""
    width = 8 * form.bits.itemsize
    reach = np.exp2(rng.uniform(0, width - 13 if width == 64 else width - 5, x.shape))
    step = np.maximum(rng.random(x.shape) * reach, 1).astype(np.uint64).astype(form.bits)
    bits = x.view(form.bits)
    moved: Array = np.where(rng.random(x.shape) < 0.5, bits + step, bits - step).astype(form.bits)
    return moved.view(form.dtype)


def _allowed(name: str, x: Array, form: Format) -> NDArray[np.bool_]:
    """Finite numbers; cotangents of the magnitudes at which gradients are graded."""
    with np.errstate(invalid="ignore"):
        size = np.abs(x.astype(np.float64))
    if name != "cotangent":
        return np.isfinite(size)
    reach = 10 if form.name == "float16" else 16
    return (size >= 2.0**-reach) & (size <= 2.0**reach)


def _fresh(form: Format, names: Sequence[str], rng: np.random.Generator, count: int) -> Points:
    """Points of every binade, sign and threshold, of random bit patterns, and ordinary ones."""
    everywhere, across = inputs.line(form, rng, count), _across_exp(form, rng, count)
    ordinary, switches = _ordinary(form, rng, count), _switches(form, rng, count)
    points: Points = {}
    for name in names:
        if name == "beta":
            points[name] = inputs.betas(form, rng, count)
            continue
        # Most values are ordinary: at the end of the range a product's own rounding hides that of its activation.
        sources = (everywhere, across, ordinary, switches) if name != "value" else (everywhere, *(ordinary,) * 3)
        drawn = np.stack([rng.choice(one[_allowed(name, one, form)], count) for one in sources])
        points[name] = drawn[rng.integers(0, len(sources), count), np.arange(count)]
    return points | {"cotangent": inputs.cotangents(form, rng, count)}


def _across_exp(form: Format, rng: np.random.Generator, count: int) -> Array:
    """Numbers from all over the range in which an exponential is neither 0 nor infinite."""
    reach = math.log(2) * (form.highest + form.precision)
    return rng.uniform(-reach, reach, count).astype(form.dtype)


def _ordinary(form: Format, rng: np.random.Generator, count: int) -> Array:
    """Numbers between 2^-6 and 2^6, as many of each binade."""
    return (rng.choice([-1.0, 1.0], count) * 2 ** rng.uniform(-6, 6, count)).astype(form.dtype)


def _switches(form: Format, rng: np.random.Generator, count: int) -> Array:
    """Where implementations change their ways: ranges of exp (multiples of ln 2 / 2), the pieces of erf and erfc."""
    most = math.log(4.4 * (form.highest + form.precision))
    halves = np.floor(np.exp(rng.uniform(0, most, count))) * math.log(2) / 2
    pieces = np.array([0.46875, 0.5, 0.84375, 1.0, 1.25, 1 / 0.35, 4.0, 5.0, 6.0, 8.0, 26.5, 28.0])
    near = np.where(rng.random(count) < 0.5, halves, rng.choice([*pieces, *math.sqrt(2) * pieces], count))
    near *= 1 + rng.integers(-64, 65, count) * form.unit_roundoff
    return (rng.choice([-1.0, 1.0], count) * near).astype(form.dtype)
