"""One function over many names, in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

__all__ = ["in_processes"]

T = TypeVar("T")


def in_processes(work: Callable[[str], T], names: Sequence[str], jobs: int) -> Iterator[tuple[str, T]]:
    """Each name with ``work(name)``, in the order in which they are finished."""
    if jobs == 1 or len(names) == 1:
        yield from ((name, work(name)) for name in names)
        return
    with ProcessPoolExecutor(min(jobs, len(names)), multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(work, name): name for name in names}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            # After an error the others are not waited for.
            pool.shutdown(wait=False, cancel_futures=True)
