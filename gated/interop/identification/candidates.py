"""Every way to read the arrays of a state as a gated feed-forward block with an input and an output of given sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, permutations
from typing import Final

from gated.interop.errors import InteropError
from gated.interop.identification.functions import Function
from gated.interop.identification.stored import Matrix, Stored

__all__ = ["Assignment", "Biases", "Candidate", "Pair", "Parts", "read_parts"]

_ALL: Final = slice(None)
_MOST: Final = 20_000

# Where the gate is of 2 n packed features.
_HALVES: Final[Mapping[str, tuple[str, str]]] = {
    "gate_first": ("first", "second"),
    "gate_last": ("second", "first"),
    "interleaved": ("even", "odd"),
    "interleaved_gate_last": ("odd", "even"),
}


@dataclass(frozen=True, eq=False)
class Half:
    """The gate's or the value's weights: features of a matrix (in, out), all or a half of them."""

    whole: Matrix
    chosen: slice

    @property
    def matrix(self) -> Matrix:
        """The matrix (d_in, d_hidden)."""
        return self.whole if self.chosen == _ALL else self.whole.columns(self.chosen)


@dataclass(frozen=True, eq=False)
class Pair:
    """The weights of gate and value.

    Attributes:
        packing: ``"separate"``, ``"packed"`` or ``"stacked"``.
        layout: where the gate is: a layout of the contract, or ``"interleaved_gate_last"``; None of separate weights.
    """

    gate: Half
    value: Half
    packing: str
    layout: str | None

    @property
    def expert(self) -> int | None:
        """Which expert's."""
        return self.gate.whole.stored.expert

    @property
    def hidden(self) -> int:
        """d_hidden."""
        count = self.gate.whole.shape[1]
        return len(range(*self.gate.chosen.indices(count)))


@dataclass(frozen=True, eq=False)
class Biases:
    """Those of gate and value, and how a common array holds them."""

    b: Stored | None = None
    c: Stored | None = None
    layout: str | None = None

    @property
    def arrays(self) -> tuple[Stored | None, Stored | None]:
        """The two of them."""
        return self.b, self.c


@dataclass(frozen=True, eq=False)
class Assignment:
    """Arrays by their parts in the block."""

    pair: Pair
    biases: Biases
    down: Matrix | None
    b2: Stored | None


@dataclass(frozen=True, eq=False)
class Candidate:
    """An assignment and the function between the projections."""

    assignment: Assignment
    function: Function


@dataclass(frozen=True)
class Parts:
    """What the arrays of a state may be, by their shapes."""

    pairs: tuple[Pair, ...]
    downs: tuple[Matrix, ...]
    vectors: tuple[Stored, ...]
    bias_pairs: tuple[tuple[Stored, Stored], ...]
    d_out: int

    def assignments(self) -> Iterator[Assignment]:
        """All of them."""
        for pair in self.pairs:
            for down in self.down_of(pair):
                for biases in self.biases_of(pair):
                    for b2 in self.b2_of(pair, biases, down):
                        yield Assignment(pair, biases, down, b2)

    def down_of(self, pair: Pair) -> Iterator[Matrix | None]:
        """The down projections that go with a pair; None, no such projection, where the sizes allow that."""
        used = {half.whole.stored.key for half in (pair.gate, pair.value)}
        for down in self.downs:
            fits = down.shape[0] == pair.hidden and down.stored.expert == pair.expert
            if fits and down.stored.key not in used:
                yield down
        if pair.hidden == self.d_out:
            yield None

    def biases_of(self, pair: Pair) -> Iterator[Biases]:
        """Biases of gate and value: both, one of them, none. Those packed as the weights are come first."""
        own = [one for one in self.vectors if one.expert == pair.expert]
        layouts = sorted(_HALVES, key=lambda layout: layout != pair.layout)
        for first, second in self.bias_pairs:
            if first.expert == pair.expert and first.plain.shape == (pair.hidden,):
                yield Biases(first, second, "gate_first")
                yield Biases(second, first, "gate_last")
        for one in own:
            if one.plain.shape == (2 * pair.hidden,):
                for layout in layouts:
                    gate, value = (one[(_chosen(name, pair.hidden),)] for name in _HALVES[layout])
                    yield Biases(gate, value, layout)
        fitting = [one for one in own if one.plain.shape == (pair.hidden,)]
        for b, c in permutations(fitting, 2):
            yield Biases(b, c)
        for one in fitting:
            yield Biases(b=one)
            yield Biases(c=one)
        yield Biases()

    def b2_of(self, pair: Pair, biases: Biases, down: Matrix | None) -> Iterator[Stored | None]:
        """Biases of the result: any vector that is left, or none."""
        if down is not None:
            taken = {one.key for one in (biases.b, biases.c) if one is not None}
            for one in self.vectors:
                if one.expert == pair.expert and one.plain.shape == (self.d_out,) and one.key not in taken:
                    yield one
        yield None


def read_parts(found: list[Stored], d_in: int, d_out: int) -> Parts:
    """What each array, or each expert's part of one, may be in a block from ``d_in`` to ``d_out`` features.

    Raises:
        InteropError: there are too many assignments to try.
    """
    matrices = [Matrix(one, turned) for one in found if one.plain.ndim == 2 for turned in (True, False)]
    ups = [one for one in matrices if one.shape[0] == d_in]
    downs = [one for one in matrices if one.shape[1] == d_out]
    vectors = [one for one in found if one.plain.ndim == 1 and one.plain.any()]
    bias_pairs = [pair for one in found if one.plain.ndim == 2 for pair in _two(one)]
    stacked = [pair for one in found if one.plain.ndim == 3 for pair in _two(one)]
    hidden = {one.shape[0] for one in downs} | {d_out}
    pairs = chain(_stacked(stacked, d_in), _packed(ups), _separate([one for one in ups if one.shape[1] in hidden]))
    few = islice((pair for pair in pairs if pair.hidden in hidden), _MOST + 1)
    parts = Parts(tuple(few), tuple(downs), tuple(vectors), tuple(bias_pairs), d_out)
    if sum(1 for _ in islice(parts.assignments(), _MOST + 1)) > _MOST:
        raise InteropError(
            f"identify: state must leave at most {_MOST} ways to assign its arrays to the parts of a block, got more; "
            "prefix names one block of it"
        )
    return parts


def _two(one: Stored) -> Iterator[tuple[Stored, Stored]]:
    """The two parts along each axis of size 2."""
    for axis, size in enumerate(one.plain.shape):
        if size == 2:
            before = (slice(None),) * axis
            yield one[(*before, 0)], one[(*before, 1)]


def _stacked(found: list[tuple[Stored, Stored]], d_in: int) -> Iterator[Pair]:
    for first, second in found:
        for turned in (True, False):
            both = Half(Matrix(first, turned), _ALL), Half(Matrix(second, turned), _ALL)
            if both[0].whole.shape[0] == d_in:
                yield Pair(both[0], both[1], "stacked", "gate_first")
                yield Pair(both[1], both[0], "stacked", "gate_last")


def _packed(ups: list[Matrix]) -> Iterator[Pair]:
    for one in ups:
        count = one.shape[1]
        if count % 2:
            continue
        for layout, names in _HALVES.items():
            gate, value = (Half(one, _chosen(name, count // 2)) for name in names)
            yield Pair(gate, value, "packed", layout)


def _separate(ups: list[Matrix]) -> Iterator[Pair]:
    for gate, value in permutations(ups, 2):
        same = gate.stored.key == value.stored.key
        if gate.shape == value.shape and gate.stored.expert == value.stored.expert and not same:
            yield Pair(Half(gate, _ALL), Half(value, _ALL), "separate", None)


def _chosen(name: str, half: int) -> slice:
    match name:
        case "first":
            return slice(None, half)
        case "second":
            return slice(half, None)
        case "even":
            return slice(0, None, 2)
    return slice(1, None, 2)
