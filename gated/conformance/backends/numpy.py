"""The NumPy reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gated.numpy_ref as reference

__all__ = ["load"]


class NumpyAdapter:
    """:mod:`gated.numpy_ref`."""

    name = "numpy"
    flushes = False

    def value_and_cotangents(
        self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        value, pullback = reference.vjp(getattr(reference, function), *primals, **static)
        return value, pullback(cotangent)


def load(device: str | None) -> NumpyAdapter:
    """NumPy, on the CPU alone."""
    if device not in (None, "cpu"):
        raise ValueError(f'numpy has the device "cpu" only, got "{device}"')
    return NumpyAdapter()
