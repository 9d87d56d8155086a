"""The results of sweeps as a table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gated.conformance.error import FORMATS
from gated.conformance.sweeps.catalogue import Sweep
from gated.conformance.sweeps.journal import Result

__all__ = ["bits_as_decimal", "number", "place", "print_results"]


def print_results(console: Any, results: Iterable[Result]) -> None:
    """Prints a row for each quantity of each result."""
    from rich.table import Table

    table = Table(title="Every input: largest error in ulp", title_justify="left")
    for name in ("sweep", "backend", "inputs", "of"):
        table.add_column(name)
    for name in ("largest error", "at", "share of its bound", "past half an ulp", "past the bound"):
        table.add_column(name, justify="right")
    for result in results:
        sweep = result.sweep
        for quantity, tally in result.tallies.items():
            table.add_row(
                sweep.name,
                result.header.backend,
                f"{sweep.inputs:,}",
                quantity,
                number(tally.error),
                place(sweep, tally.at),
                f"{tally.share:.2f}",
                f"{tally.past_half:,}",
                f"{tally.failing:,}",
            )
    console.print(table)


def number(error: float) -> str:
    """An error in ulp, for a table."""
    if math.isinf(error):
        return "wrong class"
    if 0.5 <= error < 0.51:
        return f"{error:.6f}"  # how far past correctly rounded
    return f"{error:.4f}" if error < 10 else f"{error:.5g}"


def place(sweep: Sweep, at: int) -> str:
    """The input that a tally names by its bit pattern, in decimal."""
    if sweep.pairs:
        return f"gate {_decimal(sweep, at >> 16)}, value {_decimal(sweep, at & 0xFFFF)}"
    return _decimal(sweep, at)


def _decimal(sweep: Sweep, pattern: int) -> str:
    return bits_as_decimal(f"{pattern:x}", sweep.dtype)


def bits_as_decimal(bits: str, dtype: str) -> str:
    """A number of a dtype, given by its bit pattern in hex, in as many digits as tell it from its neighbours."""
    form = FORMATS[dtype]
    digits = {"float16": 5, "bfloat16": 4, "float32": 9, "float64": 17}[dtype]
    with np.errstate(invalid="ignore"):  # a signalling nan
        return f"{float(np.array(int(bits, 16), form.bits).view(form.dtype)):.{digits}g}"
