"""``gated validate --exhaustive``: every input of a function, in a journal that a stopped sweep goes on from."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gated.commands._shared import (
    NOT_WITHIN,
    OK,
    UsageError,
    backends,
    console,
    job_count,
    progress,
    require,
    versions_line,
)

if TYPE_CHECKING:
    from gated.conformance.sweeps.catalogue import Sweep
    from gated.conformance.sweeps.journal import Journal, Result

__all__ = ["add_options", "run"]

# Seconds between lines of progress where there is no terminal for a bar.
_LINE_EVERY: Final = 60.0
_SMALL: Final = 1 << 16


def add_options(validate: argparse.ArgumentParser) -> None:
    """Adds the options to those of ``gated validate``."""
    group = validate.add_argument_group("exhaustive sweeps")
    group.add_argument(
        "--exhaustive",
        action="store_true",
        help="instead: every input of the swept functions (swish, sigmoid, gelu, relu, swiglu, glu); --functions and "
        "--dtypes choose among them; goes on where it stopped",
    )
    group.add_argument(
        "--shard", type=_shard, default=(1, 1), metavar="I/N", help="only part I of N, for N machines (default: 1/1)"
    )
    group.add_argument(
        "--results",
        type=Path,
        default=Path("sweeps"),
        metavar="DIR",
        help="the folder of journals and results (default: sweeps)",
    )


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, got {text!r}")
    return int(match[1]), int(match[2])


def run(options: argparse.Namespace) -> int:
    """Runs the sweeps, one function of one backend after the other, and gives the exit status."""
    require("rich", "cli")
    require("flint", "oracle")
    from gated.conformance.sweeps.catalogue import SWEEPS, find
    from gated.conformance.sweeps.journal import JournalError, merge
    from gated.conformance.sweeps.report import print_results

    names, skipped = backends(options)
    sweeps = find(options.functions, options.dtypes)
    if not sweeps:
        known = ", ".join(SWEEPS)
        raise UsageError(f"--exhaustive: no sweep has these functions and dtypes; there are {known}")
    results: list[Result] = []
    try:
        options.results.mkdir(parents=True, exist_ok=True)
        for sweep in sweeps:
            for name in names:
                journal = _sweep(options, sweep, name)
                if options.shard == (1, 1):
                    results.append(merge([journal.path]))
                    results[-1].write(options.results)
    except JournalError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"--results: {options.results}: {error.strerror or error}") from error
    terminal = console()
    if options.shard != (1, 1):
        index, count = options.shard
        terminal.print(f"Shard {index} of {count} is done; `gated accuracy merge` adds the shards up.")
        return OK
    print_results(terminal, results)
    terminal.print(versions_line(names, options.device))
    for name, reason in skipped.items():
        terminal.print(f"skipped: {name}: {reason}")
    return NOT_WITHIN if any(tally.failing for result in results for tally in result.tallies.values()) else OK


def _sweep(options: argparse.Namespace, sweep: Sweep, backend: str) -> Journal:
    """One function of one backend, from where its journal ends."""
    from gated.conformance.runner import versions
    from gated.conformance.source import code_digest
    from gated.conformance.sweeps.journal import Header, Journal
    from gated.conformance.sweeps.running import run_units

    header = Header(
        sweep=sweep.name,
        backend=backend,
        device="cpu" if backend == "numpy" else options.device or "default",
        versions=versions(),
        code=code_digest(backend),
        shard=options.shard,
    )
    journal = Journal(options.results / f"{header.name()}.jsonl", header)
    if journal.dropped:
        print(f"gated validate: {journal.dropped}", file=sys.stderr)
    remaining = len(journal.remaining)
    if not remaining:
        return journal
    # A sweep of 16 bits takes less time than processes to start.
    jobs = min(job_count(options), remaining) if sweep.inputs > _SMALL else 1
    with progress(f"{sweep.name} {backend}", len(header.units), done=len(journal.done)) as advance:
        say = _lines(sweep.name, backend, journal)
        for unit in run_units(journal, jobs=jobs, device=options.device):
            advance(f"unit {unit}")
            say()
    return journal


def _lines(sweep: str, backend: str, journal: Journal) -> Callable[[], None]:
    """Says now and then how far a sweep is and how long it will take, where no bar does."""
    if sys.stderr.isatty():
        return lambda: None
    start = time.monotonic()
    already = len(journal.done)
    total = len(journal.header.units)
    last = start

    def say() -> None:
        nonlocal last
        now = time.monotonic()
        done = len(journal.done)
        if now - last < _LINE_EVERY and done < total:
            return
        last = now
        left = (now - start) / max(1, done - already) * (total - done)
        print(
            f"{sweep} {backend}: {done} of {total} units, {_span(now - start)} gone, {_span(left)} left",
            file=sys.stderr,
            flush=True,
        )

    return say


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
