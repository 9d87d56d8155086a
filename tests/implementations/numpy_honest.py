"""Sound implementations in NumPy: plain ones, stable ones, and other formulas of the same functions."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, expit


def _wide(x):
    """In float64; the contract refuses what is no array of floats."""
    if x.dtype.kind in "iub":
        raise TypeError(f"x must be an array of floats, got {x.dtype}")
    return x.astype(np.float64)


def silu_plain(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return x / (1 + np.exp(-x))


def silu_plain_gradient(x, dy):
    s = expit(x)
    return dy * (s + x * (s * (1 - s)))


def silu_of_positive(x):
    """x - x sigmoid(-x) in float64. float16 underflows before the difference has lost its digits; bfloat16 does not."""
    wide = _wide(x)
    finite = np.isfinite(wide)
    with np.errstate(over="ignore", invalid="ignore"):
        inner = np.where(finite, wide - wide * expit(-np.where(finite, wide, 0)), np.where(wide < 0, -0.0, wide))
    return np.copysign(inner, wide).astype(x.dtype)


def silu_by_tanh(x):
    """x (1 + tanh(x / 2)) / 2 in float64. float16 ends long before 1 + tanh has lost its digits."""
    wide = _wide(x)
    with np.errstate(invalid="ignore"):
        product = wide * (0.5 * (1 + np.tanh(wide / 2)))
    return np.where(np.isneginf(wide), -0.0, product).astype(x.dtype)


def silu_by_logaddexp(x):
    """x exp(-log(1 + exp(-x))) in float64, for float32: 100 roundoffs of float64 are none of float32."""
    wide = _wide(x)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        product = wide * np.exp(-np.logaddexp(0.0, -wide))
    return np.where(np.isneginf(wide), -0.0, product).astype(x.dtype)


def swish_stable(x):
    """The exponential in two halves: neither underflows before the result does."""
    x = _wide(x)
    s = np.exp(-np.abs(x) / 2)
    with np.errstate(under="ignore", invalid="ignore"):
        below = np.where(np.isneginf(x), np.copysign(np.zeros_like(x), x), (x * s) * s)
        return np.where(x < 0, below, x) / (1 + s * s)


def gelu_plain(x):
    """The cumulative distribution from erf: in float64, for float16."""
    wide = _wide(x)
    with np.errstate(invalid="ignore"):
        return (0.5 * wide * (1 + erf(wide / np.sqrt(2.0)))).astype(x.dtype)


def swiglu_plain(x):
    value, gate = np.split(x, 2, axis=-1)
    return silu_plain(gate) * value


def clamped_plain(x):
    gate, value = np.minimum(x[..., ::2], 7), np.clip(x[..., 1::2], -7, 7)
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-1.702 * gate)) * (value + 1)


def glu_linear_plain(x, W, V, b, c):
    return expit(x @ W + b) * (x @ V + c)
