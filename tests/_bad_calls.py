"""Every bad call of every function, with its one error: a table for the tests of errors."""

from __future__ import annotations

import array
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from _calls import ARRAYS, SIGNATURES, Array, call

DTYPES = "float16, bfloat16, float32 or float64"
CHOICES = {
    "approximate": '"none" or "tanh"',
    "layout": '"gate_last", "gate_first" or "interleaved"',
    "activation": '"identity", "sigmoid", "relu", "gelu", "gelu_tanh" or "swish"',
}
REFUSED_DTYPES = ("int64", "bool", "complex64", "float8_e4m3fn")
SOME_ARRAY = f"an array of this backend with dtype {DTYPES}"
NO_ARRAYS = {
    "list": [1.0, 2.0],
    "tuple": (1.0, 2.0),
    "NoneType": None,
    "str": "x",
    "float": 1.0,
    "int": 1,
    "array.array": array.array("f", [1.0, 2.0]),
}
NO_NUMBERS = {
    "bool": True,
    "str": "1",
    "complex": 1j,
    "list": [1.0],
    "NoneType": None,
    "fractions.Fraction": Fraction(1),
    "decimal.Decimal": Decimal(1),
}
BIASES = ("b", "c", "b2")

PACKED = tuple(name for name, signature in SIGNATURES.items() if "axis" in signature.parameters)
PROJECTED = tuple(name for name, shapes in ARRAYS.items() if "W" in shapes)
WITH_BETA = tuple(name for name, shapes in ARRAYS.items() if "beta" in shapes)
GATE = {name: (2, 6) if name == "swish" else (2, 3) for name in WITH_BETA}


def arrays_of(function: str) -> list[str]:
    """The array arguments of a function; beta, which may be a number, has cases of its own."""
    return [name for name in ARRAYS[function] if name != "beta"]


@dataclass(frozen=True)
class Bad:
    """A valid call but for ``changes``, and its error."""

    function: str
    changes: Mapping[str, Any]
    error: type[Exception]
    text: str
    """What stands after the function's name."""
    what: str = ""

    def __str__(self) -> str:
        changed = ",".join(f"{name}={self.what or short(value)}" for name, value in self.changes.items())
        return f"{self.function}-{changed}"

    def arguments(self) -> dict[str, Any]:
        return call(self.function) | dict(self.changes)


def short(value: object) -> str:
    """A value in the name of a test."""
    if isinstance(value, Array):
        return f"{value.dtype}{list(value.shape)}"
    return repr(value)[:20]


def no_array() -> Iterator[Bad]:
    for function in ARRAYS:
        for name in arrays_of(function):
            for kind, value in NO_ARRAYS.items():
                if not (value is None and name in BIASES):
                    text = f"{name} must be {SOME_ARRAY}, got {kind}"
                    yield Bad(function, {name: value}, TypeError, text, kind)


def refused_dtype() -> Iterator[Bad]:
    for function, shapes in ARRAYS.items():
        for name, dtype in itertools.product(shapes, REFUSED_DTYPES):
            text = f"{name} must have dtype {DTYPES}, got {dtype}"
            yield Bad(function, {name: Array(shapes[name], dtype)}, TypeError, text)


def mixed_dtypes() -> Iterator[Bad]:
    """One array of another dtype than the rest, or two, in every place; wider and narrower."""
    for function, shapes in ARRAYS.items():
        first, *others = shapes
        for name, dtype in itertools.product(others, ("float16", "bfloat16", "float64")):
            text = f"{name} must have the dtype of {first}, float32, got {dtype}"
            yield Bad(function, {name: Array(shapes[name], dtype)}, TypeError, text)
        for dtype in ("bfloat16", "float64") if others else ():
            text = f"{others[0]} must have the dtype of {first}, {dtype}, got float32"
            yield Bad(function, {first: Array(shapes[first], dtype)}, TypeError, text)
        for one, two in itertools.combinations(others, 2):
            text = f"{one} must have the dtype of {first}, float32, got float16"
            changes = {name: Array(shapes[name], "float16") for name in (one, two)}
            yield Bad(function, changes, TypeError, text)


def unknown_choice() -> Iterator[Bad]:
    for function, signature in SIGNATURES.items():
        for name in (each for each in CHOICES if each in signature.parameters):
            for value in ("x", "", "GATE_LAST", "Swish", "gate_last ", None, 0, True, ["tanh"]):
                yield Bad(function, {name: value}, ValueError, f"{name} must be {CHOICES[name]}, got {value!r}")


def bad_axis() -> Iterator[Bad]:
    for function in PACKED:
        for value, kind in ((1.0, "float"), (True, "bool"), (None, "NoneType"), ("1", "str"), ((1,), "tuple")):
            yield Bad(function, {"axis": value}, TypeError, f"axis must be an int, got {kind}")
        for value in (2, -3, 10**30):
            text = f"axis must be from -2 to 1 for x of shape (2, 6), got {value}"
            yield Bad(function, {"axis": value}, ValueError, text)
        for axis, shape in ((-1, (2, 5)), (0, (3, 4)), (1, (2, 5, 2)), (0, (1,))):
            position = axis % len(shape)
            text = f"x must have an even size along axis {position}, got {shape[position]} in shape {shape}"
            yield Bad(function, {"x": Array(shape), "axis": axis}, ValueError, text)
        for axis in (-1, 0):
            text = "x must have an axis to split in two, got a 0-d array"
            yield Bad(function, {"x": Array(()), "axis": axis}, ValueError, text)


def bad_beta() -> Iterator[Bad]:
    for function in WITH_BETA:
        gate = GATE[function]
        for kind, value in NO_NUMBERS.items():
            text = f"beta must be a Python number or {SOME_ARRAY}, got {kind}"
            yield Bad(function, {"beta": value}, TypeError, text, kind)
        for value in (10**400, -(10**400)):
            text = "beta must fit in a float, got an integer of more than 1024 bits"
            yield Bad(function, {"beta": value}, ValueError, text)
        last = gate[-1]
        shapes = ((last + 1,), (2, last - 1), (3, last), (1, 2, last), (1, 1, 1), (0,), (2, 0), (last, 2))
        for shape in shapes:
            text = f"beta must broadcast to the shape of the gate, {gate}, without enlarging it, got {shape}"
            yield Bad(function, {"beta": Array(shape)}, ValueError, text)
    # An axis of size 1 in the gate is not enlarged either.
    for function, changes, shape, gate in (
        ("swish", {"x": Array((2, 1))}, (3,), (2, 1)),
        ("swish", {"x": Array(())}, (1,), ()),
        ("swiglu", {"x": Array((2, 2))}, (3,), (2, 1)),
        ("swiglu", {"x": Array((4, 1)), "axis": 0}, (4, 1), (2, 1)),
        ("gated_unit", {"gate": Array((1, 3)), "value": Array((1, 3))}, (2, 3), (1, 3)),
        ("gated_unit", {"gate": Array(()), "value": Array(())}, (1,), ()),
        *((name, {"x": Array((1, 4))}, (2, 3), (1, 3)) for name in PROJECTED if name != "glu_linear"),
        *((name, {"x": Array((4,))}, (1, 3), (3,)) for name in PROJECTED if name != "glu_linear"),
    ):
        text = f"beta must broadcast to the shape of the gate, {gate}, without enlarging it, got {shape}"
        yield Bad(function, {**changes, "beta": Array(shape)}, ValueError, text)
    # An activation that has no use for beta checks it all the same.
    for activation in ("identity", "sigmoid", "relu", "gelu", "gelu_tanh"):
        for function in ("gated_unit", "gated_linear", "gated_ffn"):
            text = "beta must broadcast to the shape of the gate, (2, 3), without enlarging it, got (4,)"
            yield Bad(function, {"activation": activation, "beta": Array((4,))}, ValueError, text)
            text = f"beta must be a Python number or {SOME_ARRAY}, got NoneType"
            yield Bad(function, {"activation": activation, "beta": None}, TypeError, text)


def bad_number() -> Iterator[Bad]:
    for name in ("alpha", "limit", "offset"):
        for kind, value in {**NO_NUMBERS, "array.array": NO_ARRAYS["array.array"]}.items():
            yield Bad("clamped_swiglu", {name: value}, TypeError, f"{name} must be a Python number, got {kind}", kind)
        text = f"{name} must fit in a float, got an integer of more than 1024 bits"
        yield Bad("clamped_swiglu", {name: 10**400}, ValueError, text)
    for name, value in itertools.product(("alpha", "offset"), (math.inf, -math.inf, math.nan)):
        yield Bad("clamped_swiglu", {name: value}, ValueError, f"{name} must be finite, got {value}")
    for value in (-1.0, -1, -math.inf, math.nan, -5e-324):
        yield Bad("clamped_swiglu", {"limit": value}, ValueError, f"limit must be at least 0, got {float(value)}")


def mismatched_pair() -> Iterator[Bad]:
    """Shapes that broadcast are refused as those that do not."""
    for gate, value in (
        ((2, 3), (3, 2)),
        ((2, 3), (3,)),
        ((2, 3), (1, 3)),
        ((2, 3), (2, 1)),
        ((1, 3), (2, 3)),
        ((2, 3), ()),
        ((), (1,)),
        ((0, 3), (1, 3)),
        ((2, 3), (1, 2, 3)),
    ):
        text = f"value must have the shape of gate, {gate}, got {value}"
        yield Bad("gated_unit", {"gate": Array(gate), "value": Array(value), "beta": 1.0}, ValueError, text)


def ill_fitting_projection() -> Iterator[Bad]:
    for function in PROJECTED:
        ffn = function == "gated_ffn"

        def bad(name: str, shape: tuple[int, ...], expected: str, function: str = function) -> Bad:
            return Bad(function, {name: Array(shape)}, ValueError, f"{name} must have shape {expected}, got {shape}")

        yield bad("x", (), "(..., d_in)")
        for shape in ((4,), (), (1, 4, 3), (5, 3), (3, 4), (1, 3), (0, 3)):
            yield bad("W", shape, "(d_in, d_hidden) with d_in = 4, the last axis of x")
        for shape in ((2, 3), (3,), (0,), (4, 2)):
            yield Bad(
                function,
                {"x": Array(shape)},
                ValueError,
                f"W must have shape (d_in, d_hidden) with d_in = {shape[-1]}, the last axis of x, got (4, 3)",
            )
        for shape in ((4, 2), (4, 1), (1, 3), (3, 4), (4,), (), (1, 4, 3), (4, 0)):
            yield bad("V", shape, "(4, 3), that of W")
        for name, shape in itertools.product(("b", "c"), ((2,), (4,), (1,), (), (1, 3), (3, 1), (0,))):
            yield bad(name, shape, "(d_hidden,) with d_hidden = 3")
        if ffn:
            for shape in ((4, 5), (5, 3), (1, 5), (3,), (), (1, 3, 5), (0, 5)):
                yield bad("W2", shape, "(d_hidden, d_out) with d_hidden = 3, the last axis of W")
            for shape in ((3,), (4,), (1,), (), (1, 5), (0,)):
                yield bad("b2", shape, "(d_out,) with d_out = 5")


CASES = [
    case
    for kind in (
        no_array,
        refused_dtype,
        mixed_dtypes,
        unknown_choice,
        bad_axis,
        bad_beta,
        bad_number,
        mismatched_pair,
        ill_fitting_projection,
    )
    for case in kind()
]
