"""What a state holds, as matrices (in, out) and vectors, with the expression that each is of its key."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gated.contract import DTYPES
from gated.interop._reading import type_name
from gated.interop._state import State
from gated.interop.arrays import Array, dtype_name, framework, permute
from gated.interop.errors import InteropError

__all__ = ["Matrix", "Stored", "numpy_view", "read_state", "units"]

_MAX_RANK: Final = 4


@dataclass(frozen=True, eq=False)
class Stored:
    """An array of the state, or one expert's part of it.

    Attributes:
        key: of the state.
        text: the expression of it, such as ``"gate_up_proj[2]"``.
        native: the array of the caller's framework.
        plain: a NumPy view of it.
        expert: which expert's; None where the array has no axis of experts.
    """

    key: str
    text: str
    native: Array
    plain: NDArray[Any]
    expert: int | None = None

    def __getitem__(self, index: tuple[int | slice, ...]) -> Stored:
        return Stored(
            self.key, f"{self.text}[{_index_text(index)}]", self.native[index], self.plain[index], self.expert
        )

    def part(self, expert: int) -> Stored:
        """One expert's part."""
        return Stored(self.key, f"{self.text}[{expert}]", self.native[expert], self.plain[expert], expert)


@dataclass(frozen=True, eq=False)
class Matrix:
    """A stored array of two axes, read as (in, out)."""

    stored: Stored
    transposed: bool

    @property
    def plain(self) -> NDArray[Any]:
        """As a NumPy view, (in, out)."""
        return self.stored.plain.T if self.transposed else self.stored.plain

    @property
    def native(self) -> Array:
        """As an array of the caller's framework, (in, out)."""
        return permute(self.stored.native, (1, 0)) if self.transposed else self.stored.native

    @property
    def text(self) -> str:
        """The expression of its key."""
        return f"{self.stored.text}.T" if self.transposed else self.stored.text

    @property
    def shape(self) -> tuple[int, int]:
        """(in, out)."""
        rows, columns = self.plain.shape
        return rows, columns

    def columns(self, chosen: slice) -> Matrix:
        """Some of the out features."""
        full = slice(None)
        index = (chosen,) if self.transposed else (full, chosen)
        return Matrix(self.stored[index], self.transposed)


def numpy_view(function: str, name: str, value: object) -> NDArray[Any]:
    """A NumPy view of an array on the CPU, a copy of one elsewhere; bfloat16 as ml_dtypes has it.

    Raises:
        InteropError: it is no array of NumPy, PyTorch or JAX, or one without numbers.
    """
    kind = framework(value)
    if kind is None:
        raise InteropError(f"{function}: {name} must be an array of NumPy, PyTorch or JAX, got {type_name(value)}")
    if kind != "torch":
        return np.asarray(value)
    tensor: Any = value
    torch: Any = sys.modules["torch"]
    if tensor.is_meta or tensor.layout != torch.strided:
        kind = "on the meta device" if tensor.is_meta else f"of layout {tensor.layout}"
        raise InteropError(f"{function}: {name} must be a dense array of numbers, got a tensor {kind}")
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        bits: NDArray[Any] = tensor.view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    plain: NDArray[Any] = tensor.numpy()
    return plain


def read_state(function: str, state: State, prefix: str) -> tuple[list[Stored], list[str]]:
    """The arrays under the prefix of a dtype that is computed in, and the keys of what is passed over.

    Raises:
        InteropError: the state is no mapping, or has no such array.
    """
    if not isinstance(state, Mapping):
        raise InteropError(f"{function}: state must be a mapping from keys to arrays, got {type_name(state)}")
    if not isinstance(prefix, str):
        raise InteropError(f"{function}: prefix must be a string, got {type_name(prefix)}")
    found, passed = [], []
    for key, value in _flat(state, prefix):
        if framework(value) is None or dtype_name(value) not in DTYPES or len(value.shape) > _MAX_RANK:
            passed.append(key)
        else:
            found.append(Stored(key, key, value, numpy_view(function, key, value)))
    if not found:
        other = f"; there are {len(passed)} of other kinds, such as {passed[0]!r}" if passed else ""
        raise InteropError(
            f"{function}: state must have arrays of {', '.join(DTYPES)} under the prefix {prefix!r}, got none{other}"
        )
    return found, passed


def units(stored: list[Stored], experts: int | None) -> Iterator[Stored]:
    """Each array, and each expert's part where there may be an axis of experts, or ``experts`` under one another."""
    counts = {one.plain.shape[0] for one in stored if one.plain.ndim >= 3} | ({experts} if experts else set())
    for one in stored:
        yield one
        rank, first = one.plain.ndim, one.plain.shape[0] if one.plain.ndim else 0
        if rank >= 3 or (rank == 2 and first in counts):
            for expert in range(first):
                yield one.part(expert)
        if experts and rank == 2 and first % experts == 0 and first > experts:
            shape = (experts, first // experts, one.plain.shape[1])
            text = f"{one.text}.reshape{shape}"
            apart = Stored(one.key, text, one.native.reshape(shape), one.plain.reshape(shape))
            for expert in range(experts):
                yield apart.part(expert)


def _flat(state: State, prefix: str, before: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values of a mapping whose values may be mappings; only those under the prefix are read."""
    for step in state:
        key = f"{before}{step}"
        if not (key.startswith(prefix) or prefix.startswith(f"{key}.")):
            continue
        value = state[step]
        if isinstance(value, Mapping):
            yield from _flat(value, prefix, f"{key}.")
        elif key.startswith(prefix):
            yield key, value


def _index_text(index: tuple[int | slice, ...]) -> str:
    return ", ".join(_slice_text(one) if isinstance(one, slice) else str(one) for one in index)


def _slice_text(one: slice) -> str:
    ends = ["" if end is None else str(end) for end in (one.start, one.stop)]
    return ":".join(ends) + (f":{one.step}" if one.step is not None else "")
