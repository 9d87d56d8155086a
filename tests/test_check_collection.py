"""The collection of `tests/implementations`: every wrong one is caught and named, every honest one passes."""

from __future__ import annotations

import importlib
import operator
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "implementations"))

from collection import HONEST, MORE, WRONG
from graded import Honest, Wrong, text_of

from gated.conformance import check


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels are compiled and models are written."""
    return tmp_path_factory.mktemp("built")


CHILDREN = ("numpy_misbehaving", "numpy_wrong.py:swiglu_other_half", "torch_wrong.py:Swish", "jax.nn:glu")
"""What is graded in a child process, besides kernels and models: it imports a framework of its own, in seconds. The
others are graded in this one."""


def _target(text: str, folder: Path) -> Any:
    module, _, name = text.partition(":")
    if not name or text.startswith(("kernels", *CHILDREN)):
        return text_of(text, folder)
    return operator.attrgetter(name)(importlib.import_module(module.removesuffix(".py")))


def _graded(one: Honest, folder: Path) -> Any:
    options = dict(one.options)
    function = options.pop("function")
    if "gradient" in options:
        options["gradient"] = _target(options["gradient"], folder)
    return check(_target(one.target, folder), function, **options)


def _told(report: Any) -> str:
    """What a failing test shows: the verdict and the ids, each with its text."""
    lines = [f"{report.verdict}: {report.target} as {report.claim} ({report.profile})"]
    lines += [f"  diagnosis {one.id}: {one.text}" for one in report.diagnosis]
    lines += [f"  {one.severity} {one.id} {one.dtype}: {one.text}" for one in report.findings]
    return "\n".join(lines)


def _each(implementations: Sequence[Honest]) -> list[Any]:
    return [
        pytest.param(one, id=one.name, marks=[pytest.mark.collection] if id(one) in MORE else [])
        for one in implementations
    ]


@pytest.mark.parametrize("one", _each(WRONG))
def test_wrong_implementation_is_caught_and_named(one: Wrong, built: Path) -> None:
    report = _graded(one, built)
    assert report.verdict == "fail", _told(report)
    if one.diagnosis:
        named = one.diagnosis in {found.id for found in report.diagnosis}
        assert named != bool(one.missed), _told(report)
    if one.finding:
        assert one.finding in {found.id for found in report.findings if found.severity == "failure"}, _told(report)


@pytest.mark.parametrize("one", _each(HONEST))
def test_honest_implementation_passes(one: Honest, built: Path) -> None:
    report = _graded(one, built)
    assert report.verdict == "pass", _told(report)


def test_the_collection_is_what_the_issue_asks_for() -> None:
    """At least 40 wrong ones with a diagnosis, in all five frameworks, each id of the issue among them."""
    named = {one.diagnosis for one in WRONG} - {""}
    assert named >= ISSUE
    expected = [one for one in WRONG if one.diagnosis]
    assert len(expected) >= 40
    assert sum(not one.missed for one in expected) >= 0.95 * len(expected)
    assert len(HONEST) >= 15


ISSUE = {
    "gate-order", "value-activated", "product-activated", "beta-scales-output", "beta-outside-sigmoid",
    "beta-ignored", "gelu-tanh-for-erf", "gelu-erf-for-tanh", "gelu-sigmoid", "offset-missing", "clamp-missing",
    "clamp-both-sides", "interleaved-read-as-halves", "double-rounding", "tail-underflow", "nan-at-infinity",
    "bias-dropped", "weights-swapped", "weight-not-transposed", "gradient-halves-swapped",
    "beta-gradient-not-summed", "gradient-stopped", "input-overwritten", "float32-arithmetic-in-float64",
}  # fmt: skip
"""The ids that users match on."""
