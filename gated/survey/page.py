"""``docs/field.md``: what the survey found, written from its result files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gated.conformance.sweeps.report import number
from gated.survey.reproducers import REPRODUCERS, Reproducer
from gated.survey.results import Measured, Outcome, Point, Program

__all__ = ["page"]

_TITLES: Final = {
    "torch": "torch",
    "jax": "JAX",
    "flax": "Flax",
    "tokamax": "tokamax",
    "keras": "Keras",
    "tensorflow": "TensorFlow",
    "onnxruntime": "ONNX Runtime",
    "onnx": "onnx.reference",
    "transformers": "Hugging Face transformers",
    "timm": "timm",
    "x_transformers": "x-transformers",
    "liger_kernel": "Liger",
    "tinygrad": "tinygrad",
    "gated": "gated",
}


def page(outcomes: Sequence[Outcome], programs: Mapping[str, Program]) -> str:
    """The page as Markdown.

    Args:
        programs: the reproducers that were run, by name.
    """
    parts = [_HEAD, "## What was measured\n", _provenance(outcomes)]
    packages = sorted({one.package for one in outcomes}, key=_place)
    for package in packages:
        some = [one for one in outcomes if one.package == package]
        parts += [f"## {_TITLES.get(package, package)}\n", _table(some), *_classes(some), *_others(some)]
        parts += [
            _reproduced(one, programs[one.name])
            for one in REPRODUCERS
            if one.package == package and one.name in programs
        ]
    parts += [_REPEAT]
    return "\n".join(part for part in parts if part)


def _place(package: str) -> tuple[int, str]:
    order = list(_TITLES)
    return (order.index(package) if package in order else len(order), package)


def _table(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| implementation | dtype | of | largest error, ulp | at | bits | wrong class | contract | field | inputs | |",
        "|---|---|---|---:|---|---|---|---|---|---:|---|",
    ]
    for outcome in outcomes:
        for row in outcome.rows:
            worst = row.worst
            cells = [
                f"`{outcome.name}`",
                row.dtype,
                _of(row.quantity),
                "" if math.isinf(row.largest) else number(row.largest),
                _inputs(worst) if worst else "",
                ", ".join(worst.bits.values()) if worst else "",
                ", ".join(one.region for one in row.classes),
                *(_verdict(row.failing[profile]) for profile in ("contract", "field")),
                f"{row.inputs:,}",
                "exhaustive" if row.exhaustive else "sampled",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        if outcome.error:
            lines.append(f"| `{outcome.name}` | not graded: {_one_line(outcome.error)} |{' |' * 9}")
    return "\n".join(lines) + "\n"


def _of(quantity: str) -> str:
    return "value" if quantity == "value" else f"derivative in {quantity.removeprefix('d ')}"


def _verdict(failing: int) -> str:
    return f"{failing:,} past" if failing else "within"


def _inputs(point: Point) -> str:
    return ", ".join(text if name == "x" else f"{name} {text}" for name, text in point.at.items())


def _classes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each implementation with a wrong class, the first point of each region."""
    lines = []
    for outcome in outcomes:
        seen: dict[tuple[str, str], tuple[Measured, Point]] = {}
        for row in outcome.rows:
            for point in row.classes:
                seen.setdefault((row.quantity, point.region), (row, point))
        texts = [
            f"{_of(row.quantity)} at {_inputs(point)} ({row.dtype}): {point.computed}, exact {point.exact}"
            for row, point in seen.values()
        ]
        if texts:
            lines.append(f"- `{outcome.name}`: {'; '.join(texts)}")
    if lines:
        yield "Wrong classes, a point of each region:\n"
        yield "\n".join(lines) + "\n"


_VALUES: Final = {"wrong-value", "wrong-gradient", "wrong-limit", "nan-at-infinity", "zero-sign"}
"""The findings that the table has already."""


def _others(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What was found besides errors of values, by finding."""
    found: dict[str, list[str]] = {}
    for outcome in outcomes:
        for name in sorted({one for some in outcome.findings.values() for one in some} - _VALUES):
            found.setdefault(name, []).append(f"`{outcome.name}`")
    if found:
        yield "Found besides ([what the ids mean](check.md)):\n"
        yield "\n".join(f"- `{name}`: {', '.join(dict.fromkeys(who))}" for name, who in sorted(found.items())) + "\n"


def _reproduced(one: Reproducer, program: Program) -> str:
    return f"### {one.title}\n\n{one.text}\n\n```python\n{program.code}```\n\n```text\n{program.printed}```\n"


def _provenance(outcomes: Sequence[Outcome]) -> str:
    """Dates, the platform and every package's version, once."""
    versions: dict[str, set[str]] = {}
    for outcome in outcomes:
        for name, version in outcome.versions.items():
            versions.setdefault(name, set()).add(version)
    dates = sorted({one.date for one in outcomes})
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    budgets = ", ".join(sorted({f"budget {one.budget}, seed {one.seed}" for one in outcomes}))
    shown = [f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items(), key=_by_name)]
    rows = sum(len(one.rows) for one in outcomes)
    graded = sum(not one.error for one in outcomes)
    return f"{graded} implementations, {rows} rows, {span}; {budgets}. On: {', '.join(shown)}.\n"


def _by_name(item: tuple[str, set[str]]) -> tuple[bool, str]:
    return (item[0] not in ("python", "platform"), item[0].lower())


def _one_line(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= 160 else f"{line[:157]}..."


_HEAD: Final = """\
<!-- Written by `gated survey --page` from the files in docs/field. Do not edit. -->
# The field, measured

What implementations of gated activations give today, each graded by `gated check` as the function that its
documentation says it is. Figures, and nothing else: which error matters is for the reader to say.

*Largest error* is |computed - exact| in ulp, the spacing of the dtype's numbers at the exact value (for a derivative,
at the largest term of its closed form), over the regions of inputs where no class is wrong. *Wrong class*: the regions
with a nan for a number, an infinity for a finite number, or a zero of the wrong sign; infinite inputs are the region
"infinity".

*Contract* and *field*: whether all inputs are within the bound of that profile, or how many are past it. The
[contract](../README.md#validate) is this project's own; the *field* profile is what a plain implementation reaches in
the dtype, each operation rounded ([profiles.md](profiles.md) derives it). Contract rows count infinite inputs and the
signs of zeros, field rows do not.

**Exhaustive** rows are of every input there is. **Sampled** rows are of some thousand inputs: every binade, both signs,
the thresholds, the specials, random bits. The true maximum is at least theirs. Inputs are told in nine digits; the bit
patterns are those of *at*, where they are known: in float64 nine digits do not give them, and a projected result is a
sum over many inputs.
"""

_REPEAT: Final = """\
## Repeat it

```sh
apt-get install clang                                 # tinygrad compiles with it
python3 -m venv .survey && .survey/bin/pip install -c constraints.txt -e ".[survey]"
.survey/bin/pip install --no-deps timm==1.0.31        # without torchvision, which a CPU build of torch cannot load
.survey/bin/gated survey                              # all of it, into docs/field
.survey/bin/gated survey --only 'onnxruntime-*'       # some of it
gated survey --page                                   # this page, from the files in docs/field
```

Packages that are not installed are left out; `gated/survey/entries.py` has the table. timm's files are imported without
the package's `__init__`, which needs torchvision. Liger's kernel is run by Triton's interpreter, which is itself wrong
in bfloat16 (triton-lang/triton#4972): there is no such row.
"""
