"""``gated plot``: the activations and their derivatives as pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gated.commands._shared import OK, UsageError
from gated.contract import BACKENDS

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    plot = commands.add_parser(
        "plot", help="draw the activations and their derivatives", description="Draws the figures as PNG and SVG."
    )
    plot.add_argument(
        "--backend", choices=tuple(BACKENDS), default="numpy", help="which backend computes (default: numpy)"
    )
    plot.add_argument("--out", type=Path, default=Path("figures"), metavar="DIR", help="the folder (default: figures)")
    plot.set_defaults(run=_plot)


def _plot(options: argparse.Namespace) -> int:
    from gated.figures import draw

    try:
        for path in draw(options.backend, options.out):
            print(path)
    except OSError as error:
        raise UsageError(f"--out: {options.out}: {error.strerror or error}") from error
    return OK
