"""The page of what the sweeps found: it is written from the result files in the repository, and says what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from gated import cli
from gated.conformance.sweeps.catalogue import SWEEPS
from gated.conformance.sweeps.page import pictured, read_folder
from gated.conformance.sweeps.pictures import draw

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "accuracy"
PAGE = ROOT / "docs" / "accuracy.md"


def test_the_page_is_what_the_results_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["accuracy", "page", "--results", str(RESULTS)]
    assert cli.main([*arguments, "--out", str(PAGE), "--check"]) == 0
    other = tmp_path / "accuracy.md"
    other.write_text(PAGE.read_text().replace(" 0.500000 ", " 0.400000 ", 1))
    assert cli.main([*arguments, "--out", str(other), "--check"]) == 1
    assert "accuracy.md is not what" in capsys.readouterr().out


def test_no_bound_of_the_contract_is_missed() -> None:
    results = read_folder(RESULTS)
    assert results
    for result in results:
        assert set(result.tallies) == set(result.sweep.quantities)
        for quantity, tally in result.tallies.items():
            assert (tally.failing, tally.share <= 1) == (0, True), (result.header.name(), quantity)


def test_what_the_issue_asks_for_is_there() -> None:
    there = {(result.header.sweep, result.header.backend) for result in read_folder(RESULTS)}
    small = [name for name, sweep in SWEEPS.items() if sweep.inputs == 2**16]
    for name in ("swish-float32", "swiglu-bfloat16", *small):
        assert {(name, backend) for backend in ("numpy", "torch", "jax")} <= there


def test_a_row_of_the_page_is_a_quantity_of_a_result() -> None:
    rows = re.findall(r"^\| `.*\| (?:exhaustive) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert len(rows) == sum(len(result.tallies) for result in read_folder(RESULTS))


def test_a_page_is_written_with_its_pictures(tmp_path: Path) -> None:
    assert cli.main(["accuracy", "page", "--results", str(RESULTS), "--out", str(tmp_path / "a.md")]) == 0
    pictures = re.findall(r"\]\((figures/accuracy-[\w-]+\.png)\)", (tmp_path / "a.md").read_text())
    assert pictures
    for picture in pictures:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_picture_has_each_bound_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of value and derivative: 0.51 of the reference, 5 and 8 of both frameworks, also where one of them is alone."""
    drawn: list[float] = []
    monkeypatch.setattr(Axes, "axhline", lambda self, bound, **style: drawn.append(bound))
    results = pictured(read_folder(RESULTS))["swish-float32"]
    assert len(results) == 3
    draw(results, tmp_path / "all.png")
    assert sorted(drawn) == [0.51, 0.51, 5, 8]
    for backend, bounds in (("jax", [5, 8]), ("torch", [5, 8]), ("numpy", [0.51, 0.51])):
        drawn.clear()
        draw([one for one in results if one.header.backend == backend], tmp_path / "one.png")
        assert drawn == bounds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["page", "--results", "nowhere"], "--results: nowhere is not a folder"),
        (["merge", "nothing.jsonl", "--results", "r"], "nothing.jsonl: No such file or directory"),
    ],
)
def test_wrong_usage_exits_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["accuracy", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_shards_are_merged_by_the_command(tmp_path: Path) -> None:
    shared = ["validate", "--exhaustive", "--functions", "relu", "--dtypes", "bfloat16", "--backends", "numpy"]
    for shard in ("1/2", "2/2"):
        assert cli.main([*shared, "--shard", shard, "--results", str(tmp_path)]) == 0
    journals = sorted(map(str, tmp_path.glob("*.jsonl")))
    assert cli.main(["accuracy", "merge", journals[0], "--results", str(tmp_path)]) == 2
    assert not list(tmp_path.glob("*.json"))
    assert cli.main(["accuracy", "merge", *journals, "--results", str(tmp_path)]) == 0
    (result,) = read_folder(tmp_path)
    assert result.tallies["value"].error == 0
