"""What identification finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from gated.interop.conversion import Reference
from gated.interop.family import Clamp
from gated.interop.identification.separation import Separation

__all__ = ["Match", "Matches"]


@dataclass(frozen=True, eq=False)
class Match:
    """One way to read the weights.

    Attributes:
        family: the first row of ``FAMILIES`` that gives these arrays by its keys, those of this activation first; a
            description of how they are stored where no row's keys do.
        families: every row that does, with the same prefix. Empty where none does.
        prefix: of the family's keys; None where no row's keys fit.
        stored_as: the rows that store theirs so and have this function, whatever their keys.
        packing: ``"separate"``, ``"packed"`` or ``"stacked"``.
        layout: where the gate is in the packed features, or by its index in the stacked pair: a layout of the contract,
            or ``"interleaved_gate_last"``; None of separate weights.
        transposed: whether the weights of gate and value are stored (out, in), as torch has them.
        down_transposed: the same of the down projection; None where there is none.
        activation: a name in ``gated.contract.ACTIVATIONS``.
        beta: of swish; 1.702 is quick gelu. Fitted where it is none of those that are tried.
        clamp: of ``clamped_swiglu``; None for the other functions.
        expert: which expert's weights these are; None where no array has an axis of experts.
        arrays: by letter of ``reference``, the array as a NumPy expression of its key.
        error: the largest error of an output or their root mean square, in units of its rounding bound. At most 1: it
            reproduces the output. Of the others, that of the part of the outputs by which they were ruled out: the
            largest may be larger.
        margin: how much larger the error of the next is, at least; infinite where there is no next.
        reference: the block's arrays, (in, out), of the framework of the state. Biases of zeros are None.
    """

    family: str
    families: tuple[str, ...]
    prefix: str | None
    stored_as: tuple[str, ...]
    packing: str
    layout: str | None
    transposed: bool
    down_transposed: bool | None
    activation: str
    beta: float
    clamp: Clamp | None
    expert: int | None
    arrays: Mapping[str, str]
    error: float
    margin: float
    reference: Reference

    @property
    def function(self) -> str:
        """The function in words."""
        if self.clamp is not None:
            return f"clamped_swiglu(alpha={self.clamp.alpha}, limit={self.clamp.limit}, offset={self.clamp.offset})"
        return f"swish(beta={self.beta!r})" if self.activation == "swish" and self.beta != 1 else self.activation


@dataclass(frozen=True, eq=False)
class Matches(Sequence[Match]):
    """Ways to read the weights, best first: all that reproduce the output, and the nearest of those that do not.

    Attributes:
        ranked: the ways.
        verdict: ``"match"``: one reproduces the output; ``"ambiguous"``: several functions do; ``"none"``: none does.
        separation: an input that would tell the first few apart, where the verdict is ``"ambiguous"``.
        tried: how many ways there were.
        dtype: the dtype whose arithmetic the bound is of.
        passed_over: keys of the state that were not used: no arrays, other dtypes, or of more than 4 axes.
    """

    ranked: tuple[Match, ...]
    verdict: str
    separation: Separation | None
    tried: int
    dtype: str
    passed_over: tuple[str, ...]

    @overload
    def __getitem__(self, index: int) -> Match: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Match, ...]: ...

    def __getitem__(self, index: int | slice) -> Match | tuple[Match, ...]:
        return self.ranked[index]

    def __len__(self) -> int:
        return len(self.ranked)

    def __iter__(self) -> Iterator[Match]:
        return iter(self.ranked)
