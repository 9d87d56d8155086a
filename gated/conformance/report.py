"""The results on the screen (rich) and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gated.conformance.model import LayerRow, ModelFile
from gated.conformance.runner import ERROR, NOT_MET, WITHIN, Measurement, Row

__all__ = ["as_json", "layers_as_json", "print_layers", "print_rows", "summary"]

# Columns from which on a table has room for the place of the largest error.
_WIDE: Final = 130

_STYLE: Final = {WITHIN: "green", NOT_MET: "bold red", ERROR: "bold red"}


def print_rows(console: Console, rows: Sequence[Row]) -> None:
    """The table: a line a function, dtype and backend, then what failed, in full."""
    table = _table(console)
    for name in ("function", "dtype", "backend"):
        table.add_column(name, no_wrap=True)
    for name in ("inputs", "value max", "nearest/bound", "gradient max", "nearest/bound"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    # Where there is no room for it beside the numbers, the place of the largest error stands below them.
    beside = console.width >= _WIDE
    if beside:
        table.add_column("nearest its bound at", overflow="fold")
    previous = ""
    for row in rows:
        if row.function != previous and previous:
            table.add_section()
        shown = row.function if row.function != previous else ""
        previous = row.function
        where = _where(row)
        table.add_row(
            shown,
            row.dtype,
            row.backend,
            f"{row.inputs:,}",
            *_error_and_bound(row.value, row.largest(gradient=False)),
            *_error_and_bound(row.gradient, row.largest(gradient=True)),
            Text(row.verdict, style=_STYLE[row.verdict]),
            *([where] if beside else []),
        )
    console.print(table)
    if not beside:
        console.print("The largest errors are at:", style="bold")
        for row in rows:
            where = _where(row)
            console.print(f"{row.function} {row.dtype} {row.backend}: {where}")
    console.print(
        "Errors in ulp: the largest, and the one nearest its own bound. inf: nan, infinity or a zero's sign is wrong.\n"
        "float64 is held against ball arithmetic, the narrower dtypes against the reference in float64, infinities\n"
        "and the signs of zeros against rules. Bounds marked ~ are the rounding bounds of a product or a sum there."
    )
    for row in rows:
        for one in row.all:
            if one.share > 1:
                console.print(_failure(row, one))


def _table(console: Console) -> Table:
    if not console.is_terminal:
        return Table(box=box.ASCII2, pad_edge=False, header_style="bold")
    narrow = console.width < _WIDE
    return Table(box=None if narrow else box.SIMPLE_HEAD, pad_edge=False, collapse_padding=narrow, header_style="bold")


def _error_and_bound(one: Measurement | None, largest: Measurement | None) -> tuple[str, Text | str]:
    if one is None or largest is None:
        return "-", "-"
    bound = f"~{one.bound:.3g}" if one.rounding_bound else f"{one.bound:.4g}"
    return f"{largest.largest:.3g}", Text(f"{one.error:.3g}/{bound}", style="" if one.share <= 1 else "bold red")


def _where(row: Row) -> str:
    """What failed; or where the error nearest its bound is, and the largest of all if that is another."""
    worst = row.worst
    if row.failure or worst is None:
        return row.failure
    where = _place(worst, worst.at)
    top = max(row.all, key=lambda one: one.largest)
    return where if top.largest <= worst.error else f"{where}; max at {_place(top, top.largest_at)}"


def _place(one: Measurement, at: dict[str, str]) -> str:
    inputs = " ".join(f"{name}={number}" for name, number in at.items())
    return ", ".join(part for part in (one.quantity, one.case, inputs) if part)


def _failure(row: Row, one: Measurement) -> Text:
    text = Text(f"{row.function} {row.dtype} {row.backend}: ", style="bold")
    detail = (
        f"{one.quantity} ({one.case or 'all'}): {one.error:.4g} ulp where {one.bound:.4g} is allowed, at "
        f"{' '.join(f'{name}={number} [{one.bits[name]}]' for name, number in one.at.items()) or 'one element'}: "
        f"got {one.computed}, exact {one.exact}; {one.failing:,} elements are past their bound"
    )
    return text.append(detail, style="not bold")


def summary(rows: Sequence[Row], skipped: dict[str, str]) -> str:
    """One line of counts, and a line for each backend that was skipped."""
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in (WITHIN, NOT_MET, ERROR)}
    lines = [
        f"{len(rows)} rows: {counts[WITHIN]} within the contract, {counts[NOT_MET]} not met, {counts[ERROR]} errors."
    ]
    lines += [f"skipped: {name}: {reason}" for name, reason in skipped.items()]
    return "\n".join(lines)


def print_layers(console: Console, model: ModelFile, rows: Sequence[LayerRow]) -> None:
    """A line a layer: shares of the rounding bound, forward and backward, in each backend."""
    console.print(
        f"{model.name} ({model.architecture}): {len(model.layers)} layers, activation {model.activation}, float32.\n"
        "Each number is the largest error as a share of the rounding bound at its element: up to 1 is agreement."
    )
    table = _table(console)
    table.add_column("layer", justify="right")
    table.add_column("d_in x d_hidden x d_out", no_wrap=True)
    for backend in rows[0].value if rows else ():
        table.add_column(f"{backend} value", justify="right")
        table.add_column(f"{backend} gradient", justify="right")
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        shares = [f"{share[backend]:.2g}" for backend in row.value for share in (row.value, row.gradient)]
        verdict = WITHIN if row.agrees else NOT_MET
        table.add_row(str(row.layer), " x ".join(map(str, row.shape)), *shares, Text(verdict, style=_STYLE[verdict]))
    console.print(table)
    agreeing = sum(row.agrees for row in rows)
    console.print(f"{agreeing} of {len(rows)} layers agree, forward and backward.")


def as_json(rows: Sequence[Row], skipped: dict[str, str], versions: dict[str, str], *, seed: int) -> dict[str, Any]:
    """The rows with every measurement. An error of infinity (a wrong class) is null: JSON has no infinity."""
    return {
        "verdict": WITHIN if all(row.verdict == WITHIN for row in rows) and rows else NOT_MET,
        "versions": versions,
        "seed": seed,
        "skipped": skipped,
        "rows": [
            {
                "function": row.function,
                "dtype": row.dtype,
                "backend": row.backend,
                "inputs": row.inputs,
                "verdict": row.verdict,
                "failure": row.failure or None,
                "measurements": [_measurement(one) for one in row.all],
            }
            for row in rows
        ],
    }


def _measurement(one: Measurement) -> dict[str, Any]:
    return {
        "quantity": one.quantity,
        "case": one.case,
        "error_ulp": _finite(one.error),
        "largest_ulp": _finite(one.largest),
        "largest_at": one.largest_at,
        "class_wrong": math.isinf(one.error),
        "bound_ulp": _finite(one.bound),
        "rounding_bound": one.rounding_bound,
        "at": one.at,
        "bits": one.bits,
        "computed": one.computed,
        "exact": one.exact,
        "failing": one.failing,
    }


def layers_as_json(
    model: ModelFile, rows: Sequence[LayerRow], skipped: dict[str, str], versions: dict[str, str], *, seed: int
) -> dict[str, Any]:
    """The layers with the share of the rounding bound that each backend takes."""
    return {
        "verdict": WITHIN if all(row.agrees for row in rows) and rows else NOT_MET,
        "versions": versions,
        "seed": seed,
        "skipped": skipped,
        "model": {
            "file": model.path.name,
            "name": model.name,
            "architecture": model.architecture,
            "activation": model.activation,
        },
        "layers": [
            {
                "layer": row.layer,
                "shape": list(row.shape),
                "value": {name: _finite(share) for name, share in row.value.items()},
                "gradient": {name: _finite(share) for name, share in row.gradient.items()},
                "relative_error": {name: _finite(error) for name, error in row.relative.items()},
                "agrees": row.agrees,
            }
            for row in rows
        ],
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
