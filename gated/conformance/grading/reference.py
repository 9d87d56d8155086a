"""The reference of a claim: the function of :mod:`gated.numpy_ref` that a target claims to be, called as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance.grading.claim import Claim
from gated.conformance.quantities import pack, unpack

__all__ = ["reference_gradient", "reference_value"]

Float64 = NDArray[np.float64]


def reference_value(claim: Claim, arguments: Sequence[Float64]) -> Float64:
    """The value in float64, of arguments in the order of ``claim.arguments``."""
    return reference_gradient(claim, arguments, None)[0]


def reference_gradient(
    claim: Claim, arguments: Sequence[Float64], cotangent: Float64 | None
) -> tuple[Float64, tuple[Float64, ...]]:
    """The value in float64, and the cotangent of each argument (none where ``cotangent`` is None)."""
    given: dict[str, Any] = dict(zip(claim.arguments, arguments, strict=True))
    beta = given.pop("beta", claim.fixed_beta)
    static: dict[str, Any] = {}
    if claim.form == "projected":
        fn: Any = reference.gated_ffn if "W2" in given else reference.gated_linear
        names: tuple[str, ...] = ("x", "W", "V", "W2", "b", "c", "b2") if "W2" in given else ("x", "W", "V", "b", "c")
        primals = [given.get(name) for name in names]
        static["activation"] = claim.activation
    elif claim.form == "unary":
        # An activation times one.
        fn, names = reference.gated_unit, ("x", "one")
        primals = [given["x"], np.ones_like(given["x"])]
        static["activation"] = claim.activation
    elif claim.function == "clamped_swiglu":
        return _clamped(claim, given, cotangent)
    else:
        fn, names = reference.gated_unit, ("gate", "value")
        primals = [*_halves(claim, given)]
        static["activation"] = claim.activation
    value, pullback = reference.vjp(fn, *primals, np.asarray(beta, np.float64), **static)
    if cotangent is None:
        return value, ()
    found: dict[str, Any] = dict(zip((*names, "beta"), pullback(cotangent), strict=True))
    if claim.form == "packed":
        found["x"] = pack(found["gate"], found["value"], claim.layout, claim.axis)
    return value, tuple(np.asarray(found[name]) for name in claim.arguments)


def _halves(claim: Claim, given: dict[str, Any]) -> tuple[Float64, Float64]:
    return unpack(given["x"], claim.layout, claim.axis) if claim.form == "packed" else (given["gate"], given["value"])


def _clamped(claim: Claim, given: dict[str, Any], cotangent: Float64 | None) -> tuple[Float64, tuple[Float64, ...]]:
    packed = claim.form == "packed"
    layout, axis = (claim.layout, claim.axis) if packed else ("gate_last", -1)
    x = given["x"] if packed else pack(given["gate"], given["value"], layout, axis)
    value, pullback = reference.vjp(
        reference.clamped_swiglu,
        x,
        axis=axis,
        layout=layout,
        alpha=claim.fixed_beta,
        limit=claim.limit,
        offset=claim.offset,
    )
    if cotangent is None:
        return value, ()
    (in_x,) = pullback(cotangent)
    assert in_x is not None
    return value, (in_x,) if packed else unpack(in_x, layout, axis)
