"""The tail of the normal distribution, Phi(-x) = exp(-x^2 / 2) R(x) for x >= 0.

R(x) = erfcx(x / sqrt 2) / 2 is smooth and of ordinary size; JAX has no erfcx. The tables are made by
tools/erfcx_coefficients.py, which says how.
"""

from __future__ import annotations

from typing import NamedTuple

from gated.jax_impl._arrays import Array
from gated.jax_impl._exponential import polynomial

__all__ = ["bound", "scaled_tail"]


class _Table(NamedTuple):
    """(1 + x) R(x) as a polynomial in u = (x - k) / (x + k), for 0 <= x <= x_max."""

    x_max: float
    k: float
    coefficients: tuple[float, ...]


_TABLES = {
    # Relative error 2^-30.2.
    "float32": _Table(
        32.0,
        3.0,
        (
            0.48605579379017355,
            -0.09652675601532419,
            -0.016432218357638344,
            0.0451638241054355,
            -0.022728957847203097,
            0.0011615084714305152,
            0.003005385400436464,
            -0.00035830742289493834,
            -0.0005085183193177821,
            2.6966728726063632e-05,
            8.84039284761136e-05,
            4.062018594620855e-06,
            -8.591065449322409e-06,
        ),
    ),
    # Relative error 2^-58.5.
    "float64": _Table(
        80.0,
        5.0,
        (
            0.46151582985003775,
            -0.09155228183400893,
            0.031030368425963177,
            0.010002352385218176,
            -0.026401042966286543,
            0.02453696324402243,
            -0.015170415402836757,
            0.0065220006629177485,
            -0.0016760723424678696,
            7.791635700005777e-06,
            0.00018233414050343943,
            -5.360776542608455e-05,
            -9.896114022688098e-06,
            9.060395482878789e-06,
            -7.020946404226421e-08,
            -1.3086100361272913e-06,
            1.2746469872074383e-07,
            1.9782305871502078e-07,
            -2.5593727790173293e-08,
            -3.2246327639295594e-08,
            2.9497416866263737e-09,
            5.021237501015607e-09,
            8.146555496189404e-11,
            -5.111806338510894e-10,
            -8.294661976715391e-11,
        ),
    ),
}


def bound(x: Array) -> float:
    """Where exp(-x^2 / 2) times any three numbers of the dtype is 0: R is good up to here."""
    return _TABLES[x.dtype.name].x_max


def scaled_tail(x: Array) -> Array:
    """R(x), for 0 <= x <= bound(x)."""
    _, k, coefficients = _TABLES[x.dtype.name]
    return polynomial(coefficients, (x - k) / (x + k)) / (1 + x)
