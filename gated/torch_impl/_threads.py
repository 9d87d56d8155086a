"""Work on blocks of large CPU tensors, shared between threads.

Operations on less than 32,768 elements (``at::internal::GRAIN_SIZE``) run in the thread that calls them, and let other
Python threads run meanwhile. Threads that have blocks of that size of their own meet once, at the end. Were the blocks
larger, torch would share each operation between its threads, which then wait for each other after every one of them: on
a machine that does something else as well, for milliseconds. Beyond a few threads Python itself becomes what all wait
for, and torch's way is better.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import torch

__all__ = ["block_size", "shared"]

_R = TypeVar("_R")

_SERIAL: Final = 2**15 - 1
"""Elements that torch does not share between threads."""
_SHARED: Final = 2**16
"""Elements for each thread where it does, or where there is one alone: a quarter of a MiB of float32."""
_MOST: Final = 4
"""Python threads that do not hinder each other much."""
_WORTH: Final = 2**18
"""Elements from which on a second thread saves more time than it takes to wake."""


def block_size() -> int:
    """Elements of a block."""
    threads = torch.get_num_threads()
    return _SERIAL if 1 < threads <= _MOST else threads * _SHARED


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST - 1, "gated")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has no threads but one


def shared(task: Callable[[range], _R], count: int, elements: int) -> list[_R]:
    """``task`` done on ``count`` blocks, ``elements`` in all, by one or more threads: the result of each thread."""
    threads = torch.get_num_threads()
    if threads == 1 or threads > _MOST or elements < _WORTH or count < threads:
        return [task(range(count))]
    inference = torch.is_inference_mode_enabled()

    def quietly(blocks: range) -> _R:
        with torch.inference_mode(inference), torch.no_grad():  # both modes are a thread's own
            return task(blocks)

    cuts = [count * i // threads for i in range(threads + 1)]
    parts = [range(start, end) for start, end in itertools.pairwise(cuts)]
    futures = [_pool().submit(quietly, part) for part in parts[1:]]
    first = quietly(parts[0])
    return [first, *(future.result() for future in futures)]
