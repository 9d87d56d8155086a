"""``gated vectors``: writes the golden vectors, and proves a folder of them."""

from __future__ import annotations

import argparse
import os
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from gated.commands._shared import NOT_WITHIN, OK, UsageError, at_least, name_list, progress, require
from gated.conformance.vectors import FUNCTIONS
from gated.contract import DTYPES

__all__ = ["add"]

_FUNCTIONS: Final = tuple(FUNCTIONS)


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    vectors = commands.add_parser(
        "vectors",
        help="write the golden vectors, or prove a folder of them",
        description="Golden vectors: inputs with exact results for every function and dtype (docs/vectors.md).",
    )
    actions = vectors.add_subparsers(dest="action", required=True, metavar="ACTION")
    write = actions.add_parser(
        "write", help="write them into a folder", description="Writes the vectors, byte for byte the same everywhere."
    )
    write.add_argument("folder", type=Path, metavar="DIR", help="made if it is not there")
    write.set_defaults(run=_write)
    verify = actions.add_parser(
        "verify",
        help="prove a folder of them against the oracle and the schema",
        description="Computes every expected value again by ball arithmetic. Exit 0: all is right; 1: something is "
        "not; 2: the folder or a file cannot be read, or is of another version.",
    )
    verify.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="the folder (default: the vectors of this package)"
    )
    verify.set_defaults(run=_verify)
    for action in (write, verify):
        action.add_argument(
            "--functions", type=name_list(_FUNCTIONS), default=(), metavar="LIST", help=f"of {', '.join(_FUNCTIONS)}"
        )
        action.add_argument(
            "--dtypes", type=name_list(DTYPES), default=(), metavar="LIST", help=f"of {', '.join(DTYPES)}"
        )
        action.add_argument(
            "--jobs", type=at_least(1), metavar="N", help="processes at once (default: up to 4, by the number of cores)"
        )


def _jobs(options: argparse.Namespace) -> int:
    jobs: int = options.jobs or min(4, os.cpu_count() or 1)
    return jobs


def _files(options: argparse.Namespace) -> int:
    return len(options.functions or FUNCTIONS) * len(options.dtypes or DTYPES)


def _require_packages() -> None:
    for package, extra in (("rich", "cli"), ("flint", "oracle"), ("jsonschema", "oracle")):
        require(package, extra)


def _write(options: argparse.Namespace) -> int:
    _require_packages()
    from gated.conformance.vectors.writer import write

    try:
        with progress("writing", _files(options)) as advance:
            written = write(options.folder, options.functions, options.dtypes, jobs=_jobs(options), progress=advance)
    except OSError as error:
        raise UsageError(f"{error.filename or options.folder}: {error.strerror or error}") from error
    size = sum(path.stat().st_size for path in written)
    print(f"{len(written)} files, {size / 1e6:.2f} MB, in {options.folder}")
    return OK


def _verify(options: argparse.Namespace) -> int:
    _require_packages()
    if options.folder is not None:
        return _verify_folder(options, options.folder)
    with as_file(files("gated") / "vectors") as folder:
        return _verify_folder(options, folder)


def _verify_folder(options: argparse.Namespace, folder: Path) -> int:
    from gated.conformance.vectors.reader import VectorsError
    from gated.conformance.vectors.verifier import verify

    try:
        with progress("verifying", _files(options)) as advance:
            tests, failures = verify(folder, options.functions, options.dtypes, jobs=_jobs(options), progress=advance)
    except VectorsError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror or error}") from error
    for failure in failures:
        print(failure)
    verdict = "all right" if not failures else f"{len(failures)} not right"
    print(f"{tests} tests in {_files(options)} files: {verdict}")
    return NOT_WITHIN if failures else OK
