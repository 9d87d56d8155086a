"""`gated check` as tests in another project: which there are, which fail and with what text, and that it runs once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from _check_report import failing_report

from gated.conformance.grading.document import as_json
from gated.conformance.grading.report import ABSENT, FAILURE, NOTE, Finding, Report, Row
from gated.conformance.pytest_plugin import conformance

pytest_plugins = ["pytester"]

USE = """
from gated.conformance.pytest_plugin import conformance

test_swiglu = conformance("kernels.ops:swiglu", "swiglu", layout="gate_first", dtypes=["float16", "float32"])
"""

# In the place of `check`: a line in a file for each run, and the report in another.
CONFTEST = """
import json, time
from pathlib import Path
import gated.conformance
from gated.conformance.grading.document import from_json

HERE = Path(__file__).parent

def check(target, function, **options):
    with (HERE / "runs.txt").open("a") as runs:
        print(target, function, sorted(options), file=runs)
    time.sleep(0.3)
    return from_json(json.loads((HERE / "report.json").read_text()))

gated.conformance.check = check
"""


@pytest.fixture
def stranger(pytester: pytest.Pytester) -> Callable[[Report], pytest.Pytester]:
    """Another project, whose check gives the report."""

    def put(report: Report, test: str = USE) -> pytest.Pytester:
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test)
        (pytester.path / "report.json").write_text(json.dumps(as_json(report)))
        return pytester

    return put


def runs(pytester: pytest.Pytester) -> list[str]:
    return (pytester.path / "runs.txt").read_text().splitlines()


def whole() -> Report:
    """The failing report with a row for every item that is asked for."""
    report = failing_report()
    (value, gate, half) = report.rows
    right = Row("float32", "d value", 100, False, 0, 1.0, 8.0, 1.0, {}, {}, "", "")
    halves = [Row(**{**vars(half), "quantity": quantity}) for quantity in ("d gate", "d value")]
    report.rows = [half, *halves, value, gate, right]
    return report


def test_there_is_a_test_for_each_dtype_and_quantity(stranger: Callable[[Report], pytest.Pytester]) -> None:
    result = stranger(whole()).runpytest_subprocess("-v", "-p", "no:xdist")
    result.assert_outcomes(passed=7, failed=2)
    quantities = ("value", "d-gate", "d-value", "behaviour")
    names = [f"{dtype}-{quantity}" for dtype in ("float16", "float32") for quantity in quantities] + ["target"]
    bad = ("float32-value", "float32-d-gate")
    result.stdout.fnmatch_lines(
        [f"*::test_swiglu[[]{name}[]] {'FAILED' if name in bad else 'PASSED'}*" for name in names], consecutive=True
    )


def test_a_failure_shows_what_was_found_and_the_diagnosis(stranger: Callable[[Report], pytest.Pytester]) -> None:
    result = stranger(whole()).runpytest_subprocess("-p", "no:xdist", "-k", "float32-value")
    result.assert_outcomes(failed=1, deselected=8)
    result.stdout.fnmatch_lines(
        [
            "kernels.ops:swiglu as swiglu, packed, gate_first (contract), float32 value",
            "wrong-value: value: 37 of 10,000",
            "37 of 10,000 inputs past their bound: 1.61e+07 ulp where 5 is allowed, at gate = -91.2, *got -0, *",
            "diagnosis tail-underflow: exp overflows below -88 (matched = 37, of = 37, at = gate = -91.2, value = 1)",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "pytest_plugin.py" not in result.stdout.str()


def test_the_check_runs_once(stranger: Callable[[Report], pytest.Pytester]) -> None:
    pytester = stranger(whole())
    pytester.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=7, failed=2)
    assert runs(pytester) == ["kernels.ops:swiglu swiglu ['dtypes', 'gradients', 'layout']"]
    pytester.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=7, failed=2)
    assert len(runs(pytester)) == 2, "and again in the next session"


def test_the_check_runs_once_for_all_workers(stranger: Callable[[Report], pytest.Pytester]) -> None:
    pytest.importorskip("xdist")
    other = USE + 'test_geglu = conformance("kernels.ops:geglu", "geglu", dtypes=["float32"])\n'
    pytester = stranger(whole(), other)
    pytester.runpytest_subprocess("-n", "3", "--dist=load").assert_outcomes(passed=7 + 3, failed=2 + 2)
    assert sorted(run.split()[0] for run in runs(pytester)) == ["kernels.ops:geglu", "kernels.ops:swiglu"]
    pytester.runpytest_subprocess("-n", "3", "--dist=load").assert_outcomes(passed=7 + 3, failed=2 + 2)
    assert len(runs(pytester)) == 4, "and again in the next session"


def outcomes(pytester: pytest.Pytester) -> dict[str, str]:
    """By item, what became of it."""
    shown = pytester.runpytest_subprocess("-v", "-p", "no:xdist").stdout.str()
    return dict(re.findall(r"::test_swiglu\[(.*)\] (PASSED|FAILED|SKIPPED)", shown))


@pytest.mark.parametrize(
    ("finding", "item"),
    [
        (Finding("wrong-value", FAILURE, "x", "float16", {"quantity": "value"}), "float16-value"),
        (Finding("wrong-gradient", FAILURE, "x", "float16", {"quantity": "d gate"}), "float16-d-gate"),
        (Finding("double-backward-wrong", FAILURE, "x", "float16", {"quantity": "gate"}), "float16-d-gate"),
        (Finding("depends-on-strides", FAILURE, "x", "float16"), "float16-behaviour"),
        (Finding("raises", FAILURE, "x", "float16", {"quantity": "empty"}), "float16-behaviour"),
        (Finding("noise", FAILURE, "x"), "target"),
        (Finding("noise", FAILURE, "x", "", {"quantity": "value"}), "target"),
        (Finding("wrong-value", FAILURE, "x", "float64", {"quantity": "value"}), "target"),
        (Finding("wrong-value", FAILURE, "x", "float16", {"quantity": "value"}, "known"), ""),
        (Finding("raises", NOTE, "x", "float16"), ""),
    ],
)
def test_every_failure_is_told_by_one_test(
    finding: Finding, item: str, stranger: Callable[[Report], pytest.Pytester]
) -> None:
    report = whole()
    report.rows = [Row(**{**vars(row), "failing": 0}) for row in report.rows]
    report.findings = [finding]
    report.verdict = "fail" if item else "pass"
    failed = [name for name, outcome in outcomes(stranger(report)).items() if outcome == "FAILED"]
    assert failed == ([item] if item else [])


def test_a_row_past_its_bound_fails_where_the_ledger_does_not_have_it(
    stranger: Callable[[Report], pytest.Pytester],
) -> None:
    report = whole()
    report.findings = [Finding("wrong-value", FAILURE, "x", "float32", {"quantity": "value"}, "known")]
    told = outcomes(stranger(report))
    assert (told["float32-value"], told["float32-d-gate"]) == ("PASSED", "FAILED")


def test_what_was_not_graded_fails(stranger: Callable[[Report], pytest.Pytester]) -> None:
    report = whole()
    report.rows, report.verdict = [row for row in report.rows if row.quantity != "d value"], "pass"
    report.findings = []
    pytester = stranger(report)
    told = outcomes(pytester)
    assert (told["float16-value"], told["float16-d-value"]) == ("PASSED", "FAILED")
    result = pytester.runpytest_subprocess("-p", "no:xdist", "-k", "float16-d-value")
    result.stdout.fnmatch_lines(["it was not graded"])


def test_gradients_that_the_target_need_not_have_are_skipped(stranger: Callable[[Report], pytest.Pytester]) -> None:
    report = whole()
    report.rows = [row for row in report.rows if row.quantity == "value" and not row.failing]
    report.findings, report.verdict = [Finding("gradient-absent", ABSENT, "numpy has none")], "pass"
    pytester = stranger(report, USE.replace(', "float32"', ""))
    told = outcomes(pytester)
    assert [told[f"float16-{name}"] for name in ("value", "d-gate", "d-value")] == ["PASSED", "SKIPPED", "SKIPPED"]
    pytester.runpytest_subprocess("-p", "no:xdist", "-rs").stdout.fnmatch_lines(["SKIPPED*no gradient: numpy has none"])
    report.findings, report.verdict = [Finding("gradient-absent", FAILURE, "numpy has none")], "fail"
    assert outcomes(stranger(report, USE.replace(', "float32"', "")))["float16-d-gate"] == "FAILED"


def test_a_target_that_does_not_load_fails_every_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USE)
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    result.assert_outcomes(failed=9)
    assert "Traceback" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*swiglu, packed, gate_first (contract), target", "not-loaded: *kernels*"])


def test_gradients_can_be_left_out(stranger: Callable[[Report], pytest.Pytester]) -> None:
    test = USE.replace('dtypes=["float16", "float32"]', 'dtypes=["float16"], gradients=False')
    report = whole()
    report.rows = report.rows[:1]
    assert list(outcomes(stranger(report, test))) == ["float16-value", "float16-behaviour", "target"]


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"function": "swigloo"}, ValueError, "check: function must be one of"),
        ({"function": "silu", "layout": "gate_first"}, ValueError, "layout does not go with silu"),
        ({"function": "silu", "dtypes": ["float8"]}, ValueError, "conformance: dtypes must be of float16"),
    ],
)
def test_a_wrong_claim_is_refused_where_it_is_made(
    options: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        conformance("x.py:f", **options)  # type: ignore[arg-type]


def test_a_ledger_that_cannot_be_read_is_told_without_a_traceback(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USE.replace("layout=", 'ledger="nowhere.toml", layout='))
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    result.assert_outcomes(failed=9)
    result.stdout.fnmatch_lines(["nowhere.toml: No such file or directory"])


def test_an_implementation_is_graded_in_five_lines(pytester: pytest.Pytester) -> None:
    """The whole, with nothing in the place of anything: a NumPy swiglu with its halves swapped, and a right one."""
    pytester.makepyfile(
        kernels="""
        import numpy as np

        def glu(x):
            a, b = np.split(x, 2, axis=-1)
            return a / (1 + np.exp(-b.astype(np.float64))).astype(x.dtype)
        """
    )
    pytester.makepyfile(
        """
        from gated.conformance.pytest_plugin import conformance

        common = {"dtypes": ["float32"], "gradients": False, "profile": "field"}
        test_right = conformance("kernels.py:glu", "glu", layout="gate_last", **common)
        test_wrong = conformance("kernels.py:glu", "glu", layout="gate_first", **common)
        """
    )
    result = pytester.runpytest_subprocess("-v", "-p", "no:xdist")
    result.stdout.fnmatch_lines(
        ["*::test_right[[]float32-value[]] PASSED*", "*::test_wrong[[]float32-value[]] FAILED*"]
    )
    result.stdout.fnmatch_lines(["diagnosis gate-order: *"])
