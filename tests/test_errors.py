"""Every bad call of every function: one exception with one text in every backend, before any arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from _bad_calls import CASES, SOME_ARRAY, Bad
from _calls import ARRAYS, INSTALLED, NATIVES, SIGNATURES, Array, Native, call


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_call_raises_its_one_error_before_any_arithmetic(backend: Native, case: Bad) -> None:
    arguments = backend.built(case.arguments())
    before = contents(backend, arguments)
    with backend.idle(), pytest.raises(Exception) as caught:
        backend[case.function](**arguments)
    assert (type(caught.value), str(caught.value)) == (case.error, f"{case.function}: {case.text}")
    assert contents(backend, arguments) == before


def contents(backend: Native, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The bits of every array; of anything else, the thing itself."""

    def content(value: Any) -> Any:
        if backend.is_array(value):
            return backend.dtype(value), tuple(value.shape), backend.bits(value)
        return repr(value)

    return {name: content(value) for name, value in arguments.items()}


def test_every_text_names_the_argument_that_is_wrong() -> None:
    """The text begins with an argument; that is one that was changed, or one held against the one that was."""
    for case in CASES:
        argument = case.text.split(" must ")[0]
        assert argument in SIGNATURES[case.function].parameters
        first = next(iter(ARRAYS[case.function]))
        assert argument in case.changes or first in case.changes


def test_the_calls_that_the_cases_change_are_valid(backend: Native) -> None:
    for function in ARRAYS:
        for dtype in ("bfloat16", "float32"):
            arguments = backend.built(call(function, dtype))
            before = contents(backend, arguments)
            assert backend.dtype(backend[function](**arguments)) == dtype
            assert contents(backend, arguments) == before


def test_arithmetic_is_noticed(backend: Native) -> None:
    """The guard of the first test sees the arithmetic of a valid call."""
    for function in ARRAYS:
        arguments = backend.built(call(function))
        with backend.idle(), pytest.raises(AssertionError, match="arithmetic before the checks"):
            backend[function](**arguments)


@pytest.mark.parametrize("foreign", INSTALLED)
def test_the_arrays_of_another_backend_are_refused(backend: Native, foreign: str) -> None:
    if foreign == backend.name:
        pytest.skip("its own")
    other = NATIVES[foreign](foreign)
    for function, shapes in ARRAYS.items():
        for name in shapes:
            value = other.array(Array(shapes[name]))
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            number = "a Python number or " if name == "beta" else ""
            with pytest.raises(TypeError) as caught:
                backend[function](**backend.built(call(function)) | {name: value})
            assert str(caught.value) == f"{function}: {name} must be {number}{SOME_ARRAY}, got {kind}"
    for name in ("alpha", "limit", "offset"):
        with pytest.raises(TypeError, match=rf"^clamped_swiglu: {name} must be a Python number, got "):
            backend["clamped_swiglu"](backend.array(Array((2, 6))), **{name: other.array(Array(()))})


def test_clamped_swiglu_takes_no_array_for_a_number(backend: Native) -> None:
    for name in ("alpha", "limit", "offset"):
        number = backend.array(Array(()))
        kind = f"{type(number).__module__}.{type(number).__qualname__}"
        with pytest.raises(TypeError) as caught:
            backend["clamped_swiglu"](backend.array(Array((2, 6))), **{name: number})
        assert str(caught.value) == f"clamped_swiglu: {name} must be a Python number, got {kind}"


# In full, to be read: a change of any of these is a decision

LITERAL: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("swish", {"x": [1.0]}, f"TypeError: swish: x must be {SOME_ARRAY}, got list"),
    (
        "silu",
        {"x": Array((2,), "int64")},
        "TypeError: silu: x must have dtype float16, bfloat16, float32 or float64, got int64",
    ),
    ("gelu", {"approximate": "erf"}, """ValueError: gelu: approximate must be "none" or "tanh", got 'erf'"""),
    (
        "glu",
        {"x": Array((2, 5))},
        "ValueError: glu: x must have an even size along axis 1, got 5 in shape (2, 5)",
    ),
    ("glu", {"x": Array(())}, "ValueError: glu: x must have an axis to split in two, got a 0-d array"),
    ("reglu", {"axis": 2}, "ValueError: reglu: axis must be from -2 to 1 for x of shape (2, 6), got 2"),
    ("geglu", {"axis": 1.0}, "TypeError: geglu: axis must be an int, got float"),
    (
        "swiglu",
        {"layout": "gate_frist"},
        """ValueError: swiglu: layout must be "gate_last", "gate_first" or "interleaved", got 'gate_frist'""",
    ),
    ("swiglu", {"beta": "1"}, f"TypeError: swiglu: beta must be a Python number or {SOME_ARRAY}, got str"),
    (
        "swiglu",
        {"beta": Array((4,))},
        "ValueError: swiglu: beta must broadcast to the shape of the gate, (2, 3), without enlarging it, got (4,)",
    ),
    ("clamped_swiglu", {"limit": -7.0}, "ValueError: clamped_swiglu: limit must be at least 0, got -7.0"),
    ("clamped_swiglu", {"alpha": math.inf}, "ValueError: clamped_swiglu: alpha must be finite, got inf"),
    (
        "gated_unit",
        {"value": Array((2, 3), "float16")},
        "TypeError: gated_unit: value must have the dtype of gate, float32, got float16",
    ),
    (
        "gated_unit",
        {"value": Array((1, 3))},
        "ValueError: gated_unit: value must have the shape of gate, (2, 3), got (1, 3)",
    ),
    (
        "gated_unit",
        {"activation": "silu"},
        'ValueError: gated_unit: activation must be "identity", "sigmoid", "relu", "gelu", "gelu_tanh" or "swish", '
        "got 'silu'",
    ),
    (
        "glu_linear",
        {"W": Array((3, 4))},
        "ValueError: glu_linear: W must have shape (d_in, d_hidden) with d_in = 4, the last axis of x, got (3, 4)",
    ),
    (
        "gated_linear",
        {"V": Array((4, 2))},
        "ValueError: gated_linear: V must have shape (4, 3), that of W, got (4, 2)",
    ),
    (
        "swiglu_linear",
        {"b": Array((4,))},
        "ValueError: swiglu_linear: b must have shape (d_hidden,) with d_hidden = 3, got (4,)",
    ),
    (
        "gated_ffn",
        {"W2": Array((4, 5))},
        "ValueError: gated_ffn: W2 must have shape (d_hidden, d_out) with d_hidden = 3, the last axis of W, got (4, 5)",
    ),
    ("gated_ffn", {"W2": None}, f"TypeError: gated_ffn: W2 must be {SOME_ARRAY}, got NoneType"),
)


@pytest.mark.parametrize(("function", "changes", "text"), LITERAL, ids=[text[:40] for *_, text in LITERAL])
def test_the_text_in_full(backend: Native, function: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        backend[function](**backend.built(call(function) | changes))
    assert f"{type(caught.value).__name__}: {caught.value}" == text
