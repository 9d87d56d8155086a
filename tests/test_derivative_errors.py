"""Every misuse of vjp and jvp: one exception with one text in every backend."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from _bad_calls import CASES, DTYPES, NO_ARRAYS, NO_NUMBERS, SOME_ARRAY, Bad
from _calls import INSTALLED, NATIVES, Array, Native

from gated.contract import ARRAY_PARAMETERS

FUNCTIONS = (
    "sigmoid, swish, silu, gelu, relu, glu, bilinear, reglu, geglu, swiglu, clamped_swiglu, gated_unit, glu_linear, "
    "swiglu_linear, gated_linear or gated_ffn"
)
X, BETA, HALF = Array((2, 6)), Array((6,)), Array((2, 3))
WEIGHTS, BIAS = (Array((2, 4)), Array((4, 3)), Array((4, 3))), Array((3,))


def differentiate(backend: Native, caller: str, fn: Any, primals: tuple[Any, ...], **static: Any) -> Any:
    """vjp, or jvp along the primals themselves."""
    if caller == "vjp":
        return backend["vjp"](fn, *primals, **static)
    return backend["jvp"](fn, primals, primals, **static)


def error_of(attempt: Callable[[], Any]) -> tuple[type[BaseException], str]:
    """The type and the text of the exception that ``attempt`` raises."""
    with pytest.raises(Exception) as caught:
        attempt()
    return type(caught.value), str(caught.value)


def type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


# A seventh of the table has every kind of case and every function.
@pytest.mark.parametrize("caller", ["vjp", "jvp"])
@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_the_errors_of_the_plain_call_are_those_of_vjp_and_jvp(backend: Native, case: Bad, caller: str) -> None:
    """The arrays are the primals; what else the call has is static."""
    static = backend.built(case.arguments())
    primals = tuple(static.pop(name) for name in ARRAY_PARAMETERS[case.function] if name in static)
    error = error_of(lambda: differentiate(backend, caller, backend[case.function], primals, **static))
    assert error == (case.error, f"{case.function}: {case.text}")


# fn and the primals


class NotHashable:
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("caller", ["vjp", "jvp"])
@pytest.mark.parametrize(
    ("fn", "came"),
    [
        (len, "builtins.len"),
        (math.exp, "math.exp"),
        (np.tanh, "numpy.tanh"),
        (str.upper, "str.upper"),
        ([].append, "list.append"),
        ("swish", "str"),
        (None, "NoneType"),
        ([], "list"),
        (NotHashable(), f"{__name__}.NotHashable"),
        (NotHashable, f"{__name__}.NotHashable"),
        (functools.partial(len), "functools.partial"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_fn_is_a_public_function(backend: Native, caller: str, fn: Any, came: str) -> None:
    assert error_of(lambda: differentiate(backend, caller, fn, (backend.array(X),))) == (
        TypeError,
        f"{caller}: fn must be a function of this backend, one of {FUNCTIONS}, got {came}",
    )


@pytest.mark.parametrize("caller", ["vjp", "jvp"])
def test_vjp_and_jvp_are_no_functions_to_differentiate(backend: Native, caller: str) -> None:
    for name in ("vjp", "jvp"):
        error, text = error_of(lambda name=name: differentiate(backend, caller, backend[name], (backend.array(X),)))
        assert error is TypeError
        assert text.startswith(f"{caller}: fn must be a function of this backend, one of {FUNCTIONS}, got gated.")


@pytest.mark.parametrize("caller", ["vjp", "jvp"])
@pytest.mark.parametrize("function", ARRAY_PARAMETERS)
def test_no_primals_and_too_many(backend: Native, function: str, caller: str) -> None:
    names = ARRAY_PARAMETERS[function]
    upto = "1 primal" if len(names) == 1 else f"1 to {len(names)} primals"
    for count in (0, len(names) + 1):
        primals = (backend.array(X),) * count
        assert error_of(lambda primals=primals: differentiate(backend, caller, backend[function], primals)) == (
            TypeError,
            f"{caller}: {function} takes {upto} ({', '.join(names)}), got {count}",
        )


@pytest.mark.parametrize("caller", ["vjp", "jvp"])
@pytest.mark.parametrize(("function", "name"), [(f, name) for f, names in ARRAY_PARAMETERS.items() for name in names])
def test_a_primal_that_is_a_keyword_too(backend: Native, function: str, name: str, caller: str) -> None:
    primals = (backend.array(X),) * (ARRAY_PARAMETERS[function].index(name) + 1)
    assert error_of(lambda: differentiate(backend, caller, backend[function], primals, **{name: 1.0})) == (
        TypeError,
        f"{caller}: {name} of {function} must be a primal or a keyword, got both",
    )


# The cotangent


@pytest.mark.parametrize(
    ("cotangent", "error", "text"),
    [
        *((value, TypeError, f"be {SOME_ARRAY}, got {kind}") for kind, value in NO_ARRAYS.items()),
        (Array((2, 3), "int64"), TypeError, f"have dtype {DTYPES}, got int64"),
        (Array((2, 3), "float8_e4m3fn"), TypeError, f"have dtype {DTYPES}, got float8_e4m3fn"),
        (Array((2, 3), "bfloat16"), TypeError, "have the dtype of the value, float32, got bfloat16"),
        (Array((2, 3), "float64"), TypeError, "have the dtype of the value, float32, got float64"),
        (Array((2, 6)), ValueError, "have the shape of the value, (2, 3), got (2, 6)"),
        (Array((1, 3)), ValueError, "have the shape of the value, (2, 3), got (1, 3)"),
        (Array(()), ValueError, "have the shape of the value, (2, 3), got ()"),
    ],
)
@pytest.mark.parametrize("function", ["glu", "gated_unit", "glu_linear"])
def test_the_cotangent_is_like_the_value(
    backend: Native, function: str, cotangent: Any, error: type[Exception], text: str
) -> None:
    primals = {"glu": (X,), "gated_unit": (HALF, HALF), "glu_linear": WEIGHTS}[function]
    _, pullback = backend["vjp"](backend[function], *map(backend.array, primals))
    built = backend.array(cotangent) if isinstance(cotangent, Array) else cotangent
    assert error_of(lambda: pullback(built)) == (error, f"vjp: the cotangent must {text}")


# The tangents


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "NoneType"), ({}, "dict"), ("x", "str"), (1.0, "float"), (iter(()), "tuple_iterator"), (X, "")],
    ids=["None", "dict", "str", "float", "iterator", "array"],
)
def test_primals_and_tangents_are_tuples_or_lists(backend: Native, value: Any, kind: str) -> None:
    x = backend.array(X)
    if value is X:
        value, kind = x, type_name(x)
    for name, arguments in (("primals", (value, (x,))), ("tangents", ((x,), value))):
        assert error_of(lambda arguments=arguments: backend["jvp"](backend["swish"], *arguments)) == (
            TypeError,
            f"jvp: {name} must be a tuple or a list, got {kind}",
        )


@pytest.mark.parametrize(
    ("primals", "tangents", "counts"),
    [((X, BETA), (X,), "2, got 1"), ([X], [X, BETA], "1, got 2"), ((), (X,), "0, got 1"), ((X,), (), "1, got 0")],
)
def test_tangents_are_as_many_as_primals(backend: Native, primals: Any, tangents: Any, counts: str) -> None:
    built = [type(these)(map(backend.array, these)) for these in (primals, tangents)]
    assert error_of(lambda: backend["jvp"](backend["swish"], *built)) == (
        TypeError,
        f"jvp: tangents must be as many as the primals, {counts}",
    )


@pytest.mark.parametrize(
    ("tangent", "error", "text"),
    [
        *((value, TypeError, f"be {SOME_ARRAY}, got {kind}") for kind, value in NO_ARRAYS.items()),
        (Array((2, 6), "int64"), TypeError, f"have dtype {DTYPES}, got int64"),
        (Array((2, 6), "float8_e4m3fn"), TypeError, f"have dtype {DTYPES}, got float8_e4m3fn"),
        (Array((2, 6), "float16"), TypeError, "have the dtype of x, float32, got float16"),
        (Array((2, 6), "float64"), TypeError, "have the dtype of x, float32, got float64"),
        (Array((6,)), ValueError, "have the shape of x, (2, 6), got (6,)"),
        (Array(()), ValueError, "have the shape of x, (2, 6), got ()"),
    ],
)
def test_the_tangent_of_an_array_is_like_it(backend: Native, tangent: Any, error: type[Exception], text: str) -> None:
    x = backend.array(X)
    built = backend.array(tangent) if isinstance(tangent, Array) else tangent
    for function in ("swish", "relu", "glu", "clamped_swiglu"):
        assert error_of(lambda function=function: backend["jvp"](backend[function], (x,), (built,))) == (
            error,
            f"jvp: the tangent of x must {text}",
        )


@pytest.mark.parametrize(
    ("function", "primals", "tangent", "error", "text"),
    [
        ("swish", (X, BETA), X, ValueError, "beta must have the shape of beta, (6,), got (2, 6)"),
        ("swish", (X, BETA), 1.0, TypeError, f"beta must be {SOME_ARRAY}, got float"),
        *(
            ("swish", (X, 1.0), value, TypeError, f"beta must be a Python number, as beta is, got {kind}")
            for kind, value in NO_NUMBERS.items()
        ),
        ("swish", (X, 1.0), BETA, TypeError, "beta must be a Python number, as beta is, got {array}"),
        (
            "swish",
            (X, 1),
            10**400,
            ValueError,
            "beta must fit in a float, got an integer of more than 1024 bits",
        ),
        ("glu_linear", (*WEIGHTS, None), BIAS, TypeError, "b must be None, as b is, got {array}"),
        ("glu_linear", (*WEIGHTS, None), 0.0, TypeError, "b must be None, as b is, got float"),
        ("glu_linear", (*WEIGHTS, BIAS), None, TypeError, f"b must be {SOME_ARRAY}, got NoneType"),
        ("glu_linear", (*WEIGHTS, BIAS), Array((4,)), ValueError, "b must have the shape of b, (3,), got (4,)"),
    ],
)
def test_the_last_tangent_is_like_its_primal(
    backend: Native, function: str, primals: tuple[Any, ...], tangent: Any, error: type[Exception], text: str
) -> None:
    """A number's is a number, None's is None."""
    *built, last = (backend.array(one) if isinstance(one, Array) else one for one in (*primals, tangent))
    attempt = lambda: backend["jvp"](backend[function], tuple(built), (*built[:-1], last))  # noqa: E731
    assert error_of(attempt) == (error, f"jvp: the tangent of {text.format(array=type_name(last))}")


# What belongs to another backend


@pytest.mark.parametrize("foreign", INSTALLED)
def test_the_functions_and_arrays_of_another_backend_are_refused(backend: Native, foreign: str) -> None:
    if foreign == backend.name:
        pytest.skip("its own")
    other = NATIVES[foreign](foreign)
    x, fn, stranger, swish = backend.array(X), other["swish"], other.array(X), backend["swish"]
    for caller in ("vjp", "jvp"):
        assert error_of(lambda caller=caller: differentiate(backend, caller, fn, (x,))) == (
            TypeError,
            f"{caller}: fn must be a function of this backend, one of {FUNCTIONS}, got {fn.__module__}.swish",
        )
    _, pullback = backend["vjp"](swish, x)
    for attempt, name in (
        (lambda: pullback(stranger), "vjp: the cotangent"),
        (lambda: backend["jvp"](swish, (x,), (stranger,)), "jvp: the tangent of x"),
        (lambda: backend["jvp"](swish, (stranger,), (x,)), "swish: x"),
        (lambda: backend["vjp"](swish, stranger), "swish: x"),
    ):
        assert error_of(attempt) == (TypeError, f"{name} must be {SOME_ARRAY}, got {type_name(stranger)}")
