"""Weights of model families: their layouts, conversion between them, and identification.

``FAMILIES`` has a row for each family: the names of its arrays, which half is the gate, what is transposed, and the
source that says so. :func:`to_reference` reads a family's arrays as those of :func:`gated.numpy_ref.gated_ffn`,
:func:`from_reference` writes them, :func:`convert` does both. Arrays are NumPy's, PyTorch's or JAX's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gated.interop.conversion import Reference, convert, from_reference, to_reference
    from gated.interop.errors import InteropError
    from gated.interop.families import FAMILIES, Clamp, Family
    from gated.interop.identification import identify

__all__ = [
    "FAMILIES",
    "Clamp",
    "Family",
    "InteropError",
    "Reference",
    "convert",
    "from_reference",
    "identify",
    "to_reference",
]

_HOMES: Final = {
    "FAMILIES": "families",
    "Clamp": "families",
    "Family": "families",
    "InteropError": "errors",
    "Reference": "conversion",
    "convert": "conversion",
    "from_reference": "conversion",
    "identify": "identification",
    "to_reference": "conversion",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
