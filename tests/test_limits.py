"""The table of limits: infinities, signed zeros, nan and overflow, in values and first derivatives of every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from strategies import (
    ELEMENTS,
    SPECS,
    Backend,
    JaxBackend,
    Spec,
    backend,
    every_backend,
    every_dtype,
    pack,
    padded,
    unpack,
)

from gated.conformance.bounds import ceiling
from gated.conformance.error import FORMATS, Format, error_in_ulp
from gated.contract import ACTIVATIONS

Array = NDArray[Any]

INF: Final = math.inf
NAN: Final = math.nan
ZERO: Final = "zero of either sign"
ANY: Final = "anything"
NUMBER: Final = "no nan"
Expected = float | str

# gate, value, beta, cotangent -> result, and the cotangents of gate, value and beta. A large finite gate, 1e4, is where
# the exponential is 0 in every dtype but not mathematically. L stands for the dtype's largest number.
L: Final = 12345.678
Row = tuple[float, float, float, float, Expected, Expected, Expected, Expected]

# Rows of every activation that rises from 0 at -inf like x, and vanishes at -inf like swish, gelu and gelu_tanh.
SWISH_LIKE: tuple[Row, ...] = (
    # Limits at infinity.
    (-INF, 1, 1, 1, -0.0, ZERO, -0.0, ZERO),
    (INF, 1, 1, 1, INF, 1, INF, ZERO),
    (-INF, -2, 1, 1, 0.0, ZERO, -0.0, ZERO),
    (INF, -2, 1, 1, -INF, -2, INF, ZERO),
    (INF, 0, 1, 1, NAN, ZERO, INF, ZERO),
    # Signed zeros: the slope there is 1/2.
    (0.0, 2, 1, 1, 0.0, 1, 0.0, ZERO),
    (-0.0, 2, 1, 1, -0.0, 1, -0.0, ZERO),
    (-0.0, -2, 1, 1, 0.0, -1, -0.0, ZERO),
    (3, 0.0, 1, 1, 0.0, ZERO, ANY, ZERO),
    (3, -0.0, 1, 1, -0.0, ZERO, ANY, ZERO),
    (-3, 0.0, 1, 1, -0.0, ZERO, ANY, ZERO),
    # inf * 0 is nan where the activation is exactly 0, and infinite where it is not, however small.
    (0.0, INF, 1, 1, NAN, INF, 0.0, NAN),
    (-INF, INF, 1, 1, NAN, NAN, -0.0, NAN),
    (INF, INF, 1, 1, INF, INF, INF, NAN),
    (INF, -INF, 1, 1, -INF, -INF, INF, NAN),
    (-1e4, INF, 1, 1, -INF, -INF, ANY, INF),
    (-1e4, -INF, 1, 1, INF, INF, ANY, -INF),
    (1e4, -INF, 1, 1, -INF, -INF, ANY, -INF),
    (-1e4, -INF, 1, -1, INF, -INF, ANY, INF),
    (-1e4, 1, 1, INF, ANY, -INF, -INF, INF),
    (1e4, 1, 1, -INF, ANY, -INF, -INF, -INF),
    (-INF, 1, 1, INF, -0.0, NAN, NAN, NAN),
    (0.0, 1, 1, INF, 0.0, INF, NAN, NAN),
    # Overflow.
    (L, 4, 1, 1, INF, 4, L, ZERO),
    (L, -4, 1, 1, -INF, -4, L, ZERO),
    (-L, 4, 1, 1, -0.0, ZERO, -0.0, ZERO),
    (-L, L, 1, 1, -0.0, ZERO, -0.0, ZERO),
    # nan from every operand.
    (NAN, 1, 1, 1, NAN, NAN, NAN, NAN),
    (1, NAN, 1, 1, NAN, NAN, NUMBER, NAN),
    (1, 1, 1, NAN, NUMBER, NAN, NAN, NAN),
    (NAN, 0, 1, 1, NAN, NAN, NAN, NAN),
)

# The rest of swish: beta other than 1.
WITH_BETA: tuple[Row, ...] = (
    (INF, 2, -1, 1, 0.0, ZERO, 0.0, ZERO),
    (-INF, 2, -1, 1, -INF, 2, -INF, ZERO),
    (INF, 1, 0.0, 1, INF, 0.5, INF, INF),
    (-INF, 1, -0.0, 1, -INF, 0.5, -INF, INF),
    (3, 2, 0.0, 1, 3, 1, 1.5, 4.5),
    (-3, 2, -0.0, 1, -3, 1, -1.5, 4.5),
    (-0.0, 1, 0.0, 1, -0.0, 0.5, -0.0, ZERO),
    (0.0, 1, INF, 1, 0.0, 0.5, 0.0, ZERO),
    (-0.0, 1, -INF, 1, -0.0, 0.5, -0.0, ZERO),
    (2, 1, INF, 1, 2, 1, 2, ZERO),
    (-2, 1, INF, 1, -0.0, ZERO, -0.0, ZERO),
    (2, 1, -INF, 1, 0.0, ZERO, 0.0, ZERO),
    (-2, 1, -INF, 1, -2, 1, -2, ZERO),
    (-INF, 1, INF, 1, -0.0, ZERO, -0.0, ZERO),
    (2, INF, -INF, 1, NAN, NAN, 0.0, NAN),
    (1, 1, NAN, 1, NAN, NAN, NAN, NAN),
    (0.0, 1, NAN, 1, NAN, NAN, NAN, NAN),
)

SIGMOID: tuple[Row, ...] = (
    (-INF, 1, 1, 1, 0.0, ZERO, 0.0, ZERO),
    (INF, 1, 1, 1, 1, ZERO, 1, ZERO),
    (-INF, -2, 1, 1, -0.0, ZERO, 0.0, ZERO),
    (0.0, 2, 1, 1, 1, 0.5, 0.5, ZERO),
    (-0.0, -2, 1, 1, -1, -0.5, 0.5, ZERO),
    (0.0, -0.0, 1, 1, -0.0, ZERO, 0.5, ZERO),
    (0.0, INF, 1, 1, INF, INF, 0.5, ANY),
    (-INF, INF, 1, 1, NAN, NAN, 0.0, ANY),
    (INF, INF, 1, 1, INF, NAN, 1, ANY),
    (-1e4, INF, 1, 1, INF, INF, ANY, ANY),
    (1e4, -INF, 1, 1, -INF, -INF, 1, ANY),
    (-1e4, 1, 1, INF, ANY, INF, INF, ANY),
    (-L, L, 1, 1, 0.0, ZERO, 0.0, ZERO),
    (L, L, 1, 1, L, ZERO, 1, ZERO),
    (NAN, 1, 1, 1, NAN, NAN, NAN, ANY),
    (1, NAN, 1, 1, NAN, NAN, NUMBER, ANY),
    (1, 1, 1, NAN, NUMBER, NAN, NAN, ANY),
)

RELU: tuple[Row, ...] = (
    (-INF, 1, 1, 1, 0.0, ZERO, 0.0, ZERO),
    (INF, 2, 1, 1, INF, 2, INF, ZERO),
    (-2, 3, 1, 1, 0.0, ZERO, 0.0, ZERO),
    (2, 3, 1, 1, 6, 3, 2, ZERO),
    (2, 1, 1, 1, 2, 1, 2, ZERO),
    (-2, -3, 1, 1, -0.0, ZERO, 0.0, ZERO),
    (0.0, 3, 1, 1, 0.0, ZERO, 0.0, ZERO),
    (-0.0, 3, 1, 1, -0.0, ZERO, -0.0, ZERO),
    (-0.0, -3, 1, 1, 0.0, ZERO, -0.0, ZERO),
    (0.0, INF, 1, 1, NAN, NAN, 0.0, ANY),
    (-2, INF, 1, 1, NAN, NAN, 0.0, ANY),
    (2, INF, 1, 1, INF, INF, 2, ANY),
    (-2, 1, 1, INF, 0.0, NAN, NAN, ANY),
    (L, 4, 1, 1, INF, 4, L, ZERO),
    (NAN, 1, 1, 1, NAN, NAN, NAN, ANY),
    (1, NAN, 1, 1, NAN, NAN, 1, ANY),
    (1, 1, 1, NAN, 1, NAN, NAN, ANY),
)

IDENTITY: tuple[Row, ...] = (
    (-INF, 2, 1, 1, -INF, 2, -INF, ZERO),
    (INF, -2, 1, 1, -INF, -2, INF, ZERO),
    (-0.0, 2, 1, 1, -0.0, 2, -0.0, ZERO),
    (3, -0.0, 1, 1, -0.0, -0.0, 3, ZERO),
    (0.0, INF, 1, 1, NAN, INF, 0.0, ANY),
    (2, 1, 1, INF, 2, INF, INF, ANY),
    (0.0, 1, 1, INF, 0.0, INF, NAN, ANY),
    (L, 4, 1, 1, INF, 4, L, ZERO),
    (NAN, 1, 1, 1, NAN, 1, NAN, ANY),
    (1, NAN, 1, 1, NAN, NAN, 1, ANY),
    (1, 1, 1, NAN, 1, NAN, NAN, ANY),
)

TABLE = {
    "identity": IDENTITY,
    "sigmoid": SIGMOID,
    "relu": RELU,
    "gelu": SWISH_LIKE,
    "gelu_tanh": SWISH_LIKE,
    "swish": (*SWISH_LIKE, *WITH_BETA),
}


def column(rows: Sequence[Row], index: int, form: Format) -> Array:
    return padded([_number(row[index], form) for row in rows], form)


def _number(x: Any, form: Format) -> float:
    return math.copysign(form.largest, x) if abs(x) == L else x


def expect(backend_name: str, result: Array, rows: Sequence[Row], index: int, form: Format, name: str) -> None:
    """Each row's expectation: nan, an infinity, a zero with or without its sign, a number within the contract."""
    bound = ceiling(backend_name, form.name, gradient=True, activation="swish")
    assert result.dtype == form.dtype
    for row, bits in zip(rows, result.ravel(), strict=False):
        got, expected = float(bits), row[index]
        if expected == ANY:
            continue
        if isinstance(expected, str):
            right = got == 0 if expected == ZERO else not math.isnan(got)
        elif math.isnan(expected):
            right = math.isnan(got)
        else:
            right = error_in_ulp(bits, np.array(_number(expected, form)), form=form) <= bound
        assert right, f"{name} at gate, value, beta, cotangent = {row[:4]} must be {expected}, got {got}"


def rows_of(activation: str, beta: float | None) -> tuple[Row, ...]:
    """The rows with this beta, all of them for None."""
    return tuple(row for row in TABLE[activation] if beta is None or row[2] == beta)


@every_backend
@every_dtype
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_units_meet_the_table_in_every_argument(backend_name: str, dtype: str, activation: str) -> None:
    one, form, rows = backend(backend_name), FORMATS[dtype], TABLE[activation]
    gate, value, beta, cotangent = (column(rows, i, form) for i in range(4))
    primals = (gate, value, beta) if activation == "swish" else (gate, value)
    result, cotangents = one.vjp("gated_unit", primals, cotangent, activation=activation)
    for index, (name, got) in enumerate(
        zip(("the value", "the gate's", "the value's", "beta's"), (result, *cotangents), strict=False), start=4
    ):
        expect(backend_name, got, rows, index, form, name)


@every_backend
@every_dtype
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.kind == "unary"], ids=str)
def test_activations_meet_the_table(backend_name: str, dtype: str, spec: Spec) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    # activation(x) is the cotangent of a value of 1 whose cotangent is 1.
    rows = [row for row in rows_of(spec.activation, None if spec.has_beta else 1) if row[1] == row[3] == 1]
    assert len(rows) >= 3
    x, beta = column(rows, 0, form), column(rows, 2, form)
    primals = (x, beta) if spec.has_beta else (x,)
    value, cotangents = one.vjp(spec.function, primals, np.ones_like(x), **dict(spec.keywords))
    expect(backend_name, value, rows, 4, form, spec.function)
    expect(backend_name, cotangents[0], rows, 5, form, f"the derivative of {spec.function}")
    if spec.has_beta:
        expect(backend_name, cotangents[1], rows, 7, form, "beta's")


@every_backend
@every_dtype
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.kind == "packed"], ids=str)
def test_packed_units_meet_the_table(backend_name: str, dtype: str, spec: Spec) -> None:
    if backend_name == "jax" and dtype != "float32" and spec.function != "swiglu":
        return  # one rule behind all names, which JAX compiles for each
    one, form = backend(backend_name), FORMATS[dtype]
    keywords = dict(spec.keywords)
    if spec.function == "clamped_swiglu":
        # Without a limit and an offset, and alpha = 1, this is swiglu.
        keywords |= {"limit": math.inf, "offset": 0.0, "alpha": 1.0}
    rows = rows_of(spec.activation, 1)
    if spec.function == "clamped_swiglu":
        # Adding the offset takes a zero's sign, and the clamp has a derivative of nan at nan: CLAMPED has those.
        rows = tuple(row for row in rows if row[1] != 0 and not math.isnan(row[1]))
    gate, value, cotangent = (column(rows, i, form) for i in (0, 1, 3))
    result, (dx,) = one.vjp(spec.function, (pack(gate, value, 0, "gate_last"),), cotangent, **keywords)
    dgate, dvalue = unpack(dx, 0, "gate_last")
    expect(backend_name, result, rows, 4, form, spec.function)
    expect(backend_name, dgate, rows, 5, form, "the gate's")
    expect(backend_name, dvalue, rows, 6, form, "the value's")


@every_backend
@every_dtype
@pytest.mark.parametrize("beta", [2, -2.0, 0, 0.0, -0.0, math.inf, -math.inf])
def test_a_number_beta_has_the_limits_of_an_array(backend_name: str, dtype: str, beta: float) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    x = padded([INF, -INF, 0.0, -0.0, NAN, 1e4, -1e4], form)
    value, (slope,) = one.vjp("swish", (x,), np.ones_like(x), beta=beta)
    rising = {INF: beta > 0, -INF: beta < 0}
    for i, at in enumerate((INF, -INF)):
        if beta == 0:
            assert float(value[i]) == at and float(slope[i]) == 0.5
        else:
            assert float(value[i]) == (at if rising[at] else 0) and float(slope[i]) == rising[at]
            assert np.signbit(value[i]) == (at < 0)
    assert [float(value[i]) for i in (2, 3)] == [0, 0] and list(np.signbit(value[2:4])) == [False, True]
    assert [float(slope[i]) for i in (2, 3)] == [0.5, 0.5]
    assert np.isnan(float(value[4])) and np.isnan(float(slope[4]))


@every_backend
@every_dtype
def test_a_nan_number_beta_gives_nan(backend_name: str, dtype: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    x = padded([INF, -INF, 0.0, 1.0], form)
    value, (slope,) = one.vjp("swish", (x,), np.ones_like(x), beta=math.nan)
    assert np.all(np.isnan(value.astype(np.float64))) and np.all(np.isnan(slope.astype(np.float64)))


# clamped_swiglu: gate, value -> result, and whether the derivatives in gate and value pass the clamp

CLAMPED = (
    (INF, 1, NUMBER, False, True),
    (-INF, 1, -0.0, True, True),
    (-INF, -2, 0.0, True, True),
    (7.5, 1, NUMBER, False, True),
    (7.0, 1, NUMBER, True, True),
    (1, 7.0, NUMBER, True, True),
    (1, -7.0, NUMBER, True, True),
    (1, 7.5, NUMBER, True, False),
    (1, -7.5, NUMBER, True, False),
    (1, INF, NUMBER, True, False),
    (INF, -INF, NUMBER, False, False),
    (0.0, 3, 0.0, True, True),
    (-0.0, 3, -0.0, True, True),
    (-0.0, -3, 0.0, True, True),
    (NAN, 1, NAN, None, None),
    (1, NAN, NAN, None, None),
)


@every_backend
@every_dtype
def test_the_clamp_lets_derivatives_through_inside_and_on_the_boundary(backend_name: str, dtype: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    gate, value = (padded([row[i] for row in CLAMPED], form) for i in (0, 1))
    result, (dx,) = one.vjp("clamped_swiglu", (pack(gate, value, 0, "gate_last"),), np.ones_like(gate))
    dgate, dvalue = unpack(dx, 0, "gate_last")
    for row, got, in_gate, in_value in zip(CLAMPED, *(map(float, a) for a in (result, dgate, dvalue)), strict=False):
        g, v, expected, gate_passes, value_passes = row
        if expected == NUMBER:
            assert math.isfinite(got), row
        else:
            assert math.isnan(got) if math.isnan(expected) else got == expected, row
            assert math.isnan(got) or math.copysign(1, got) == math.copysign(1, expected), row
        if math.isnan(g) or math.isnan(v):
            assert math.isnan(in_gate) and math.isnan(in_value)
        else:
            # swish' is 0 at -inf, swish at 0; elsewhere a derivative is 0 only where the clamp cuts it.
            assert (in_gate != 0) == (gate_passes and g != -INF), row
            assert (in_value != 0) == (value_passes and g not in (0, -INF)), row


@every_backend
@every_dtype
def test_a_gate_or_value_past_the_limit_counts_as_the_limit(backend_name: str, dtype: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    gate, value = padded([INF, 1e4, 8, 1, 1, -3, -3], form), padded([1, 2, -8, INF, -INF, 9, -1e4], form)
    inner_gate, inner_value = padded([7, 7, 7, 1, 1, -3, -3], form), padded([1, 2, -7, 7, -7, 7, -7], form)
    outer = one.call("clamped_swiglu", pack(gate, value, 0, "gate_last"))
    inner = one.call("clamped_swiglu", pack(inner_gate, inner_value, 0, "gate_last"))
    assert outer.tobytes() == inner.tobytes()
    # The gate is bounded from above alone, so g = -1e4 does not count as -7.
    low = one.call("clamped_swiglu", pack(padded([-12.0], form), padded([1.0], form), 0, "gate_last"))
    lower = one.call("clamped_swiglu", pack(padded([-7.0], form), padded([1.0], form), 0, "gate_last"))
    assert abs(float(low[0])) < abs(float(lower[0]))


@every_backend
@every_dtype
def test_past_the_clamp_an_overflow_is_cut_to_0(backend_name: str, dtype: str) -> None:
    """swish_alpha(gate) times the cotangent is past the range here; all inputs are finite, so 0 times it is 0."""
    one, form = backend(backend_name), FORMATS[dtype]
    gate, value, cotangent = (padded([one], form) for one in (-form.largest, 8, 4))
    x = pack(gate, value, 0, "gate_last")
    _, (dx,) = one.vjp("clamped_swiglu", (x,), cotangent, alpha=-0.5, limit=7.0)
    assert unpack(dx, 0, "gate_last")[1][0] == 0


# Shapes, dtypes, and inputs left alone

EVERYTHING = [spec for spec in SPECS if spec.function != "gated_unit" or spec.activation == "swish"]


def arguments_of(spec: Spec, form: Format, shape: tuple[int, ...]) -> tuple[Array, ...]:
    rng = np.random.default_rng(5)
    gate, value = (rng.standard_normal(shape).astype(form.dtype) for _ in range(2))
    if spec.kind == "unary":
        return (gate,)
    return (gate, value) if spec.kind == "pair" else (pack(gate, value, -1, "gate_last"),)


@every_backend
@pytest.mark.parametrize("spec", EVERYTHING, ids=str)
def test_empty_and_0d_arrays(backend_name: str, spec: Spec) -> None:
    one, form = backend(backend_name), FORMATS["float32"]
    shapes = [(0,), (3, 0, 2)] if spec.kind == "packed" else [(), (0,), (3, 0, 2)]
    for shape in shapes:
        primals = arguments_of(spec, form, shape)
        cotangent = np.ones(shape, form.dtype)
        # JAX compiles for every shape; it does so for one function, and traces the others.
        pull = one.traced if isinstance(one, JaxBackend) and str(spec) != "gated_unit-swish" else one.vjp
        value, cotangents = pull(spec.function, primals, cotangent, **dict(spec.keywords))
        assert value.shape == shape and value.dtype == form.dtype
        assert [c.shape for c in cotangents] == [p.shape for p in primals]
        if not isinstance(one, JaxBackend):
            tangent = one.jvp(spec.function, primals, primals, **dict(spec.keywords))[1]
            assert tangent.shape == shape and tangent.dtype == form.dtype


def untouched(
    one: Backend, spec: Spec, primals: tuple[Array, ...], cotangent: Array
) -> tuple[Array, tuple[Array, ...]]:
    """Value and cotangents of a call that has written none of its inputs, with a pullback that can be called again."""
    if one.name == "numpy":
        for each in primals:
            each.flags.writeable = False
    given, moved = [one.give(each) for each in primals], one.give(cotangent)
    function, keywords = getattr(one.G, spec.function), dict(spec.keywords)
    value, pullback = one.G.vjp(function, *given, **keywords)
    first, second = pullback(moved), pullback(moved)
    one.G.jvp(function, given, given, **keywords)
    for each, before in zip([*given, moved], [*primals, cotangent], strict=True):
        assert one.take(each).tobytes() == before.tobytes()
    assert [one.take(each).tobytes() for each in first] == [one.take(each).tobytes() for each in second]
    return one.take(value), tuple(one.take(each) for each in first)


@every_backend
@every_dtype
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_results_have_the_dtype_and_inputs_are_not_written(backend_name: str, dtype: str, spec: Spec) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    primals = arguments_of(spec, form, (ELEMENTS,))
    cotangent = np.ones(ELEMENTS, form.dtype)
    if isinstance(one, JaxBackend):
        # JAX's arrays cannot be written; what is left to see is the dtype.
        value, cotangents = one.traced(spec.function, primals, cotangent, **dict(spec.keywords))
    else:
        value, cotangents = untouched(one, spec, primals, cotangent)
    assert value.dtype == form.dtype and all(each.dtype == form.dtype for each in cotangents)
    assert value.shape == (ELEMENTS,) and [each.shape for each in cotangents] == [each.shape for each in primals]


@every_backend
@pytest.mark.parametrize("layout", ["gate_last", "gate_first", "interleaved"])
def test_a_negative_axis_counts_from_the_end(backend_name: str, layout: str) -> None:
    one = backend(backend_name)
    x = np.random.default_rng(6).standard_normal((2, 4, 6)).astype(np.float32)
    for axis in range(3):
        shape = tuple(size // 2 if i == axis else size for i, size in enumerate(x.shape))
        positive = one.call("swiglu", x, axis=axis, layout=layout)
        assert positive.shape == shape
        assert positive.tobytes() == one.call("swiglu", x, axis=axis - 3, layout=layout).tobytes()
        gate, value = unpack(x, axis, layout)
        assert np.allclose(positive, one.call("gated_unit", gate, value), rtol=1e-6)


@every_backend
@every_dtype
def test_a_derivative_that_vanishes_at_minus_infinity_is_plus_zero(backend_name: str, dtype: str) -> None:
    """It tends to 0 from below, but as a sum it has no sign to keep: s - |z| s (1 - s)."""
    one, form = backend(backend_name), FORMATS[dtype]
    for function, static in (("silu", {}), ("gelu", {"approximate": "none"}), ("gelu", {"approximate": "tanh"})):
        _, (dx,) = one.vjp(function, (padded([-np.inf], form),), padded([1.0], form), **static)
        assert dx[0] == 0 and not np.signbit(dx[0])


@every_backend
@every_dtype
def test_a_zero_value_without_offset_keeps_its_sign(backend_name: str, dtype: str) -> None:
    one, form = backend(backend_name), FORMATS[dtype]
    x = pack(padded([2.0, -2.0], form), padded([-0.0, -0.0], form), 0, "gate_last")
    y = one.call("clamped_swiglu", x, offset=0.0)
    assert np.signbit(y[:2]).tolist() == [True, False]
