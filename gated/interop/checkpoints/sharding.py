"""A folder of safetensors files, with the index that says which has which array."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from gated.interop.checkpoints.checkpoint import Array, Spec
from gated.interop.checkpoints.planning import Plan
from gated.interop.checkpoints.safetensors import INDEX_SUFFIX, SafetensorsWriter

__all__ = ["ShardedWriter", "shards"]

_ONE: Final = "model.safetensors"
"""The name of a file that is alone, for which no index is looked for."""


def shards(plan: Plan, size: int | None) -> dict[str, str]:
    """The file of each key of the result.

    Args:
        plan: the conversion.
        size: the bytes a file may have, unless a single array is larger; None: the files of the source, a block in
            that of its first array, or one file for a source of one.
    """
    if size is not None:
        return _filled(plan.specs, size)
    places: dict[str, str | None] = {}
    for block in plan.blocks:
        places |= dict.fromkeys(block.specs, plan.checkpoint.shard(block.keys[0]))
    places |= {key: plan.checkpoint.shard(key) for key in plan.copied}
    return {key: name or _ONE for key, name in places.items()}


def _filled(specs: Mapping[str, Spec], size: int) -> dict[str, str]:
    """As many keys a file as there is room for, in their order."""
    numbers = dict(zip(specs, _numbers(specs, size), strict=True))
    count = max(numbers.values()) + 1
    if count == 1:
        return dict.fromkeys(specs, _ONE)
    return {key: f"model-{number + 1:05}-of-{count:05}.safetensors" for key, number in numbers.items()}


def _numbers(specs: Mapping[str, Spec], size: int) -> Iterator[int]:
    number, used = 0, 0
    for spec in specs.values():
        if used and used + spec.nbytes > size:
            number, used = number + 1, 0
        used += spec.nbytes
        yield number


class ShardedWriter:
    """Writes a folder of files, and the index unless there is one file under the name that needs none."""

    def __init__(
        self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str], *, shards: Mapping[str, str]
    ) -> None:
        path.mkdir()
        self._path, self._shards = path, dict(shards)
        self._total = sum(spec.nbytes for spec in specs.values())
        self._writers: dict[str, SafetensorsWriter] = {}
        with ExitStack() as opened:
            for name in dict.fromkeys(shards.values()):
                own = {key: spec for key, spec in specs.items() if shards[key] == name}
                self._writers[name] = SafetensorsWriter(path / name, own, metadata)
                opened.callback(self._writers[name].close)
            self._opened = opened.pop_all()

    def put(self, key: str, array: Array) -> None:
        """Writes an array to its file."""
        self._writers[self._shards[key]].put(key, array)

    def close(self) -> None:
        self._opened.close()
        if [*self._writers] == [_ONE]:
            return
        content = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(self._shards.items()))}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (self._path / f"model{INDEX_SUFFIX}").write_text(text, encoding="utf-8")
