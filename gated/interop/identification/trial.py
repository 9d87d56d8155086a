"""Candidates held against recorded rows: what each would have given, and how far off that the record is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.interop.identification._matmul import matmul
from gated.interop.identification.candidates import Assignment, Biases, Candidate, Half, Pair, Parts
from gated.interop.identification.functions import Function
from gated.interop.identification.rounding import Arithmetic, Estimate
from gated.interop.identification.stored import Matrix, Stored

__all__ = ["Products", "Trial"]

Float64 = NDArray[np.float64]

_CHUNK: Final = 1 << 20
"""The numbers of a weight that are in float64 at once: few enough to stay in the cache."""


class Products:
    """``x @ M`` and ``x**2 @ M**2`` of each matrix M that is asked for.

    Args:
        x: (rows, d_in), in float64.
    """

    def __init__(self, x: Float64) -> None:
        self.x = x
        self._known: dict[int, tuple[Matrix, Float64, Float64]] = {}

    def of(self, matrix: Matrix) -> tuple[Float64, Float64]:
        """The two products."""
        known = self._known.get(id(matrix))
        if known is None:
            # The matrix is kept with its products: no other takes its id.
            known = self._known[id(matrix)] = matrix, *_products(self.x, self.x**2, matrix.plain)
        return known[1:]

    def forget(self) -> None:
        """Drops them."""
        self._known.clear()


class Trial:
    """Some rows of an input, and some of the output's features.

    Args:
        arithmetic: that of the recorded output.
        products: of the input.
        rows: of it; None: all.
        columns: of the output; None: all.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        products: Products,
        rows: NDArray[np.intp] | None = None,
        columns: NDArray[np.intp] | None = None,
    ) -> None:
        self.arithmetic = arithmetic
        self._products = products
        self._rows: NDArray[np.intp] | slice = slice(None) if rows is None else rows
        self._columns = columns
        self._downs: dict[int, tuple[Matrix, Float64, Float64]] = {}

    def errors(self, parts: Parts, functions: tuple[Function, ...], y: Float64) -> Iterator[tuple[float, Candidate]]:
        """Every candidate with its largest error, in units of the bound."""
        for pair in parts.pairs:
            downs = list(parts.down_of(pair))
            for biases in parts.biases_of(pair) if downs else ():
                gate, value = self.features(pair.gate, biases.b), self.features(pair.value, biases.c)
                hidden = [self.arithmetic.activated(function, gate, value) for function in functions]
                together = Estimate(*(np.concatenate(each) for each in zip(*hidden, strict=True)))
                for down in downs:
                    total, carried = self._down(together, down)
                    for b2 in parts.b2_of(pair, biases, down):
                        output = self._output(pair, down, total, carried, b2)
                        apart = zip(*(np.split(one, len(functions)) for one in output), strict=True)
                        own = Assignment(pair, biases, down, b2)
                        for function, one in zip(functions, apart, strict=True):
                            yield self._furthest(Estimate(*one), y), Candidate(own, function)

    def output(self, candidate: Candidate) -> Estimate:
        """What a candidate gives, rows by output features."""
        own = candidate.assignment
        hidden = self.hidden(own.pair, own.biases, candidate.function)
        return self._output(own.pair, own.down, *self._down(hidden, own.down), own.b2)

    def error(self, candidate: Candidate, y: Float64) -> float:
        """The largest error of a candidate, in units of the bound."""
        return self._furthest(self.output(candidate), y)

    def errors_of(self, candidate: Candidate, y: Float64) -> Float64:
        """The errors of all outputs, in units of their bounds."""
        return self._off(self.output(candidate), y)

    def hidden(self, pair: Pair, biases: Biases, function: Function) -> Estimate:
        """The hidden features of a candidate."""
        gate, value = self.features(pair.gate, biases.b), self.features(pair.value, biases.c)
        return self.arithmetic.activated(function, gate, value)

    def features(self, half: Half, bias: Stored | None) -> Estimate:
        """The gate or the value."""
        total, squares = (one[self._rows, half.chosen] for one in self._products.of(half.whole))
        return self.arithmetic.projected(total, squares, half.whole.shape[0], _vector(bias))

    def down_linear(self, hidden: Float64, down: Matrix | None) -> Float64:
        """``hidden @ W2`` of any hidden features, less bias."""
        return self._down(Estimate(hidden, np.zeros_like(hidden)), down)[0]

    def _down(self, hidden: Estimate, down: Matrix | None) -> tuple[Float64, Float64]:
        """``hidden @ W2``, and ``W2**2`` by what the variance of the output takes of it."""
        if down is None:
            columns = slice(None) if self._columns is None else self._columns
            return hidden.value[:, columns], hidden.variance[:, columns]
        if self._columns is None:
            return _products(hidden.value, self.arithmetic.summed(hidden), down.plain)
        known = self._downs.get(id(down))
        if known is None:
            weights = down.plain[:, self._columns].astype(np.float64)
            known = self._downs[id(down)] = down, weights, weights**2
        _, weights, squares = known
        return matmul(hidden.value, weights), matmul(self.arithmetic.summed(hidden), squares)

    def _output(self, pair: Pair, down: Matrix | None, total: Float64, carried: Float64, b2: Stored | None) -> Estimate:
        if down is None:
            return Estimate(total, carried)
        bias = _vector(b2)
        if bias is not None and self._columns is not None:
            bias = bias[self._columns]
        return self.arithmetic.projected_down(total, carried, pair.hidden, bias)

    def _furthest(self, output: Estimate, y: Float64) -> float:
        return float(np.max(self._off(output, y), initial=0.0))

    def _off(self, output: Estimate, y: Float64) -> Float64:
        """In units of the bound; infinite where infinities, nans or an overflow in the weights leave no bound."""
        bound = self.arithmetic.bound(output)
        off: Float64 = np.where(np.isfinite(bound), np.abs(y - output.value) / bound, np.inf)
        return off


def _vector(bias: Stored | None) -> Float64 | None:
    return None if bias is None else bias.plain.astype(np.float64)


def _products(a: Float64, b: Float64, weights: NDArray[Any]) -> tuple[Float64, Float64]:
    """``a @ weights`` and ``b @ weights**2``, with few of the weights in float64 at a time."""
    terms, count = weights.shape
    first, second = np.empty((len(a), count)), np.empty((len(a), count))
    step = max(1, _CHUNK // max(1, terms))
    for start in range(0, count, step):
        block = slice(start, start + step)
        wide = weights[:, block].astype(np.float64)
        first[:, block] = matmul(a, wide)
        second[:, block] = matmul(b, np.square(wide, out=wide))
    return first, second
