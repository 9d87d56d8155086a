"""Every (gate, value) pair of a 16-bit format through a packed unit: a unit of work is 16 gates.

The activation and its derivative at all gates come from the oracle, once, as float64 numbers A. A value has at most 11
bits, so that A times a value is within 2^-53 of the exact product. Rounded to the format, it is what a correctly
rounded unit returns: where a backend returns the same bits, its error is at most half an ulp and needs no further
look; everything else (other bits, products on a tie, infinities, nan) is measured in full.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance import inputs
from gated.conformance.backends import Adapter
from gated.conformance.bounds import ceiling
from gated.conformance.error import FORMATS, error_in_ulp
from gated.conformance.limits import special_products
from gated.conformance.sweeps.catalogue import Sweep
from gated.conformance.sweeps.points import PARTIAL, signed, table
from gated.conformance.sweeps.tally import Tally

__all__ = ["measure_pairs"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_NUMBERS: Final = 1 << 16
# Gates that a backend is given at a time.
_CALL: Final = 4
# What A, a rounding of the exact activation to float64, and its product add to an error, in ulp of 11 bits or fewer.
_UNSURE: Final = 2.0 ** (11 - 51)


def measure_pairs(sweep: Sweep, adapter: Adapter, unit: int) -> dict[str, Tally]:
    """Runs the pairs of a unit, by the gate's bit pattern and every value's, through a backend."""
    tallies = {quantity: Tally() for quantity in sweep.quantities}
    gates = sweep.unit // _NUMBERS
    for start in range(unit * gates, (unit + 1) * gates, _CALL):
        patterns = np.arange(start, start + _CALL)
        gate, value = _pair(sweep.dtype, patterns)
        results = _call(sweep, adapter, gate, value)
        for quantity, tally in tallies.items():
            for row, pattern in enumerate(patterns):
                _row(sweep, adapter, quantity, int(pattern), results[quantity][row], tally)
    return tallies


def _pair(dtype: str, patterns: NDArray[np.integer[Any]]) -> tuple[Array, Array]:
    """Each gate beside every value, shape (gates, 2^16)."""
    values = inputs.all_patterns(FORMATS[dtype])
    shape = (len(patterns), _NUMBERS)
    return np.broadcast_to(values[patterns][:, None], shape), np.broadcast_to(values, shape)


def _call(sweep: Sweep, adapter: Adapter, gate: Array, value: Array) -> dict[str, Array]:
    """The results by quantity."""
    x = np.concatenate([value, gate], axis=-1)
    ones = np.ones(gate.shape, sweep.form.dtype)
    result, (cotangent, *_) = adapter.value_and_cotangents(sweep.function, (x,), ones, sweep.static)
    for name, got, like in (("value", result, ones), ("d x", cotangent, x)):
        if got.dtype != like.dtype or got.shape != like.shape:
            raise TypeError(
                f"{sweep.function}: {name} must be {like.dtype} of shape {like.shape}, got {got.dtype} of {got.shape}"
            )
    return {"value": result, "d gate": cotangent[:, _NUMBERS:], "d value": cotangent[:, :_NUMBERS]}


@functools.cache
def _values(dtype: str) -> tuple[Float64, NDArray[np.bool_]]:
    """Every number of the format in float64, and which are finite."""
    with np.errstate(invalid="ignore"):
        values = inputs.all_patterns(FORMATS[dtype]).astype(np.float64)
    return values, np.isfinite(values)


def _row(sweep: Sweep, adapter: Adapter, quantity: str, gate: int, computed: Array, tally: Tally) -> None:
    """Measures one gate with every value."""
    values, finite = _values(sweep.dtype)
    factors = np.ones_like(values) if quantity == "d value" else values
    exact = table(sweep.activation, PARTIAL[quantity], sweep.dtype)
    with np.errstate(invalid="ignore"):
        high = exact.high[gate] * factors
    if finite[gate]:
        bits = _float32_bits(high)
        look = (_as_bfloat16(bits) != computed.view(np.uint16)) | _on_a_tie(bits) | ~finite
    else:
        look = np.ones(_NUMBERS, np.bool_)
    index = np.flatnonzero(look)
    errors = _errors(sweep, adapter, quantity, gate, index, high[index], computed[index])
    bound = ceiling(adapter.name, sweep.dtype, gradient=quantity != "value", activation=sweep.activation)
    tally.add(errors, (gate << 16) + index, bound, _UNSURE)


def _float32_bits(high: Float64) -> NDArray[np.uint32]:
    """The bit patterns of the numbers rounded to float32."""
    with np.errstate(over="ignore", under="ignore"):
        return high.astype(np.float32).view(np.uint32)


def _as_bfloat16(bits: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """The bit patterns of float32 numbers rounded to bfloat16."""
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def _on_a_tie(bits: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Where the float32 number is a tie of bfloat16: what was rounded to it may be on either side."""
    tie: NDArray[np.bool_] = (bits & np.uint32(0xFFFF)) == np.uint32(0x8000)
    return tie


def _errors(
    sweep: Sweep,
    adapter: Adapter,
    quantity: str,
    gate: int,
    index: NDArray[np.intp],
    high: Float64,
    computed: Array,
) -> Float64:
    """The errors of one gate with some of the values, in full."""
    values, finite = _values(sweep.dtype)
    partial = PARTIAL[quantity]
    factors = np.ones(len(index)) if quantity == "d value" else values[index]
    special = ~(np.isfinite(factors) & finite[gate])
    ones = np.ones(len(index))
    rule = special_products(sweep.activation, partial, ones, np.full(len(index), values[gate]), factors, ones)
    with np.errstate(invalid="ignore"):
        scale = table(sweep.activation, partial, sweep.dtype).scale[gate] * np.abs(factors)
    return error_in_ulp(
        computed,
        np.where(special, rule, high),
        form=sweep.form,
        scale=np.where(special, 1.0, scale),
        flush=adapter.flushes,
        zero_signs=signed(sweep.activation, partial),
    )
