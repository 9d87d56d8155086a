"""The ledger of known deviations: what it excuses, how far, and that its entries fail when nothing deviates."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gated.conformance.grading.finding_ids import FINDING_IDS
from gated.conformance.grading.ledger import Deviation, Ledger, LedgerError, key
from gated.conformance.grading.report import ABSENT, FAILURE, NOTE, Finding, Row
from gated.contract import DTYPES

ENTRY = """
[[deviation]]
id = "wrong-value/float16/value"
reason = "rounded twice"
link = "https://example.com/1"
ulp = 1.5
"""


def ledger(*entries: Deviation) -> Ledger:
    return Ledger("known.toml", entries)


def row(dtype: str = "float16", quantity: str = "value", error: float = 1.5) -> Row:
    return Row(dtype, quantity, 100, False, 1, error, 0.51, error, {}, {}, "1", "2")


def wrong(error: float = 1.5, dtype: str = "float16", quantity: str = "value") -> Finding:
    return Finding("wrong-value", FAILURE, "value: 1 of 100", dtype, {"quantity": quantity, "error": error})


def entry(globs: str, ulp: float | None = None, **more: str) -> Deviation:
    return Deviation(1, globs, "we know", ulp=ulp, **more)


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "known.toml"
    file.write_text(ENTRY + '[[deviation]]\nid = "noise"\nreason = "warns"\ntarget = "*:swiglu"\n')
    known = Ledger.read(file)
    assert known.name == str(file)
    assert known.deviations == (
        Deviation(1, "wrong-value/float16/value", "rounded twice", "https://example.com/1", 1.5, "*"),
        Deviation(2, "noise", "warns", "", None, "*:swiglu"),
    )
    (finding,) = known.apply([wrong()], [row()], target="x.py:gelu")
    assert finding.known == "rounded twice (https://example.com/1)"
    assert finding.severity == FAILURE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[deviation]\n", "not TOML"),
        ("[deviation]\nid = 'noise'\n", r"expected each entry to begin with \[\[deviation\]\]"),
        ("deviation = [1]\n", r"expected each entry to begin with \[\[deviation\]\]"),
        ("[[deviations]]\n", r"expected \[\[deviation\]\] entries and nothing else, got 'deviations'"),
        (ENTRY + "[[deviation]]\nreason = 'x'\n", "entry 2: id is missing"),
        ("[[deviation]]\nid = 'noise'\n", "entry 1: reason is missing"),
        ("[[deviation]]\nid = 'noise'\nreason = ' '\n", "entry 1: reason must be a text that is not empty, got ' '"),
        ("[[deviation]]\nid = 3\nreason = 'x'\n", "entry 1: id must be a text that is not empty, got 3"),
        (ENTRY + "why = 'x'\n", "entry 1: why is unknown; expected id, reason, link, ulp, target"),
        (
            ENTRY.replace("https:", "ftp:"),
            "entry 1: link must begin with https:// or http://, got 'ftp://example.com/1'",
        ),
        (ENTRY.replace("1.5", "-1"), "entry 1: ulp must be a number of at least 0, or inf, got -1"),
        (ENTRY.replace("1.5", "nan"), "entry 1: ulp must be a number of at least 0, or inf, got nan"),
        (ENTRY.replace("1.5", "true"), "entry 1: ulp must be a number of at least 0, or inf, got True"),
        (
            ENTRY.replace("wrong-value", "wrong-valeu"),
            "entry 1: id: 'wrong-valeu' matches no finding id; these are wrong-v",
        ),
        (ENTRY.replace("float16", "half"), "entry 1: id: 'half' matches no dtype; these are float16, bfloat16"),
        (
            ENTRY.replace("16/value", "16/value/x"),
            "entry 1: id must be FINDING-ID/DTYPE/QUANTITY, got 'wrong-value/float16",
        ),
    ],
)
def test_a_file_that_is_wrong_is_refused(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "known.toml"
    file.write_text(text)
    with pytest.raises(LedgerError, match=told) as raised:
        Ledger.read(file)
    assert str(raised.value).startswith(str(file))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"no\.toml: No such file"):
        Ledger.read(tmp_path / "no.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(LedgerError, match=r"bytes\.toml: not TOML"):
        Ledger.read(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("globs", "matches"),
    [
        ("wrong-value", True),
        ("wrong-value/float16", True),
        ("wrong-value/float16/value", True),
        ("wrong-*/*16/*", True),
        ("*", True),
        ("wrong-value/bfloat16", False),
        ("wrong-value/float16/d value", False),
        ("wrong", False),
    ],
)
def test_each_part_of_an_id_is_a_glob(globs: str, matches: bool) -> None:
    assert entry(globs).matches(wrong()) is matches


def test_what_a_finding_has_not_is_a_star_of_its_key() -> None:
    assert key(Finding("noise", FAILURE, "x")) == "noise/*/*"
    assert key(wrong()) == "wrong-value/float16/value"
    assert entry("noise/float16").matches(Finding("noise", FAILURE, "x")) is False


@given(st.sampled_from(list(FINDING_IDS)), st.sampled_from(["", *DTYPES]), st.sampled_from(["value", "d x", "*"]))
def test_a_finding_matches_its_own_key(kind: str, dtype: str, quantity: str) -> None:
    finding = Finding(kind, FAILURE, "x", dtype, {"quantity": quantity})
    assert entry(key(finding)).matches(finding)


@given(st.floats(0.51, 1e30), st.floats(0, 1e30))
def test_an_error_is_known_up_to_the_entry_s(error: float, ulp: float) -> None:
    (finding,) = ledger(entry("wrong-value", ulp)).apply([wrong(error)], [row(error=error)])
    assert bool(finding.known) is (error <= ulp * 1.005)


@given(st.floats(0.51, 1e30))
def test_an_error_copied_from_the_report_in_three_digits_is_known(error: float) -> None:
    (finding,) = ledger(entry("wrong-value", float(f"{error:.3g}"))).apply([wrong(error)], [row(error=error)])
    assert finding.known == "we know"


def test_a_larger_error_stays_a_failure_and_says_why() -> None:
    (finding,) = ledger(entry("wrong-value", 1.4)).apply([wrong(1.5)], [row()])
    assert finding.known == ""
    assert finding.text.endswith("known.toml has it with 1.4 ulp, and it is 1.5 ulp")
    (finding,) = ledger(entry("wrong-value")).apply([wrong(1.5)], [row()])
    assert finding.text.endswith("known.toml has it with no ulp, and it is 1.5 ulp")


def test_a_wrong_class_needs_an_infinite_ulp() -> None:
    assert not ledger(entry("wrong-value", 1e300)).apply([wrong(math.inf)], [row(error=math.inf)])[0].known
    assert ledger(entry("wrong-value", math.inf)).apply([wrong(math.inf)], [row(error=math.inf)])[0].known


def test_the_error_of_a_finding_without_one_is_its_row_s() -> None:
    finding = Finding("wrong-gradient", FAILURE, "x", "float16", {"quantity": "d x"})
    rows = [row(error=100.0), row(quantity="d x", error=9.0), row("float32", "d x", 50.0)]
    assert ledger(entry("wrong-gradient", 9.0)).apply([finding], rows)[0].known
    assert not ledger(entry("wrong-gradient", 8.0)).apply([finding], rows)[0].known


def test_the_error_of_a_finding_is_its_own_and_not_its_row_s() -> None:
    rows = [row(error=math.inf)]  # a class is wrong there, too, which has a finding of its own
    assert ledger(entry("wrong-value", 1.5)).apply([wrong(1.5)], rows)[0].known


@pytest.mark.parametrize("kind", sorted(set(FINDING_IDS) - {"wrong-value", "wrong-gradient"}))
def test_the_other_findings_need_no_ulp(kind: str) -> None:
    (finding,) = ledger(entry(kind)).apply([Finding(kind, FAILURE, "x")], [])
    assert finding.known == "we know"


@pytest.mark.parametrize("severity", [NOTE, ABSENT])
def test_what_is_no_failure_stays_as_it_is_and_keeps_its_entry(severity: str) -> None:
    note = Finding("forward-mode-absent", severity, "none", "float16")
    assert ledger(entry("forward-mode-absent")).apply([note], [row()]) == [note]


def test_an_entry_that_matches_nothing_is_a_failure() -> None:
    stale, fresh = Deviation(2, "noise", "it warned"), entry("wrong-value", 2.0)
    first, second = ledger(fresh, stale).apply([wrong()], [row()])
    assert first.known
    assert (second.id, second.severity, second.known) == ("ledger-stale", FAILURE, "")
    assert second.text == "known.toml: entry 2, noise: nothing that was found matches it: take it out"
    assert second.evidence["entry"] == 2


def test_an_entry_with_too_small_an_ulp_is_not_stale() -> None:
    assert [one.id for one in ledger(entry("wrong-value", 1.0)).apply([wrong()], [row()])] == ["wrong-value"]


def test_no_entry_excuses_a_stale_one() -> None:
    found = ledger(entry("noise"), entry("ledger-*")).apply([], [row()])
    assert [(one.id, one.known) for one in found] == [("ledger-stale", "")] * 2


def test_an_entry_of_what_was_not_graded_is_not_stale() -> None:
    of_bfloat16, of_gradients = entry("wrong-value/bfloat16", 2.0), entry("wrong-gradient/*/d *", 2.0)
    values = [row()]
    assert ledger(of_bfloat16, of_gradients).apply([], values) == []
    assert len(ledger(of_bfloat16, of_gradients).apply([], [*values, row("bfloat16", "d gate")])) == 2
    assert ledger(entry("noise")).apply([], []) == [], "nothing was graded at all"


def test_an_entry_is_for_its_targets() -> None:
    known = ledger(entry("wrong-value", 2.0, target="*/kernels.py:swiglu"))
    assert known.apply([wrong()], [row()], target="my/kernels.py:swiglu")[0].known
    assert known.apply([wrong()], [row()], target="my/kernels.py:geglu") == [wrong()]
    assert known.apply([], [row()], target="my/kernels.py:geglu") == []
    assert known.apply([], [row()], target="my/kernels.py:swiglu")[0].id == "ledger-stale"


def test_of_several_entries_the_widest_counts() -> None:
    known = ledger(entry("wrong-*", 1.0), Deviation(2, "wrong-value/float16", "the second", ulp=2.0))
    (finding,) = known.apply([wrong()], [row()])
    assert finding.known == "the second"
