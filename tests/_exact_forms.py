"""The public functions on arrays of jets: their exact values, and by the jets their exact derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from _jets import Jet, Jets, activation, constants

from gated.conformance.quantities import unpack

__all__ = ["clamped", "packed", "projected", "pullback", "pushforward", "unit"]


def unit(name: str, gate: Jets, value: Jets | None, beta: Jets | float = 1.0) -> Jets:
    """activation(gate) * value; None stands for a value of 1."""
    beta = constants(np.array(beta)) if isinstance(beta, float) else beta
    others = [np.broadcast_to(beta, gate.shape), *([] if value is None else [value])]
    return _elementwise(lambda g, b, v=None: _product(activation(name, g, b), v), gate, *others)


def _product(a: Jet, b: Jet | None) -> Jet:
    return a if b is None else a * b


def _elementwise(code: Callable[..., Jet], *arrays: Jets) -> Jets:
    result = np.empty(arrays[0].shape, object)
    for index in np.ndindex(result.shape):
        result[index] = code(*(one[index] for one in arrays))
    return result


def packed(name: str, layout: str, axis: int = -1) -> Callable[..., Jets]:
    """The unit of one packed array, and of a beta."""
    return lambda x, beta=1.0: unit(name, *unpack(x, layout, axis), beta)


def clamped(alpha: float, limit: float, offset: float, layout: str) -> Callable[..., Jets]:
    """The clamped SwiGLU."""

    def one(g: Jet, v: Jet) -> Jet:
        g = Jet.of(limit) if g.parts[0] > limit else g
        v = Jet.of(limit) if v.parts[0] > limit else Jet.of(-limit) if v.parts[0] < -limit else v
        return activation("swish", g, Jet.of(alpha)) * (v + Jet.of(offset))

    return lambda x: _elementwise(one, *unpack(x, layout))


def _project(x: Jets, weight: Jets, bias: Jets | None) -> Jets:
    result = x @ weight
    return result if bias is None else result + bias


def projected(name: str) -> Callable[..., Jets]:
    """gated_linear, and with W2 gated_ffn."""

    def exact(x: Jets, W: Jets, V: Jets, b: Any = None, c: Any = None, beta: Any = 1.0, W2: Any = None, b2: Any = None):
        h = unit(name, _project(x, W, b), _project(x, V, c), beta)
        return h if W2 is None else _project(h, W2, b2)

    return exact


_EXTRA = 5
"""A direction that no truth takes: the one that ``vjp`` and ``jvp`` differentiate along."""


def pullback(x: Jets, beta: Jets, cotangent: Jets) -> Jets:
    """The cotangents of swiglu in x and beta, one after the other."""
    results = []
    for moved in (x, beta):
        for index in np.ndindex(moved.shape):
            seeded = moved.copy()
            seeded[index] = seeded[index].along(_EXTRA, 1.0)
            arguments = (seeded, beta) if moved is x else (x, seeded)
            slopes = packed("swish", "gate_last")(*arguments)
            terms = [c * y.without(_EXTRA) for c, y in zip(cotangent.flat, slopes.flat, strict=True)]
            results.append(functools.reduce(lambda a, b: a + b, terms))
    return np.array(results, object)


def pushforward(x: Jets, beta: Jets, t: Jets, beta_t: Jets) -> Jets:
    """The tangent of swiglu along t and beta_t."""
    extra = Jet.of(0.0).along(_EXTRA, 1.0)
    moved = [_elementwise(lambda one, slope: one + extra * slope, *pair) for pair in ((x, t), (beta, beta_t))]
    return _elementwise(lambda y: y.without(_EXTRA), packed("swish", "gate_last")(*moved))
