"""Runs the units of a sweep by several processes, and records each in the journal."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Final

from gated.conformance.backends import Adapter, load
from gated.conformance.sweeps.catalogue import SWEEPS
from gated.conformance.sweeps.journal import Journal
from gated.conformance.sweeps.numbers import measure_numbers
from gated.conformance.sweeps.pairs import measure_pairs
from gated.conformance.sweeps.tally import Tally

__all__ = ["ONE_THREAD", "measure_unit", "run_units"]

ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
"""The environment of a process that uses one thread: several of them share the cores out by themselves."""


def measure_unit(sweep: str, adapter: Adapter, unit: int) -> dict[str, Tally]:
    """What one unit of a sweep finds in a backend."""
    found = SWEEPS[sweep]
    return (measure_pairs if found.pairs else measure_numbers)(found, adapter, unit)


def run_units(journal: Journal, *, jobs: int, device: str | None = None) -> Iterator[int]:
    """Does the units that remain, and gives each when its line is written.

    Args:
        jobs: processes; 1 measures in this one.
        device: as in :func:`gated.conformance.backends.load`.

    Raises:
        Exception: what the backend raised. What was recorded until then stays.
    """
    header = journal.header
    target = None if header.backend == "numpy" else device
    if jobs == 1:
        adapter = load(header.backend, target)
        for unit in journal.remaining:
            journal.add(unit, *_timed(header.sweep, adapter, unit))
            yield unit
        return
    spawn = multiprocessing.get_context("spawn")
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update({name: value for name, value in ONE_THREAD.items() if before[name] is None})
    try:
        with ProcessPoolExecutor(jobs, spawn, _start, (header.backend, target)) as pool:
            yield from _drain(pool, journal, jobs)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _drain(pool: ProcessPoolExecutor, journal: Journal, jobs: int) -> Iterator[int]:
    """A few units ahead of the processes, so that an interruption has little to wait for."""
    queue = iter(journal.remaining)
    pending: dict[Future[tuple[float, dict[str, Tally]]], int] = {}
    try:
        while True:
            while len(pending) < 2 * jobs and (unit := next(queue, None)) is not None:
                pending[pool.submit(_unit, journal.header.sweep, unit)] = unit
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                unit = pending.pop(future)
                journal.add(unit, *future.result())
                yield unit
    finally:
        for future in pending:
            future.cancel()


_loaded: list[Adapter] = []


def _start(backend: str, device: str | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _loaded.append(load(backend, device))


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _unit(sweep: str, unit: int) -> tuple[float, dict[str, Tally]]:
    return _timed(sweep, _loaded[0], unit)


def _timed(sweep: str, adapter: Adapter, unit: int) -> tuple[float, dict[str, Tally]]:
    start = time.perf_counter()
    tallies = measure_unit(sweep, adapter, unit)
    return time.perf_counter() - start, tallies
