"""The command ``gated``.

Exit status: 0, everything is within the contract; 1, something is not; 2, wrong usage, or an input or output that
cannot be read or written; 130, interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated import __version__
from gated.contract import ARRAY_PARAMETERS, BACKENDS, DTYPES, missing_framework

if TYPE_CHECKING:
    from gated.conformance.adapters import Adapter
    from gated.conformance.runner import Row

__all__ = ["main"]

OK, NOT_WITHIN, USAGE, INTERRUPTED = 0, 1, 2, 130
# Functions times dtypes from which on more processes than one pay.
_MANY = 8


class UsageError(Exception):
    """Wrong usage, or an input that cannot be read: one line, exit 2."""


def _names(allowed: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A comma-separated list of names out of ``allowed``, for argparse."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(map(repr, unknown))}; choose from {', '.join(allowed)}"
            )
        return names

    return parse


def _at_least(least: int) -> Callable[[str], int]:
    """A whole number, for argparse."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return parse


def _backend_names(text: str) -> tuple[str, ...]:
    """Backends by name (numpy) or by package (numpy_ref), for argparse."""
    short = [name.strip().removesuffix("_ref").removesuffix("_impl") for name in text.split(",")]
    return _names(tuple(BACKENDS))(",".join(short))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gated", description="The yardstick for gated activations: GLU, Swish, SwiGLU and their family."
    )
    parser.add_argument("--version", action="version", version=f"gated {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    validate = commands.add_parser(
        "validate",
        help="measure every function in every installed backend against the exact results",
        description="Measures every function in every installed backend and dtype, value and gradient, against the "
        "exact results, in ulp. Exit 0: all within the accuracy contract; 1: something is not; 2: wrong usage.",
    )
    backends = tuple(BACKENDS)
    validate.add_argument(
        "--backends", type=_backend_names, metavar="LIST", help=f"of {', '.join(backends)} (default: those installed)"
    )
    validate.add_argument(
        "--functions", type=_names(tuple(ARRAY_PARAMETERS)), metavar="LIST", help="function names (default: all)"
    )
    validate.add_argument(
        "--dtypes", type=_names(DTYPES), metavar="LIST", help=f"of {', '.join(DTYPES)} (default: all)"
    )
    validate.add_argument(
        "--device",
        metavar="NAME",
        help="where torch and jax compute: cpu, cuda, tpu, ... (default: each framework's own)",
    )
    validate.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of the random inputs (default: 0)")
    validate.add_argument(
        "--jobs",
        type=_at_least(1),
        metavar="N",
        help="processes at once (default: up to 4, by the number of cores; 1 on a device)",
    )
    validate.add_argument("--json", type=Path, metavar="FILE", help="also write every measurement to FILE")
    validate.add_argument(
        "--gguf", type=Path, metavar="FILE", help="instead: run the gated FFN of every layer of a GGUF model, float32"
    )
    validate.set_defaults(run=_validate)

    plot = commands.add_parser(
        "plot", help="draw the activations and their derivatives", description="Draws the figures as PNG and SVG."
    )
    plot.add_argument("--backend", choices=backends, default="numpy", help="which backend computes (default: numpy)")
    plot.add_argument("--out", type=Path, default=Path("figures"), metavar="DIR", help="the folder (default: figures)")
    plot.set_defaults(run=_plot)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except (UsageError, ModuleNotFoundError) as error:
        print(f"gated {options.command}: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        # The reader (head, less) has closed: what it did not want to read is no error.
        _silence()
        return OK
    except OSError as error:
        _silence()
        print(f"gated {options.command}: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(f"gated {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status


def _silence() -> None:
    """Gives up standard output, so that closing it at exit raises no second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _validate(options: argparse.Namespace) -> int:
    if options.gguf and (options.functions or options.dtypes):
        raise UsageError("--gguf runs gated_ffn in float32: it goes with neither --functions nor --dtypes")
    _require("rich", "cli")
    return _validate_model(options) if options.gguf else _validate_functions(options)


def _require(package: str, extra: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UsageError(missing_framework("this command", package, extra))


def _validate_functions(options: argparse.Namespace) -> int:
    _require("flint", "oracle")
    from gated.conformance import report, runner

    names, skipped = _backends(options)
    functions = options.functions or tuple(ARRAY_PARAMETERS)
    dtypes = options.dtypes or DTYPES
    _writable(options.json)
    rows: list[runner.Row] = []
    with _progress("validating", len(functions) * len(dtypes) * len(names)) as advance:
        for row in _rows(options, names, functions, dtypes):
            rows.append(row)
            advance(f"{row.function} {row.dtype} {row.backend}")
    rows.sort(key=lambda row: (functions.index(row.function), dtypes.index(row.dtype), names.index(row.backend)))
    console = _console()
    report.print_rows(console, rows)
    console.print(_versions_line(names, options.device))
    console.print(report.summary(rows, skipped))
    _write_json(options.json, report.as_json(rows, skipped, runner.versions(), seed=options.seed))
    return OK if runner.within(rows) else NOT_WITHIN


def _rows(
    options: argparse.Namespace, names: Sequence[str], functions: Sequence[str], dtypes: Sequence[str]
) -> Iterator[Row]:
    """The rows, by several processes where that pays: processes take seconds to start."""
    from gated.conformance import runner

    jobs = options.jobs
    if jobs is None:
        on_cpu = options.device in (None, "cpu")
        jobs = min(4, os.cpu_count() or 1) if on_cpu and len(functions) * len(dtypes) >= _MANY else 1
    if jobs == 1:
        return runner.run(_adapters(names, options.device), functions, dtypes, seed=options.seed)
    return runner.run_in_processes(names, functions, dtypes, jobs=jobs, device=options.device, seed=options.seed)


def _validate_model(options: argparse.Namespace) -> int:
    from gated.conformance import report
    from gated.conformance.model import ModelError, ModelFile, run_layers
    from gated.conformance.runner import versions

    try:
        model = ModelFile(options.gguf)
        names, skipped = _backends(options)
        adapters = _adapters(names, options.device)
        _writable(options.json)
        rows = []
        with _progress("layers", len(model.layers)) as advance:
            for row in run_layers(model, adapters, seed=options.seed):
                rows.append(row)
                advance(f"layer {row.layer}")
    except OSError as error:
        raise UsageError(f"{options.gguf}: {error.strerror or error}") from error
    except ModelError as error:
        raise UsageError(str(error)) from error
    console = _console()
    report.print_layers(console, model, rows)
    console.print(_versions_line(names, options.device))
    for name, reason in skipped.items():
        console.print(f"skipped: {name}: {reason}")
    _write_json(options.json, report.layers_as_json(model, rows, skipped, versions(), seed=options.seed))
    return OK if all(row.agrees for row in rows) else NOT_WITHIN


def _backends(options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The backends to run, and those skipped with the reason. One asked for by name must be there."""
    from gated.conformance.adapters import is_installed

    if options.device and options.backends == ("numpy",):
        raise UsageError("--device: numpy computes on the CPU only")
    chosen, skipped = [], {}
    for name in options.backends or BACKENDS:
        if is_installed(name):
            chosen.append(name)
            continue
        backend = BACKENDS[name]
        reason = missing_framework(backend.module, backend.requires, backend.extra)
        if options.backends is not None:
            raise UsageError(reason)
        skipped[name] = reason
    return chosen, skipped


def _adapters(names: Sequence[str], device: str | None) -> list[Adapter]:
    from gated.conformance.adapters import load

    try:
        return [load(name, None if name == "numpy" else device) for name in names]
    except ValueError as error:
        raise UsageError(f"--device: {error}") from error


def _versions_line(names: Sequence[str], device: str | None) -> str:
    from gated.conformance.runner import versions

    found = versions()
    packages = ", ".join(f"{name} {found[name]}" for name in names)
    return f"gated {__version__}; {packages}; device: {device or 'default'}."


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    # Where no terminal gives a width, none is imposed: a file or a pipe takes whole lines.
    return console if console.is_terminal else Console(highlight=False, markup=False, width=220)


class _progress:  # noqa: N801 - used as a function
    """A progress bar on the terminal; nothing where standard error is none."""

    def __init__(self, label: str, total: int) -> None:
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
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Callable[[str], None]:
        self._bar.start()
        return lambda description: self._bar.update(self._task, advance=1, description=description)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def _writable(path: Path | None) -> None:
    """Refuses a file that cannot be written before the work is done, not after."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"--json: {path} must be a file that can be written, in a folder that exists")


def _write_json(path: Path | None, content: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--json: {path}: {error.strerror or error}") from error


def _plot(options: argparse.Namespace) -> int:
    from gated.figures import draw

    try:
        for path in draw(options.backend, options.out):
            print(path)
    except OSError as error:
        raise UsageError(f"--out: {options.out}: {error.strerror or error}") from error
    return OK


if __name__ == "__main__":
    sys.exit(main())
