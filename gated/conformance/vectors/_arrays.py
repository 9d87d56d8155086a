"""The points that are arrays: packed ones, which tell the layouts apart, and small feed-forward blocks with weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Final

from gated.conformance.error import Format
from gated.conformance.vectors._points import Group, Point
from gated.conformance.vectors._streams import Stream
from gated.conformance.vectors.catalogue import Function
from gated.conformance.vectors.expected import rows
from gated.contract import ACTIVATIONS, LAYOUTS

__all__ = ["packed_groups", "projected_groups"]

_SHAPES: Final = (("6", -1), ("4 2", 0))
_CLAMP: Final = {"alpha": 1.702, "limit": 7.0, "offset": 1.0}

_ROWS, _D_IN, _D_HIDDEN, _D_OUT = 2, 3, 4, 2


def packed_groups(function: Function, form: Format) -> Iterator[Group]:
    """For each layout a flat array and one split along its first axis, in which every other layout is far off."""
    for layout, (shape, axis) in product(LAYOUTS, _SHAPES):
        parameters: dict[str, float | str] = {"layout": layout, "axis": str(axis), "shape": shape}
        if function.name == "clamped_swiglu":
            parameters |= _CLAMP
        if function.takes_beta:
            parameters["beta"] = 1.0
        stream = Stream(function.name, form.name, "packed", layout, shape)
        while True:
            point = _packed_point(stream, form, prod(int(size) for size in shape.split()))
            group = Group(f"packed-{layout}{axis:+d}", "packed", "which half is the gate", (point,), parameters)
            if rows(function, form, group)[0]["flags"] == "gate-order":
                yield group
                break


def _packed_point(stream: Stream, form: Format, size: int) -> Point:
    x = tuple(stream.spread(-1, 1, form) for _ in range(size))
    return Point({"x": x, "cotangent": tuple(stream.spread(-2, 1, form) for _ in range(size // 2))})


def projected_groups(form: Format) -> Iterator[Group]:
    """A feed-forward block of each activation, without and with biases, and one with a beta for each hidden unit."""
    for activation in ACTIVATIONS:
        yield _block(form, activation, ())
    yield _block(form, "swish", ("b", "c", "b2"))
    yield _block(form, "gelu", ("b", "c", "b2"))
    yield _block(form, "swish", ("beta",))


def _block(form: Format, activation: str, more: tuple[str, ...]) -> Group:
    shapes: dict[str, tuple[int, ...]] = {
        "x": (_ROWS, _D_IN),
        "W": (_D_IN, _D_HIDDEN),
        "V": (_D_IN, _D_HIDDEN),
        "W2": (_D_HIDDEN, _D_OUT),
    }
    vectors: dict[str, tuple[int, ...]] = {"b": (_D_HIDDEN,), "c": (_D_HIDDEN,), "b2": (_D_OUT,), "beta": (_D_HIDDEN,)}
    shapes |= {name: vectors[name] for name in more} | {"cotangent": (_ROWS, _D_OUT)}
    name = "-".join(("block", activation, *more))
    stream = Stream("gated_ffn", form.name, name)
    inputs = {}
    for argument, shape in shapes.items():
        sign = 1 if argument == "beta" else None
        inputs[argument] = tuple(stream.spread(-2, 0, form, sign=sign) for _ in range(prod(shape)))
    parameters: dict[str, float | str] = {"activation": activation}
    if "beta" not in more:
        parameters["beta"] = 1.0
    parameters |= {f"{argument}.shape": " ".join(map(str, shape)) for argument, shape in shapes.items()}
    return Group(name, "projected", "a feed-forward block with all its cotangents", (Point(inputs),), parameters)
