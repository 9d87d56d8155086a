"""The survey: its table names what can be graded, its results and page say the same, and its reproducers run."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gated import cli
from gated.survey.entries import ENTRIES, Entry
from gated.survey.measuring import measure
from gated.survey.page import page
from gated.survey.reproducers import REPRODUCERS, Reproducer
from gated.survey.results import Measured, Outcome, Point, SurveyError, read_folder, read_outcome, read_programs

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "field"
PAGE = ROOT / "docs" / "field.md"


def test_the_page_is_what_the_results_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["survey", "--page", "--check", "--results", str(RESULTS)]
    assert cli.main([*arguments, "--out", str(PAGE)]) == 0
    other = tmp_path / "field.md"
    other.write_text(PAGE.read_text().replace(" sampled |", " exhaustive |", 1))
    assert cli.main([*arguments, "--out", str(other)]) == 1
    assert "field.md is not what" in capsys.readouterr().out


def test_every_entry_has_a_result_and_every_result_an_entry() -> None:
    assert [one.key for one in read_folder(RESULTS)] == [entry.key for entry in ENTRIES]


def test_a_row_of_the_page_is_a_row_of_a_result() -> None:
    rows = re.findall(r"^\| `.*\| (?:exhaustive|sampled) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert len(rows) == sum(len(one.rows) for one in read_folder(RESULTS))


def test_ours_are_within_both_profiles() -> None:
    ours = [one for one in read_folder(RESULTS) if one.package == "gated"]
    assert len(ours) == 15
    for one in ours:
        assert dict(one.verdicts) == {"contract": "pass", "field": "pass"}, one.key


def test_the_keys_are_unique_and_the_names_too() -> None:
    assert len({entry.key for entry in ENTRIES}) == len(ENTRIES)
    assert len({(entry.package, entry.name, *entry.options["dtypes"]) for entry in ENTRIES}) == len(ENTRIES)


texts = st.text(max_size=8)
errors = st.floats(0, allow_nan=False)
points = st.builds(Point, texts, st.dictionaries(texts, texts), st.dictionaries(texts, texts), texts, texts)
rows = st.builds(
    Measured,
    dtype=st.sampled_from(["float32", "bfloat16"]),
    quantity=st.sampled_from(["value", "d x"]),
    inputs=st.integers(0, 2**16),
    exhaustive=st.booleans(),
    largest=errors,
    worst=st.none() | points,
    classes=st.lists(points, max_size=2),
    failing=st.fixed_dictionaries({"contract": st.integers(0, 9), "field": st.integers(0, 9)}),
)


def _outcome() -> Outcome:
    environment, versions = {"KERAS_BACKEND": "jax"}, {"numpy": "2"}
    return Outcome(
        "a-b", "torch", "F.a", "silu", "silu, unary", "torch", environment, versions, "2026-01-02", "quick", 0
    )


@given(st.lists(rows, max_size=3), texts)
def test_a_result_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, some: list[Measured], error: str
) -> None:
    outcome = replace(_outcome(), rows=some, error=error)
    assert read_outcome(outcome.write(tmp_path_factory.mktemp("results"))) == outcome


def test_a_changed_result_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _outcome().write(tmp_path)
    path.write_text(path.read_text().replace('"quick"', '"full"'))
    with pytest.raises(SurveyError, match=r"a-b\.json: its content is not what its sha256 says"):
        read_outcome(path)
    assert cli.main(["survey", "--page", "--results", str(tmp_path), "--out", str(tmp_path / "page.md")]) == 2
    assert "a-b.json" in capsys.readouterr().err


def _entry(target: str, **options: object) -> Entry:
    return Entry("key", "numpy", "name", target, "silu", {"dtypes": ("float16",), **options})


def test_an_entry_is_graded_under_both_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "implementations"))
    outcome = measure(_entry(f"{ROOT}/tests/implementations/numpy_honest.py:silu_plain"))
    assert (outcome.error, dict(outcome.verdicts)) == ("", {"contract": "fail", "field": "pass"})
    (row,) = outcome.rows
    assert (row.dtype, row.quantity, row.exhaustive) == ("float16", "value", True)
    assert row.failing["contract"] > row.failing["field"] == 0
    # -inf * 0 is a wrong class, and the largest error is one of the other regions: the exponential overflows at 11.09.
    assert [one.region for one in row.classes] == ["infinity"]
    assert row.worst is not None
    assert 0.51 < row.largest < 2**11
    assert outcome.versions["numpy"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_module_here:silu", "no_such_module_here"),
        ("onnx:swiglu", "SwiGLU"),
        (f"{ROOT}/tests/implementations/numpy_misbehaving.py:complains", "x must have 4 dimensions"),
    ],
)
def test_what_cannot_be_graded_says_why(target: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gated.survey.onnx_models.MODELS", {"swiglu": _FUTURE})
    outcome = measure(_entry(target))
    assert said in outcome.error
    assert not outcome.rows
    assert f"not graded: {outcome.error.split()[0]}" in page([outcome], {})


class _FUTURE:
    """A model of an operator that no onnx has."""

    operator, opset = "SwiGLU", 10**6


def test_the_environment_is_set_while_an_entry_is_graded_and_put_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEPT", "before")
    monkeypatch.delenv("FRESH", raising=False)
    source = "import os\n\n\ndef silu(x):\n    raise ValueError(os.environ['KEPT'] + os.environ['FRESH'])\n"
    (tmp_path / "seen.py").write_text(source)
    entry = replace(_entry(f"{tmp_path}/seen.py:silu", framework="numpy"), environment={"KEPT": "in", "FRESH": "side"})
    assert "inside" in measure(entry).error
    assert (os.environ["KEPT"], "FRESH" in os.environ) == ("before", False)


@pytest.mark.parametrize("one", REPRODUCERS, ids=lambda one: one.name)
def test_a_reproducer_prints_what_stands_beside_it(one: Reproducer) -> None:
    if not one.is_installed:
        pytest.skip(f"not installed: {', '.join(name for name in one.needs if not importlib.util.find_spec(name))}")
    shown, recorded = one.run(RESULTS / f"{one.name}.py"), read_programs(RESULTS)[one.name].printed
    if one.package == "onnxruntime":
        # Its kernels differ from one processor to the next: the inputs and the exact values stay, and that it is off.
        parts = [re.split(r" = (\S+), exact ", line) for line in shown.splitlines()]
        assert [(at, exact) for at, _, exact in parts] == re.findall(r"(.*) = \S+, exact (.*)", recorded)
        assert any(abs(float(computed) / float(exact) - 1) > 0.1 for _, computed, exact in parts)
    else:
        assert shown == recorded


def test_the_command_lists_its_entries_and_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["survey", "--list", "--only", "onnx-reference-s*"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in listed] == [
        f"onnx-reference-{name}" for name in ("sigmoid", "swish", "swish-half", "swish-beta", "swiglu")
    ]
    for arguments in (["--only", "nothing"], ["--check"], ["--page", "--results", "no/such/folder"]):
        assert cli.main(["survey", *arguments]) == 2
        assert "gated survey:" in capsys.readouterr().err


def test_the_table_imports_no_framework() -> None:
    code = "import sys, gated.survey.entries; print(sorted({'torch', 'jax', 'keras', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
