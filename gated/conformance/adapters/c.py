"""A function of a C shared library, through ctypes.

T is the dtype's C type: ``float``, ``double``, and ``uint16_t`` with the bits of a float16 or bfloat16. All arrays are
contiguous; ``n``, ``rows`` and the other sizes are ``size_t``:

- an activation, ``n`` elements: ``void f(const T *x, T *y, size_t n)``
- a pair, ``n`` elements each: ``void f(const T *gate, const T *value, T *y, size_t n)``
- a packed unit, called for each row, x of 2n elements and y of n: ``void f(const T *x, T *y, size_t n)``
- projected, row-major: ``void f(const T *x, const T *W, const T *V, T *y, size_t rows, size_t d_in, size_t d_hidden)``;
  the biases ``b, c`` follow ``V``. gated_ffn: ``x, W, V, W2[, b, c, b2], y, rows, d_in, d_hidden, d_out``.

With ``--beta scalar``, ``T beta`` is the last parameter, by value.

The gradient is the symbol of the name with ``_vjp``, if there is one, or that of ``--gradient``. It takes the inputs,
the cotangent ``dy``, a place for the cotangent of each input, and the sizes: ``void f_vjp(const T *gate, const T
*value, const T *dy, T *dgate, T *dvalue, size_t n)``; with ``--beta scalar`` then ``T beta, T *dbeta``.

A library with a function for each dtype names them by suffix: ``swish_f16``, ``swish_bf16``, ``swish_f32`` and
``swish_f64`` are the target ``swish``. A symbol without a suffix takes floats, or what ``--dtypes`` says.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from gated.conformance.adapters.base import ALIGNMENT, AbsentError, Adapter, Array, Function, WrongTypeError, arranged
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.target import Symbol, TargetError, one_line

__all__ = ["ADAPTERS", "CAdapter"]

_SUFFIXES: Final = {"float16": "_f16", "bfloat16": "_bf16", "float32": "_f32", "float64": "_f64"}
_BY_VALUE: Final = {
    "float16": ctypes.c_uint16,
    "bfloat16": ctypes.c_uint16,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}


class OutOfBoundsError(Exception):
    """The function wrote past the end of its result."""


class CAdapter(Adapter):
    """A symbol called with pointers."""

    framework = "c"
    kind = "symbol"

    def __init__(self, device: str | None) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise TargetError(f'--device: c has "cpu" only, got "{device}"')

    def prepare(self, target: Any, claim: Claim) -> Function:
        if claim.beta in ("vector", "array"):
            raise TargetError(f"c: beta must be a number or scalar, got --beta {claim.beta}")
        if claim.form == "packed" and claim.axis != -1:
            raise TargetError(f"c: a packed unit is split along the last axis, got --axis {claim.axis}")
        symbols = _Symbols(target)
        if not symbols.found:
            variants = ", ".join(target.name + suffix for suffix in _SUFFIXES.values())
            raise TargetError(f"{target.library}: there is no symbol {target.name}, nor any of {variants}")
        self.dtypes = symbols.dtypes
        gradients = _Symbols(target, "_vjp")
        if self.gradient is None and gradients.found:
            self.gradient = _gradient(gradients, claim)
            self.gradient_source = f"the symbol {target.name}_vjp"

        def call(*arrays: Array) -> Array:
            function = symbols.of(arrays[0].dtype)
            inputs, last = _by_value(claim, arrays)
            y = _Room(_value_shape(claim, inputs), inputs[0].dtype)
            for piece in _pieces(claim, inputs, (y.array,)):
                function(*map(_pointer, piece), *_sizes(claim, inputs, piece), *last)
            y.check("y")
            return y.array

        return call

    def prepare_gradient(self, target: Any, claim: Claim) -> Function:
        return _gradient(_Symbols(target), claim)

    def put(self, array: Array, arrangement: str) -> Array:
        if array.dtype.name not in _BY_VALUE:
            raise AbsentError(f"C has no form for {array.dtype.name} here")
        if arrangement not in ("plain", "unaligned"):
            raise AbsentError("a C function gets a pointer and a size, and knows no strides")
        return arranged(array, arrangement)

    def get(self, result: Any) -> Array:
        if not isinstance(result, np.ndarray):
            raise WrongTypeError(f"{type(result).__qualname__}, where an array is expected")
        return np.array(result, order="C")


class _Symbols:
    """The functions of a library that a target's name stands for, by dtype; under ``""`` one of any dtype."""

    def __init__(self, target: Any, ending: str = "") -> None:
        if not isinstance(target, Symbol):
            raise TargetError(f"c: the target must be libx.so:symbol, got {type(target).__name__}")
        self.name = target.name
        try:
            library = ctypes.CDLL(str(target.library))
        except OSError as error:
            raise TargetError(f"{target.library}: cannot be loaded: {one_line(error)}") from error
        own = next((dtype for dtype, suffix in _SUFFIXES.items() if target.name.endswith(suffix)), "")
        names = {own: target.name} | {dtype: target.name + suffix for dtype, suffix in _SUFFIXES.items()}
        self.found: dict[str, Any] = {}
        for dtype, name in names.items():
            try:
                self.found[dtype] = getattr(library, name + ending)
            except AttributeError:
                continue
            self.found[dtype].restype = None

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Those that the names say; float32 where they say nothing."""
        return tuple(dtype for dtype in _SUFFIXES if dtype in self.found) or ("float32",)

    def of(self, dtype: np.dtype[Any]) -> Any:
        """The function for arrays of a dtype."""
        function = self.found.get(dtype.name) or self.found.get("")
        if function is None:
            raise AbsentError(f"{self.name} has no symbol for {dtype.name}")
        return function


def _gradient(symbols: _Symbols, claim: Claim) -> Function:
    def call(*arrays: Array) -> Sequence[Array]:
        *given, dy = arrays
        dtype = dy.dtype
        function = symbols.of(dtype)
        inputs, last = _by_value(claim, given)
        rooms = [_Room(one.shape, dtype) for one in inputs]
        of_beta = []
        for piece in _pieces(claim, (*inputs, dy), tuple(room.array for room in rooms)):
            of_beta += [_Room((), dtype)] if last else []
            beta = [*last, _pointer(of_beta[-1].array)] if last else []
            function(*map(_pointer, piece), *_sizes(claim, inputs, piece), *beta)
        for room, name in zip((*rooms, *of_beta), (*claim.arguments, *["beta"] * len(of_beta)), strict=False):
            room.check(f"d{name}")
        # Of a packed unit there is one a row: the rows are added here, in float64.
        total = [np.sum([room.array.astype(np.float64) for room in of_beta]).astype(dtype)] if last else []
        return [*(room.array for room in rooms), *map(np.asarray, total)]

    return call


def _by_value(claim: Claim, arrays: Sequence[Array]) -> tuple[Sequence[Array], list[Any]]:
    """The arrays that are handed over as pointers, and beta where it is an argument."""
    if claim.beta != "scalar":
        return arrays, []
    *others, beta = arrays
    number = beta[()] if beta.dtype.itemsize > 2 else beta.view(np.uint16)[()]
    return others, [_BY_VALUE[beta.dtype.name](number.item())]


def _pieces(claim: Claim, inputs: Sequence[Array], outputs: Sequence[Array]) -> Sequence[Sequence[Array]]:
    """The arrays of each call: all at once, or of a packed unit the rows."""
    if claim.form == "pair" and len({one.shape for one in inputs}) > 1:
        raise AbsentError("a C function knows no shapes: gate and value must have the same")
    if claim.form != "packed":
        return [(*inputs, *outputs)]
    rows = [one.reshape(-1, one.shape[-1]) for one in (*inputs, *outputs)]
    return list(zip(*rows, strict=True))


def _sizes(claim: Claim, inputs: Sequence[Array], piece: Sequence[Array]) -> list[ctypes.c_size_t]:
    if claim.form == "packed":
        sizes = [piece[0].size // 2]
    elif claim.form != "projected":
        sizes = [piece[0].size]
    else:
        x, W, *others = inputs
        sizes = [math.prod(x.shape[:-1]), *W.shape, *(others[1].shape[1:] if claim.function == "gated_ffn" else ())]
    return [ctypes.c_size_t(one) for one in sizes]


def _value_shape(claim: Claim, arrays: Sequence[Array]) -> tuple[int, ...]:
    shape = arrays[0].shape
    if claim.form == "packed":
        if shape[-1] % 2:
            raise AbsentError("a C function knows no odd sizes: a packed row is 2n elements")
        return (*shape[:-1], shape[-1] // 2)
    if claim.form == "projected":
        return (*shape[:-1], arrays[3 if claim.function == "gated_ffn" else 1].shape[1])
    return shape


class _Room:
    """Memory for a result: filled with nan, so that what is not written shows, and watched past its end."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = math.prod(shape) * dtype.itemsize
        memory = np.full(size + 3 * ALIGNMENT, 0xFF, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        self.array = memory[first : first + size].view(dtype).reshape(shape)
        self._past = memory[first + size :]

    def check(self, name: str) -> None:
        if np.any(self._past != 0xFF):
            raise OutOfBoundsError(f"it writes past the end of {name}")


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


ADAPTERS = {"c": CAdapter}
