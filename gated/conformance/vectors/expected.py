"""What the vectors expect: for each group of points the rows of its table, cell by cell, from the oracle.

A row is the same whoever asks for it: the writer with the points it has chosen, the verifier with those that it reads.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from gated.conformance.bounds import ceiling, elementwise_bound
from gated.conformance.carried import projection_bounds
from gated.conformance.error import Format
from gated.conformance.oracle import Rounded, correctly_rounded, correctly_rounded_projection
from gated.conformance.quantities import pack, unpack
from gated.conformance.vectors._numbers import as_hex, decode, shorten, up_to_digits
from gated.conformance.vectors._points import Group, Point
from gated.conformance.vectors.catalogue import Function
from gated.conformance.vectors.flags import flags, leeway
from gated.contract import LAYOUTS

__all__ = ["Row", "base_bounds", "columns", "inputs_of", "quantities_of", "rows", "shape_of"]

Row = dict[str, str]

_PARTIALS: Final = {"result": "value", "d_x": "x", "d_gate": "x", "d_value": "value", "d_beta": "beta"}
_WEIGHTS: Final = ("x", "W", "V", "W2", "b", "c", "b2", "beta")
# A wrong layout must be off by this share of the larger of the two numbers.
_FAR_OFF: Final = 0.125


def inputs_of(group: Group) -> tuple[str, ...]:
    """The names of the inputs of a group, in the order of its columns."""
    return tuple(group.points[0].inputs)


def quantities_of(function: Function, kind: str, inputs: Sequence[str]) -> tuple[str, ...]:
    """The result and the cotangents of the inputs."""
    arguments = [name for name in inputs if name != "cotangent"]
    if kind == "elementwise":
        arguments = [*function.arguments, *(["beta"] if "beta" in inputs else [])]
    return ("result", *(f"d_{name}" for name in arguments))


def columns(
    function: Function, form: Format, kind: str, inputs: Sequence[str], parameters: Mapping[str, Any]
) -> list[str]:
    """The columns of a group's table."""
    fields = ["bits", "exact", "ulp"]
    if kind == "projected" or _has_allowance(function, form, inputs, parameters):
        fields.append("max")
    quantities = quantities_of(function, kind, inputs)
    cells = [f"{quantity}.{field}" for quantity in quantities for field in fields]
    return ["id", *inputs, *cells, *(["may"] if kind == "elementwise" else []), "flags", "comment"]


def base_bounds(function: Function, form: Format, kind: str, inputs: Sequence[str]) -> dict[str, str]:
    """The contract's bound of each quantity in ulp, without what a rounded argument adds; none for projected forms."""
    if kind == "projected":
        return {}
    return {
        quantity: up_to_digits(
            ceiling("torch", form.name, gradient=quantity != "result", activation=function.activation)
        )
        for quantity in quantities_of(function, kind, inputs)
    }


def _has_allowance(function: Function, form: Format, inputs: Sequence[str], parameters: Mapping[str, Any]) -> bool:
    """Whether the contract's bounds depend on the input: the argument of the exponential must itself be rounded."""
    if form.precision < 24:
        return False
    if function.activation in ("gelu", "gelu_tanh"):
        return True
    return function.activation == "swish" and (
        "beta" in inputs or parameters.get("alpha", parameters.get("beta", 1.0)) != 1
    )


def rows(function: Function, form: Format, group: Group) -> list[Row]:
    """The rows of a group, a dictionary of its columns each."""
    if group.kind == "projected":
        made = [_projected_row(form, group, point) for point in group.points]
    elif group.kind == "packed":
        made = [_packed_row(function, form, group, point) for point in group.points]
    else:
        made = _elementwise_rows(function, form, group)
    for row, point in zip(made, group.points, strict=True):
        cells = {name: " ".join(as_hex(one, form) for one in bits) for name, bits in point.inputs.items()}
        row |= cells
        row["id"] = _identity(function, form, group, cells)
        row["comment"] = point.comment
    order = columns(function, form, group.kind, inputs_of(group), group.parameters)
    return [{name: row[name] for name in order} for row in made]


def _identity(function: Function, form: Format, group: Group, cells: Mapping[str, str]) -> str:
    """Of the call and its inputs alone, so that a test keeps its name whatever is added around it."""
    parts = [
        function.name,
        form.name,
        group.kind,
        *(f"{name}={group.parameters[name]}" for name in sorted(group.parameters)),
    ]
    parts += [f"{name}={cells[name]}" for name in sorted(cells)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]


# Elementwise


def _elementwise_rows(function: Function, form: Format, group: Group) -> list[Row]:
    names = inputs_of(group)
    quantities = quantities_of(function, group.kind, names)
    numbers = [{name: decode(bits[0], form) for name, bits in point.inputs.items()} for point in group.points]
    bounds = {quantity: _bounds(function, form, group, quantity, numbers) for quantity in quantities}
    with_bounds = _has_allowance(function, form, names, group.parameters)
    made = []
    for index, inputs in enumerate(numbers):
        rounded = _elementwise(function, form, group.parameters, inputs, quantities)
        row: Row = {}
        choices = []
        for quantity, one in rounded.items():
            row |= _cells(quantity, [one], form)
            if with_bounds:
                row[f"{quantity}.max"] = bounds[quantity][index]
            bound = float(bounds[quantity][index])
            if choice := leeway(function, form, inputs, group.parameters, quantity, one, bound):
                choices.append(f"{quantity}:{choice}")
        row["may"] = " ".join(choices)
        row["flags"] = " ".join(flags(function, form, inputs, group.parameters, rounded))
        made.append(row)
    return made


def _elementwise(
    function: Function,
    form: Format,
    parameters: Mapping[str, float | str],
    inputs: Mapping[str, float],
    quantities: Sequence[str],
) -> dict[str, Rounded]:
    static: dict[str, Any] = {**function.static, **parameters}
    given = dict(inputs)
    if "beta" in static:
        given["beta"] = static.pop("beta")
    return {quantity: correctly_rounded(function.call, quantity, form, given, static=static) for quantity in quantities}


def _bounds(
    function: Function, form: Format, group: Group, quantity: str, numbers: Sequence[Mapping[str, float]]
) -> list[str]:
    parameters = group.parameters
    gate = np.array([inputs[function.arguments[0]] for inputs in numbers])
    gate = np.minimum(gate, float(parameters.get("limit", math.inf)))
    beta = np.array(
        [inputs.get("beta", float(parameters.get("alpha", parameters.get("beta", 1.0)))) for inputs in numbers]
    )
    bound = elementwise_bound(
        "torch",
        form.name,
        activation=function.activation,
        partial=_PARTIALS[quantity],
        gate=gate,
        beta=beta,
        gradient=quantity != "result",
    )
    return [up_to_digits(one) for one in bound.tolist()]


def _cells(quantity: str, rounded: Sequence[Rounded], form: Format) -> Row:
    return {
        f"{quantity}.bits": " ".join(as_hex(one.bits, form) for one in rounded),
        f"{quantity}.exact": " ".join(shorten(one.decimal) for one in rounded),
        f"{quantity}.ulp": " ".join("" if one.ulp_exponent is None else str(one.ulp_exponent) for one in rounded),
    }


# Packed


def shape_of(text: str) -> tuple[int, ...]:
    """A shape as the parameters write it."""
    return tuple(int(size) for size in text.split())


def _packed_row(function: Function, form: Format, group: Group, point: Point) -> Row:
    layout, axis = str(group.parameters["layout"]), int(str(group.parameters["axis"]))
    shape = shape_of(str(group.parameters["shape"]))
    x = np.array([decode(bits, form) for bits in point.inputs["x"]]).reshape(shape)
    cotangent = np.array([decode(bits, form) for bits in point.inputs["cotangent"]])
    found = {name: _unpacked(function, form, group, x, name, axis, cotangent) for name in LAYOUTS}
    expected = found[layout]
    in_x = pack(expected["d_gate"], expected["d_value"], layout, axis)
    row = _cells("result", expected["result"].ravel().tolist(), form)
    row |= _cells("d_x", in_x.ravel().tolist(), form)
    if _has_allowance(function, form, ("x",), group.parameters):
        gate, value = unpack(x, layout, axis)
        numbers = [{"gate": g, "value": v} for g, v in zip(gate.ravel().tolist(), value.ravel().tolist(), strict=True)]
        bounds = {
            name: np.array(_bounds(function, form, group, name, numbers), object).reshape(gate.shape)
            for name in ("result", "d_gate", "d_value")
        }
        row["result.max"] = " ".join(bounds["result"].ravel().tolist())
        row["d_x.max"] = " ".join(pack(bounds["d_gate"], bounds["d_value"], layout, axis).ravel().tolist())
    wrong = [name for name in LAYOUTS if name != layout]
    if function.activation == "identity" and layout != "interleaved":
        # The product of the two halves does not depend on their order.
        wrong = ["interleaved"]
    far_off = all(_all_differ(expected["result"], found[name]["result"]) for name in wrong)
    row["flags"] = "gate-order" if far_off else ""
    return row


def _unpacked(
    function: Function, form: Format, group: Group, x: Any, layout: str, axis: int, cotangent: Any
) -> dict[str, Any]:
    """The results and cotangents of the unit, taken for packed in a layout, as arrays of objects."""
    gate, value = unpack(x, layout, axis)
    parameters = {name: one for name, one in group.parameters.items() if name not in ("layout", "axis", "shape")}
    quantities = ("result", "d_gate", "d_value")
    made: dict[str, list[Rounded]] = {name: [] for name in quantities}
    for numbers in zip(gate.ravel().tolist(), value.ravel().tolist(), cotangent.tolist(), strict=True):
        inputs = dict(zip(("gate", "value", "cotangent"), numbers, strict=True))
        for name, one in _elementwise(function, form, parameters, inputs, quantities).items():
            made[name].append(one)
    arrays = {name: np.empty(len(made[name]), object) for name in quantities}
    for name, array in arrays.items():
        array[:] = made[name]
    return {name: array.reshape(gate.shape) for name, array in arrays.items()}


def _all_differ(right: Any, wrong: Any) -> bool:
    pairs = zip(right.ravel().tolist(), wrong.ravel().tolist(), strict=True)
    numbers = [(float(one.decimal), float(other.decimal)) for one, other in pairs]
    return all(abs(a - b) >= _FAR_OFF * max(abs(a), abs(b)) and a != b for a, b in numbers)


# Projected


def _projected_row(form: Format, group: Group, point: Point) -> Row:
    shapes = {name: shape_of(str(group.parameters[f"{name}.shape"])) for name in point.inputs}
    arrays = {
        name: np.array([decode(bits, form) for bits in given]).reshape(shapes[name])
        for name, given in point.inputs.items()
    }
    cotangent = arrays.pop("cotangent")
    beta = arrays.pop("beta", np.array(float(group.parameters.get("beta", 1.0))))
    activation = str(group.parameters["activation"])
    exact = correctly_rounded_projection(arrays, cotangent, form, activation=activation, beta=beta)
    bounds = projection_bounds("torch", form.name, dict(arrays), cotangent, activation=activation, beta=beta)
    row: Row = {}
    for name in ("value", *(name for name in _WEIGHTS if name in point.inputs)):
        quantity = "result" if name == "value" else f"d_{name}"
        rounded = exact[name].ravel().tolist()
        row |= _cells(quantity, rounded, form)
        allowed = np.broadcast_to(bounds[name], exact[name].shape).ravel().tolist()
        row[f"{quantity}.max"] = " ".join(
            up_to_digits(math.ldexp(bound, -one.ulp_exponent)) for bound, one in zip(allowed, rounded, strict=True)
        )
    row["flags"] = ""
    return row
