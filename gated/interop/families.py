"""The table of model families: how each stores the weights of its gated feed-forward block."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gated.interop._families_hugging_face import HUGGING_FACE
from gated.interop._families_jax import JAX
from gated.interop._families_torch import TORCH
from gated.interop.errors import InteropError
from gated.interop.family import Clamp, Family

__all__ = ["FAMILIES", "Clamp", "Family", "find_family"]

FAMILIES: Final[Mapping[str, Family]] = MappingProxyType({row.name: row for row in (*HUGGING_FACE, *TORCH, *JAX)})
"""Every family by its name."""


def find_family(function: str, family: str | Family) -> Family:
    """The row of ``FAMILIES`` that ``family`` names, or ``family`` itself where it is a row.

    Raises:
        InteropError: there is no such family. The text offers the nearest names.
    """
    if isinstance(family, Family):
        return family
    if isinstance(family, str) and family in FAMILIES:
        return FAMILIES[family]
    near = difflib.get_close_matches(str(family).lower(), FAMILIES, n=3, cutoff=0.5)
    offer = f"one of {', '.join(near)}" if near else f"one of {', '.join(FAMILIES)}"
    raise InteropError(f"{function}: family must be a name in FAMILIES, perhaps {offer}, got {family!r}")
