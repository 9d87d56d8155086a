"""The inputs and the comparisons that the tests of the JAX backend share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src.ad_checkpoint import saved_residuals

__all__ = ["ACTIVATIONS", "COTANGENT", "CURVED", "GATE", "VALUE", "assert_same", "kept", "residuals", "weights"]

ACTIVATIONS = ("identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish")
CURVED = ("sigmoid", "gelu", "gelu_tanh", "swish")

# One shape and one set of numbers: XLA compiles each function once.
GATE = np.array([-87.5, -9.25, -1.28, -0.75, -0.0, 0.5, 3.0, 40.0], np.float32)
VALUE = np.array([1e30, -2.5, 0.75, 1.0, 3.0, -1e-3, 7.0, 1e-30], np.float32)
COTANGENT = np.array([2.0, -1.0, 0.5, 3.0, -2.0, 1.0, 0.25, -4.0], np.float32)


def bits(x: Any) -> Any:
    x = np.asarray(x)
    return x.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[x.dtype.itemsize])


def assert_same(actual: Any, expected: Any, ulps: int = 0) -> None:
    """Equal classes, signs of zeros and dtypes; numbers within ``ulps`` of the expected ones."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    known = ~np.isnan(expected)
    a, b = actual[known], expected[known]
    if ulps == 0:
        np.testing.assert_array_equal(bits(a), bits(b))
        return
    np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
    finite = np.isfinite(b)
    assert np.all(np.abs(a[finite] - b[finite]) <= ulps * np.spacing(np.abs(b[finite])))


def kept(f: Callable[..., Any], *arguments: Any) -> list[tuple[tuple[int, ...], str]]:
    """What is saved for the backward pass: shape and dtype of all that is larger than a number."""
    return sorted((a.shape, a.dtype.name) for a, _ in saved_residuals(f, *arguments) if a.shape)


def residuals(f: Callable[..., Any], **arguments: Any) -> tuple[set[str], list[tuple[tuple[int, ...], str]]]:
    """The same in two parts: the names of the arguments among it, however small, and what is none."""
    names, others = set(), []
    for aval, source in saved_residuals(f, **arguments):
        if source.startswith("from the argument "):
            names.add(source.removeprefix("from the argument "))
        elif aval.shape:
            others.append((aval.shape, aval.dtype.name))
    return names, sorted(others)


def weights(dtype: str = "float32") -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(3), 7)
    shapes = {"x": (5, 4), "W": (4, 8), "V": (4, 8), "W2": (8, 6), "b": (8,), "c": (8,), "b2": (6,)}
    return {name: jax.random.normal(key, shape, dtype) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
