"""The tables of docs/kernels.md: ``python tests/_triton_figures.py`` measures and writes them, in some minutes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import _triton
import triton
from _triton import ELEMENTWISE, interpreted
from _triton_assembly import DTYPES, TARGETS, Kernel, compiled

PAGE: Final = Path(__file__).parents[1] / "docs" / "kernels.md"
ACTIVATIONS: Final = ("identity", "relu", "sigmoid", "swish", "gelu_tanh", "gelu")
VERSION: Final = f"With Triton {triton.__version__}."
SIZES: Final = {"float16": 1 << 16, "float32": 1 << 14, "float64": 1 << 11}
"""About how many inputs a case has; those of ``gated validate``."""


def code_row(activation: str, backward: bool, dtype: str) -> str:
    """What a pair's kernel is compiled to for each target."""
    cells = []
    for target in TARGETS:
        code = compiled(Kernel(activation, "pair", backward, dtype), target)
        cells.append(f"{code.bytes:g} / {code.registers} / {code.spills} / {code.instructions:.0f}")
    return f"| {activation} | {'backward' if backward else 'forward'} | {dtype} | {' | '.join(cells)} |\n"


def _codes() -> Iterator[str]:
    yield f"| activation | kernel | dtype | {' | '.join(TARGETS)} |\n|---|---|---|{'---|' * len(TARGETS)}\n"
    for activation in ACTIVATIONS:
        for backward in (False, True):
            for dtype in DTYPES:
                yield code_row(activation, backward, dtype)


def _errors() -> Iterator[str]:
    heads = (f"{dtype}: values | gradients" for dtype in SIZES)
    yield f"| function | {' | '.join(heads)} |\n|---|{'---|' * 2 * len(SIZES)}\n"
    for function in ELEMENTWISE:
        cells = []
        for dtype, size in SIZES.items():
            grades = [one for one in interpreted(_triton.grade, function, dtype, 0, size) if not one.summed]
            for gradient in (False, True):
                cells.append(f"{max(one.error for one in grades if one.gradient == gradient):.4f}")
        yield f"| `{function}` | {' | '.join(cells)} |\n"


TABLES: Final = {"errors": _errors, "code": _codes}


def write(page: Path) -> None:
    """Measures the tables of a page anew."""
    text = page.read_text()
    for name, rows in TABLES.items():
        before, begin, rest = text.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        text = before + begin + f"{VERSION}\n\n" + "".join(rows()) + end + after
    page.write_text(text)


if __name__ == "__main__":
    write(PAGE)
    sys.stdout.write(f"written: {PAGE}\n")
