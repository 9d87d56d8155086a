"""``gated survey``: grades what is installed of other packages, and writes the page of what was found."""

from __future__ import annotations

import argparse
import fnmatch
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated.commands._shared import NOT_WITHIN, OK, UsageError, at_least, console, progress, require

if TYPE_CHECKING:
    from gated.survey.entries import Entry

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    survey = commands.add_parser(
        "survey",
        help="grade the implementations of other packages that are installed, and write docs/field.md",
        description="Grades what is installed of torch, JAX, Keras, TensorFlow, ONNX Runtime and others, under both "
        "profiles, into a folder of results; --page writes the page of what is there.",
    )
    survey.add_argument("--only", metavar="GLOB", default="*", help="of the keys of entries: 'torch-*' (default: all)")
    survey.add_argument("--list", action="store_true", help="print the entries, and whether they are installed")
    survey.add_argument("--results", type=Path, default=Path("docs/field"), metavar="DIR", help="(default: docs/field)")
    survey.add_argument("--budget", choices=("quick", "full"), default="quick", help="(default: quick)")
    survey.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the random inputs (default: 0)")
    survey.add_argument("--page", action="store_true", help="write the page from the results, and grade nothing")
    survey.add_argument(
        "--out", type=Path, default=Path("docs/field.md"), metavar="FILE", help="of --page (default: docs/field.md)"
    )
    survey.add_argument("--check", action="store_true", help="with --page: write nothing, exit 1 if it would differ")
    survey.set_defaults(run=_survey)


def _survey(options: argparse.Namespace) -> int:
    if options.check and not options.page:
        raise UsageError("--check goes with --page")
    if options.page:
        return _page(options)
    from gated.survey.entries import ENTRIES, is_installed

    chosen = [entry for entry in ENTRIES if fnmatch.fnmatch(entry.key, options.only)]
    if not chosen:
        raise UsageError(f"--only: no entry matches {options.only!r}; --list has them")
    if options.list:
        for entry in chosen:
            print(f"{entry.key}: {entry.name}{'' if is_installed(entry) else ' (not installed)'}")
        return OK
    chosen = [entry for entry in chosen if is_installed(entry)]
    return _grade(options, chosen)


def _grade(options: argparse.Namespace, entries: list[Entry]) -> int:
    require("rich", "cli")
    require("flint", "oracle")
    from gated.survey.measuring import measure
    from gated.survey.reproducers import REPRODUCERS

    packages = {entry.package for entry in entries}
    try:
        options.results.mkdir(parents=True, exist_ok=True)
        out = console()
        with progress("survey", len(entries)) as advance:
            for entry in entries:
                outcome = measure(entry, budget=options.budget, seed=options.seed)
                outcome.write(options.results)
                said = outcome.error or ", ".join(f"{name} {one}" for name, one in outcome.verdicts.items())
                out.print(f"{entry.key}: {said}")
                advance(entry.key)
        for one in REPRODUCERS:
            program = options.results / f"{one.name}.py"
            if one.package in packages and one.is_installed and program.is_file():
                program.with_suffix(".txt").write_text(one.run(program), encoding="utf-8")
    except subprocess.SubprocessError as error:
        raise UsageError(f"a reproducer failed: {error}") from error
    except OSError as error:
        raise UsageError(f"--results: {options.results}: {error.strerror or error}") from error
    return OK


def _page(options: argparse.Namespace) -> int:
    from gated.survey.page import page
    from gated.survey.results import SurveyError, read_folder, read_programs

    try:
        outcomes = read_folder(options.results)
        if not outcomes:
            raise UsageError(f"--results: no result of a survey in {options.results}")
        text = page(outcomes, read_programs(options.results))
        if options.check:
            if options.out.read_text(encoding="utf-8") == text:
                return OK
            print(f"{options.out} is not what `gated survey --page` writes from {options.results}")
            return NOT_WITHIN
        options.out.write_text(text, encoding="utf-8")
    except SurveyError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"--out: {options.out}: {error.strerror or error}") from error
    return OK
