"""Reading the arrays of one block out of a state dict, each checked against those before it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from gated.interop._state import State, lookup, numbers
from gated.interop.arrays import Array, dtype_name, framework, stack
from gated.interop.errors import InteropError
from gated.interop.family import BIASES, PAIRS, Family
from gated.interop.layouts import read, shape_text, solve

__all__ = ["ORDERS", "read_block", "type_name"]

ORDERS: Final[Mapping[str, str]] = {
    "W": "edf",
    "V": "edf",
    "WV": "2edf",
    "W2": "efo",
    "b": "ef",
    "c": "ef",
    "bc": "2ef",
    "b2": "eo",
}
"""The order of axes of each part in the reference, with that of the pair before the others."""


def type_name(value: object) -> str:
    """Module and name of a value's type."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def read_block(function: str, state: State, family: Family, prefix: str, experts: int | None) -> dict[str, Array]:
    """The arrays by letter, ``W``, ``V``, ``W2``, ``b``, ``c``, ``b2``, less those that are not there.

    Raises:
        InteropError: as :func:`gated.interop.conversion.to_reference`.
    """
    reader = _Reader(function, state, family, prefix, experts)
    found: dict[str, Array] = {}
    for part in family.parts:
        array = reader.part(part)
        if array is None:
            continue
        if part in PAIRS:
            gate, value = PAIRS[part]
            found[gate], found[value] = array[family.gate], array[1 - family.gate]
        else:
            found[part] = array
    for here, absent in (("b", "c"), ("c", "b")):
        if here in found and absent not in found:
            raise reader.missing(prefix + family.parts[absent])
    return found


class _Reader:
    def __init__(self, function: str, state: State, family: Family, prefix: str, experts: int | None) -> None:
        self.function, self.state, self.family, self.prefix = function, state, family, prefix
        self.sizes = {"2": 2}
        self.first: tuple[str, Array] | None = None
        if experts is not None and (type(experts) is not int or experts < 1 or family.experts is None):
            expected = "None" if family.experts is None else "an int of at least 1"
            raise InteropError(f"{function}: experts must be {expected} for family {family.name}, got {experts!r}")
        if family.experts_folded and experts is None:
            raise InteropError(
                f"{function}: experts must be an int for family {family.name}, whose arrays are ({family.up}), "
                f"so that no shape tells it, got None"
            )
        if family.experts == "key":
            self.sizes["e"] = self._count(experts)
        elif experts is not None:
            self.sizes["e"] = experts

    def part(self, part: str) -> Array | None:
        """The array of a part, with its axes in the reference's order; None for a bias that is not there."""
        template = self.prefix + self.family.parts[part]
        if self.family.experts != "key":
            array = self._array(part, template)
            return None if array is None else self._read(part, template, array)
        keys = [template.replace("{expert}", str(expert)) for expert in range(self.sizes["e"])]
        given = {key: self._array(part, key) for key in keys}
        absent = [key for key, array in given.items() if array is None]
        if len(absent) == len(keys):
            return None
        if absent:
            raise self.missing(absent[0])
        apart = [self._read(part, key, array) for key, array in given.items()]
        return stack(apart, 1 if part in PAIRS else 0)

    def _read(self, part: str, key: str, array: Array) -> Array:
        pattern = self.family.pattern(part)
        sizes = solve(tuple(array.shape), pattern, self.sizes)
        if sizes is None:
            turned = solve(tuple(array.shape)[::-1], pattern, self.sizes) is not None
            raise InteropError(
                f"{self.function}: {key!r} of family {self.family.name} must have shape "
                f"{shape_text(pattern, self.sizes)}, got {tuple(array.shape)}" + (", its transpose" if turned else "")
            )
        self.sizes = sizes
        return read(array, pattern, sizes, ORDERS[part])

    def _array(self, part: str, key: str) -> Array | None:
        """The array at ``key``, of the framework and dtype of the others; None for a bias that is not there."""
        value = lookup(self.state, key)
        if value is None:
            if part not in BIASES:
                raise self.missing(key)
            return None
        kind = framework(value)
        if kind is None:
            raise InteropError(
                f"{self.function}: {key!r} must be an array of NumPy, PyTorch or JAX, got {type_name(value)}"
            )
        if self.first is None:
            self.first = key, value
        other, array = self.first
        if kind != framework(array):
            raise InteropError(
                f"{self.function}: {key!r} must be of the framework of {other!r}, {framework(array)}, got {kind}"
            )
        if dtype_name(value) != dtype_name(array):
            raise InteropError(
                f"{self.function}: {key!r} must have the dtype of {other!r}, {dtype_name(array)}, "
                f"got {dtype_name(value)}"
            )
        if part not in BIASES:
            self._refuse_bias(key)
        return value

    def _refuse_bias(self, key: str) -> None:
        """A bias beside a weight, for which the family has no key, would be dropped in silence."""
        stem, dot, last = key.rpartition(".")
        bias = f"{stem}.bias" if dot and last in ("weight", "kernel") else f"{key}_bias"
        if any(part in BIASES for part in self.family.parts) or lookup(self.state, bias) is None:
            return
        raise InteropError(f"{self.function}: family {self.family.name} must have no key {bias!r}, it has no biases")

    def missing(self, key: str) -> InteropError:
        """The error of a key that is not there."""
        near = difflib.get_close_matches(key, [str(one) for one in self.state], n=3, cutoff=0.5)
        got = f"the nearest there: {', '.join(map(repr, near))}" if near else f"got {len(self.state)} others"
        return InteropError(f"{self.function}: family {self.family.name} needs the key {key!r}; {got}")

    def _count(self, experts: int | None) -> int:
        """How many experts have keys of their own. A gap in their numbers shows later, as a missing key."""
        before, _, after = next(iter(self.family.parts.values())).partition("{expert}")
        found = set(numbers(self.state, self.prefix + before, after))
        if not found:
            raise self.missing(f"{self.prefix}{before}0{after}")
        if experts is not None and experts != len(found):
            raise InteropError(f"{self.function}: experts must be {len(found)}, as the keys have it, got {experts}")
        return len(found)
