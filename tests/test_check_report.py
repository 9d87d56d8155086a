"""The report of `gated check`: as JSON by its schema, on the terminal, and the command around it."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _check_report import failing_report, passing_report
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gated.cli import main
from gated.conformance.grading.document import as_json, from_json
from gated.conformance.grading.finding_ids import FINDING_IDS
from gated.conformance.grading.ledger import LedgerError
from gated.conformance.grading.report import FAILURE, Diagnosis, Finding, Region, Report, Row
from gated.conformance.grading.schema import faults, schema_text
from gated.conformance.grading.target import TargetError
from gated.conformance.grading.terminal import number, plain, print_report, row_verdict
from gated.contract import ARRAY_PARAMETERS, DTYPES, LAYOUTS

ROOT = Path(__file__).parent.parent

ANYTHING = st.text(st.characters(), max_size=20)
ERRORS = st.floats(min_value=0, allow_nan=False)
TEXTS = st.dictionaries(ANYTHING, ANYTHING, max_size=2)
EVIDENCE = st.dictionaries(
    ANYTHING,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | ANYTHING | st.floats(width=32).map(np.float32),
        lambda inner: st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(ANYTHING, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)
COUNTS = st.integers(0, 2**40)
REGIONS = st.builds(Region, st.just("tail"), COUNTS, COUNTS, ERRORS, TEXTS, ANYTHING, ANYTHING)
ROWS = st.builds(
    Row,
    st.sampled_from(DTYPES),
    st.sampled_from(["value", "d gate", "d W2"]),
    COUNTS,
    st.booleans(),
    COUNTS,
    ERRORS,
    ERRORS,
    ERRORS,
    TEXTS,
    TEXTS,
    ANYTHING,
    ANYTHING,
    st.lists(REGIONS, max_size=2).map(tuple),
)
FINDINGS = st.builds(
    Finding,
    st.sampled_from(list(FINDING_IDS)),
    st.sampled_from(["failure", "note", "absent"]),
    ANYTHING.filter(bool),
    st.sampled_from(["", *DTYPES]),
    EVIDENCE,
    ANYTHING,
)
DIAGNOSES = st.builds(Diagnosis, st.just("gate-order"), ANYTHING.filter(bool), EVIDENCE)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """Reports of any content whose verdict goes with their findings."""
    findings = draw(st.lists(FINDINGS, max_size=3))
    is_open = any(one.severity == FAILURE and not one.known for one in findings)
    return Report(
        "fail" if is_open else "pass",
        draw(ANYTHING),
        draw(st.sampled_from(list(ARRAY_PARAMETERS))),
        draw(st.sampled_from(["unary", "packed", "pair", "projected"])),
        draw(st.sampled_from(["", *LAYOUTS])),
        draw(st.sampled_from(["contract", "field"])),
        draw(ANYTHING.filter(bool)),
        draw(ANYTHING),
        draw(ANYTHING),
        draw(st.sampled_from(["quick", "full", "exhaustive"])),
        draw(COUNTS),
        draw(st.lists(ROWS, max_size=2)),
        findings,
        draw(st.lists(DIAGNOSES, max_size=2)),
        draw(TEXTS),
        seconds=draw(st.floats(0, 1e6)),
    )


def written(report: Report) -> Any:
    return json.loads(json.dumps(as_json(report), allow_nan=False))


def printed(report: Report, *, width: int = 100, terminal: bool = False) -> str:
    out = io.StringIO()
    print_report(Console(file=out, markup=False, highlight=False, width=width, force_terminal=terminal), report)
    return out.getvalue()


# JSON


@given(reports())
@settings(max_examples=60)
def test_any_report_is_json_by_the_schema_and_is_read_back(report: Report) -> None:
    document = written(report)
    assert faults(document) == []
    again = from_json(document)
    assert written(again) == document
    assert [(row.error, row.bound, row.largest) for row in again.rows] == [
        (row.error, row.bound, row.largest) for row in report.rows
    ]


def test_numbers_that_json_does_not_have_are_texts() -> None:
    report = failing_report()
    report.diagnosis[0] = Diagnosis("gate-order", "x", {"a": math.nan, "b": [-math.inf, np.float32(math.inf)]})
    document = written(report)
    assert document["rows"][1]["error"] == "inf"
    assert document["diagnosis"][0]["evidence"] == {"a": "nan", "b": ["-inf", "inf"]}
    assert faults(document) == []


def with_more(document: Any) -> None:
    document["more"] = 1


def with_more_in_a_row(document: Any) -> None:
    document["rows"][0]["more"] = 1


def without_bits(document: Any) -> None:
    del document["rows"][0]["bits"]


def of_a_strange_dtype(document: Any) -> None:
    document["rows"][0]["dtype"] = "float8"


def with_a_null_error(document: Any) -> None:
    document["rows"][0]["error"] = None


def with_a_negative_error(document: Any) -> None:
    document["rows"][0]["largest"] = -1


def with_a_strange_finding(document: Any) -> None:
    document["findings"][0]["id"] = "something"


def with_a_title_as_diagnosis(document: Any) -> None:
    document["diagnosis"][0]["id"] = "Gate order"


def that_passes_with_a_failure(document: Any) -> None:
    document["verdict"] = "pass"


def that_fails_without_a_failure(document: Any) -> None:
    for finding in document["findings"]:
        finding["known"] = "as we know"


def that_errs_without_a_finding(document: Any) -> None:
    document["verdict"], document["findings"] = "error", []


@pytest.mark.parametrize(
    "spoilt",
    [
        with_more,
        with_more_in_a_row,
        without_bits,
        of_a_strange_dtype,
        with_a_null_error,
        with_a_negative_error,
        with_a_strange_finding,
        with_a_title_as_diagnosis,
        that_passes_with_a_failure,
        that_fails_without_a_failure,
        that_errs_without_a_finding,
    ],
)
def test_the_schema_refuses_a_report(spoilt: Callable[[Any], None]) -> None:
    document = written(failing_report())
    assert faults(document) == []
    spoilt(document)
    assert faults(document)


def test_the_published_schema_is_the_one_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--schema"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown == schema_text() == (ROOT / "docs" / "check.schema.json").read_text(encoding="utf-8")


# The terminal


@given(reports(), st.sampled_from([60, 100, 160]))
@settings(max_examples=60)
def test_nothing_of_a_report_steers_the_terminal(report: Report, width: int) -> None:
    shown = printed(report, width=width)
    assert {one for one in shown if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")} <= {"\n"}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_hostile_name_is_shown_as_it_is_written(terminal: bool) -> None:
    shown = printed(
        failing_report("\x1b]0;owned\x07\x1b[2J:swiglu [bold red]x[/] :smile: \u202eevil\r\n"), terminal=terminal
    )
    assert "\\x1b]0;owned\\x07\\x1b[2J:swiglu [bold red]x[/] :smile: \\u202eevil\\r\\n" in shown
    assert "\x1b]0" not in shown
    assert "\x1b[2J" not in shown


def test_a_lone_surrogate_of_a_file_name_can_be_printed() -> None:
    assert plain("\udcff.py:f").encode() == b"\\udcff.py:f"


def test_verdict_and_claim_come_first_and_the_diagnosis_last() -> None:
    shown = printed(failing_report())
    order = ["FAIL", "kernels.ops:swiglu", "swiglu, packed, gate_first", "d gate", "wrong-value", "Diagnosis:"]
    places = [shown.index(text) for text in [*order, "tail-underflow", "exp overflows below -88", "matched: 37"]]
    assert places == sorted(places)
    assert shown.rstrip().endswith("at: gate = -91.2, value = 1")


def test_a_report_that_passes_has_no_diagnosis() -> None:
    shown = printed(passing_report())
    assert shown.startswith("PASS")
    assert "Diagnosis" not in shown
    assert "all 65,536" in shown
    assert "all 10,000" not in printed(failing_report())


def test_a_failure_without_a_diagnosis_says_so() -> None:
    report = failing_report()
    report.diagnosis.clear()
    assert "no known mistake gives these results" in printed(report)


def test_a_row_is_known_where_all_that_is_wrong_there_is_known() -> None:
    report = failing_report()
    row = report.rows[0]
    known = [Finding(**{**vars(one), "known": "issue 12"}) for one in report.findings]
    assert row_verdict(report, row) == "fail"
    report.findings = known
    assert [row_verdict(report, one) for one in report.rows] == ["known", "known", "pass"]
    assert "known: issue 12" in printed(report)
    report.findings = [*known, Finding("zero-sign", FAILURE, "x", row.dtype, {"quantity": row.quantity})]
    assert row_verdict(report, row) == "fail"
    report.findings = []
    assert row_verdict(report, row) == "fail"


@pytest.mark.parametrize(
    ("error", "text"), [(0.50004, "0.5"), (0.5004, "0.5004"), (1.60512, "1.61"), (math.inf, "inf")]
)
def test_errors_in_three_digits(error: float, text: str) -> None:
    assert number(error) == text


# The command


class Checked:
    """In the place of `check`: gives what it is told to, and keeps what it was called with."""

    def __init__(self, outcome: Report | Exception) -> None:
        self.outcome = outcome
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *arguments: Any, **keywords: Any) -> Report:
        self.calls.append((arguments, keywords))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Callable[[Report | Exception], Checked]:
    def put(outcome: Report | Exception) -> Checked:
        checked = Checked(outcome)
        monkeypatch.setattr("gated.conformance.check", checked, raising=False)
        return checked

    return put


def no_rows() -> Report:
    report = passing_report()
    report.verdict, report.rows = "error", []
    report.findings = [Finding("hangs", FAILURE, "past 60 s")]
    return report


@pytest.mark.parametrize(("made", "status"), [(passing_report, 0), (failing_report, 1), (no_rows, 2)])
def test_the_exit_status_is_the_verdict(
    made: Callable[[], Report], status: int, outcome: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome(made())
    file = tmp_path / "report.json"
    assert main(["check", "kernels.ops:swiglu", "--as", "swiglu", "--json", str(file)]) == status
    shown = capsys.readouterr()
    assert {0: "PASS", 1: "FAIL", 2: "ERROR"}[status] in shown.out
    assert shown.err == ""
    assert json.loads(file.read_text()) == as_json(made())


@pytest.mark.parametrize(
    "error",
    [TargetError("x.py:f: x.py: no such file\x1b[2J"), ModuleNotFoundError("jax is not installed", name="jax")],
)
def test_a_target_that_does_not_load_is_one_line_and_a_report(
    error: Exception, outcome: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome(error)
    file, page = tmp_path / "report.json", tmp_path / "report.html"
    command = ["check", "x.py:f", "--as", "gelu", "--approximate", "tanh", "--json", str(file), "--html", str(page)]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"gated check: {plain(str(error))}\n"
    document = json.loads(file.read_text())
    assert faults(document) == []
    assert (document["verdict"], document["claim"]) == ("error", "gelu, unary, activation gelu_tanh")
    assert [(one["id"], one["text"]) for one in document["findings"]] == [("not-loaded", str(error))]
    assert "not-loaded" in page.read_text()


def test_a_module_of_ours_that_is_missing_is_no_target_that_does_not_load(outcome: Any, tmp_path: Path) -> None:
    outcome(ModuleNotFoundError("No module named 'gated.nothing'", name="gated.nothing"))
    file = tmp_path / "report.json"
    assert main(["check", "x.py:f", "--as", "gelu", "--json", str(file)]) == 2
    assert not file.exists()


def test_what_check_refuses_is_wrong_usage(outcome: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome(LedgerError("known.toml: entry 1: reason is missing"))
    assert main(["check", "x.py:f", "--as", "gelu", "--ledger", "known.toml", "--json", str(tmp_path / "r.json")]) == 2
    assert capsys.readouterr().err == "gated check: known.toml: entry 1: reason is missing\n"
    assert list(tmp_path.iterdir()) == []


def test_every_option_reaches_check(outcome: Any) -> None:
    checked = outcome(passing_report())
    claim = "--as clamped_swiglu --form packed --layout interleaved --axis 0 --alpha 1.5 --limit 6 --offset 0.5"
    running = "--framework torch --device cpu --dtypes float32,bfloat16 --gradient x.py:g --no-gradients"
    rest = "--require double-backward,gradient --profile field --budget full --seed 7 --timeout 2.5 --ledger known.toml"
    assert main(["check", "x.py:f", *f"{claim} {running} {rest}".split()]) == 0
    ((arguments, keywords),) = checked.calls
    assert arguments == ("x.py:f", "clamped_swiglu")
    assert keywords == {
        "form": "packed",
        "layout": "interleaved",
        "axis": 0,
        "activation": None,
        "approximate": None,
        "beta": None,
        "alpha": 1.5,
        "limit": 6.0,
        "offset": 0.5,
        "bias": False,
        "framework": "torch",
        "gradient": "x.py:g",
        "dtypes": ("float32", "bfloat16"),
        "device": "cpu",
        "require": ("double-backward", "gradient"),
        "seed": 7,
        "budget": "full",
        "profile": "field",
        "ledger": Path("known.toml"),
        "timeout": 2.5,
        "gradients": False,
        "progress": None,
    }


@pytest.mark.parametrize(("given", "beta"), [("-1.5", -1.5), ("vector", "vector")])
def test_beta_is_a_number_or_how_it_is_handed_over(given: str, beta: float | str, outcome: Any) -> None:
    checked = outcome(passing_report())
    assert main(["check", "x.py:f", "--as", "gated_ffn", "--activation", "swish", "--bias", f"--beta={given}"]) == 0
    keywords = checked.calls[0][1]
    assert (keywords["beta"], keywords["activation"], keywords["bias"]) == (beta, "swish", True)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--as", "swigloo"],
        ["--as", "swiglu", "--beta", "big"],
        ["--as", "swiglu", "--beta", "nan"],
        ["--as", "swiglu", "--timeout", "0"],
        ["--as", "swiglu", "--timeout", "inf"],
        ["--as", "swiglu", "--dtypes", "float8"],
        ["--as", "swiglu", "--require", "more"],
        ["--as", "swiglu", "--seed", "-1"],
        [],
    ],
)
def test_wrong_usage_is_refused_before_the_work(wrong: list[str], outcome: Any) -> None:
    checked = outcome(passing_report())
    with pytest.raises(SystemExit) as ended:
        main(["check", "x.py:f", *wrong])
    assert ended.value.code == 2
    assert not checked.calls


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    option: str, outcome: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = outcome(passing_report())
    assert main(["check", "x.py:f", "--as", "swiglu", option, str(tmp_path / "no" / "report")]) == 2
    assert f"gated check: {option}: " in capsys.readouterr().err
    assert not checked.calls


@pytest.mark.parametrize("package", ["jinja2", "plotly"])
def test_a_missing_package_of_the_page_is_named_before_the_work(
    package: str, outcome: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = outcome(passing_report())
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else find(name, *more))
    assert main(["check", "x.py:f", "--as", "swiglu", "--html", str(tmp_path / "report.html")]) == 2
    shown = capsys.readouterr().err
    assert package in shown
    assert "gated[report]" in shown
    assert not checked.calls
    assert main(["check", "x.py:f", "--as", "swiglu"]) == 0
