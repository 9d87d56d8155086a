"""``gated validate``: every function in every installed backend against the exact results."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated.commands import exhaustive, searching
from gated.commands._shared import (
    NOT_WITHIN,
    OK,
    UsageError,
    adapters,
    at_least,
    backend_names,
    backends,
    console,
    job_count,
    name_list,
    progress,
    require,
    versions_line,
    writable,
    write_json,
)
from gated.contract import ARRAY_PARAMETERS, BACKENDS, DTYPES

if TYPE_CHECKING:
    from gated.conformance.runner import Row

__all__ = ["add"]

# Functions times dtypes from which on more processes than one pay.
_MANY = 8


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    validate = commands.add_parser(
        "validate",
        help="measure every function in every installed backend against the exact results",
        description="Measures every function in every installed backend and dtype, value and gradient, against the "
        "exact results, in ulp. Exit 0: all within the accuracy contract; 1: something is not; 2: wrong usage.",
    )
    known = tuple(BACKENDS)
    validate.add_argument(
        "--backends", type=backend_names, metavar="LIST", help=f"of {', '.join(known)} (default: those installed)"
    )
    validate.add_argument(
        "--functions", type=name_list(tuple(ARRAY_PARAMETERS)), metavar="LIST", help="function names (default: all)"
    )
    validate.add_argument(
        "--dtypes", type=name_list(DTYPES), metavar="LIST", help=f"of {', '.join(DTYPES)} (default: all)"
    )
    validate.add_argument(
        "--device",
        metavar="NAME",
        help="where torch and jax compute: cpu, cuda, tpu, ... (default: each framework's own)",
    )
    validate.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the random inputs (default: 0)")
    validate.add_argument(
        "--jobs",
        type=at_least(1),
        metavar="N",
        help="processes at once (default: up to 4, by the number of cores; 1 on a device)",
    )
    validate.add_argument("--json", type=Path, metavar="FILE", help="also write every measurement to FILE")
    validate.add_argument(
        "--gguf", type=Path, metavar="FILE", help="instead: run the gated FFN of every layer of a GGUF model, float32"
    )
    exhaustive.add_options(validate)
    searching.add_options(validate)
    validate.set_defaults(run=_validate)


def _validate(options: argparse.Namespace) -> int:
    if options.gguf and (options.functions or options.dtypes):
        raise UsageError("--gguf runs gated_ffn in float32: it goes with neither --functions nor --dtypes")
    modes = [name for name in ("exhaustive", "search", "gguf") if getattr(options, name)]
    if len(modes) > 1:
        raise UsageError(f"--{modes[0]} does not go with --{modes[1]}")
    if options.json and modes in (["exhaustive"], ["search"]):
        raise UsageError(f"--{modes[0]} does not go with --json: its results are files in --results")
    if options.exhaustive:
        return exhaustive.run(options)
    if options.search:
        return searching.run(options)
    if forms := [name for name in options.backends or () if name not in BACKENDS]:
        raise UsageError(f"--backends: {', '.join(forms)} is for --exhaustive")
    require("rich", "cli")
    return _validate_model(options) if options.gguf else _validate_functions(options)


def _validate_functions(options: argparse.Namespace) -> int:
    require("flint", "oracle")
    from gated.conformance import report, runner

    names, skipped = backends(options)
    functions = options.functions or tuple(ARRAY_PARAMETERS)
    dtypes = options.dtypes or DTYPES
    writable(options.json)
    rows: list[runner.Row] = []
    with progress("validating", len(functions) * len(dtypes) * len(names)) as advance:
        for row in _rows(options, names, functions, dtypes):
            rows.append(row)
            advance(f"{row.function} {row.dtype} {row.backend}")
    rows.sort(key=lambda row: (functions.index(row.function), dtypes.index(row.dtype), names.index(row.backend)))
    terminal = console()
    report.print_rows(terminal, rows)
    terminal.print(versions_line(names, options.device))
    terminal.print(report.summary(rows, skipped))
    write_json(options.json, report.as_json(rows, skipped, runner.versions(), seed=options.seed))
    return OK if runner.within(rows) else NOT_WITHIN


def _rows(
    options: argparse.Namespace, names: Sequence[str], functions: Sequence[str], dtypes: Sequence[str]
) -> Iterator[Row]:
    """The rows, by several processes where that pays: processes take seconds to start."""
    from gated.conformance import runner

    many = len(functions) * len(dtypes) >= _MANY
    jobs = job_count(options) if many or options.jobs is not None else 1
    if jobs == 1:
        return runner.run(adapters(names, options.device), functions, dtypes, seed=options.seed)
    return runner.run_in_processes(names, functions, dtypes, jobs=jobs, device=options.device, seed=options.seed)


def _validate_model(options: argparse.Namespace) -> int:
    from gated.conformance import report
    from gated.conformance.model import ModelError, ModelFile, run_layers
    from gated.conformance.runner import versions

    try:
        model = ModelFile(options.gguf)
        names, skipped = backends(options)
        implementations = adapters(names, options.device)
        writable(options.json)
        rows = []
        with progress("layers", len(model.layers)) as advance:
            for row in run_layers(model, implementations, seed=options.seed):
                rows.append(row)
                advance(f"layer {row.layer}")
    except OSError as error:
        raise UsageError(f"{options.gguf}: {error.strerror or error}") from error
    except ModelError as error:
        raise UsageError(str(error)) from error
    terminal = console()
    report.print_layers(terminal, model, rows)
    terminal.print(versions_line(names, options.device))
    for name, reason in skipped.items():
        terminal.print(f"skipped: {name}: {reason}")
    write_json(options.json, report.layers_as_json(model, rows, skipped, versions(), seed=options.seed))
    return OK if all(row.agrees for row in rows) else NOT_WITHIN
