"""The backends are graded with the golden vectors, as a reader grades his own; faults that are planted are found."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from _calls import INSTALLED
from _vectors import (
    ACTIVATIONS,
    DTYPES,
    UNITS,
    Expected,
    error,
    every_test,
    expected,
    inputs,
    load,
    number,
    numbers_of,
    quantities,
    rows_of,
    shape_of,
)

from gated.conformance import error as measure
from gated.conformance.backends import load as load_adapter

FFN = ("x", "W", "V", "W2", "b", "c", "b2")


def as_array(numbers: Any, dtype: str) -> Any:
    return np.array(numbers, np.float64).astype(measure.FORMATS[dtype].dtype)


def results(adapter: Any, content: Any, group: Any) -> dict[str, list[list[float]]]:
    """What a backend gives for a group: of each quantity and test the elements."""
    dtype, function = content["dtype"], content["function"]
    given = inputs(group, dtype)
    static: dict[str, Any] = dict(numbers_of(group))
    static |= {name: one for name, one in content["call"].items() if name != "name"}
    beta = [static.pop("beta")] if "beta" in static else []
    if group["kind"] == "projected":
        (cotangent,) = given["cotangent"]
        arrays = {name: as_array(given[name][0], dtype).reshape(shape_of(group, f"{name}.shape")) for name in given}
        primals = [arrays.get(name) for name in FFN] + ([arrays["beta"]] if "beta" in arrays else beta)
        static["activation"] = group["parameters"]["activation"]
        value, cotangents = adapter.value_and_cotangents("gated_ffn", tuple(primals), arrays["cotangent"], static)
        found = {"result": value} | dict(zip((f"d_{name}" for name in (*FFN, "beta")), cotangents, strict=True))
        assert len(cotangent) == value.size
        return {name: [found[name].astype(np.float64).ravel().tolist()] for name in quantities(group)}
    if group["kind"] == "packed":
        x = as_array(given["x"][0], dtype).reshape(shape_of(group, "shape"))
        axis = int(group["parameters"]["axis"])
        static |= {"layout": group["parameters"]["layout"], "axis": axis}
        half = [size // 2 if place == axis % x.ndim else size for place, size in enumerate(x.shape)]
        cotangent = as_array(given["cotangent"][0], dtype).reshape(half)
        value, (in_x, *_) = adapter.value_and_cotangents(content["call"]["name"], (x, *beta), cotangent, static)
        return {name: [one.astype(np.float64).ravel().tolist()] for name, one in (("result", value), ("d_x", in_x))}
    flat = {name: as_array([one for (one,) in given[name]], dtype) for name in given}
    unit = function in UNITS
    if unit:
        static["layout"] = "gate_last"
    x = np.concatenate([flat["value"], flat["gate"]]) if unit else flat["x"]
    primals = (x, flat["beta"]) if "beta" in flat else (x, *beta)
    value, (in_x, *in_beta) = adapter.value_and_cotangents(content["call"]["name"], primals, flat["cotangent"], static)
    half = len(x) // 2
    found = {"result": value} | ({"d_value": in_x[:half], "d_gate": in_x[half:]} if unit else {"d_x": in_x})
    if "beta" in flat:
        found["d_beta"] = in_beta[0]
    return {name: [[one] for one in found[name].astype(np.float64).tolist()] for name in quantities(group)}


def graded(adapter: Any, content: Any) -> tuple[int, list[str]]:
    """How many numbers were graded, and those that are not as they must be."""
    count, failures = 0, []
    for group in content["groups"]:
        for quantity, rows in results(adapter, content, group).items():
            for test, row in zip(rows_of(group), rows, strict=True):
                wanted = expected(group, test, quantity)
                assert len(wanted) == len(row)
                for got, one in zip(row, wanted, strict=True):
                    count += 1
                    off = error(got, one, content["dtype"], flushes=adapter.flushes)
                    if not off <= float(one.most):
                        failures.append(f"{test['id']} {quantity} {got!r} {one} {off}")
    return count, failures


# JAX compiles every shape: some files are enough to know that the vectors know it flushes.
GRADED = [
    (backend, function)
    for backend in INSTALLED
    for function in (*ACTIVATIONS, *UNITS, "gated_ffn")
    if backend != "jax" or function in ("swish", "geglu")
]


@pytest.mark.parametrize(("backend", "function"), GRADED)
def test_the_backends_pass(backend: str, function: str) -> None:
    adapter = load_adapter(backend)
    for dtype in ("float32",) if backend == "jax" else DTYPES:
        count, failures = graded(adapter, load(function, dtype))
        assert failures == []
        assert count > 300


class Faulty:
    """An implementation of swish and swiglu with a fault."""

    flushes = False

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward

    def value_and_cotangents(self, function: str, primals: Any, cotangent: Any, static: Any) -> Any:
        reference = load_adapter("numpy")
        _, cotangents = reference.value_and_cotangents(function, primals, cotangent, static)
        with np.errstate(all="ignore"):
            return self.forward(*primals, **static), cotangents


def wrong_ids(fault: Callable[..., Any], function: str, dtype: str) -> set[str]:
    return {failure.split()[0] for failure in graded(Faulty(fault), load(function, dtype))[1]}


def flagged(function: str, dtype: str, flag: str) -> set[str]:
    return {test["id"] for _, test in every_test(load(function, dtype)) if flag in test["flags"].split()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_naive_formula_is_found_out_in_the_tail(dtype: str) -> None:
    def naive(x: Any, beta: Any) -> Any:
        if dtype == "bfloat16":
            wide = x.astype(np.float32)
            return (wide / (1 + np.exp(-np.asarray(beta, np.float32) * wide))).astype(x.dtype)
        return x / (1 + np.exp((-np.asarray(beta) * x).astype(x.dtype)))

    wrong = wrong_ids(naive, "swish", dtype)
    hidden = [
        test for _, test in every_test(load("swish", dtype)) if test["comment"].startswith("e^-x reaches the end")
    ]
    assert len(hidden) == 3
    # The least of the three is past the end.
    assert hidden[-1]["id"] in wrong


def test_rounding_twice_is_found_out() -> None:
    """silu(gate) rounded to bfloat16, then the product: what eager code does."""

    def twice(x: Any, beta: Any, *, axis: int = -1, layout: str) -> Any:
        if x.ndim > 1 or layout != "gate_last":
            return np.zeros([0])  # not of the elementwise groups
        value, gate = np.split(x.astype(np.float64), 2)
        activation = (gate / (1 + np.exp(-np.asarray(beta, np.float64) * gate))).astype(x.dtype)
        return (activation.astype(np.float64) * value).astype(x.dtype)

    content = load("swiglu", "bfloat16")
    content["groups"] = [group for group in content["groups"] if group["name"] == "random"]
    _, failures = graded(Faulty(twice), content)
    assert len(failures) >= 15


def test_a_float32_on_the_way_gives_other_bits() -> None:
    found = 0
    content = load("swish", "float16")
    twice = flagged("swish", "float16", "double-rounding")
    for group, test in every_test(content):
        if test["id"] in twice and group["name"] == "hard":
            (one,) = expected(group, test, "d_x")
            through = np.float16(np.float32(float(Fraction(one.exact))))
            assert float(through) != number(one.bits, "float16")
            found += 1
    assert found >= 5


@pytest.mark.parametrize("function", UNITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_another_layout_is_wrong_in_every_result(function: str, dtype: str) -> None:
    adapter = load_adapter("numpy")
    content = load(function, dtype)
    for group in content["groups"]:
        if group["kind"] != "packed":
            continue
        layout = group["parameters"]["layout"]
        for other in {"gate_last", "gate_first", "interleaved"} - {layout}:
            if function == "bilinear" and "interleaved" not in (layout, other):
                continue
            wrong = {**group, "parameters": {**group["parameters"], "layout": other}}
            (row,) = results(adapter, content, wrong)["result"]
            (test,) = rows_of(group)
            for got, one in zip(row, expected(group, test, "result"), strict=True):
                assert error(got, one, dtype) > 100 * float(one.most) or dtype == "bfloat16"
                assert error(got, one, dtype) > 10


# The measure


@pytest.mark.parametrize(
    ("got", "off"),
    [
        (0.0, math.inf),
        (-0.0, 0.5),
        (-math.inf, 2.0**277),
        (math.inf, 2.0**277),
        (math.nan, math.inf),
        (-(2.0**-149), 0.5),
        (2.0**-149, 1.5),
    ],
)
def test_the_reader_s_measure(got: float, off: float) -> None:
    """Half the smallest subnormal, below 0: a tie that rounds to -0."""
    one = Expected("0x80000000", str(Fraction(-1, 2**150)), "-149", "5", "flush")
    assert error(got, one, "float32") == off
    assert error(-0.0, one, "float32", flushes=True) == 0
