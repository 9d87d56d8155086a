"""Looking things up in a state dict, flat or nested, without reading a value that is not asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["State", "lookup", "numbers"]

State = Mapping[Any, Any]
"""Arrays by key. A mapping may read a value only when asked for it: a checkpoint need not be in memory."""


def lookup(state: State, key: str) -> Any:
    """The value at a key, whose dots may be steps into nested mappings; None where there is none.

    A step that is a number may be an int: Flax NNX has lists of layers as mappings from ints.
    """
    for step in _steps(key):
        if step in state:
            return state[step]
    for dot in re.finditer(r"\.", key):
        for step in _steps(key[: dot.start()]):
            if step in state and isinstance(state[step], Mapping):
                value = lookup(state[step], key[dot.end() :])
                if value is not None:
                    return value
    return None


def _steps(key: str) -> tuple[str] | tuple[str, int]:
    return (key, int(key)) if key.isdecimal() else (key,)


def numbers(state: State, before: str, after: str) -> Iterator[int]:
    """The numbers n for which there is a key ``before`` n ``after``."""
    flat = re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}")
    matches = [flat.fullmatch(key) for key in state if isinstance(key, str)]
    found = {int(match[1]) for match in matches if match}
    if found:
        return iter(found)
    node = lookup(state, before.removesuffix(".")) if before else state
    if not isinstance(node, Mapping):
        return iter(())
    return (int(str(key)) for key in node if str(key).isdecimal() and lookup(node, f"{key}{after}") is not None)
