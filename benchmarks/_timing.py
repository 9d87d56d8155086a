"""What the timing benchmarks share: clocks, medians of works that take turns, and how a time is shown."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["CLOCKS", "Work", "medians", "shown"]

Work = Callable[[], object]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def medians(works: Mapping[str, Work], clock: Callable[[], float], seconds: float) -> dict[str, float]:
    """The median time of each work, in about ``seconds``; they take turns, after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    calls = 1
    for work in works.values():
        work()
        start = time.perf_counter()
        work()
        calls = max(calls, int(1e-3 / max(time.perf_counter() - start, 1e-7)))
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[next(iter(works))]) < 5:
        for name, work in works.items():
            start = clock()
            for _ in range(calls):
                work()
            times[name].append((clock() - start) / calls)
    return {name: statistics.median(taken) for name, taken in times.items()}


def shown(seconds: float) -> str:
    """In ms or us."""
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"
