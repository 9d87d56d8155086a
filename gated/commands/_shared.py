"""What the commands share: usage errors, lists of names, the terminal, and files that are written."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gated import __version__
from gated.contract import BACKENDS, missing_framework

if TYPE_CHECKING:
    from gated.conformance.backends import Adapter

__all__ = [
    "NOT_WITHIN",
    "OK",
    "USAGE",
    "UsageError",
    "adapters",
    "at_least",
    "backend_names",
    "backends",
    "console",
    "job_count",
    "name_list",
    "progress",
    "require",
    "versions_line",
    "writable",
    "write_json",
]

OK: Final = 0
NOT_WITHIN: Final = 1
USAGE: Final = 2


class UsageError(Exception):
    """Wrong usage, or an input that cannot be read: one line, exit 2."""


def name_list(allowed: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A comma-separated list of names out of ``allowed``, for argparse."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(map(repr, unknown))}; choose from {', '.join(allowed)}"
            )
        return names

    return parse


def at_least(least: int) -> Callable[[str], int]:
    """A whole number, for argparse."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return parse


def backend_names(text: str) -> tuple[str, ...]:
    """Backends by name (numpy) or by package (numpy_ref), or their other forms, for argparse."""
    from gated.conformance.backends import FORMS

    short = [name.strip().removesuffix("_ref").removesuffix("_impl") for name in text.split(",")]
    return name_list((*BACKENDS, *FORMS))(",".join(short))


def require(package: str, extra: str) -> None:
    """Refuses to start without a package; the text names the extra that installs it."""
    if importlib.util.find_spec(package) is None:
        raise UsageError(missing_framework("this command", package, extra))


def backends(options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The backends to run, and those skipped with the reason. One asked for by name must be there."""
    from gated.conformance.backends import is_installed, of_backend

    if options.device and options.backends == ("numpy",):
        raise UsageError("--device: numpy computes on the CPU only")
    chosen, skipped = [], {}
    for name in options.backends or BACKENDS:
        if is_installed(name):
            chosen.append(name)
            continue
        backend = BACKENDS[of_backend(name)]
        reason = missing_framework(backend.module, backend.requires, backend.extra)
        if options.backends is not None:
            raise UsageError(reason)
        skipped[name] = reason
    return chosen, skipped


def adapters(names: Sequence[str], device: str | None) -> list[Adapter]:
    """The adapters of the backends, on the device where it is not NumPy."""
    from gated.conformance.backends import load

    try:
        return [load(name, None if name == "numpy" else device) for name in names]
    except ValueError as error:
        raise UsageError(f"--device: {error}") from error


def job_count(options: argparse.Namespace) -> int:
    """How many processes are worth starting for a lot of work: one on a device, one a core on the CPU."""
    if options.jobs is not None:
        return int(options.jobs)
    return min(4, os.cpu_count() or 1) if options.device in (None, "cpu") else 1


def versions_line(names: Sequence[str], device: str | None) -> str:
    """What was measured, for the foot of a report."""
    from gated.conformance.backends import of_backend
    from gated.conformance.runner import versions

    found = versions()
    packages = ", ".join(f"{name} {found[name]}" for name in dict.fromkeys(map(of_backend, names)))
    return f"gated {__version__}; {packages}; device: {device or 'default'}."


def console() -> Any:
    """Standard output as a rich console."""
    from rich.console import Console

    terminal = Console(highlight=False, markup=False)
    # Where no terminal gives a width, none is imposed: a file or a pipe takes whole lines.
    return terminal if terminal.is_terminal else Console(highlight=False, markup=False, width=220)


class progress:  # noqa: N801 - used as a function
    """A progress bar on the terminal; nothing where standard error is none."""

    def __init__(self, label: str, total: int, *, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(label),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> Callable[[str], None]:
        self._bar.start()
        return lambda description: self._bar.update(self._task, advance=1, description=description)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def writable(path: Path | None, option: str = "--json") -> None:
    """Refuses a file that cannot be written before the work is done, not after."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{option}: {path} must be a file that can be written, in a folder that exists")


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Writes the content to the file of --json, if there is one."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--json: {path}: {error.strerror or error}") from error
