"""How one array holds a weight: a pattern of axes, read into the reference's order and written from it.

A pattern names the axes in the order they are stored, a word an axis: ``e`` experts, ``2`` the pair of gate and value,
``d`` the block's input, ``f`` its hidden features, ``o`` its output. Words in brackets share one axis, the last of them
fastest: ``"(2 f) d"`` is a packed torch weight of two halves, ``"(f 2) d"`` an interleaved one, ``"d 2 f"`` a stacked
kernel, ``"(e f) d"`` the rows of all experts under one another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from gated.interop.arrays import Array, permute, reshape, stack

__all__ = ["Pattern", "join_pair", "parse", "read", "shape_text", "solve", "without", "write"]

Pattern = tuple[tuple[str, ...], ...]
"""The words of each stored axis."""

_WORDS = "e2dfo"


def parse(text: str) -> Pattern:
    """The pattern that ``text`` writes.

    Raises:
        ValueError: ``text`` is no pattern, or names an axis twice.
    """
    groups = tuple(tuple(group.strip("()").split()) for group in re.findall(r"\([^()]*\)|[^\s()]+", text))
    words = [word for group in groups for word in group]
    written = " ".join(f"({' '.join(group)})" if len(group) > 1 else " ".join(group) for group in groups)
    if not words or written != text or sorted(words) != sorted(set(words) & set(_WORDS)):
        raise ValueError(f"parse: a pattern must name some of the axes e 2 d f o, each once, got {text!r}")
    return groups


def without(pattern: Pattern, word: str) -> Pattern:
    """The pattern less one axis: that of a bias is that of its weight without the summed axis."""
    left = (tuple(one for one in group if one != word) for group in pattern)
    return tuple(group for group in left if group)


def shape_text(pattern: Pattern, sizes: Mapping[str, int]) -> str:
    """The shape that the pattern asks for, with the sizes that are known: ``(2 * d_hidden, 576)``."""
    names = {"e": "experts", "d": "d_in", "f": "d_hidden", "o": "d_out"}

    def size(group: Sequence[str]) -> str:
        if all(word in sizes for word in group):
            return str(math.prod(sizes[word] for word in group))
        return " * ".join(str(sizes.get(word, names.get(word, word))) for word in group)

    return f"({', '.join(map(size, pattern))}{',' if len(pattern) == 1 else ''})"


def solve(shape: Sequence[int], pattern: Pattern, sizes: Mapping[str, int]) -> dict[str, int] | None:
    """``sizes`` and those that the shape adds; None where the shape does not fit the pattern and the known sizes.

    At most one word of each bracket may be unknown.
    """
    if len(shape) != len(pattern):
        return None
    found = dict(sizes)
    for size, group in zip(shape, pattern, strict=True):
        unknown = [word for word in group if word not in found]
        known = math.prod(found[word] for word in group if word in found)
        if unknown:
            if size % known:
                return None
            (word,) = unknown
            found[word] = size // known
        elif size != known:
            return None
    return found


def read(array: Array, pattern: Pattern, sizes: Mapping[str, int], order: str) -> Array:
    """The array with its axes apart and in ``order``, a word a letter, of those that the pattern has."""
    words = [word for group in pattern for word in group]
    apart = reshape(array, [sizes[word] for word in words]) if len(words) > len(pattern) else array
    axes = [words.index(word) for word in order if word in words]
    return apart if axes == sorted(axes) else permute(apart, axes)


def write(array: Array, pattern: Pattern, order: str) -> Array:
    """The inverse of :func:`read`: from axes in ``order`` to the stored ones."""
    words = [word for group in pattern for word in group]
    ordered = [word for word in order if word in words]
    return _merge(_arrange(array, ordered, words), pattern)


def join_pair(first: Array, second: Array, pattern: Pattern, order: str) -> Array:
    """Two arrays with axes in ``order`` as the one that the pattern stores, ``first`` at index 0 of its axis ``2``."""
    words = [word for group in pattern for word in group]
    half = [word for word in words if word != "2"]
    ordered = [word for word in order if word in half]
    # Each half is put in the stored order before the copy: the merge that follows is then a view.
    halves = [_arrange(one, ordered, half) for one in (first, second)]
    return _merge(stack(halves, words.index("2")), pattern)


def _arrange(array: Array, words: Sequence[str], wanted: Sequence[str]) -> Array:
    axes = [words.index(word) for word in wanted]
    return array if axes == sorted(axes) else permute(array, axes)


def _merge(array: Array, pattern: Pattern) -> Array:
    if all(len(group) == 1 for group in pattern):
        return array
    sizes = iter(array.shape)
    return reshape(array, [math.prod(next(sizes) for _ in group) for group in pattern])
