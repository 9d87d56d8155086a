"""``docs/accuracy.md``: what the sweeps and the search found, written from their result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gated.conformance.backends import of_backend
from gated.conformance.search_results import SEARCHED, SearchResult, read_search
from gated.conformance.sweeps.catalogue import SWEEPS
from gated.conformance.sweeps.journal import Header, Result, read_result
from gated.conformance.sweeps.report import bits_as_decimal, number, place

__all__ = ["page", "pictured", "read_folder", "read_searches"]

_NAMES: Final = {
    "numpy": "`numpy_ref`",
    "torch": "`torch_impl`",
    "torch-compiled": "`torch_impl`, compiled",
    "jax": "`jax_impl`, jitted",
    "jax-eager": "`jax_impl`, not jitted",
}


def read_searches(folder: Path) -> list[SearchResult]:
    """The findings of searches in a folder.

    Raises:
        SearchError: one of the files is none, or was changed.
    """
    return [read_search(path) for path in sorted(folder.glob("search-*.json"))]


def read_folder(folder: Path) -> list[Result]:
    """The results of sweeps in a folder, in the order of the catalogue, then of the backends.

    Raises:
        JournalError: one of the files is no result, or was changed.
    """
    order = list(SWEEPS)
    results = [read_result(path) for path in folder.glob("*-*.*.json") if not path.name.startswith("search-")]
    return sorted(
        results, key=lambda result: (order.index(result.header.sweep), list(_NAMES).index(result.header.backend))
    )


def pictured(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The sweeps that have a picture, each with its results: those of float32."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.sweep.dtype == "float32":
            found.setdefault(result.sweep.name, []).append(result)
    return found


def page(results: Sequence[Result], searches: Sequence[SearchResult], figures: str) -> str:
    """The page as Markdown.

    Args:
        figures: the folder of the pictures, as seen from the page.
    """
    wide = [one for one in results if one.sweep.dtype == "float32"]
    unsure = max((tally.unsure for one in wide for tally in one.tallies.values()), default=0.0)
    parts = [_HEAD, "## Every float32\n", _WIDE.replace("$unsure", f"{unsure:.1e}"), _table(wide)]
    parts += [
        f"![Largest error of {name} against x, value and derivative]({figures}/accuracy-{name}.png)\n"
        for name in pictured(results)
    ]
    parts += ["## Every pair of bfloat16\n", _PAIRS, _table([one for one in results if one.sweep.pairs])]
    small = [one for one in results if one.sweep.inputs == 2**16]
    parts += ["## Every 16-bit number\n", _SMALL, _table(small)]
    if searches:
        parts += ["## The worst of float64\n", _SEARCHED, _searched(searches)]
    parts += ["## What was measured\n", _provenance(results, searches), _REPEAT]
    return "\n".join(part for part in parts if part)


def _table(results: Sequence[Result]) -> str:
    lines = [
        "| function | dtype | backend | of | largest error, ulp | at | share of the bound | past half an ulp "
        "| inputs | |",
        "|---|---|---|---|---:|---|---:|---:|---:|---|",
    ]
    for result in results:
        sweep = result.sweep
        for quantity, tally in result.tallies.items():
            of = "value" if quantity == "value" else f"derivative in {quantity.removeprefix('d ')}"
            where = place(sweep, tally.at) if tally.error else ""
            cells = [
                _called(sweep.function, sweep.static),
                sweep.dtype,
                _NAMES[result.header.backend],
                of,
                number(tally.error),
                where,
            ]
            cells += [f"{tally.share:.2f}", f"{tally.past_half:,}", f"{sweep.inputs:,}", "exhaustive"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _searched(searches: Sequence[SearchResult]) -> str:
    lines = [
        "| function | dtype | backend | of | largest error, ulp | at | allowed there | evaluations | |",
        "|---|---|---|---|---:|---|---:|---:|---|",
    ]
    order = {key: i for i, key in enumerate((function, str(static)) for function, static in SEARCHED)}
    for backend in _NAMES:
        found = [one for search in searches if search.backend == backend for one in search.found]
        found.sort(key=lambda one: order[one.function, str(one.static)])
        for one in found:
            if one.objective != "error":
                continue
            of = "value" if one.quantity == "result" else f"derivative in {one.quantity.removeprefix('d_')}"
            at = ", ".join(f"{name} {bits_as_decimal(bits, one.dtype)}" for name, bits in one.at.items())
            cells = [_called(one.function, one.static), one.dtype, _NAMES[backend], of, number(one.error), at]
            cells += [f"{one.bound:.4g}", f"{one.evaluations:,}", "searched"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _called(function: str, static: Mapping[str, Any]) -> str:
    """A function as it is called."""
    keywords = ", ".join(f'{name}="{value}"' for name, value in static.items())
    return f"`{function}({keywords})`" if keywords else f"`{function}`"


def _provenance(results: Sequence[Result], searches: Sequence[SearchResult]) -> str:
    """Which code and versions each backend's results are of, and whether that is the code beside this page."""
    lines = ["| backend | code | versions | measured | |", "|---|---|---|---|---|"]
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    measured: list[tuple[Header | SearchResult, str, str]] = [
        *((result.header, result.date, result.header.sweep) for result in results),
        *((search, search.date, f"search in {search.dtype}") for search in searches),
    ]
    for of, date, what in measured:
        shown = [f"{name} {one}" for name, one in of.versions.items() if name in _SHOWN[of_backend(of.backend)]]
        groups.setdefault((of.backend, of.code, ", ".join(shown)), []).append((date, what))
    for backend, code, versions in sorted(groups, key=lambda key: list(_NAMES).index(key[0])):
        some = groups[backend, code, versions]
        dates = sorted({date for date, _ in some})
        span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        what = ", ".join(what for _, what in some)
        lines.append(f"| {_NAMES[backend]} | {code[:12]} | {versions} | {span} | {what} |")
    return "\n".join(lines) + "\n"


_SHOWN: Final = {
    "numpy": ("python", "platform", "numpy", "scipy", "ml_dtypes"),
    "torch": ("python", "platform", "torch"),
    "jax": ("python", "platform", "jax"),
}

_HEAD: Final = """\
<!-- Written by `gated accuracy page` from the files in docs/accuracy. Do not edit. -->
# Accuracy

How far each backend is from the exact result, in ulp: |computed - exact| over the spacing of the dtype's numbers at
the exact value, and for a derivative at the largest term of its closed form. A wrong class (nan for a number, a
zero of the wrong sign) would be an error of infinity. Results below the smallest normal number that JAX's runtime
flushes to a zero of the right sign are excused, as the contract says, and nothing else is. The bounds are those of
the [contract](../README.md#validate).

**Exhaustive** rows are of every input there is: the largest error is the largest there can be. **Searched** rows
are of the worst inputs that a search found: the true maximum is at least that.

*Past half an ulp* counts the results that are for certain not the nearest number of the dtype (for a derivative, by
the ulp of its largest term).
*Share of the bound* is the largest error as a part of what the contract allows at its input: no row is past 1, or
`gated validate --exhaustive` exits 1.
"""

_WIDE: Final = """\
All 4,294,967,296 bit patterns, nan and the infinities among them, value and derivative (the cotangent is 1). Each
run of 65,536 consecutive numbers is held against Taylor polynomials whose coefficients and remainder are enclosed
by ball arithmetic (`gated/conformance/sweeps/enclosures.py`): the exact values are known to $unsure ulp.
"""

_PAIRS: Final = """\
All 4,294,967,296 pairs of a gate and a value, the packed unit's value and both derivatives (the cotangent is 1). An
error of 0.500000 with nothing past half an ulp means that every result is correctly rounded.
"""

_SMALL: Final = """\
All 65,536 bit patterns, each held against the oracle; `pytest` does the same on every run of the suite.
"""

_SEARCHED: Final = """\
float64 has too many numbers to try. A search starts from every binade, sign and threshold, and climbs from the worst
inputs it has found to worse ones, also over cotangents and beta (`gated/conformance/search.py`). Each row is the worst
it found, and that error is proven by the oracle; the true maximum is at least that.
"""

_REPEAT: Final = """\
## Repeat it

The code of a row is the SHA-256 of the backend's code and the contract, comments and docstrings apart (`code_digest`
in `gated/conformance/source.py`); `gated accuracy page --check` says where that is not the code beside the page.

```sh
gated validate --exhaustive --functions swish --dtypes float32 --backends torch  # one row, in minutes
gated validate --exhaustive                           # all of them, in hours
gated validate --exhaustive --shard 1/4               # a quarter of each, on one of four machines
gated validate --search 1000000 --backends jax        # the search of float64
gated accuracy merge sweeps/*.jsonl --results sweeps  # what the shards add up to
gated accuracy page                                   # this page, from the files in docs/accuracy
```

A sweep that is stopped, by whatever, goes on where it was when the command is given again. `benchmarks/sweeps.py`
measures how many inputs a second a core does.
"""
