"""What a conversion will write, known before any array is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gated.interop.checkpoints.checkpoint import Array, Checkpoint, Spec
from gated.interop.conversion import convert
from gated.interop.errors import InteropError
from gated.interop.families import find_family
from gated.interop.family import Family

__all__ = ["Block", "Plan", "plan_conversion"]

_GATES: Final = ("W", "V", "WV")
"""The parts by which a block is known: attention, too, can have a w2, c_proj or Wo."""

_LAST: Final = (".weight", ".kernel", ".bias")
"""The names of arrays within a layer."""


@dataclass(frozen=True)
class Block:
    """A gated feed-forward block of a checkpoint.

    Attributes:
        prefix: what stands before its keys.
        target_prefix: what will stand before those of the result.
        keys: of its arrays.
        specs: of the arrays it will be, by key.
    """

    prefix: str
    target_prefix: str
    keys: tuple[str, ...]
    specs: Mapping[str, Spec]


@dataclass(frozen=True)
class Plan:
    """What :func:`write_conversion` will do.

    Attributes:
        checkpoint: the source.
        source: the family of its blocks.
        target: the family of the result's.
        experts: how many, where no shape tells.
        blocks: in the order of the checkpoint.
        copied: the keys of other arrays, which stay as they are.
    """

    checkpoint: Checkpoint
    source: Family
    target: Family
    experts: int | None
    blocks: tuple[Block, ...]
    copied: tuple[str, ...]

    @property
    def specs(self) -> dict[str, Spec]:
        """Of all arrays of the result, by key, in the order they are written."""
        found = {key: spec for block in self.blocks for key, spec in block.specs.items()}
        return found | {key: self.checkpoint.spec(key) for key in self.copied}

    @property
    def nbytes(self) -> int:
        """The size of all arrays of the result."""
        return sum(spec.nbytes for spec in self.specs.values())

    @property
    def steps(self) -> int:
        """How often :func:`write_conversion` calls ``advance``: each block and array is written and compared."""
        return 2 * (len(self.blocks) + len(self.copied))


def plan_conversion(
    checkpoint: Checkpoint,
    source: str | Family,
    target: str | Family,
    *,
    prefix: str = "*",
    target_prefix: str | None = None,
    experts: int | None = None,
    only_ffn: bool = False,
) -> Plan:
    """Finds the blocks of ``source`` in a checkpoint and how each will be stored as ``target`` does; reads no array.

    A block is where keys of the family's gate and value are, under any prefix. Arrays of no block stay as they are,
    key and all, unless ``only_ffn`` leaves them out.

    Args:
        checkpoint: as :func:`open_checkpoint` gives it.
        source: the family of the blocks.
        target: the family of the result.
        prefix: of the blocks, such as ``"model.layers.7.mlp."``; ``*`` stands for anything.
        target_prefix: what the prefix becomes, such as ``"blk.*."``, where ``*`` is what the one of ``prefix`` stood
            for; None: as it is.
        experts: as :func:`gated.interop.to_reference` takes it.
        only_ffn: whether the result has the blocks alone.

    Raises:
        InteropError: there is no block, one lacks a key or has a shape that does not fit, the families differ in what
            they compute, two arrays of the result would have one key, or an array to be copied cannot be read.
    """
    origin, goal = find_family("convert", source), find_family("convert", target)
    renamed = _prefixes(checkpoint, origin, prefix, target_prefix)
    blocks = []
    for found, wanted in renamed.items():
        state = _Outline(checkpoint)
        result = convert(state, origin, goal, prefix=found, target_prefix=wanted, experts=experts)
        specs = {key: Spec(array.dtype, array.shape) for key, array in result.items()}
        blocks.append(Block(found, wanted, tuple(state.read), specs))
    taken = {key for block in blocks for key in block.keys}
    copied = () if only_ffn else tuple(key for key in checkpoint if key not in taken)
    _check_belongings(checkpoint, taken, origin)
    _check_keys(blocks, copied)
    for key in copied:
        checkpoint.spec(key)
    return Plan(checkpoint, origin, goal, experts, tuple(blocks), copied)


class _Outline(Mapping[str, Array]):
    """Zeros of the dtypes and shapes of a checkpoint, that take no memory. ``read`` has the keys asked for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.read: dict[str, None] = {}

    def __getitem__(self, key: str) -> Array:
        if key not in self._checkpoint:
            raise KeyError(key)
        self.read[key] = None
        spec = self._checkpoint.spec(key)
        return np.broadcast_to(np.zeros((), spec.dtype), spec.shape)

    def __contains__(self, key: object) -> bool:
        return key in self._checkpoint

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint)

    def __len__(self) -> int:
        return len(self._checkpoint)


def _prefixes(checkpoint: Checkpoint, family: Family, prefix: str, target_prefix: str | None) -> dict[str, str]:
    """The prefix of each block and what it becomes."""
    parts = [family.parts[part] for part in _GATES if part in family.parts]
    endings = "|".join(re.escape(part).replace(re.escape("{expert}"), r"\d+") for part in parts)
    key_pattern = re.compile(rf"((?:.*\.)?)(?:{endings})")
    prefix_pattern = re.compile("(.*)".join(map(re.escape, prefix.split("*"))))
    if target_prefix is not None and target_prefix.count("*") > prefix.count("*"):
        raise InteropError(f"convert: target_prefix must have no more * than prefix, {prefix!r}, got {target_prefix!r}")
    found: dict[str, str] = {}
    others: dict[str, None] = {}
    for key in checkpoint:
        match = key_pattern.fullmatch(key)
        stars = match and prefix_pattern.fullmatch(match[1])
        if match and stars:
            found[match[1]] = match[1] if target_prefix is None else _filled(target_prefix, stars.groups())
        elif match:
            others[match[1]] = None
    if not found:
        instead = f"; there are blocks under {', '.join(map(repr, [*others][:3]))}" if others else ""
        raise InteropError(
            f"convert: {checkpoint.path} must have a block of family {family.name}, keys that end in "
            f"{' and '.join(map(repr, parts))} under {prefix!r}, got none of {len(checkpoint)} keys{instead}"
        )
    if len(set(found.values())) < len(found):
        raise InteropError(
            f"convert: target_prefix must tell {len(found)} blocks apart, got {target_prefix!r} for "
            f"{', '.join(map(repr, [*found][:3]))}"
        )
    return found


def _filled(template: str, stars: tuple[str, ...]) -> str:
    first, *others = template.split("*")
    return first + "".join(star + text for star, text in zip(stars, others, strict=False))


def _check_belongings(checkpoint: Checkpoint, taken: set[str], family: Family) -> None:
    """Nothing may belong to the arrays of a block: a scale of quantised weights, say, would be left without them."""
    layers = {key.rpartition(".")[0] + "." for key in taken if key.endswith(_LAST)}
    homes = layers | {key + "_" for key in taken if not key.endswith(_LAST)}
    for key in checkpoint:
        beginnings = (key[: found.end()] for found in re.finditer(r"[._]", key))
        if key not in taken and not homes.isdisjoint(beginnings):
            raise InteropError(
                f"convert: {key!r} belongs to an array of a block, and family {family.name} has no place for it: "
                f"quantised weights must be dequantised, and adapters merged, before"
            )


def _check_keys(blocks: list[Block], copied: tuple[str, ...]) -> None:
    """No two arrays of the result may have one key."""
    places = dict.fromkeys(copied, "is copied")
    for block in blocks:
        for key in block.specs:
            if key in places:
                raise InteropError(
                    f"convert: {key!r} of the block {block.prefix!r} must be no other array's key, which {places[key]}"
                )
            places[key] = f"is of the block {block.prefix!r}"
