"""Weights of a family to the letters of :func:`gated.numpy_ref.gated_ffn`, and back.

Bits are moved; none is changed, whatever the dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gated.interop._reading import ORDERS, read_block, type_name
from gated.interop._state import State
from gated.interop.arrays import Array, dtype_name, framework
from gated.interop.errors import InteropError
from gated.interop.families import find_family
from gated.interop.family import PAIRS, Family
from gated.interop.layouts import join_pair, shape_text, solve, write

__all__ = ["InteropError", "Reference", "convert", "from_reference", "to_reference"]


class Reference(NamedTuple):
    """The arrays of a gated feed-forward block, (activation(x W + b) * (x V + c)) W2 + b2.

    Each has a leading axis of experts where the family has experts.

    Attributes:
        W: (d_in, d_hidden), projects the gate.
        V: (d_in, d_hidden), projects the value.
        W2: (d_hidden, d_out), projects down; None for a family that has no such projection.
        b: (d_hidden,), the gate's bias, or None.
        c: (d_hidden,), the value's bias, or None.
        b2: (d_out,), the result's bias, or None.
    """

    W: Array
    V: Array
    W2: Array | None
    b: Array | None = None
    c: Array | None = None
    b2: Array | None = None


def to_reference(state: State, family: str | Family, *, prefix: str = "", experts: int | None = None) -> Reference:
    """The arrays of one block as ``W``, ``V``, ``W2``, ``b``, ``c``, ``b2``.

    NumPy arrays and torch tensors are views of those in ``state``, but where each expert has arrays of its own, which
    are stacked. Keys of ``state`` that are not the block's are left alone, and their values are not read.

    Args:
        state: arrays by key, of NumPy, PyTorch or JAX, in any dtype, one dtype in all; a nested mapping counts as the
            flat one whose keys are joined by dots.
        family: a name in ``FAMILIES``, or a :class:`Family`.
        prefix: what stands before the family's keys, such as ``"model.layers.7.mlp."``.
        experts: how many there are. Only ``"dbrx"`` needs it, whose shapes do not tell.

    Raises:
        InteropError: a key is missing, a value is no array, arrays differ in framework or dtype, a shape does not fit,
            there is a bias that the family does not have, or the family is unknown.
    """
    found = read_block("to_reference", state, find_family("to_reference", family), prefix, experts)
    return Reference(found["W"], found["V"], *(found.get(letter) for letter in ("W2", "b", "c", "b2")))


def from_reference(params: Reference, family: str | Family, *, prefix: str = "") -> dict[str, Array]:
    """The arrays of one block by the family's keys: the inverse of :func:`to_reference`, bit for bit.

    NumPy arrays and torch tensors of separate weights are views of those in ``params``; a pair is one new array.

    Args:
        params: the block, with a leading axis of experts for a family that has experts.
        family: a name in ``FAMILIES``, or a :class:`Family`.
        prefix: put before the family's keys.

    Raises:
        InteropError: a shape does not fit, arrays differ in framework or dtype, the family has no key for one of them
            or needs one that is not there, or the family is unknown.
    """
    row = find_family("from_reference", family)
    given = _checked("from_reference", params, row)
    result: dict[str, Array] = {}
    for part, template in row.parts.items():
        letters = PAIRS.get(part, (part,))
        arrays = [given[letter] for letter in letters if letter in given]
        if not arrays:
            continue
        for expert, chosen in _by_expert(arrays, row):
            result[prefix + template.replace("{expert}", str(expert))] = _stored(part, chosen, row)
    return result


def convert(
    state: State,
    source: str | Family,
    target: str | Family,
    *,
    prefix: str = "",
    target_prefix: str | None = None,
    experts: int | None = None,
) -> dict[str, Array]:
    """The arrays of one block of the family ``source``, by the keys and in the layout of the family ``target``.

    Args:
        state: as :func:`to_reference` takes it.
        source: the family that ``state`` has.
        target: the family of the result.
        prefix: what stands before the keys of ``source``.
        target_prefix: what stands before those of the result; None: ``prefix``.
        experts: as :func:`to_reference` takes it.

    Raises:
        InteropError: as :func:`to_reference` and :func:`from_reference` do; or the activations or clamps of the two
            families differ, so that the same weights would compute something else.
    """
    origin, goal = find_family("convert", source), find_family("convert", target)
    _same_function(origin, goal)
    params = to_reference(state, origin, prefix=prefix, experts=experts)
    return from_reference(params, goal, prefix=prefix if target_prefix is None else target_prefix)


def _same_function(source: Family, target: Family) -> None:
    same = source.activation == target.activation or source.configurable or target.configurable
    if same and source.clamp == target.clamp:
        return

    def function(family: Family) -> str:
        return family.activation + (f" with {family.clamp}" if family.clamp else "")

    raise InteropError(
        f"convert: target must have the function of {source.name}, {function(source)}, got {target.name}, "
        f"{function(target)}; to move the weights all the same, from_reference(to_reference(...))"
    )


def _checked(function: str, params: Reference, row: Family) -> dict[str, Array]:
    """The arrays of ``params`` by letter, of one framework and dtype, and of shapes that fit one another."""
    given = {letter: value for letter, value in zip(Reference._fields, params, strict=True) if value is not None}
    _check_letters(function, given, row)
    sizes: dict[str, int] = {}
    kind, dtype = framework(given["W"]), None
    for letter, value in given.items():
        if framework(value) is None:
            raise InteropError(
                f"{function}: {letter} must be an array of NumPy, PyTorch or JAX, got {type_name(value)}"
            )
        dtype = dtype or dtype_name(value)
        got = f"{framework(value)} {dtype_name(value)}"
        if got != f"{kind} {dtype}":
            raise InteropError(
                f"{function}: {letter} must have the framework and dtype of W, {kind} {dtype}, got {got}"
            )
        order = ORDERS[letter] if row.experts else ORDERS[letter].replace("e", "")
        pattern = tuple((word,) for word in order)
        solved = solve(tuple(value.shape), pattern, sizes)
        if solved is None:
            raise InteropError(
                f"{function}: {letter} must have shape {shape_text(pattern, sizes)} for family {row.name}, "
                f"got {tuple(value.shape)}"
            )
        sizes = solved
    return given


def _check_letters(function: str, given: Mapping[str, Array], row: Family) -> None:
    """Those that the family needs are there, and it has a place for each."""
    places = {letter for part in row.parts for letter in PAIRS.get(part, (part,))}
    for letter in Reference._fields:
        if letter in given and letter not in places:
            raise InteropError(f"{function}: {letter} must be None for family {row.name}, which has no key for it")
        if letter not in given and letter in places & {"W", "V", "W2"}:
            raise InteropError(f"{function}: {letter} must be an array for family {row.name}, got None")
    if ("b" in given) != ("c" in given):
        raise InteropError(
            f"{function}: b and c must both be arrays or both None for family {row.name}, got only "
            f"{'b' if 'b' in given else 'c'}; zeros stand for a bias that is not there"
        )


def _by_expert(arrays: list[Array], row: Family) -> Iterator[tuple[int, list[Array]]]:
    """The arrays of each expert that has keys of its own; else all at once."""
    if row.experts != "key":
        yield 0, arrays
        return
    for expert in range(arrays[0].shape[0]):
        yield expert, [array[expert] for array in arrays]


def _stored(part: str, arrays: list[Array], row: Family) -> Array:
    """The array that the family stores for a part, of one array or a pair."""
    pattern, order = row.pattern(part), ORDERS[part]
    if part not in PAIRS:
        return write(arrays[0], pattern, order)
    first, second = arrays if row.gate == 0 else reversed(arrays)
    return join_pair(first, second, pattern, order.replace("2", ""))
