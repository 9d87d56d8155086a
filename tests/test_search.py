"""The search finds what is planted, the same way every time, and reports nothing that is not so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flint")

from gated.conformance._long_math import HAS_LONG_DOUBLE, LongMath
from gated.conformance.backends import Adapter, load
from gated.conformance.closed_forms import activation_terms
from gated.conformance.error import FORMATS
from gated.conformance.oracle import QUANTITIES, correctly_rounded, exact_sums, unit_terms
from gated.conformance.search import FUNCTIONS, Found, search

Float64 = NDArray[np.float64]
Fault = Callable[[Any, str], Any]


class Faulty:
    """The reference with faults planted in the results of one function of one variable."""

    name = "numpy"
    flushes = False

    def __init__(self, value: Fault | None = None, slope: Fault | None = None) -> None:
        self._inner: Adapter = load("numpy")
        self._value, self._slope = value, slope

    def value_and_cotangents(
        self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        value, cotangents = self._inner.value_and_cotangents(function, primals, cotangent, static)
        x = primals[0]
        if self._value is not None:
            value = self._value(x, "value")(value)
        if self._slope is not None:
            cotangents = (self._slope(x, "slope")(cotangents[0]), *cotangents[1:])
        return value, cotangents


def off_by(ulps: int, where: Callable[[Any], Any]) -> Fault:
    """So many bit patterns away from zero, where a condition on x holds."""

    def at(x: Any, _: str) -> Callable[[Any], Any]:
        kind = {8: np.uint64, 4: np.uint32, 2: np.uint16}[x.dtype.itemsize]

        def moved(result: Any) -> Any:
            bits = result.view(kind)
            return np.where(where(x) & np.isfinite(result), bits + kind(ulps), bits).astype(kind).view(result.dtype)

        return moved

    return at


def number(bits: str, dtype: str) -> float:
    form = FORMATS[dtype]
    assert len(bits) == 2 + 2 * form.bits.itemsize
    return float(np.array(int(bits, 16)).astype(form.bits).view(form.dtype))


def by(found: Sequence[Found], quantity: str, objective: str = "error") -> Found:
    (one,) = (one for one in found if (one.quantity, one.objective) == (quantity, objective))
    return one


def true_error(adapter: Any, found: Found) -> float:
    """The error at the reported input, from one call and the oracle's decimal: no part of the search takes part."""
    form = FORMATS[found.dtype]
    numbers = {name: number(bits, found.dtype) for name, bits in found.at.items()}
    exact = correctly_rounded(found.function, found.quantity, form, numbers, static=found.static)
    names, unary = FUNCTIONS[found.function], "value" not in FUNCTIONS[found.function]
    arrays = {name: np.array([one]).astype(form.dtype) for name, one in ({"cotangent": 1.0} | numbers).items()}
    static = dict(found.static)
    if unary or found.function == "gated_unit":
        primals = [arrays[name] for name in names]
    else:
        primals = [np.concatenate([arrays["value"], arrays["gate"]])]
        static["layout"] = "gate_last"
    value, cotangents = adapter.value_and_cotangents(found.function, primals, arrays["cotangent"], static)
    if found.quantity == "result":
        computed = float(value[0])
    elif not unary and len(primals) == 1:
        computed = float(cotangents[0][0 if found.quantity == "d_value" else 1])
    else:
        computed = float(cotangents[names.index(found.quantity.removeprefix("d_"))][0])
    if math.isinf(found.error):
        return math.inf
    assert exact.ulp_exponent is not None
    far_below = Fraction(0) if exact.decimal.lstrip(">-<").startswith("1e-20000") else Fraction(exact.decimal)
    return float(abs(Fraction(computed) - far_below) / Fraction(2) ** exact.ulp_exponent)


# What is planted is found


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("a tenth", lambda x: (np.abs(x) >= 17.0) & (np.abs(x) <= 17.1)),
        ("a binade of tiny numbers", lambda x: (np.abs(x) >= 2.0**-700) & (np.abs(x) < 2.0**-699)),
        ("one sign of one binade", lambda x: (x <= -256) & (x > -512)),
        ("the neighbours of a number", lambda x: np.abs(x + math.log(2) / 2) < 1e-13),
    ],
)
def test_a_fault_in_a_narrow_window_is_found(name: str, window: Callable[[Any], Any]) -> None:
    adapter = Faulty(value=off_by(40, window))
    found = search(adapter, "silu", "float64", evaluations=150_000, seed=1)
    worst = by(found, "result")
    assert 38 <= worst.error <= 43, name
    assert window(np.float64(number(worst.at["x"], "float64"))), name
    # The gradient has none.
    assert by(found, "d_x").error < 20


def test_a_fault_that_grows_towards_a_point_is_climbed() -> None:
    """2^20 ulp at one number, half of it at twice the distance: what random points find is far from the top."""

    def climb(x: Any, _: str) -> Callable[[Any], Any]:
        distance = np.abs(x - 3.217)
        ulps = np.minimum(1 / np.maximum(distance, 2.0**-30), 2.0**20)

        def moved(result: Any) -> Any:
            return result * (1 + ulps * np.where(distance < 0.1, 2.0**-52, 0))

        return moved

    best = [
        by(search(Faulty(slope=climb), "silu", "float64", evaluations=n, seed=2), "d_x").error for n in (3000, 120_000)
    ]
    assert best[1] > 2.0**17
    assert best[0] < best[1]


def test_a_wrong_class_is_an_infinite_error() -> None:
    def nan_at_tail(x: Any, _: str) -> Callable[[Any], Any]:
        return lambda result: np.where((x < -700) & (x > -701), np.nan, result)

    found = search(Faulty(slope=nan_at_tail), "silu", "float64", evaluations=80_000, seed=3)
    assert by(found, "d_x").error == math.inf
    assert -701 < number(by(found, "d_x").at["x"], "float64") < -700
    assert by(found, "result").error < 20


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_narrower_dtypes_are_searched_too(dtype: str) -> None:
    adapter = Faulty(value=off_by(3, lambda x: (np.abs(x) > 5.0) & (np.abs(x) < 5.05)))
    worst = by(search(adapter, "silu", dtype, evaluations=20_000, seed=4), "result")
    assert 2.4 <= worst.error <= 3.6
    assert 5.0 < abs(number(worst.at["x"], dtype)) < 5.05
    assert worst.bound == 0.51


# What is reported is so


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("sigmoid", {}),
    ("swish", {}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("relu", {}),
    ("glu", {}),
    ("geglu", {"approximate": "tanh"}),
    ("swiglu", {}),
    ("clamped_swiglu", {}),
    ("clamped_swiglu", {"alpha": 0.5, "limit": 3.0, "offset": 0.0}),
    ("gated_unit", {}),
    ("gated_unit", {"activation": "gelu"}),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("function", "static"), CALLS, ids=str)
def test_every_figure_is_the_error_at_its_input(function: str, static: dict[str, Any], dtype: str) -> None:
    adapter = load("numpy")
    found = search(adapter, function, dtype, evaluations=3000, seed=5, static=static)
    first_order = ["result", *(f"d_{name}" for name in FUNCTIONS[function])]
    assert set(first_order) <= set(QUANTITIES[function])
    assert [(one.quantity, one.objective) for one in found] == [
        (name, objective) for name in first_order for objective in ("error", "share")
    ]
    for one in found:
        assert (one.backend, one.function, one.dtype, one.static) == ("numpy", function, dtype, static)
        assert one.evaluations == 3000 and one.seed == 5 and one.bound > 0
        inputs = {*FUNCTIONS[function], *(() if one.quantity == "result" else ("cotangent",))}
        assert set(one.at) == inputs
        true = true_error(adapter, one)
        # The oracle's pairs are good to 2^-100 and its decimals to 45 digits: to 2^-40 ulp in any case.
        assert one.error == pytest.approx(true, rel=1e-9, abs=2.0**-40)
    for name in first_order:
        largest, nearest = by(found, name), by(found, name, "share")
        assert largest.error >= nearest.error
        assert nearest.error / nearest.bound >= largest.error / largest.bound * (1 - 1e-12)


def test_an_exact_function_has_an_error_of_0() -> None:
    found = search(load("numpy"), "relu", "float64", evaluations=2000, seed=6)
    assert [one.error for one in found] == [0.0] * 4


@pytest.mark.skipif(not HAS_LONG_DOUBLE, reason="no long double of 63 bits: everything is ranked by the oracle")
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "relu", "swish", "gelu", "gelu_tanh"])
def test_the_ranking_tells_hundredths_of_an_ulp(activation: str) -> None:
    """A long double's roundoff is 2^-64, 2^-11 of a double's; an argument t of the exponential is rounded to |t| of it.

    Some ten operations of up to two each, and two or three roundings of t.
    """
    x = np.concatenate([np.linspace(-8, 8, 161), np.linspace(-36, 36, 73), 2.0 ** np.arange(-60, 3), [0.0]])
    if activation in ("sigmoid", "swish"):
        x = np.concatenate([x, np.linspace(-690, 690, 139)])
    beta = np.where(np.arange(len(x)) % 2 == 0, 1.0, -0.7)
    t = {"gelu": x * x / 2, "gelu_tanh": 1.6 * np.abs(x) + 0.072 * np.abs(x) ** 3}.get(activation, np.abs(x))
    x, beta, t = (one[t < 690] for one in (x, beta, t))
    ones = np.ones_like(x)
    for partial in ("value", "x", "beta"):
        numbers = (ones, x, ones, beta)
        high, low, scale = exact_sums(unit_terms(activation, partial), *numbers)
        terms = activation_terms(LongMath(), activation, partial, *(one.astype(np.longdouble) for one in (x, beta)))
        off = np.abs(np.sum(np.broadcast_arrays(*terms), axis=0) - high.astype(np.longdouble) - low)
        assert np.all(off <= (20 + 2 * t) * 2.0**-64 * scale), (activation, partial)


def test_ranking_by_unproven_errors_does_not_lift_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ranking that calls every point a thousand ulp wrong reports what the oracle finds all the same."""
    from gated.conformance import search as module

    def lies(self: Any, *arguments: Any) -> tuple[Float64, Float64, Float64]:
        high, low, scale = module._Proven._exact(self, *arguments)
        with np.errstate(over="ignore"):
            return high * (1 + 2.0**-42), low, scale

    honest = search(load("numpy"), "silu", "float64", evaluations=1500, seed=7)
    monkeypatch.setattr(module._Ranked, "_exact", lies)
    for one, other in zip(search(load("numpy"), "silu", "float64", evaluations=1500, seed=7), honest, strict=True):
        assert one.error == pytest.approx(true_error(load("numpy"), one), rel=1e-9)
        assert one.error < 10 and other.error < 10


# How it runs


def test_the_same_seed_finds_the_same_points_and_another_seed_others() -> None:
    adapter = load("numpy")
    one, same, other = (search(adapter, "swiglu", "float64", evaluations=4000, seed=seed) for seed in (8, 8, 9))
    assert one == same
    assert [found.at for found in one] != [found.at for found in other]


def test_the_budget_is_kept_and_progress_is_told() -> None:
    calls: list[int] = []
    points: list[int] = []

    class Counting(Faulty):
        def value_and_cotangents(
            self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
        ) -> tuple[Any, tuple[Any, ...]]:
            points.append(len(cotangent))
            return super().value_and_cotangents(function, primals, cotangent, static)

    found = search(Counting(), "silu", "float64", evaluations=1000, seed=0, progress=calls.append)
    assert calls == [256, 512, 768, 1000]
    assert {one.evaluations for one in found} == {1000}
    # One size for all generations, then the groups to prove.
    assert points[:4] == [256] * 4 and max(points[4:]) <= 64


def test_bad_calls_are_named() -> None:
    adapter = load("numpy")
    with pytest.raises(ValueError, match=r'^search: function must be one of sigmoid, .*, got "gated_ffn"'):
        search(adapter, "gated_ffn", "float64", evaluations=10, seed=0)
    with pytest.raises(ValueError, match=r'^search: dtype must be one of .*, got "int8"'):
        search(adapter, "silu", "int8", evaluations=10, seed=0)
    with pytest.raises(ValueError, match=r"^search: evaluations must be at least 1, got 0"):
        search(adapter, "silu", "float64", evaluations=0, seed=0)
    with pytest.raises(ValueError, match=r'gelu: approximate must be one of none, tanh, got "erf"'):
        search(adapter, "gelu", "float64", evaluations=10, seed=0, static={"approximate": "erf"})
