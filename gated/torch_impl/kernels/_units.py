"""The Triton kernels: P(gate, value; beta) = A(gate; beta) B(value), and c grad P.

Every input is read once, every result written once, and nothing else is. The sum of a tile has a place of its own: no
result depends on the order in which programs run.
"""

import triton
import triton.language as tl

from ._activations import activation
from ._floats import rounded, times
from ._tiles import corner, load, load_couples, number, store, store_couples, wide

__all__ = ["NUMBERS", "backward", "forward"]

NUMBERS = ["beta_first", "beta_second", "limit_first", "limit_second", "offset_first", "offset_second"]
"""The arguments that are words of Python numbers."""


# The clamps of the clamped SwiGLU. A limit is compared as the real number it is; a clamp's derivative is 1 on it, as
# torch.clamp has it, and nan at nan.


@triton.jit
def _beyond(x, limit, limit_low):
    """x > limit + limit_low: the difference is exact where it is small."""
    return x - limit > limit_low


@triton.jit
def _clamp_slope(x, beyond):
    return tl.where(x == x, tl.where(beyond, 0.0, 1.0), x)


@triton.jit
def _value_factor(
    value, limit, limit_low, offset_first, offset_second, LIMITED: tl.constexpr, SHIFTED: tl.constexpr
):  # fmt: skip
    """B(value) = clip(value, -limit, limit) + offset"""
    if LIMITED:
        factor = tl.where(value > limit, limit, tl.where(value < -limit, -limit, value))
        if SHIFTED:  # without an offset a zero keeps its sign
            offset, offset_low = number(offset_first, offset_second, value.dtype)
            beyond = _beyond(tl.abs(value), limit, limit_low)
            low = tl.where(beyond, tl.where(value < 0, -limit_low, limit_low), 0.0)
            factor = ((factor + offset) + low) + offset_low
        return factor
    else:
        return value


@triton.jit
def _beta(
    beta, beta_row, beta_column, beta_first, beta_second, row, column, rows, columns, dtype: tl.constexpr,
    BETA: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """beta as high + low of the dtype: a number, the one element of an array, or an array."""
    if BETA == "array":
        raw = load(beta, beta_row, beta_column, row, column, rows, columns, WHOLE, ROWS, COLUMNS)
    elif BETA == "scalar":
        raw = tl.load(beta)
    if BETA == "array" or BETA == "scalar":
        high, low = raw.to(dtype), tl.full([], 0.0, dtype)
        if raw.dtype == tl.float64 and dtype == tl.float32:  # a number that is differentiated is wider
            low = (raw - high.to(tl.float64)).to(tl.float32)
    elif BETA == "number":
        high, low = number(beta_first, beta_second, dtype)
    else:
        high, low = tl.full([], 1.0, dtype), tl.full([], 0.0, dtype)
    return tl.broadcast_to(high, (ROWS, COLUMNS)), tl.broadcast_to(low, (ROWS, COLUMNS))


@triton.jit(do_not_specialize=NUMBERS)
def forward(
    gate, gate_row, gate_column, value, value_row, value_column, beta, beta_row, beta_column,
    result, result_row, result_column, first_column, across, rows, columns,
    beta_first, beta_second, limit_first, limit_second, offset_first, offset_second,
    ACTIVATION: tl.constexpr, SCALED: tl.constexpr, PAIR: tl.constexpr, COUPLES: tl.constexpr, BETA: tl.constexpr,
    LIMITED: tl.constexpr, SHIFTED: tl.constexpr,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """P on one tile."""
    row, column = corner(first_column, across, ROWS, COLUMNS)
    if COUPLES:
        g, v = load_couples(gate, gate_row, row, column, rows, columns, WHOLE, ROWS, COLUMNS)
    else:
        g = load(gate, gate_row, gate_column, row, column, rows, columns, WHOLE, ROWS, COLUMNS)
        if PAIR:
            v = load(value, value_row, value_column, row, column, rows, columns, WHOLE, ROWS, COLUMNS)
    x = wide(g)
    dtype: tl.constexpr = x.dtype
    x_low = tl.zeros(x.shape, dtype)
    limit, limit_low = number(limit_first, limit_second, dtype)
    if LIMITED:
        beyond = _beyond(x, limit, limit_low)
        x, x_low = tl.where(beyond, limit, x), tl.where(beyond, limit_low, 0.0)
    b, b_low = _beta(
        beta, beta_row, beta_column, beta_first, beta_second, row, column, rows, columns, dtype,
        BETA, WHOLE, ROWS, COLUMNS,
    )  # fmt: skip
    mantissa, exponent, base, _, _, _, _, _ = activation(ACTIVATION, x, x_low, b, b_low, BETA != "one", LIMITED)
    mantissa, exponent = times(mantissa, exponent, base, SCALED)
    if PAIR:
        factor = _value_factor(wide(v), limit, limit_low, offset_first, offset_second, LIMITED, SHIFTED)
        mantissa, exponent = times(mantissa, exponent, factor, SCALED)
    y = rounded(mantissa, exponent, SCALED)
    store(result, result_row, result_column, row, column, rows, columns, y, WHOLE, ROWS, COLUMNS)


@triton.jit(do_not_specialize=NUMBERS)
def backward(
    cotangent, cotangent_row, cotangent_column,
    gate, gate_row, gate_column, value, value_row, value_column, beta, beta_row, beta_column,
    d_gate, d_gate_row, d_gate_column, d_value, d_value_row, d_value_column, d_beta, d_beta_row, d_beta_column,
    first_column, across, rows, columns,
    beta_first, beta_second, limit_first, limit_second, offset_first, offset_second,
    ACTIVATION: tl.constexpr, SCALED: tl.constexpr, PAIR: tl.constexpr, COUPLES: tl.constexpr, BETA: tl.constexpr,
    LIMITED: tl.constexpr, SHIFTED: tl.constexpr,
    ALONG_GATE: tl.constexpr, ALONG_VALUE: tl.constexpr, ALONG_BETA: tl.constexpr,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The cotangent times the derivatives of P on one tile.

    ALONG_BETA is "terms" for a derivative an element, "sum" for their sum over the tile, or "".
    """
    row, column = corner(first_column, across, ROWS, COLUMNS)
    c = wide(load(cotangent, cotangent_row, cotangent_column, row, column, rows, columns, WHOLE, ROWS, COLUMNS))
    if COUPLES:
        g, v = load_couples(gate, gate_row, row, column, rows, columns, WHOLE, ROWS, COLUMNS)
    else:
        g = load(gate, gate_row, gate_column, row, column, rows, columns, WHOLE, ROWS, COLUMNS)
        if PAIR:
            v = load(value, value_row, value_column, row, column, rows, columns, WHOLE, ROWS, COLUMNS)
    x = wide(g)
    dtype: tl.constexpr = x.dtype
    x_low = tl.zeros(x.shape, dtype)
    limit, limit_low = number(limit_first, limit_second, dtype)
    gate_slope = tl.full(x.shape, 1.0, dtype)
    if LIMITED:
        beyond = _beyond(x, limit, limit_low)
        gate_slope = _clamp_slope(x, beyond)
        x, x_low = tl.where(beyond, limit, x), tl.where(beyond, limit_low, 0.0)
    b, b_low = _beta(
        beta, beta_row, beta_column, beta_first, beta_second, row, column, rows, columns, dtype,
        BETA, WHOLE, ROWS, COLUMNS,
    )  # fmt: skip
    level, level_exponent, base, slope, slope_exponent, bend, bend_exponent, bow = activation(
        ACTIVATION, x, x_low, b, b_low, BETA != "one", LIMITED
    )
    if PAIR:
        factor = _value_factor(wide(v), limit, limit_low, offset_first, offset_second, LIMITED, SHIFTED)

    if ALONG_GATE:  # c A' B
        if LIMITED:
            slope *= gate_slope
        mantissa, exponent = times(slope, slope_exponent, c, SCALED)
        if PAIR:
            mantissa, exponent = times(mantissa, exponent, factor, SCALED)
        in_gate = rounded(mantissa, exponent, SCALED)
    if ALONG_VALUE:  # c A B'
        if LIMITED:
            magnitude = tl.abs(wide(v))
            level *= _clamp_slope(magnitude, _beyond(magnitude, limit, limit_low))
        mantissa, exponent = times(level, level_exponent, base, SCALED)
        mantissa, exponent = times(mantissa, exponent, c, SCALED)
        in_value = rounded(mantissa, exponent, SCALED)
    if ALONG_BETA != "":  # c A_beta B
        mantissa, exponent = times(bend, bend_exponent, bow, SCALED)
        mantissa, exponent = times(mantissa, exponent, bow, SCALED)
        mantissa, exponent = times(mantissa, exponent, c, SCALED)
        if PAIR:
            mantissa, exponent = times(mantissa, exponent, factor, SCALED)
        in_beta = rounded(mantissa, exponent, SCALED)

    if COUPLES and ALONG_GATE:
        store_couples(d_gate, d_gate_row, row, column, rows, columns, in_gate, in_value, WHOLE, ROWS, COLUMNS)
    else:
        if ALONG_GATE:
            store(d_gate, d_gate_row, d_gate_column, row, column, rows, columns, in_gate, WHOLE, ROWS, COLUMNS)
        if ALONG_VALUE:
            store(d_value, d_value_row, d_value_column, row, column, rows, columns, in_value, WHOLE, ROWS, COLUMNS)
    if ALONG_BETA == "terms":
        store(d_beta, d_beta_row, d_beta_column, row, column, rows, columns, in_beta, WHOLE, ROWS, COLUMNS)
    elif ALONG_BETA == "sum":
        # Outside the table the cotangent is 0, and so is the term.
        tl.store(d_beta + tl.program_id(0), tl.sum(tl.sum(in_beta, 1), 0))
