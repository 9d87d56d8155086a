"""``gated validate --search``: the inputs with the largest errors that a search finds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gated.commands._shared import (
    NOT_WITHIN,
    OK,
    UsageError,
    adapters,
    at_least,
    backends,
    console,
    progress,
    require,
    versions_line,
)

if TYPE_CHECKING:
    from gated.conformance.search import Found
    from gated.conformance.search_results import SearchResult

__all__ = ["add_options", "run"]


def add_options(validate: argparse.ArgumentParser) -> None:
    """Adds the options to those of ``gated validate``."""
    group = validate.add_argument_group("adversarial search")
    group.add_argument(
        "--search",
        type=at_least(1),
        metavar="N",
        help="instead: search for the worst inputs, by N evaluations of each function (--dtypes, default float64); "
        "writes its findings to --results",
    )


def run(options: argparse.Namespace) -> int:
    """Searches, writes the findings, and gives the exit status."""
    require("rich", "cli")
    require("flint", "oracle")
    from gated.conformance.runner import versions
    from gated.conformance.search_results import SEARCHED, SearchResult, search_all, today
    from gated.conformance.source import code_digest

    names, skipped = backends(options)
    dtypes = options.dtypes or ("float64",)
    searched = [one for one in SEARCHED if options.functions is None or one[0] in options.functions]
    if not searched:
        known = ", ".join(dict.fromkeys(function for function, _ in SEARCHED))
        raise UsageError(f"--search: none of these functions is searched; there are {known}")
    results: list[SearchResult] = []
    try:
        options.results.mkdir(parents=True, exist_ok=True)
        with progress("searching", len(searched) * len(dtypes) * len(names)) as advance:
            for dtype in dtypes:
                for adapter in adapters(names, options.device):
                    found: list[Found] = []
                    for function in dict.fromkeys(function for function, _ in searched):
                        found += search_all(adapter, [function], dtype, evaluations=options.search, seed=options.seed)
                        advance(f"{function} {dtype} {adapter.name}")
                    results.append(
                        SearchResult(
                            backend=adapter.name,
                            dtype=dtype,
                            device="cpu" if adapter.name == "numpy" else options.device or "default",
                            versions=versions(),
                            code=code_digest(adapter.name),
                            date=today(),
                            evaluations=options.search,
                            seed=options.seed,
                            found=found,
                        )
                    )
                    results[-1].write(options.results)
    except OSError as error:
        raise UsageError(f"--results: {options.results}: {error.strerror or error}") from error
    _print(results)
    console().print(versions_line(names, options.device))
    for name, reason in skipped.items():
        console().print(f"skipped: {name}: {reason}")
    return NOT_WITHIN if any(one.error > one.bound for result in results for one in result.found) else OK


def _print(results: list[SearchResult]) -> None:
    from rich.table import Table

    from gated.conformance.sweeps.report import bits_as_decimal, number

    table = Table(title="The largest errors that were found, in ulp: lower bounds", title_justify="left")
    for name in ("function", "dtype", "backend", "of"):
        table.add_column(name)
    for name in ("error", "allowed there", "at"):
        table.add_column(name, justify="right")
    for result in results:
        for one in result.found:
            if one.objective == "error" or one.error > one.bound:
                at = ", ".join(f"{name} {bits_as_decimal(bits, one.dtype)}" for name, bits in one.at.items())
                keywords = "".join(f" {value}" for value in one.static.values())
                table.add_row(
                    one.function + keywords,
                    one.dtype,
                    one.backend,
                    one.quantity,
                    number(one.error),
                    f"{one.bound:.4g}",
                    at,
                )
    console().print(table)
