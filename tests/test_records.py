"""Result files, of sweeps and of searches: they survive being written, and nothing else is read as one of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gated.conformance.records import RecordError
from gated.conformance.search import Found
from gated.conformance.search_results import SearchError, SearchResult, read_search
from gated.conformance.sweeps.catalogue import SWEEPS
from gated.conformance.sweeps.journal import Header, JournalError, Result, read_result
from gated.conformance.sweeps.tally import Tally

Read = Callable[[Path], Any]

SWEEP = "relu-float16"
RESULT = Result(
    Header(SWEEP, "numpy", "cpu", {"numpy": "2.4.6"}, "c0de"),
    date="2026-01-02",
    seconds=3,
    tallies={name: Tally(math.inf, 7, math.inf, 9, 1, 2, 2.0**-40) for name in SWEEPS[SWEEP].quantities},
    curves={name: [0.25, math.inf, 0.5] for name in SWEEPS[SWEEP].quantities},
)
SEARCH = SearchResult(
    "torch",
    "float64",
    "cpu",
    {"torch": "2.13.0"},
    "c0de",
    "2026-01-02",
    evaluations=10,
    seed=1,
    found=[
        Found("torch", "gelu", {"approximate": "tanh"}, "float64", "d_x", "error", error, 8.0, {"x": "0x1"}, 10, 1)
        for error in (2.5, math.inf)
    ],
)
KINDS = [
    pytest.param(RESULT, read_result, JournalError, "the result of a sweep", id="sweep"),
    pytest.param(SEARCH, read_search, SearchError, "the result of a search", id="search"),
]
every_kind = pytest.mark.parametrize(("record", "read", "error", "what"), KINDS)


@every_kind
def test_a_record_survives_its_file(record: Any, read: Read, error: type[Exception], what: str, tmp_path: Path) -> None:
    path = record.write(tmp_path)
    assert read(path) == record
    (tmp_path / "again").mkdir()
    assert read(path).write(tmp_path / "again").read_bytes() == path.read_bytes()
    assert '"error": null' in path.read_text()


@every_kind
def test_a_file_is_read_by_a_strict_parser(
    record: Any, read: Read, error: type[Exception], what: str, tmp_path: Path
) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(record.write(tmp_path).read_text(), parse_constant=refuse)
    assert list(content)[:2] == ["format", "version"] and list(content)[-1] == "sha256"


@every_kind
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not JSON, or cut short: "),
        (lambda text: '"gated"', "not {what}"),
        (lambda text: text.replace('"format": "gated-', '"format": "other-'), "not {what}"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "version 2, expected 1"),
        (lambda text: text.replace("2026", "2025"), "its content is not what its sha256 says: it was changed"),
        (lambda text: text.replace('"sha256"', '"sum"'), "its content is not what its sha256 says: it was changed"),
    ],
)
def test_what_is_not_whole_is_not_read(
    record: Any,
    read: Read,
    error: type[Exception],
    what: str,
    damage: Callable[[str], str],
    message: str,
    tmp_path: Path,
) -> None:
    path = record.write(tmp_path)
    changed = damage(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    expected = re.escape(f"{path}: {message.format(what=what)}")
    with pytest.raises(error, match=f"^{expected}"):
        read(path)


@every_kind
def test_no_file_and_a_file_of_another_kind(
    record: Any, read: Read, error: type[Exception], what: str, tmp_path: Path
) -> None:
    assert issubclass(error, RecordError)
    with pytest.raises(error, match=r"nothing\.json: No such file or directory$"):
        read(tmp_path / "nothing.json")
    (other,) = (one for one in (RESULT, SEARCH) if one is not record)
    with pytest.raises(error, match=rf"\.json: not {what}$"):
        read(other.write(tmp_path))
