"""Every number of a format through an activation: a unit of work."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.backends import Adapter
from gated.conformance.bounds import ceiling, elementwise_bound
from gated.conformance.error import Format, error_in_ulp
from gated.conformance.sweeps.catalogue import Sweep
from gated.conformance.sweeps.enclosures import RUN, Run, run
from gated.conformance.sweeps.points import PARTIAL, exact_points, signed, table
from gated.conformance.sweeps.tally import Tally

__all__ = ["measure_numbers"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

# Inputs that a backend is given at a time: its temporaries stay in the cache of a core.
_CALL: Final = 1 << 17
_U: Final = 2.0**-53
# Results that are not known to this part of an ulp measure nothing.
_AT_MOST: Final = 2.0**-20
# An ulp is taken this far below the exact value: float64 cannot always tell on which side of a power of two a number
# lies, and an error must not be counted too small.
_NEAR: Final = 2.0**-40


def measure_numbers(sweep: Sweep, adapter: Adapter, unit: int) -> dict[str, Tally]:
    """Runs the numbers of a unit, by bit pattern, through a backend."""
    tallies = {quantity: Tally() for quantity in sweep.quantities}
    form = sweep.form
    first = unit * sweep.unit
    for start in range(first, first + sweep.unit, min(_CALL, sweep.unit)):
        patterns = np.arange(start, start + min(_CALL, sweep.unit), dtype=np.uint32)
        results = _call(sweep, adapter, patterns.astype(form.bits).view(form.dtype))
        if form.bits.itemsize == 2:
            for quantity, tally in tallies.items():
                _by_points(sweep, adapter, quantity, patterns, results[quantity], tally)
            continue
        for low in range(0, len(patterns), RUN):
            part = slice(low, low + RUN)
            some = {quantity: result[part] for quantity, result in results.items()}
            _run(sweep, adapter, patterns[part], some, tallies)
    return tallies


def _call(sweep: Sweep, adapter: Adapter, x: Array) -> dict[str, Array]:
    """The results by quantity."""
    primals = (x, np.ones_like(x)) if "d beta" in sweep.quantities else (x,)
    value, cotangents = adapter.value_and_cotangents(sweep.function, primals, np.ones_like(x), sweep.static)
    results = dict(zip(sweep.quantities, (value, *cotangents), strict=False))
    for quantity, result in results.items():
        if result.dtype != x.dtype or result.shape != x.shape:
            raise TypeError(
                f"{sweep.function}: {quantity} must be {x.dtype} of shape {x.shape}, "
                f"got {result.dtype} of shape {result.shape}"
            )
    return results


def _run(
    sweep: Sweep, adapter: Adapter, patterns: NDArray[np.uint32], results: dict[str, Array], tallies: dict[str, Tally]
) -> None:
    """Measures one run of 2^16 float32 numbers."""
    if (patterns[0] >> 23) & 0xFF == 0xFF:
        for quantity, tally in tallies.items():
            _by_points(sweep, adapter, quantity, patterns, results[quantity], tally)
        return
    exact = run(sweep.activation, int(patterns[0]) >> 16)
    curve, slope = exact.curve(), exact.slope()
    for quantity, tally in tallies.items():
        high, scale, absolute = _quantity(sweep.activation, quantity, exact, curve, slope)
        computed = results[quantity]
        ulp = _ulp(scale * (1 - _NEAR), sweep.form)
        with np.errstate(invalid="ignore", over="ignore"):
            errors = np.abs(computed.astype(np.float64) - high) / ulp
        unsure = absolute / float(np.min(ulp))
        if unsure > _AT_MOST:
            raise ArithmeticError(f"{quantity} at {exact.x[0]:.9g} is known to {unsure:.3g} ulp only")
        base = ceiling(adapter.name, sweep.dtype, gradient=quantity != "value", activation=sweep.activation)
        judged = signed(sweep.activation, PARTIAL[quantity])
        if not np.max(errors) <= base or (judged and _wrong_zero(computed, high)):
            # A wrong class, a result that was flushed, or a bound that depends on the input.
            whole = error_in_ulp(computed, high, form=sweep.form, scale=scale, flush=adapter.flushes, zero_signs=judged)
            errors = np.where(np.isfinite(whole) & (whole > 0) & np.isfinite(errors), errors, whole)
        # The bound may be wider at some inputs, which matters only past the narrowest.
        narrow = float(np.max(errors)) <= min(1.0, tally.share) * base
        tally.add(errors, patterns, base if narrow else _bounds(sweep, adapter, quantity, exact.x), unsure)


def _wrong_zero(computed: Array, high: Float64) -> bool:
    return bool(np.any((computed == 0) & (np.signbit(computed) != np.signbit(high))))


def _quantity(
    activation: str, quantity: str, exact: Run, curve: Float64, slope: Float64
) -> tuple[Float64, Float64, float]:
    """The exact results in float64, the largest terms, and a bound on the absolute error of the results."""
    farthest = float(np.max(np.abs(exact.x)))
    if activation == "sigmoid":
        part, segment = (curve, exact.curve) if quantity == "value" else (slope, exact.slope)
        return part, np.abs(part), segment.error
    if quantity == "value":
        high = exact.x * curve
        magnitude = np.abs(high)
        return high, magnitude, farthest * exact.curve.error + _U * float(np.max(magnitude)) + 2.0**-1070
    second = exact.x * slope
    high = curve + second
    scale = np.maximum(np.abs(curve), np.abs(second))
    absolute = exact.curve.error + farthest * exact.slope.error + 3 * _U * float(np.max(scale)) + 2.0**-1070
    return high, np.maximum(scale, np.abs(high)), absolute


def _ulp(t: Float64, form: Format) -> Float64:
    """ulp(t) of positive float64 numbers, by their bits: much faster than frexp and ldexp."""
    exponent = (t.view(np.uint64) & np.uint64(0x7FF0000000000000)).view(np.float64)
    return np.maximum(exponent * 2.0 ** (1 - form.precision), form.smallest_subnormal)


def _bounds(sweep: Sweep, adapter: Adapter, quantity: str, x: Float64) -> Float64:
    with np.errstate(all="ignore"):
        return elementwise_bound(
            adapter.name,
            sweep.dtype,
            activation=sweep.activation,
            partial=PARTIAL[quantity],
            gate=x,
            beta=1.0,
            gradient=quantity != "value",
        )


def _point_errors(
    sweep: Sweep, adapter: Adapter, quantity: str, patterns: NDArray[np.uint32], computed: Array
) -> Float64:
    """The errors at single numbers, by the oracle."""
    partial = PARTIAL[quantity]
    if sweep.form.bits.itemsize == 2:
        exact = table(sweep.activation, partial, sweep.dtype)[patterns]
    else:
        exact = exact_points(sweep.activation, partial, _numbers(sweep, patterns))
    return error_in_ulp(
        computed,
        exact.high,
        exact.low,
        form=sweep.form,
        scale=exact.scale,
        flush=adapter.flushes,
        zero_signs=signed(sweep.activation, partial),
    )


def _by_points(
    sweep: Sweep, adapter: Adapter, quantity: str, patterns: NDArray[np.uint32], computed: Array, tally: Tally
) -> None:
    """Measures every number by the oracle."""
    errors = _point_errors(sweep, adapter, quantity, patterns, computed)
    tally.add(errors, patterns, _bounds(sweep, adapter, quantity, _numbers(sweep, patterns)))


def _numbers(sweep: Sweep, patterns: NDArray[np.uint32]) -> Float64:
    with np.errstate(invalid="ignore"):  # a signalling nan
        return patterns.astype(sweep.form.bits).view(sweep.form.dtype).astype(np.float64)
