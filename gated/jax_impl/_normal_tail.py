"""The tail of the normal distribution, Phi(-x) = exp(-x^2 / 2) / D(x) for x >= 0.

1 / D(x) = erfcx(x / sqrt 2) / 2 is smooth and of ordinary size; JAX has no erfcx. D(x) = 2 + x G(x) has positive terms
alone; x G(x) is given apart, for where it is small. The tables are made by tools/erfcx_coefficients.py, which says how.
"""

from __future__ import annotations

from typing import NamedTuple

from gated.jax_impl._arrays import Array
from gated.jax_impl._exponential import polynomial

__all__ = ["bound", "tail_divisor_less_two"]


class _Table(NamedTuple):
    """G(x) as a polynomial in u = (x - k) / (x + k), for 0 <= x <= x_max; the relative error is that of D."""

    x_max: float
    k: float
    coefficients: tuple[float, ...]


_TABLES = {
    # Relative error 2^-31.5.
    "float32": _Table(
        32.0,
        2.5,
        (
            2.030228768595964,
            0.5067505242842899,
            0.03065342984104163,
            -0.06226771990161813,
            -0.014575886694045068,
            0.013092598011471798,
            0.007054893938515544,
            -0.0022084979754111844,
            -0.0029083527485193467,
            -0.00014464991011577146,
            0.0008995351319108694,
            0.0002887328070942605,
            -0.00015424959644040818,
            -8.197134500824432e-05,
        ),
    ),
    # Relative error 2^-59.1.
    "float64": _Table(
        80.0,
        4.0,
        (
            2.148006586465018,
            0.48326046356343905,
            -0.12518682364358696,
            -0.025101206375292364,
            0.0351822665628024,
            -0.00559852435604963,
            -0.008029332029841801,
            0.00408062160289147,
            0.001306188865613577,
            -0.0016086971150423683,
            -1.943631206101497e-05,
            0.0005068825838106877,
            -0.00010011418953012981,
            -0.0001356746415775738,
            5.534656001162719e-05,
            3.0356532617557123e-05,
            -2.1237628116312983e-05,
            -5.027712208672188e-06,
            6.724186025803129e-06,
            2.349468159425684e-07,
            -1.816987014393819e-06,
            2.3129912260423906e-07,
            4.0900888245609675e-07,
            -1.0400159029808331e-07,
            -6.929822272595582e-08,
            2.2156989517842533e-08,
            6.558509912972453e-09,
            -1.9711662516215076e-09,
        ),
    ),
}


def bound(x: Array) -> float:
    """Where exp(-x^2 / 2) times any three numbers of the dtype is 0: D is good up to here."""
    return _TABLES[x.dtype.name].x_max


def tail_divisor_less_two(x: Array) -> Array:
    """D(x) - 2, where D(x) = exp(-x^2 / 2) / Phi(-x), for 0 <= x <= bound(x)."""
    _, k, coefficients = _TABLES[x.dtype.name]
    return x * polynomial(coefficients, (x - k) / (x + k))
