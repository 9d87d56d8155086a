"""The table of transforms: its columns, and the page that the outcomes of their tests make.

``python tests/_torch_transforms.py`` runs every cell and writes docs/torch-transforms.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from _torch_rows import ROWS
from _torch_truth import Variant

__all__ = ["COLUMNS", "GROUPS", "PAGE", "Column", "cells", "column", "page"]

PAGE = Path(__file__).parent.parent / "docs" / "torch-transforms.md"

GROUPS: Mapping[str, str] = {
    "Orders and modes": "`torch.autograd`, in float64",
    "torch.func and batches": "in float64",
    "Compilers": "`torch.compile(fullgraph=True)` with the backend `aot_eager`, `torch.export`, fake and meta tensors",
    "The accuracy contract": "float16, bfloat16, float32 and float64; tails, ends of the ranges, infinities, nan",
    "In use": "what surrounds a call in real programs",
}


@dataclass(frozen=True)
class Column:
    """A transform, and the test that a variant of a row goes through it.

    Attributes:
        legend: what the test does and what it compares with.
        first: whether the first variant stands for the row, since the test is slow.
        rows: the rows it is for, None for all.
    """

    group: str
    name: str
    legend: str
    test: Callable[[Variant], None]
    first: bool
    rows: Callable[[str], bool] | None

    def variants(self, row: str) -> Sequence[Variant]:
        """The variants of a row that are tested; none where the transform means nothing for the row."""
        if self.rows is not None and not self.rows(row):
            return []
        return ROWS[row][:1] if self.first else ROWS[row]


COLUMNS: dict[str, Column] = {}


def column(
    group: str, name: str, legend: str, *, first: bool = False, rows: Callable[[str], bool] | None = None
) -> Callable[[Callable[[Variant], None]], Callable[[Variant], None]]:
    """Registers a test as a column."""

    def register(test: Callable[[Variant], None]) -> Callable[[Variant], None]:
        assert group in GROUPS and name not in COLUMNS
        COLUMNS[name] = Column(group, name, legend, test, first, rows)
        return test

    return register


def load() -> None:
    """Registers the columns."""
    import _torch_compiled
    import _torch_contract
    import _torch_derivatives
    import _torch_uses

    del _torch_compiled, _torch_contract, _torch_derivatives, _torch_uses
    order = list(GROUPS)
    ordered = sorted(COLUMNS.values(), key=lambda one: order.index(one.group))
    COLUMNS.clear()
    COLUMNS.update((one.name, one) for one in ordered)


def cells() -> list[tuple[str, str]]:
    """Row and column of every cell that has a test."""
    return [(row, name) for name, one in COLUMNS.items() for row in ROWS if one.variants(row)]


def page(outcomes: Mapping[tuple[str, str], str]) -> str:
    """The page, from the outcome of each cell."""
    text = [_HEAD]
    for group, what in GROUPS.items():
        columns = [one for one in COLUMNS.values() if one.group == group]
        marks = [f"{group[0]}{number}" for number in range(1, len(columns) + 1)]
        text += [f"\n## {group}\n", f"{what[0].upper()}{what[1:]}.\n"]
        text += [
            f"- **{mark}** {one.name}: {one.legend}{' (1)' if one.first else ''}"
            for mark, one in zip(marks, columns, strict=True)
        ]
        text += ["", "| | " + " | ".join(marks) + " |", "|---" * (len(columns) + 1) + "|"]
        for row in ROWS:
            found = [outcomes.get((row, one.name), "·") for one in columns]
            text.append(f"| `{row}` | " + " | ".join(found) + " |")
    return "\n".join([*text, _TAIL])


_HEAD = """# Every transform of PyTorch

Which function of `gated.torch_impl` goes through which transform. *yes* is the outcome of a test, written by
`python tests/_torch_transforms.py`; `tests/test_torch_transforms.py` runs every cell again. A dot stands where there is
no test, for a reason at the end of the page.

What is exact: derivatives of any order by Taylor arithmetic on balls (`tests/_torch_jets.py`), in which no formula of a
derivative is written down. A float64 result must be within 256 unit roundoffs of the sum of the magnitudes of its
terms, in every element of every argument; points, directions and cotangents are random. A row goes through a column in
all its variants (activations, layouts, axes, shapes of beta), or in one where the legend ends with (1); every
argument is differentiated, biases and beta too. A module is a function of its input and its parameters, by
`torch.func.functional_call`."""

_TAIL = """
## Where there is no test

- `vjp` and `jvp` go by `torch.func`, which `torch.export` does not trace: torch 2.13 makes a constant even of the
  gradient of a sine. `torch.func.vjp` refuses to run where saved tensors are exchanged by hooks, as within a
  `torch.utils.checkpoint`. `torch.func.jvp` of a Python `autograd.Function` records for backward even under `no_grad`.
- In the tables of the accuracy contract `vjp` and `jvp` are what the other rows are measured with: `gated validate` and
  `tests/test_agreement.py` hold them to it. A tangent of a projected function is a sum, and has its bound there.

## Inductor

The compiled columns run on `aot_eager`. What Inductor generates is held to the accuracy contract by
`tests/test_torch_transforms.py`: `gated_unit` with float32 `swish` in every run, and by
`pytest -m inductor tests/test_torch_transforms.py` its other activations and dtypes, and the packed `swiglu` (beta a
number and an array), `clamped_swiglu` and `geglu` (tanh) in float32 and bfloat16.

## What PyTorch refuses

- Double backward through a compiled function, whatever it is: differentiate inside instead. `torch.func.grad`, `jvp`
  and `hessian` within `torch.compile` go by the rules of this backend.
- `torch.jit.trace`: the analysis of TorchScript, which is deprecated, has no `view` to another dtype, and raises.
- `torch.func.functionalize` of a Python `autograd.Function` is not implemented, and raises; `torch.compile` and
  `torch.export` do without it.

`torch.compile` makes a graph for each value of a Python number (beta, alpha, limit, offset): a beta that changes
should be a tensor.
"""


def main() -> int:
    """Runs every cell and writes the page; 1 where one failed."""
    load()
    outcomes = {}
    for row, name in cells():
        try:
            for variant in COLUMNS[name].variants(row):
                COLUMNS[name].test(variant)
            outcomes[row, name] = "yes"
        except Exception as error:
            print(f"{row}, {name}: {type(error).__name__}: {error}", file=sys.stderr)
            outcomes[row, name] = "**no**"
    PAGE.write_text(page(outcomes))
    print(f"{len(outcomes)} cells, {sum(one != 'yes' for one in outcomes.values())} not passed: {PAGE}")
    return int(any(one != "yes" for one in outcomes.values()))


if __name__ == "__main__":
    # As a module, so that the columns register with it and not with __main__.
    import _torch_transforms

    raise SystemExit(_torch_transforms.main())
