"""A case and its quantities: one call, and for its value and every cotangent the exact numbers and their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import Format, error_in_ulp

__all__ = ["Case", "Quantity", "pack", "unpack"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """The exact numbers of one result, and how far from them a backend may be.

    Attributes:
        name: the argument whose cotangent it is (``"x"``, ``"beta"``, ...); the first quantity of a case is its value.
        high, low: the exact numbers as ``high + low``.
        scale: the largest absolute term, where an ulp is taken; None: the exact number.
        bound: backend name -> bound of each element in ulp.
        judged: False where IEEE arithmetic has the last word: terms beyond float64 whose sum is within it, or a sum
            that cancels to within its bound, times infinity.
        zero_signs: where a zero's sign counts.
        unpack: takes the result apart so that it lines up with ``high``.
    """

    name: str
    high: Float64
    low: Float64
    scale: Float64 | None
    bound: Callable[[str], Float64]
    judged: NDArray[np.bool_] | bool = True
    zero_signs: NDArray[np.bool_] | bool = True
    unpack: Callable[[Array], Array] = field(default=lambda result: result)

    def errors(self, result: Array, form: Format, *, flush: bool) -> Float64:
        """The error of each element in ulp, 0 where it is not judged; inf for a wrong shape or dtype."""
        part = self.unpack(result)
        if result.dtype != form.dtype or part.shape != self.high.shape:
            return np.full(self.high.shape, np.inf)
        error = error_in_ulp(
            part, self.high, self.low, form=form, scale=self.scale, flush=flush, zero_signs=self.zero_signs
        )
        return np.where(self.judged, error, 0.0)


@dataclass(frozen=True)
class Case:
    """One call: its primals (NumPy arrays, numbers, None), the keywords, the cotangent, the exact results.

    The arrays cannot be written to: an implementation that writes to its inputs raises.
    """

    function: str
    label: str
    primals: tuple[Any, ...]
    static: dict[str, Any]
    cotangent: Array
    quantities: tuple[Quantity, ...]
    inputs: dict[str, Array]
    """The arrays that a worst input is named from, each of the shape of the value."""

    def __post_init__(self) -> None:
        for array in (*self.primals, *self.static.values(), self.cotangent):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    @property
    def size(self) -> int:
        """The number of inputs tried."""
        return int(self.cotangent.size)


def pack(gate: Array, value: Array, layout: str, axis: int = -1) -> Array:
    """A packed array, of size 2n along ``axis``, from a gate and a value of size n."""
    gate, value = np.moveaxis(gate, axis, -1), np.moveaxis(value, axis, -1)
    if layout == "interleaved":
        x = np.stack([gate, value], axis=-1).reshape(*gate.shape[:-1], 2 * gate.shape[-1])
    else:
        x = np.concatenate((gate, value) if layout == "gate_first" else (value, gate), axis=-1)
    return np.ascontiguousarray(np.moveaxis(x, -1, axis))


def unpack(x: Array, layout: str, axis: int = -1) -> tuple[Array, Array]:
    """The gate and the value of a packed array, where it can be split."""
    if x.ndim == 0 or x.shape[axis] % 2:
        return x, x
    x = np.moveaxis(x, axis, -1)
    if layout == "interleaved":
        couples = x.reshape(*x.shape[:-1], -1, 2)
        first, last = couples[..., 0], couples[..., 1]
    else:
        first, last = np.split(x, 2, axis=-1)
    gate, value = (last, first) if layout == "gate_last" else (first, last)
    return np.moveaxis(gate, -1, axis), np.moveaxis(value, -1, axis)
