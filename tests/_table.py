"""A table of transforms: rows of functions, columns of tests, and the page that their outcomes make."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _truth import Function

__all__ = ["DOCS", "Column", "Table"]

DOCS = Path(__file__).parent.parent / "docs"

Test = Callable[[Any], None]


@dataclass(frozen=True)
class Column:
    """A transform, and the test that a variant of a row goes through it.

    Attributes:
        legend: what the test does and what it compares with.
        first: whether the first variant stands for the row, since the test is slow.
        rows: the rows it is for, None for all.
        usual: the rows whose first variant every run of the suite tests, None for all.
    """

    group: str
    name: str
    legend: str
    test: Test
    first: bool
    rows: Callable[[str], bool] | None
    usual: Collection[str] | None


class Table:
    """Columns register their tests with :meth:`column`.

    Args:
        page: the file of the page.
        rows: the variants of each row, the first of which stands for it where a test is slow.
        groups: what is said of each group of columns.
        head: before the tables.
        tail: behind them.
    """

    def __init__(
        self, page: Path, rows: Mapping[str, Sequence[Function]], groups: Mapping[str, str], head: str, tail: str
    ) -> None:
        self.page, self.rows, self.groups, self.head, self.tail = page, rows, groups, head, tail
        self.columns: dict[str, Column] = {}

    def column(
        self,
        group: str,
        name: str,
        legend: str,
        *,
        first: bool = False,
        rows: Callable[[str], bool] | None = None,
        usual: Collection[str] | None = None,
    ) -> Callable[[Test], Test]:
        """Registers a test as a column."""

        def register(test: Test) -> Test:
            assert group in self.groups and name not in self.columns
            self.columns[name] = Column(group, name, legend, test, first, rows, usual)
            return test

        return register

    def variants(self, row: str, name: str) -> Sequence[Function]:
        """The variants of a row that a column tests; none where the transform means nothing for the row."""
        one = self.columns[name]
        if one.rows is not None and not one.rows(row):
            return []
        return self.rows[row][:1] if one.first else self.rows[row]

    def cells(self) -> list[tuple[str, str]]:
        """Row and column of every cell that has a test, in the order of the groups."""
        order = list(self.groups)
        ordered = sorted(self.columns.values(), key=lambda one: order.index(one.group))
        return [(row, one.name) for one in ordered for row in self.rows if self.variants(row, one.name)]

    def usual(self) -> list[tuple[str, str]]:
        """The cells that every run of the suite tests."""
        kept = {name: one.usual for name, one in self.columns.items()}
        return [(row, name) for row, name in self.cells() if kept[name] is None or row in kept[name]]

    def text(self, outcomes: Mapping[tuple[str, str], str]) -> str:
        """The page, from the outcome of each cell."""
        text = [self.head]
        for group, what in self.groups.items():
            columns = [one for one in self.columns.values() if one.group == group]
            marks = [f"{group[0]}{number}" for number in range(1, len(columns) + 1)]
            text += [f"\n## {group}\n", f"{what[0].upper()}{what[1:]}.\n"]
            text += [
                f"- **{mark}** {one.name}: {one.legend}{' (1)' if one.first else ''}"
                for mark, one in zip(marks, columns, strict=True)
            ]
            text += ["", "| | " + " | ".join(marks) + " |", "|---" * (len(columns) + 1) + "|"]
            for row in self.rows:
                found = [outcomes.get((row, one.name), "·") for one in columns]
                text.append(f"| `{row}` | " + " | ".join(found) + " |")
        return "\n".join([*text, self.tail])

    def main(self) -> int:
        """Runs every cell and writes the page; 1 where one failed."""
        outcomes = {}
        for row, name in self.cells():
            try:
                for variant in self.variants(row, name):
                    self.columns[name].test(variant)
                outcomes[row, name] = "yes"
            except Exception as error:
                print(f"{row}, {name}: {type(error).__name__}: {error}", file=sys.stderr)
                outcomes[row, name] = "**no**"
        self.page.write_text(self.text(outcomes))
        print(f"{len(outcomes)} cells, {sum(one != 'yes' for one in outcomes.values())} not passed: {self.page}")
        return int(any(one != "yes" for one in outcomes.values()))
