"""Which rows of the table of families a candidate is."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gated.interop._state import State
from gated.interop.arrays import Array
from gated.interop.conversion import Reference, to_reference
from gated.interop.errors import InteropError
from gated.interop.families import FAMILIES
from gated.interop.family import Family
from gated.interop.identification.candidates import Candidate
from gated.interop.identification.stored import numpy_view

__all__ = ["Naming", "expressions", "name", "reference", "same_arrays"]


class Naming(NamedTuple):
    """The families whose keys and layout give a candidate's arrays, and those that only store theirs so."""

    families: tuple[str, ...]
    prefix: str | None
    alike: tuple[str, ...]


def reference(candidate: Candidate) -> Reference:
    """The arrays of a candidate, views where the framework has them."""
    own = candidate.assignment
    matrices = own.pair.gate.matrix, own.pair.value.matrix, own.down
    vectors = own.biases.b, own.biases.c, own.b2
    W, V, W2 = (None if one is None else one.native for one in matrices)
    return Reference(W, V, W2, *(None if one is None else one.native for one in vectors))


def expressions(candidate: Candidate) -> dict[str, str]:
    """By letter, the array as an expression of its key."""
    own = candidate.assignment
    named = {
        "W": own.pair.gate.matrix,
        "V": own.pair.value.matrix,
        "W2": own.down,
        "b": own.biases.b,
        "c": own.biases.c,
        "b2": own.b2,
    }
    return {letter: one.text for letter, one in named.items() if one is not None}


def name(state: State, candidate: Candidate, taken: Reference, experts: int | None) -> Naming:
    """The rows that fit, those with the candidate's function first.

    A row fits where ``to_reference`` with some prefix gives the arrays of the candidate, bit for bit.
    """
    fitting: dict[str, str] = {}
    for row in FAMILIES.values():
        for prefix in _prefixes(row, candidate):
            if _gives(_one_expert(state, row, prefix, candidate), row, prefix, experts, candidate, taken):
                fitting[row.name] = prefix
                break
    ranked = sorted(fitting, key=lambda one: _strangeness(FAMILIES[one], candidate))
    first = fitting[ranked[0]] if ranked else None
    alike = tuple(row.name for row in FAMILIES.values() if _alike(row, candidate) and _strangeness(row, candidate) < 2)
    return Naming(tuple(one for one in ranked if fitting[one] == first), first, alike)


def same_arrays(a: Reference, b: Reference) -> bool:
    """Whether two blocks are equal, a bias of zeros being none."""
    return all(_same(one, other) for one, other in zip(a, b, strict=True))


def _prefixes(row: Family, candidate: Candidate) -> list[str]:
    """What stands before the row's key of the gate's weights."""
    stored = candidate.assignment.pair.gate.whole.stored
    template = row.parts.get("W", row.parts.get("WV", ""))
    if "{expert}" not in template:
        # Megatron's linear_fc1.weight is no fc1.weight: a prefix ends where a name does.
        prefix = stored.key.removesuffix(template)
        return [prefix] if stored.key.endswith(template) and prefix[-1:] in ("", ".", "/") else []
    number = _number(row, stored.key)
    ending = template.replace("{expert}", number or "")
    return [stored.key.removesuffix(ending)] if number is not None else []


def _number(row: Family, key: str) -> str | None:
    """That of the expert in the key of a gate's weights; None where the key does not end as the row's."""
    before, after = row.parts.get("W", row.parts.get("WV", "")).split("{expert}")
    match = re.search(f"{re.escape(before)}([0-9]+){re.escape(after)}$", key)
    return None if match is None else match[1]


def _one_expert(state: State, row: Family, prefix: str, candidate: Candidate) -> State:
    """Where experts have keys of their own, those of the candidate's, as the only one: the others need no copy."""
    if row.experts != "key":
        return state
    number = _number(row, candidate.assignment.pair.gate.whole.stored.key) or ""
    keys = {part: prefix + part.replace("{expert}", number) for part in row.parts.values()}
    return {prefix + part.replace("{expert}", "0"): state[key] for part, key in keys.items() if key in state}


def _gives(state: State, row: Family, prefix: str, experts: int | None, candidate: Candidate, taken: Reference) -> bool:
    axis = row.experts == "axis"
    try:
        found = to_reference(state, row, prefix=prefix, experts=experts if axis else None)
    except InteropError:
        return False
    if not row.experts:
        return same_arrays(found, taken)
    expert = candidate.assignment.pair.expert
    numbers = range(len(found.W)) if expert is None else [expert]
    return any(same_arrays(_of_expert(found, number), taken) for number in numbers if number < len(found.W))


def _of_expert(params: Reference, expert: int) -> Reference:
    W, V, W2, b, c, b2 = (None if one is None else one[expert] for one in params)
    return Reference(W, V, W2, b, c, b2)


def _strangeness(row: Family, candidate: Candidate) -> int:
    """0: the row's own function is the candidate's; 1: its module can be configured to have it; 2: it cannot."""
    function = candidate.function
    if row.clamp is not None or function.clamp is not None:
        return 0 if row.clamp == function.clamp else 2
    own = function.activation == row.activation and function.beta == 1.0
    return 0 if own else 1 if row.configurable else 2


def _alike(row: Family, candidate: Candidate) -> bool:
    """Whether the row stores its arrays as the candidate does, whatever their keys."""
    own = candidate.assignment
    pair, down = own.pair, own.down
    stored = row.packing, row.layout, row.transposed, "W2" in row.parts, row.experts == "axis"
    same = stored == (pair.packing, pair.layout, pair.gate.whole.transposed, down is not None, pair.expert is not None)
    biased = "b2" in row.parts or (own.biases.b is None and own.biases.c is None and own.b2 is None)
    return same and biased and (down is None or row.down_transposed == down.transposed)


def _same(a: Array | None, b: Array | None) -> bool:
    first, second = (None if one is None else numpy_view("identify", "an array", one) for one in (a, b))
    if first is None or second is None:
        one = second if first is None else first
        return one is None or (one.ndim == 1 and not one.any())
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    lies = [(one.__array_interface__["data"], one.strides) for one in (first, second)]
    return lies[0] == lies[1] or np.array_equal(_bits(first), _bits(second))


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    return array.view(f"u{array.itemsize}")


def description(candidate: Candidate, naming: Naming) -> str:
    """How a candidate stores its arrays, in words, for keys that are no family's."""
    own = candidate.assignment
    order = own.pair.packing if own.pair.layout is None else f"{own.pair.packing} {own.pair.layout}"
    ways = [order, "(out, in)" if own.pair.gate.whole.transposed else "(in, out)"]
    if own.down is not None:
        ways.append(f"down {'(out, in)' if own.down.transposed else '(in, out)'}")
    alike = f"stored as {naming.alike[0]}: " if naming.alike else ""
    return f"no family's keys, {alike}{', '.join(ways)}"
