"""``gated check`` as tests: a test for each dtype and quantity of an implementation.

In a test file::

    from gated.conformance.pytest_plugin import conformance

    test_swiglu = conformance("kernels.ops:swiglu", "swiglu", layout="gate_first", dtypes=["float32", "bfloat16"])

makes the tests ``test_swiglu[float32-value]``, ``test_swiglu[float32-d-gate]``, ... and, for what is found besides
numbers, ``test_swiglu[float32-behaviour]`` and ``test_swiglu[target]``. A test that fails shows what was found, and the
diagnosis. Those of gradients are skipped where the target has none. The check runs once, when the first of them runs;
under pytest-xdist once for all workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.report import ABSENT, FAILURE, Finding, Report, Row
from gated.contract import DTYPES

__all__ = ["conformance"]

_BEHAVIOUR: Final = "behaviour"
_TARGET: Final = ("", "target")

_CLAIM: Final = ("form", "layout", "axis", "activation", "approximate", "beta", "alpha", "limit", "offset", "bias")


def conformance(
    target: str | Callable[..., Any],
    function: str,
    *,
    dtypes: Sequence[str] = DTYPES,
    gradients: bool = True,
    **options: Any,
) -> Callable[..., None]:
    """A test function, parametrised by dtype and quantity, that grades an implementation.

    Args:
        target: as for :func:`gated.conformance.check`: a text is run in a process of its own, a callable in this one.
        function: the name of the function that it claims to be.
        dtypes: those graded.
        gradients: whether gradients are graded.
        **options: further keywords of :func:`gated.conformance.check`: ``layout``, ``profile``, ``ledger``, ...

    Raises:
        ValueError: a name is unknown, or an option does not go with the function.
        TypeError: :func:`gated.conformance.check` has no such keyword.
    """
    claim = Claim.of(function, **{name: options[name] for name in _CLAIM if name in options})
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ValueError(f"conformance: dtypes must be of {', '.join(DTYPES)}, got {dtype!r}")
    quantities = ("value", *(_gradients(claim) if gradients else ()), _BEHAVIOUR)
    items = [*((dtype, quantity) for dtype in dtypes for quantity in quantities), _TARGET]
    graded: list[Report] = []

    def grade() -> Report:
        from gated.conformance.grading.attempt import attempt

        try:
            return attempt(target, function, dtypes=tuple(dtypes), gradients=gradients, **options)
        except ValueError as error:
            pytest.fail(str(error), pytrace=False)

    @pytest.mark.parametrize("item", items, ids=_name)
    def test(item: tuple[str, str], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
        if not graded:
            graded.append(_once(grade, request, tmp_path_factory))
        if reason := _absent(graded[0], item):
            pytest.skip(f"no gradient: {reason}")
        if text := _wrong(graded[0], item, items):
            pytest.fail(text, pytrace=False)

    test.__doc__ = f"{target if isinstance(target, str) else getattr(target, '__name__', target)} as {claim.describe()}"
    return test


def _gradients(claim: Claim) -> list[str]:
    """The quantities of the gradient: a packed array's are those of its halves."""
    names = list(claim.arguments)
    if claim.form == "packed":
        names[:1] = ["gate", "value"]
    return [f"d {name}" for name in names]


def _name(item: tuple[str, str]) -> str:
    return "-".join(part.replace(" ", "-") for part in item if part)


def _once(
    grade: Callable[[], Report], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Report:
    """The report: made here, or by the worker of pytest-xdist that came first."""
    if not hasattr(request.config, "workerinput"):
        return grade()
    from gated.conformance.grading.document import as_json, from_json

    # Without the parameters, the test's name is the same for all of its items and in all workers. The folder above
    # each worker's own is theirs together, and of this run alone.
    name = request.node.nodeid.partition("[")[0]
    path = tmp_path_factory.getbasetemp().parent / f"gated-{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
    with _locked(path.with_suffix(".lock")):
        if path.exists():
            return from_json(json.loads(path.read_text(encoding="utf-8")))
        report = grade()
        path.write_text(json.dumps(as_json(report), allow_nan=False), encoding="utf-8")
        return report


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock between processes, which ends with the process; there is none where the system has no flock."""
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _wrong(report: Report, item: tuple[str, str], items: Sequence[tuple[str, str]]) -> str:
    """What is wrong with an item, empty where nothing is. Of what was not graded, all findings are told."""
    from gated.conformance.grading.terminal import number, plain, row_verdict, shown

    found = [one for one in report.findings if _place(one, items) == item and one.severity == FAILURE and not one.known]
    lines = [f"{one.id}: {one.text}" for one in found]
    row = _row(report, item)
    if row is not None and row_verdict(report, row) == "fail":
        lines.append(
            f"{row.failing:,} of {row.inputs:,} inputs past their bound: {number(row.error)} ulp where "
            f"{number(row.bound)} is allowed, at {shown(row.at)}: got {row.computed}, exact {row.exact}"
        )
    has_row = item != _TARGET and item[1] != _BEHAVIOUR
    if not lines and (report.verdict == "error" or (has_row and row is None)):
        lines = ["it was not graded", *(f"{one.id}: {one.text}" for one in report.findings)]
    if not lines:
        return ""
    lines += [f"diagnosis {one.id}: {one.text} ({shown(one.evidence)})" for one in report.diagnosis]
    head = f"{report.target} as {report.claim} ({report.profile}), {' '.join(part for part in item if part)}"
    return "\n".join(plain(line) for line in (head, *lines))


def _absent(report: Report, item: tuple[str, str]) -> str:
    """Why an item of a gradient has nothing to grade, where the target has no gradient and need not have one."""
    if not item[1].startswith("d ") or _row(report, item) is not None:
        return ""
    return next((one.text for one in report.findings if one.id == "gradient-absent" and one.severity == ABSENT), "")


def _row(report: Report, item: tuple[str, str]) -> Row | None:
    return next((row for row in report.rows if (row.dtype, row.quantity) == item), None)


def _place(finding: Finding, items: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The item that tells a finding: that of its dtype and quantity, else the dtype's, else the target's."""
    quantity = finding.evidence.get("quantity", "")
    places = [(finding.dtype, quantity), (finding.dtype, f"d {quantity}"), (finding.dtype, _BEHAVIOUR)]
    return next((place for place in places if place in items), _TARGET)
