"""``gated accuracy``: what sweeps found, added up from their journals and written as a page."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated.commands._shared import NOT_WITHIN, OK, UsageError, console, require

if TYPE_CHECKING:
    from gated.conformance.search_results import SearchResult
    from gated.conformance.sweeps.journal import Header

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    accuracy = commands.add_parser(
        "accuracy",
        help="add up the journals of exhaustive sweeps, and write the page of what they found",
        description="What `gated validate --exhaustive` found: results from journals, and a page from results.",
    )
    actions = accuracy.add_subparsers(dest="action", required=True, metavar="ACTION")

    merging = actions.add_parser(
        "merge",
        help="add journals up, those of all shards, to one result a sweep and backend",
        description="Exit 2 if a journal is damaged, cut short or of another split, or a unit is missing.",
    )
    merging.add_argument("journals", nargs="+", type=Path, metavar="JOURNAL", help="files *.jsonl")
    merging.add_argument("--results", type=Path, required=True, metavar="DIR", help="where the results are written")
    merging.set_defaults(run=_merge)

    page = actions.add_parser(
        "page",
        help="write the page and its pictures from the results in a folder",
        description="Writes the page and, beside it, figures/accuracy-*.png.",
    )
    page.add_argument(
        "--results", type=Path, default=Path("docs/accuracy"), metavar="DIR", help="(default: docs/accuracy)"
    )
    page.add_argument(
        "--out", type=Path, default=Path("docs/accuracy.md"), metavar="FILE", help="(default: docs/accuracy.md)"
    )
    page.add_argument("--check", action="store_true", help="write nothing: exit 1 if the page is not what it would be")
    page.set_defaults(run=_page)


def _merge(options: argparse.Namespace) -> int:
    require("rich", "cli")
    require("flint", "oracle")
    from gated.conformance.sweeps.journal import JournalError, by_result, merge
    from gated.conformance.sweeps.report import print_results

    try:
        results = [merge(paths) for paths in by_result(options.journals).values()]
        options.results.mkdir(parents=True, exist_ok=True)
        for result in results:
            result.write(options.results)
    except JournalError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"--results: {options.results}: {error.strerror or error}") from error
    print_results(console(), results)
    return NOT_WITHIN if any(tally.failing for result in results for tally in result.tallies.values()) else OK


def _page(options: argparse.Namespace) -> int:
    require("flint", "oracle")
    require("matplotlib", "cli")
    from gated.conformance.records import RecordError
    from gated.conformance.sweeps.page import page, pictured, read_folder, read_searches
    from gated.conformance.sweeps.pictures import draw

    if not options.results.is_dir():
        raise UsageError(f"--results: {options.results} is not a folder")
    figures = options.out.parent / "figures"
    try:
        results = read_folder(options.results)
        if not results:
            raise UsageError(f"--results: {options.results} has no results of sweeps")
        searches = read_searches(options.results)
        text = page(results, searches, os.path.relpath(figures, options.out.parent))
        if options.check:
            _say_what_is_old([*(result.header for result in results), *searches])
            if options.out.read_text(encoding="utf-8") == text:
                return OK
            print(f"{options.out} is not what `gated accuracy page` writes from {options.results}")
            return NOT_WITHIN
        figures.mkdir(parents=True, exist_ok=True)
        for name, some in pictured(results).items():
            draw(some, figures / f"accuracy-{name}.png")
        options.out.write_text(text, encoding="utf-8")
    except RecordError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"--out: {options.out}: {error.strerror or error}") from error
    return OK


def _say_what_is_old(measured: Sequence[Header | SearchResult]) -> None:
    """A note for each backend whose results are of other code than this: no failure, since old figures stay true."""
    from gated.conformance.source import code_digest

    for backend in dict.fromkeys(one.backend for one in measured):
        now = code_digest(backend)
        old = sum(one.backend == backend and one.code != now for one in measured)
        if old:
            print(f"{backend}: {old} results are of other code than this, {now[:12]}")
