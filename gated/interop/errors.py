"""The one error of conversion and identification."""

from __future__ import annotations

__all__ = ["InteropError"]


class InteropError(ValueError):
    """Weights that cannot be what the caller says they are. The text names function, key, expected and got."""
