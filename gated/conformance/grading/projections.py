"""Projected functions with rounding errors carried along: of a model, and of the plain formulas (the field profile)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gated.conformance.carried import Carried, Rounding
from gated.conformance.error import FORMATS
from gated.conformance.grading.dual import Duals
from gated.conformance.grading.formulas import Model
from gated.conformance.grading.plain import plain_forms, total
from gated.conformance.grading.predictions import Twist, gradients
from gated.conformance.grading.running_error import Arithmetic, Number

__all__ = ["Hidden", "field_projection_bound", "model_projection"]

Float64 = NDArray[np.float64]


class Hidden(NamedTuple):
    """The hidden layer, and the cotangents of its gate, its value and beta."""

    result: Number
    gate: Number
    value: Number
    beta: Number


Unit = Callable[[Arithmetic, Number, Number, Number, Number | None], Hidden]
"""Of the arithmetic, gate, value, beta, and the cotangent of the hidden layer, None where only the value is wanted."""


def field_projection_bound(
    dtype: str,
    arguments: Mapping[str, Float64 | None],
    cotangent: Float64,
    *,
    activation: str,
    beta: Float64,
) -> dict[str, Float64]:
    """The field profile's bound on the absolute error of the value (key ``"value"``) and of every cotangent.

    As :func:`gated.conformance.carried.projection_bounds`, with the plain formulas in the place of the contract's
    activation: every stored intermediate is rounded to the dtype.

    Args:
        arguments: ``x`` (rows, d_in), ``W``, ``V`` and, where there are any, ``W2``, ``b``, ``c``, ``b2``, in float64.
        cotangent: of the shape of the result.
        beta: an array that broadcasts to the gate.
    """

    def plain(m: Arithmetic, gate: Number, value: Number, slope: Number, dh: Number | None) -> Hidden:
        assert dh is not None

        def forms(partial: str, *factors: Number) -> Number:
            return total(m, plain_forms(m, activation, partial, gate, slope), *factors)

        return Hidden(forms("value", value), forms("x", dh, value), forms("value", dh), forms("beta", dh, value))

    given = {name: one for name, one in arguments.items() if one is not None}
    carried = _carry(dtype, given, cotangent, np.asarray(beta, np.float64), plain)
    return {name: np.where(np.isnan(one.error), np.inf, one.error) for name, one in carried.items()}


def model_projection(
    dtype: str,
    arguments: Mapping[str, Float64],
    cotangent: Float64 | None,
    model: Model,
    beta: Float64,
    twist: Twist | None = None,
) -> dict[str, Carried]:
    """The value and every cotangent of a model, with the bounds on their errors.

    Args:
        cotangent: None where only the value is wanted.
        twist: what the cotangents of the hidden layer's operands are instead.
    """

    def unit(m: Arithmetic, gate: Number, value: Number, slope: Number, dh: Number | None) -> Hidden:
        if dh is None:
            duals = Duals(m)
            h = model.result(duals, *duals.constants([gate, value, slope])).number
            return Hidden(h, h, h, h)
        made = gradients(m, model, gate, value, slope, dh)
        whole = {"d gate": dh * made.gate, "d value": dh * made.value, "d beta": dh * made.beta}
        if twist is not None:
            whole |= twist(made)
        return Hidden(made.result, whole["d gate"], whole["d value"], whole["d beta"])

    taken = {name: model.weights.get(name, (name, 1.0, False)) for name in arguments}
    handed = {}
    for name, (source, factor, transposed) in taken.items():
        array = factor * arguments[source]
        handed[name] = array.T if transposed else array
    results = _carry(dtype, handed, cotangent, beta, unit)
    if cotangent is None:
        return results
    found: dict[str, Carried] = {name: results[name] for name in ("value", "beta", "x")}
    for name in arguments:
        if name == "x":
            continue
        parts = [
            Carried(factor * one.value, abs(factor) * one.error)
            for taker, (source, factor, transposed) in taken.items()
            if source == name
            for one in [results[taker].T if transposed else results[taker]]
        ]
        zero = np.zeros(np.shape(arguments[name]))
        found[name] = Carried(
            np.sum([zero, *(one.value for one in parts)], axis=0), np.sum([zero, *(one.error for one in parts)], axis=0)
        )
    return found


def _carry(
    dtype: str, arguments: Mapping[str, Float64], cotangent: Float64 | None, beta: Float64, unit: Unit
) -> dict[str, Carried]:
    """The value and all cotangents in the arithmetic of a framework; without a cotangent, the value."""
    r, m = Rounding("field", dtype), Arithmetic(FORMATS[dtype])
    given = {name: Carried(one, np.zeros(np.shape(one))) for name, one in arguments.items()}
    x, w, v = given["x"], given["W"], given["V"]
    with np.errstate(all="ignore"):
        gate, value = r.product(x, w, given.get("b")), r.product(x, v, given.get("c"))
        slope = m.number(np.broadcast_to(beta, gate.value.shape))
        operands = _number(m, gate), _number(m, value), slope
        if cotangent is None:
            h = _carried(unit(m, *operands, None).result)
            return {"value": r.product(h, given["W2"], given.get("b2")) if "W2" in given else h}
        dy = Carried(cotangent, np.zeros(cotangent.shape))
        dh = r.product(dy, given["W2"].T) if "W2" in given else dy
        hidden = unit(m, *operands, _number(m, dh))
        h = _carried(hidden.result)
        bounds: dict[str, Carried] = {}
        result = h
        if "W2" in given:
            result = r.product(h, given["W2"], given.get("b2"))
            bounds["W2"] = r.product(h.T, dy)
            bounds["b2"] = r.total(dy, 0)
        dgate, dvalue, dbeta = (_carried(one) for one in (hidden.gate, hidden.value, hidden.beta))
        shape = np.shape(beta)
        summed = tuple(i for i, size in enumerate((1,) * (2 - len(shape)) + shape) if size == 1)
        total_beta = r.total(dbeta, summed) if summed else dbeta
        return bounds | {
            "value": result,
            "x": r.plus(r.product(dgate, w.T), r.product(dvalue, v.T)),
            "W": r.product(x.T, dgate),
            "V": r.product(x.T, dvalue),
            "b": r.total(dgate, 0),
            "c": r.total(dvalue, 0),
            "beta": Carried(total_beta.value.reshape(shape), total_beta.error.reshape(shape)),
        }


def _number(m: Arithmetic, a: Carried) -> Number:
    """A stored result, whose error already has its rounding."""
    return Number(m, a.value, a.value - a.error, a.value + a.error)


def _carried(a: Number) -> Carried:
    return Carried(a.value, a.error)
