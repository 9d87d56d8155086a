"""Journals of sweeps: what is killed goes on, what is cut short or changed is reported, shards add up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gated import cli
from gated.conformance.sweeps.catalogue import SWEEPS
from gated.conformance.sweeps.journal import Header, Journal, JournalError, by_result, merge, read_result
from gated.conformance.sweeps.tally import Tally

SWEEP = "relu-float16"
UNITS = SWEEPS[SWEEP].units


def header(**changes: Any) -> Header:
    return replace(Header(SWEEP, "numpy", "cpu", {"numpy": "2.4.6"}, "c0de"), **changes)


def tallies(unit: int) -> dict[str, Tally]:
    return {
        name: Tally(0.25 + unit / 64, unit << 14, 0.5 + unit / 64, unit << 14, unit, 2 * unit, 2.0**-40)
        for name in SWEEPS[SWEEP].quantities
    }


def journal(path: Path, head: Header | None = None, *, units: int | None = None) -> Path:
    written = Journal(path, head or header())
    for unit in written.remaining[:units]:
        written.add(unit, 0.5, tallies(unit))
    return path


tally_parts = st.builds(
    Tally,
    error=st.floats(0, 1e6) | st.just(np.inf),
    at=st.integers(0, 2**32 - 1),
    share=st.floats(0, 1e6),
    share_at=st.integers(0, 2**32 - 1),
    failing=st.integers(0, 2**20),
    past_half=st.integers(0, 2**20),
    unsure=st.floats(0, 1e-6),
)


@given(parts=st.lists(tally_parts, max_size=5))
def test_tallies_add_up(parts: list[Tally]) -> None:
    total = Tally.sum(parts)
    assert total.error == max((part.error for part in parts), default=0.0)
    assert total.failing == sum(part.failing for part in parts)
    assert total.past_half == sum(part.past_half for part in parts)
    assert any((total.error, total.at) == (part.error, part.at) for part in parts) or total.error == 0
    assert Tally.from_json(json.loads(json.dumps(total.as_json(), allow_nan=False))) == total


@given(
    errors=st.lists(st.floats(0, 100) | st.just(np.inf), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=3),
)
def test_a_tally_is_the_same_however_the_inputs_are_cut(errors: list[float], cuts: list[int]) -> None:
    array, at = np.array(errors), np.arange(len(errors))
    whole = Tally()
    whole.add(array, at, 2.0)
    parts = []
    for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), len(errors)], strict=True):
        parts.append(Tally())
        parts[-1].add(array[low:high], at[low:high], 2.0)
    assert Tally.sum(parts) == whole


# Going on, and adding up


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    result = merge([journal(tmp_path / "a.jsonl")])
    path = result.write(tmp_path)
    assert path.name == "relu-float16.numpy.json"
    again = read_result(path)
    assert (again.tallies, again.header, again.date) == (result.tallies, result.header, result.date)
    assert again.write(tmp_path / "..").read_bytes() == path.read_bytes()
    assert result.tallies["value"].error == 0.25 + (UNITS - 1) / 64
    assert result.tallies["value"].failing == sum(range(UNITS))


def test_shards_add_up_to_the_whole(tmp_path: Path) -> None:
    whole = merge([journal(tmp_path / "whole.jsonl")])
    shards = [journal(tmp_path / f"{i}.jsonl", header(shard=(i, 3))) for i in (3, 1, 2)]
    assert replace(merge(shards), date=whole.date) == whole


def test_journals_belong_to_the_result_of_their_name() -> None:
    shards = [Path(f"{header(shard=(i, 12)).name()}.jsonl") for i in (1, 2, 11)]
    whole = Path(f"{header(backend='torch').name()}.jsonl")
    groups = by_result([shards[1], whole, shards[2], shards[0]])
    assert groups.keys() == {header().name(), header(backend="torch").name()}
    assert set(groups[header().name()]) == set(shards)
    assert groups[header(backend="torch").name()] == [whole]


@settings(max_examples=30)
@given(cut=st.integers(1, 400))
def test_a_journal_cut_anywhere_in_its_last_line_goes_on(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = journal(folder / "whole.jsonl").read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    torn = folder / "torn.jsonl"
    torn.write_bytes(whole[: -min(cut, len(last) - 1)])
    with pytest.raises(JournalError, match=r"torn\.jsonl: the last line was cut short"):
        merge([torn])
    resumed = Journal(torn, header())
    assert resumed.remaining == [UNITS - 1]
    assert "cut short" in resumed.dropped
    resumed.add(UNITS - 1, 0.5, tallies(UNITS - 1))
    assert torn.read_bytes() == whole


@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_bit_is_never_merged(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = journal(tmp_path_factory.mktemp("bit") / "bit.jsonl")
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"bit\.jsonl"):
        merge([path])


def test_a_changed_result_is_never_read(tmp_path: Path) -> None:
    path = merge([journal(tmp_path / "a.jsonl")]).write(tmp_path)
    text = path.read_text()
    path.write_text(text.replace('"failing": 6', '"failing": 0'))
    with pytest.raises(JournalError, match=r"json: its content is not what its sha256 says"):
        read_result(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(JournalError, match=r"json: not JSON, or cut short"):
        read_result(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-1], "1 of 4 units are missing, the first is 3"),
        (lambda lines: [*lines, lines[-1]], "line 6: unit 3 is recorded twice"),
        (lambda lines: [lines[1], *lines[1:]], "not the journal of a sweep"),
        (lambda lines: [], "cut short|no journal|empty"),
    ],
)
def test_what_is_not_whole_is_not_merged(tmp_path: Path, damage: Any, message: str) -> None:
    path = journal(tmp_path / "a.jsonl")
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(JournalError, match=message):
        merge([path])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "jax"}, "backend 'jax', not 'numpy'"),
        ({"versions": {"numpy": "2.5.0"}}, "versions {'numpy': '2.5.0'}"),
        ({"code": "0ther"}, "code '0ther'"),
        ({"shard": (2, 4)}, "a shard of 4, not of 2"),
        ({"shard": (1, 2)}, "unit 0 is recorded twice"),
    ],
)
def test_shards_of_different_sweeps_do_not_mix(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    first = journal(tmp_path / "first.jsonl", header(shard=(1, 2)))
    other = journal(tmp_path / "other.jsonl", header(**({"shard": (2, 2)} | changes)))
    with pytest.raises(JournalError, match=r"other\.jsonl: ") as error:
        merge([first, other])
    assert message in str(error.value)


def test_a_sweep_does_not_go_on_with_other_code(tmp_path: Path) -> None:
    path = journal(tmp_path / "a.jsonl", units=2)
    with pytest.raises(JournalError, match="code 'n3w', not 'c0de': remove the file to begin anew"):
        Journal(path, header(code="n3w"))


def test_a_unit_is_recorded_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    journal(path, units=1)
    with pytest.raises(ValueError, match="unit 0 is recorded already"):
        Journal(path, header()).add(0, 0.5, tallies(0))


# The command


SHARD = ["--exhaustive", "--functions", "sigmoid", "--dtypes", "float32", "--backends", "numpy", "--shard", "7/512"]


def units(path: Path) -> dict[int, Any]:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    assert len({line["unit"] for line in lines}) == len(lines)
    return {line["unit"]: line["quantities"] for line in lines}


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds a process's children in /proc")
def test_a_killed_sweep_goes_on_without_losing_or_repeating_a_unit(tmp_path: Path) -> None:
    path = tmp_path / "killed" / "sigmoid-float32.numpy.shard-7-of-512.jsonl"
    command = [sys.executable, "-m", "gated.cli", "validate", *SHARD, "--jobs", "2", "--results", str(path.parent)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b"\n") < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
        workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    finally:
        process.kill()
        process.wait()
    # Its processes end, too.
    assert workers
    while any(Path(f"/proc/{pid}/stat").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = units(path) if path.read_bytes().endswith(b"\n") else {}
    assert len(before) < 8
    assert subprocess.run(command, stderr=subprocess.PIPE, check=False).returncode == 0
    after = units(path)
    assert list(after)[: len(before)] == list(before)
    assert cli.main(["validate", *SHARD, "--jobs", "1", "--results", str(tmp_path / "whole")]) == 0
    assert after == units(tmp_path / "whole" / path.name)


def test_an_exhaustive_run_writes_results_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["validate", "--exhaustive", "--functions", "relu", "--dtypes", "float16", "--results", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert "relu-float16" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.json")} == {
        f"relu-float16.{b}.json" for b in ("numpy", "torch", "jax")
    }
    journals = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    assert cli.main(arguments) == 0
    assert journals == {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "3/2"], "must be I/N with 1 <= I <= N, got '3/2'"),
        (["--shard", "0/2"], "must be I/N"),
        (["--functions", "bilinear"], "no sweep has these functions and dtypes"),
        (["--json", "x.json"], "--exhaustive does not go with --json"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = cli.main(["validate", "--exhaustive", *arguments])
    except SystemExit as error:
        status = int(error.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err


def test_a_damaged_journal_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["validate", "--exhaustive", "--functions", "relu", "--dtypes", "float16", "--backends", "numpy"]
    assert cli.main([*arguments, "--results", str(tmp_path)]) == 0
    path = tmp_path / "relu-float16.numpy.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"unit":2', b'"unit":1'))
    assert cli.main([*arguments, "--results", str(tmp_path)]) == 2
    assert "relu-float16.numpy.jsonl: line 4 is damaged or was cut short" in capsys.readouterr().err
