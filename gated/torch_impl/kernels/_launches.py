"""Calls of the kernels: which kernel, on which tiles, with which arguments."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from .._arrays import Factor, compute_dtype
from .._forms import IN_BETA, IN_VALUE, IN_X, Form
from .._words import parts
from . import _units
from ._tables import table

__all__ = ["OPTIONS", "Launch", "evaluate", "launch", "pullback"]

TILE_BYTES: Final = 4096
"""Of one array in a tile: a load of 16 bytes for each of the 256 lanes of four wavefronts of AMD, two for each of the
128 lanes of four warps of NVIDIA. It is fixed: a size found by trial at the first call would be no property of the
function, and the order in which beta's gradient is summed depends on it."""

OPTIONS: Final[Mapping[str, Any]] = {"num_warps": 4, "enable_fp_fusion": False}
"""Where the kernels mean a product and a sum to be rounded once they say so; what else a compiler fused would not be
the product whose rest they carry."""

_LINEAR: Final = ("identity", "relu")
"""The activations whose products are of ordinary numbers."""


class Launch(NamedTuple):
    """One launch of a kernel."""

    kernel: Any
    programs: int
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]


def launch(launches: Sequence[Launch], x: Tensor) -> None:
    """Queues the launches on the current stream of the device of ``x``, and waits for none."""
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        for one in launches:
            one.kernel[(one.programs,)](**one.arguments, **one.constants, **OPTIONS)


# Tiles


class _Pass(NamedTuple):
    """Columns of a table from the first on, cut into tiles of some rows and columns. They may be whole."""

    first_column: int
    rows: int
    columns: int
    tile: tuple[int, int]
    whole: bool

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-(self.columns - self.first_column) // self.tile[1])

    @property
    def programs(self) -> int:
        return self.across * -(-self.rows // self.tile[0])


def _passes(rows: int, columns: int, itemsize: int) -> Iterator[_Pass]:
    """The table in tiles of ``TILE_BYTES`` an array.

    One long row whose size is no multiple of 16 gets a pass of its own for its end: with masks that cut through a
    vector, all loads and stores would be narrow.
    """
    size = TILE_BYTES // itemsize
    if rows > 1:
        across = min(size, 1 << (columns - 1).bit_length())
        down = size // across
        yield _Pass(0, rows, columns, (down, across), rows % down == 0 and columns % across == 0)
        return
    body = columns if columns % 16 == 0 else columns // size * size
    if body:
        yield _Pass(0, 1, body, (1, size), body % size == 0)
    if body < columns:
        yield _Pass(body, 1, columns, (1, size), False)


# Arguments


def _words(number: float, dtype: torch.dtype) -> tuple[int, int]:
    """A Python number as two signed words: in float64 the halves of its bits, else the bits of two float32 numbers."""
    if dtype == torch.float64:
        second, first = struct.unpack("<ii", struct.pack("<d", number))
    else:
        first, second = struct.unpack("<ii", struct.pack("<ff", *parts(number, torch.float32)))
    return first, second


def _numbers(form: Form, beta: Factor, dtype: torch.dtype) -> dict[str, int]:
    """The Python numbers of a call, in words."""
    numbers = {"beta": 1.0 if beta is None or isinstance(beta, Tensor) else beta}
    numbers |= {"limit": 0.0 if form.limit is None else form.limit, "offset": form.offset}
    words = {}
    for name, number in numbers.items():
        words[f"{name}_first"], words[f"{name}_second"] = _words(number, dtype)
    return words


def _kind(form: Form, beta: Factor) -> str:
    """What beta is to the kernels."""
    if form.activation != "swish":
        return "one"
    if isinstance(beta, Tensor):
        return "scalar" if beta.numel() == 1 else "array"
    return "one" if beta == 1 else "number"


class _Call:
    """A form on its operands, split into arrays of the gate's shape: tables for certain if they are ``dense``."""

    def __init__(self, form: Form, x: Tensor, value: Tensor | None, beta: Factor, *, dense: bool) -> None:
        self.form, self.beta = form, beta
        self.gate, self.value = form.split(x, value)
        self.kind = _kind(form, beta)
        self.full_beta = None
        if self.kind == "array":
            assert isinstance(beta, Tensor)
            self.full_beta = beta.expand(self.gate.shape)
            if dense:
                self.full_beta = self.full_beta.contiguous()

    def launches(
        self, kernel: Any, packed: Sequence[Tensor], arrays: Mapping[str, Tensor | None], **constants: Any
    ) -> list[Launch] | None:
        """The launches of a kernel; None where the arrays are no tables.

        Args:
            kernel: one of those of :mod:`._units`.
            packed: the packed arrays that the arrays are parts of, if they are.
            arrays: those that the kernel takes beside gate, value and beta.
        """
        form = self.form
        every = {"gate": self.gate, "value": self.value, "beta": self.full_beta, **arrays}
        present = {name: one for name, one in every.items() if one is not None}
        shape = table(list(present.values()))
        if shape is None:
            return None
        strides = dict(zip(present, shape.strides, strict=True))
        arguments: dict[str, Any] = dict(_numbers(form, self.beta, self.gate.dtype))
        for name, one in every.items():
            arguments[name] = one
            arguments[f"{name}_row"], arguments[f"{name}_column"] = strides.get(name, (0, 0))
        if self.kind == "scalar":
            arguments["beta"] = self.beta
        constants |= {
            "ACTIVATION": form.activation,
            "SCALED": form.activation not in _LINEAR,
            "PAIR": self.value is not None,
            "COUPLES": self._alternate(packed, strides),
            "BETA": self.kind,
            "LIMITED": form.limit is not None,
            "SHIFTED": form.offset != 0,
        }
        return [
            Launch(
                kernel,
                one.programs,
                arguments
                | {"first_column": one.first_column, "across": one.across, "rows": one.rows, "columns": one.columns},
                constants | {"WHOLE": one.whole, "ROWS": one.tile[0], "COLUMNS": one.tile[1]},
            )
            for one in _passes(shape.rows, shape.columns, self.gate.element_size())
        ]

    def _alternate(self, packed: Sequence[Tensor], strides: Mapping[str, tuple[int, int]]) -> bool:
        """Whether the gates and the values of packed arrays alternate in memory, each beside its neighbour."""
        axis = self.form.axis
        if axis is None or self.form.layout != "interleaved":
            return False
        beside = all(one.stride(axis) == 1 for one in packed)
        return beside and all(strides[name][1] == 2 for name in ("gate", "d_gate") if name in strides)


def _stored(*operands: Any) -> tuple[Any, ...]:
    """The operands with their numbers in memory. torch may keep a view's sign in a flag (``torch.Tensor.is_neg``), and
    of zeros no more than a flag, as autograd has them."""
    return tuple(
        (one.clone() if one._is_zerotensor() else one.resolve_neg()) if isinstance(one, Tensor) else one
        for one in operands
    )


def _contiguous(*operands: Any) -> tuple[Any, ...]:
    return tuple(one.contiguous() if isinstance(one, Tensor) else one for one in operands)


def evaluate(form: Form, x: Tensor, value: Tensor | None, beta: Factor, *, dense: bool = False) -> Tensor:
    """P. The operands are made ``dense`` where as views they are no tables."""
    x, value, beta = _stored(x, value, beta)
    if dense:
        x, value = _contiguous(x, value)
    call = _Call(form, x, value, beta, dense=dense)
    result = torch.empty_like(call.gate)
    if not result.numel():
        return result
    launches = call.launches(_units.forward, [x], {"result": result})
    if launches is None:
        return evaluate(form, x, value, beta, dense=True)
    launch(launches, x)
    return result


def pullback(
    form: Form,
    wanted: str,
    cotangent: Tensor,
    x: Tensor,
    value: Tensor | None,
    beta: Factor,
    *,
    dense: bool = False,
) -> tuple[Tensor, ...]:
    """The cotangent times the derivatives of P that are ``wanted``, in the order x, value, beta; each in the dtype and
    the shape of its argument."""
    cotangent, x, value, beta = _stored(cotangent, x, value, beta)
    if dense:
        cotangent, x, value = _contiguous(cotangent, x, value)
    call = _Call(form, x, value, beta, dense=dense)
    results: dict[str, Tensor] = {}
    d_gate = d_value = terms = None
    if IN_X in wanted:
        results[IN_X] = torch.empty_like(x)
        d_gate, d_value = form.split(results[IN_X], None)
    if IN_VALUE in wanted:
        assert value is not None
        results[IN_VALUE] = d_value = torch.empty_like(value)
    along_beta = ""
    if IN_BETA in wanted:
        assert isinstance(beta, Tensor)
        if form.activation != "swish" or not call.gate.numel():
            results[IN_BETA] = torch.zeros_like(beta)
        elif beta.numel() == 1:
            along_beta = "sum"
        else:
            along_beta = "terms"
            dtype = beta.dtype if beta.shape == call.gate.shape else compute_dtype(x.dtype)
            terms = torch.empty_like(call.gate, dtype=dtype)
    if call.gate.numel() and (d_gate is not None or d_value is not None or along_beta):
        packed = [x, results[IN_X]] if IN_X in wanted else [x]
        arrays = {"cotangent": cotangent, "d_gate": d_gate, "d_value": d_value, "d_beta": terms}
        launches = call.launches(
            _units.backward,
            packed,
            arrays,
            ALONG_GATE=d_gate is not None,
            ALONG_VALUE=d_value is not None,
            ALONG_BETA=along_beta,
        )
        if launches is None:
            return pullback(form, wanted, cotangent, x, value, beta, dense=True)
        if along_beta == "sum":
            places = torch.empty(sum(one.programs for one in launches), dtype=compute_dtype(x.dtype), device=x.device)
            pieces = torch.split(places, [one.programs for one in launches])
            launches = [
                one._replace(arguments={**one.arguments, "d_beta": piece})
                for one, piece in zip(launches, pieces, strict=True)
            ]
            terms = places
        launch(launches, x)
    if along_beta:
        assert isinstance(beta, Tensor) and terms is not None
        results[IN_BETA] = _sum(terms, beta)
    return tuple(results[name] for name in wanted)


def _sum(terms: Tensor, beta: Tensor) -> Tensor:
    """The terms added up to the shape and the dtype of ``beta``, in float64: no order of summation is seen."""
    if terms.shape == beta.shape:
        return terms.to(beta.dtype)
    if beta.numel() == 1:
        return terms.sum(dtype=torch.float64).to(beta.dtype).reshape(beta.shape)
    shape = (1,) * (terms.dim() - beta.dim()) + beta.shape
    axes = [axis for axis, size in enumerate(shape) if size == 1 and terms.shape[axis] != 1]
    return terms.sum(axes, keepdim=True, dtype=torch.float64).to(beta.dtype).reshape(beta.shape)
