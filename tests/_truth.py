"""A function with its exact results: value and derivatives at a point, along directions, and their bounds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

flint = pytest.importorskip("flint")

from _jets import PRECISION, UNITS_OF_REACH, Jets, constants, part  # noqa: E402

__all__ = ["LARGER", "USUAL", "Exact", "Function", "Truth", "U", "V", "W", "scaled", "within"]

Exact: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Exact numbers, rounded to float64, and their reaches."""

USUAL: Mapping[str, int] = {"n": 2, "p": 6, "h": 3, "d": 4, "o": 5}
"""The size that a letter of a shape stands for; p is 2 h, the size of a packed axis."""

LARGER: Mapping[str, int] = {"n": 5, "p": 16, "h": 8, "d": 7, "o": 9}


@dataclass(frozen=True)
class Function:
    """A function of a framework's arrays.

    Attributes:
        fn: the function.
        exact: the same of arrays of jets.
        shapes: of its arguments, each a word of the letters of :data:`USUAL`.
        fixed: the letters that have one size only.
    """

    name: str
    fn: Callable[..., Any]
    exact: Callable[..., Jets]
    shapes: tuple[str, ...]
    fixed: str = ""

    def numbers(self, seed: int = 0, sizes: Mapping[str, int] = USUAL) -> tuple[NDArray[np.float64], ...]:
        """Arguments: normal numbers, the same for the same seed, no two numbers alike."""
        sizes = {letter: USUAL[letter] if letter in self.fixed else size for letter, size in sizes.items()}
        rng = np.random.default_rng([seed, len(self.name), *map(ord, self.name)])
        return tuple(np.array(rng.standard_normal([sizes[letter] for letter in shape])) for shape in self.shapes)

    @functools.cached_property
    def weights(self) -> NDArray[np.float64]:
        """The numbers of a cotangent for the usual sizes."""
        return np.random.default_rng(len(self.name)).standard_normal(self.truth().value()[0].shape)

    def truth(self, *seeds: int) -> Truth:
        """The exact results at ``numbers(seed)``: a seed for each argument, or one for all."""
        seeds = seeds or (0,)
        return _truth(self, seeds * len(self.shapes) if len(seeds) == 1 else seeds)


@functools.cache
def _truth(function: Function, seeds: tuple[int, ...]) -> Truth:
    return Truth(function, [function.numbers(seed)[place] for place, seed in enumerate(seeds)])


U, V, W = 1, 2, 3
"""The seeds of the directions that derivatives are taken along."""


class Truth:
    """A function's exact value and derivatives at a point; the derivatives along ``numbers(U)`` and so on."""

    def __init__(self, function: Function, point: Sequence[NDArray[np.float64]]) -> None:
        self.function = function
        self.point = [constants(one) for one in point]
        self.cache: dict[Any, Any] = {}

    def _moved(self, directions: Sequence[Sequence[NDArray[np.float64]]]) -> Jets:
        moved = []
        for place, array in enumerate(self.point):
            one = array.copy()
            for k, direction in enumerate(directions):
                for index in np.ndindex(one.shape):
                    one[index] = one[index].along(k, float(direction[place][index]))
            moved.append(one)
        with flint.ctx.workprec(PRECISION):
            return self.function.exact(*moved)

    def _directions(self, seeds: Sequence[int]) -> list[tuple[NDArray[np.float64], ...]]:
        return [self.function.numbers(seed, self._sizes()) for seed in seeds]

    def _sizes(self) -> Mapping[str, int]:
        return {
            **USUAL,
            **{
                letter: size
                for shape, array in zip(self.function.shapes, self.point, strict=True)
                for letter, size in zip(shape, array.shape, strict=True)
            },
        }

    def value(self) -> Exact:
        """The function."""
        return self.along()

    def along(self, *seeds: int) -> Exact:
        """Its derivative along the directions."""
        if seeds not in self.cache:
            self.cache[seeds] = part(self._moved(self._directions(seeds)), 2 ** len(seeds) - 1)
        found: Exact = self.cache[seeds]
        return found

    def jacobian(self, *seeds: int) -> list[Exact]:
        """The partial derivatives of the derivative along the directions, in every element of every argument."""
        if ("jacobian", seeds) not in self.cache:
            columns: list[list[Exact]] = []
            for place, array in enumerate(self.point):
                rows = []
                for index in np.ndindex(array.shape):
                    unit = [np.zeros(one.shape) for one in self.point]
                    unit[place][index] = 1.0
                    rows.append(part(self._moved([unit, *self._directions(seeds)]), 2 ** (len(seeds) + 1) - 1))
                columns.append(rows)
            shape = self.value()[0].shape
            self.cache["jacobian", seeds] = [
                tuple(
                    np.stack([row[kind] for row in rows], -1).reshape(*shape, *array.shape)
                    for kind in range(2)
                )
                for rows, array in zip(columns, self.point, strict=True)
            ]  # fmt: skip
        found: list[Exact] = self.cache["jacobian", seeds]
        return found

    def gradient(self, *seeds: int) -> list[Exact]:
        """The gradient of the cotangent times the derivative along the directions."""
        c = self.function.weights
        axes = (tuple(range(c.ndim)), tuple(range(c.ndim)))
        return [
            (np.tensordot(c, exact, axes), np.tensordot(np.abs(c), reach, axes))
            for exact, reach in self.jacobian(*seeds)
        ]


def scaled(exact: Exact, factor: float) -> Exact:
    """A multiple of what is exact."""
    return exact[0] * factor, exact[1] * abs(factor)


def within(results: Sequence[NDArray[Any]], truths: Sequence[Exact], dtype: str = "float64") -> None:
    """Results of a dtype are within ``UNITS_OF_REACH`` unit roundoffs of their reaches of what is exact."""
    unit = float(np.finfo(dtype).eps) / 2
    for result, (exact, reach) in zip(results, truths, strict=True):
        assert result.dtype == dtype and result.shape == exact.shape, (result.dtype, result.shape, exact.shape)
        error = np.abs(result - exact)
        # A sum that is empty but for zeros is exact.
        assert np.all(error <= UNITS_OF_REACH * unit * reach), (result, exact, np.max(error / (reach + 1e-300)))
