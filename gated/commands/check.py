"""``gated check``: grades anyone's implementation of a function, and says what it computes instead."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gated.commands._shared import (
    NOT_WITHIN,
    OK,
    USAGE,
    UsageError,
    at_least,
    console,
    name_list,
    require,
    writable,
    write_json,
)
from gated.contract import ACTIVATIONS, APPROXIMATIONS, ARRAY_PARAMETERS, DTYPES, LAYOUTS

if TYPE_CHECKING:
    from gated.conformance.grading.report import Report

__all__ = ["add"]

_FRAMEWORKS: Final = "numpy, torch, torch-compiled, jax, jax-jit, onnxruntime, onnx-reference, tensorflow, keras, c"
_MODES: Final = ("gradient", "double-backward", "forward-mode")
_KEYWORDS: Final = (
    *("form", "layout", "axis", "activation", "approximate", "beta", "alpha", "limit", "offset", "bias"),
    *("framework", "gradient", "dtypes", "device", "require", "seed", "budget", "profile", "ledger"),
)
_STATUS: Final = {"pass": OK, "fail": NOT_WITHIN, "error": USAGE}


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    check = commands.add_parser(
        "check",
        help="grade anyone's implementation of a function, and say what it computes instead",
        description="Grades an implementation, value and gradient, against the exact results, in ulp, and where it is "
        "wrong says what it computes instead (docs/check.md). It runs in a process of its own. Exit 0: it passes; 1: "
        "it does not; 2: it could not be graded, or wrong usage.",
    )
    check.add_argument(
        "target", metavar="TARGET", help="package.module:attr, path/to/file.py:attr, model.onnx or libx.so:symbol"
    )
    check.add_argument("--schema", action=_Schema, help="print the JSON Schema of --json and exit")
    _add_claim(check)
    _add_running(check)
    _add_output(check)
    check.set_defaults(run=_check)


def _add_claim(check: argparse.ArgumentParser) -> None:
    claim = check.add_argument_group("the claim: what the target says that it computes")
    claim.add_argument(
        "--as",
        dest="function",
        required=True,
        choices=tuple(ARRAY_PARAMETERS),
        metavar="FUNCTION",
        help=f"of {', '.join(ARRAY_PARAMETERS)}",
    )
    claim.add_argument(
        "--form",
        choices=("packed", "pair"),
        help="of a unit: one array of two halves, or a gate and a value (default: packed)",
    )
    claim.add_argument("--layout", choices=LAYOUTS, help="of a packed array (default: gate_last)")
    claim.add_argument("--axis", type=int, default=-1, metavar="N", help="along which it is split (default: -1)")
    claim.add_argument(
        "--activation", choices=ACTIVATIONS, help="of gated_unit, gated_linear and gated_ffn (default: swish)"
    )
    claim.add_argument("--approximate", choices=APPROXIMATIONS, help="of gelu and geglu (default: none)")
    claim.add_argument(
        "--beta",
        type=_beta,
        metavar="NUMBER|scalar|vector|array",
        help="a number that is fixed in the target (default: 1), or how the target is handed it as its last argument",
    )
    for name, default in (("alpha", "1.702"), ("limit", "7"), ("offset", "1")):
        claim.add_argument(f"--{name}", type=_real, metavar="NUMBER", help=f"of clamped_swiglu (default: {default})")
    claim.add_argument("--bias", action="store_true", help="a projected target takes its biases last")


def _add_running(check: argparse.ArgumentParser) -> None:
    running = check.add_argument_group("running it")
    running.add_argument("--framework", metavar="NAME", help=f"of {_FRAMEWORKS} (default: by the target)")
    running.add_argument(
        "--device", metavar="NAME", help="where it runs: cpu, cuda, ... (default: the framework's own)"
    )
    running.add_argument(
        "--dtypes", type=name_list(DTYPES), metavar="LIST", help="(default: those the target can be handed)"
    )
    running.add_argument(
        "--gradient", metavar="TARGET", help="takes the arguments and the cotangent, gives the argument's cotangents"
    )
    running.add_argument("--no-gradients", action="store_true", help="grade the values alone")
    running.add_argument(
        "--require",
        type=name_list(_MODES),
        default=(),
        metavar="LIST",
        help=f"of {', '.join(_MODES)}: their absence is a failure",
    )
    running.add_argument(
        "--profile",
        choices=("contract", "field"),
        default="contract",
        help="what it is held to (docs/profiles.md; default: contract)",
    )
    running.add_argument("--budget", choices=("quick", "full", "exhaustive"), default="quick", help="(default: quick)")
    running.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the random inputs (default: 0)")
    running.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="that one call may take (default: 60)")


def _add_output(check: argparse.ArgumentParser) -> None:
    output = check.add_argument_group("reading it")
    output.add_argument(
        "--ledger", type=Path, metavar="FILE", help="TOML: deviations that are known, and are no failure"
    )
    output.add_argument("--json", type=Path, metavar="FILE", help="also write the report to FILE")
    output.add_argument("--html", type=Path, metavar="FILE", help="also write it as one page, with pictures")


def _check(options: argparse.Namespace) -> int:
    require("rich", "cli")
    require("flint", "oracle")
    writable(options.json)
    if options.html is not None:
        for package in ("jinja2", "plotly"):
            require(package, "report")
        writable(options.html, "--html")
    from gated.conformance.grading.attempt import attempt
    from gated.conformance.grading.terminal import plain, print_report

    keywords = {name: getattr(options, name) for name in _KEYWORDS}
    if options.timeout is not None:
        keywords["timeout"] = options.timeout
    try:
        with _status(f"checking {options.target}") as progress:
            report = attempt(
                options.target, options.function, gradients=not options.no_gradients, progress=progress, **keywords
            )
    except ValueError as error:
        raise UsageError(plain(str(error).removeprefix("check: "))) from error
    _write(options, report)
    unloaded = [finding.text for finding in report.findings if finding.id == "not-loaded"]
    if unloaded:
        raise UsageError(plain(unloaded[0]))
    print_report(console(), report)
    return _STATUS[report.verdict]


def _write(options: argparse.Namespace, report: Report) -> None:
    if options.json is not None:
        from gated.conformance.grading.document import as_json

        write_json(options.json, as_json(report))
    if options.html is not None:
        from gated.conformance.grading.html import page

        try:
            options.html.write_text(page(report), encoding="utf-8", newline="\n")
        except OSError as error:
            raise UsageError(f"--html: {options.html}: {error.strerror or error}") from error


@contextlib.contextmanager
def _status(label: str) -> Iterator[Callable[[str], None] | None]:
    """What is being done, on the terminal; nothing where standard error is none."""
    from rich.console import Console
    from rich.text import Text

    from gated.conformance.grading.terminal import plain

    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        yield None
        return
    with terminal.status(Text(plain(label))) as status:
        yield lambda text: status.update(Text(plain(f"{label}: {text}")))


class _Schema(argparse.Action):
    """Prints the schema and exits, as --version does."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from gated.conformance.grading.schema import schema_text

        sys.stdout.write(schema_text())
        parser.exit()


def _real(text: str) -> float:
    """A number that is not nan, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return number


def _seconds(text: str) -> float:
    number = _real(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be more than 0 and finite, got {text!r}")
    return number


def _beta(text: str) -> float | str:
    return text if text in ("scalar", "vector", "array") else _real(text)
