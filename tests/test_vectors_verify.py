"""`gated vectors verify` finds every fault: a changed bit, a missing file, a form that is not the schema's."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _vectors import ACTIVATIONS, DTYPES, FOLDER, UNITS, load, quantities

from gated import cli
from gated.conformance.vectors.reader import read_index
from gated.conformance.vectors.verifier import verify_file
from gated.conformance.vectors.writer import index_text

FUNCTION, DTYPE = "glu", "float16"
STEM = f"{FUNCTION}.{DTYPE}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of one function and dtype, with an index of its own."""
    for path in (FOLDER / "schema.json", *FOLDER.glob(f"{STEM}.*")):
        shutil.copy(path, tmp_path)
    reindex(tmp_path)
    return tmp_path


def reindex(folder: Path) -> None:
    (folder / "index.json").write_text(index_text(folder))


def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    options = ["--functions", FUNCTION, "--dtypes", DTYPE, "--jobs", "1"]
    status = cli.main(["vectors", "verify", str(folder), *options])
    shown = capsys.readouterr()
    return status, shown.out + shown.err


def change(folder: Path, edit: Callable[[Any], None], *, name: str = f"{STEM}.json", index: bool = True) -> None:
    """Edits a JSON file, and by default the index with it, so that the hash is not what gives it away."""
    content = json.loads((folder / name).read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))
    if index:
        reindex(folder)


def cell(content: Any, group: int, test: int, column: str) -> tuple[list[str], int]:
    """A test and the place of one of its cells."""
    found = content["groups"][group]
    return found["tests"][test], found["columns"].index(column)


def setter(column: str, value: Any, *, group: int = 0, test: int = 60) -> Callable[[Any], None]:
    def edit(content: Any) -> None:
        row, place = cell(content, group, test, column)
        row[place] = value

    return edit


def test_the_copy_is_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, shown = run(folder, capsys)
    assert (status, shown.endswith("tests in 1 files: all right\n")) == (0, True)


# A changed bit


def test_a_changed_last_bit_of_any_expected_value_is_found(tmp_path: Path) -> None:
    """Some 60 of them in 12 files, drawn at random, the index right: it is the oracle that tells."""
    rng = random.Random(20261123)
    files = rng.sample([(f, d) for f in (*ACTIVATIONS, *UNITS, "gated_ffn") for d in DTYPES if d != "float64"], 10)
    files += [("glu", "float64"), ("gated_ffn", "float64")]
    for function, dtype in files:
        content = load(function, dtype)
        changed = set()
        for group in rng.choices(content["groups"], k=5):
            quantity = rng.choice(quantities(group))
            place, test = group["columns"].index(f"{quantity}.bits"), rng.choice(group["tests"])
            elements = test[place].split(" ")
            element = rng.randrange(len(elements))
            elements[element] = f"0x{int(elements[element], 16) ^ 1:0{len(elements[element]) - 2}x}"
            test[place] = " ".join(elements)
            changed.add((test[0], f"{quantity}.bits"))
        (tmp_path / f"{function}.{dtype}.json").write_text(json.dumps(content))
    reindex(tmp_path)
    index = read_index(tmp_path / "index.json")
    total = 0
    for function, dtype in files:
        original, made = load(function, dtype), load(function, dtype, tmp_path)
        differing = {
            (row[0], group["columns"][place])
            for group, other in zip(original["groups"], made["groups"], strict=True)
            for row, test in zip(group["tests"], other["tests"], strict=True)
            for place in range(len(row))
            if row[place] != test[place]
        }
        found = verify_file(tmp_path, index, f"{function}.{dtype}").failures
        total += len(differing)
        assert {(one.test, one.field) for one in found if one.field.endswith(".bits")} == differing
    assert total >= 50


@pytest.mark.parametrize("column", ["result.bits", "d_gate.bits", "d_value.bits"])
def test_a_changed_bit_is_named(column: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, place = cell(load(FUNCTION, DTYPE), 0, 60, column)
    wrong = f"0x{int(row[place], 16) ^ 1:04x}"
    change(folder, setter(column, wrong))
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: {row[0]}: {column}: expected {row[place]}, got {wrong}\n" in shown


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("result.exact", "1.2345e0"),
        ("d_gate.ulp", "-5"),
        ("may", "result:any"),
        ("may", "d_gate:zero"),
        ("flags", "double-rounding"),
        ("id", "00000000"),
    ],
)
def test_every_other_expectation_is_computed_again(
    column: str, value: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, place = cell(load(FUNCTION, DTYPE), 0, 60, column)
    change(folder, setter(column, value))
    status, shown = run(folder, capsys)
    identity = value if column == "id" else row[0]
    assert status == 1
    assert f"{STEM}.json: {identity}: {column}: expected {row[place] or 'nothing'}, got {value}\n" in shown


def test_a_changed_input_makes_another_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, place = cell(load(FUNCTION, DTYPE), 0, 60, "gate")
    change(folder, setter("gate", f"0x{int(row[place], 16) ^ 1:04x}"))
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: {row[0]}: id: expected " in shown


def test_a_bound_that_the_contract_does_not_give_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def widen(content: Any) -> None:
        content["groups"][0]["max"]["result"] = "5"

    change(folder, widen)
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: group special: max: expected {{'result': '0.51'" in shown


def test_a_test_that_is_there_twice_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, lambda content: content["groups"][0]["tests"].append(content["groups"][0]["tests"][3]))
    status, shown = run(folder, capsys)
    identity = load(FUNCTION, DTYPE)["groups"][0]["tests"][3][0]
    assert status == 1
    assert f"{STEM}.json: {identity}: id: expected to be there once, got 2 times\n" in shown


@pytest.mark.parametrize("field", ["formula", "source", "call", "notes"])
def test_a_changed_header_is_found(field: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(content: Any) -> None:
        if field == "call":
            content["call"]["name"] = "swiglu"
        elif field == "notes":
            content["notes"]["flags"].pop("zero")
        else:
            content[field] += " "

    change(folder, edit)
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: {field}: expected" in shown


def test_a_file_under_another_s_name_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(FOLDER / "glu.bfloat16.json", folder / f"{STEM}.json")
    reindex(folder)
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: function and dtype: expected glu float16, got glu bfloat16\n" in shown


# Files that are missing, or too many


@pytest.mark.parametrize("name", [f"{STEM}.json", f"{STEM}.tsv", f"{STEM}.packed.tsv", "schema.json"])
def test_a_missing_file_is_named(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / name).unlink()
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{name}: file: expected a file, got none: it is missing\n" in shown


def test_a_function_that_the_index_lacks_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vectors", "verify", str(folder), "--functions", "relu", "--dtypes", "float16"]) == 1
    assert "index.json: relu.float16.json: sha256: expected an entry, got nothing\n" in capsys.readouterr().out


def test_a_whole_folder_may_have_no_stray_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "schema.json").write_bytes((FOLDER / "schema.json").read_bytes())
    (tmp_path / "index.json").write_text(index_text(tmp_path))
    (tmp_path / "silu.float32.json").write_text("{}")
    assert cli.main(["vectors", "verify", str(tmp_path), "--jobs", "1"]) == 1
    shown = capsys.readouterr().out
    assert "silu.float32.json: file: expected to be in the index, got a file that is not\n" in shown
    assert shown.endswith("0 tests in 52 files: 105 not right\n")


def test_a_changed_file_has_another_hash(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A space is nothing to JSON, but the file is not the one that was shipped."""
    path = folder / f"{STEM}.json"
    path.write_text(path.read_text() + " ")
    status, shown = run(folder, capsys)
    assert status == 1
    assert shown.startswith(f"index.json: {STEM}.json: sha256: expected ")


@pytest.mark.parametrize("suffix", ["tsv", "packed.tsv"])
def test_a_changed_cell_of_a_twin_is_named(suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / f"{STEM}.{suffix}"
    lines = [line.split("\t") for line in path.read_text().split("\n")]
    place, right = lines[1].index("result.frac"), lines[4][lines[1].index("result.frac")]
    lines[4][place] = "0.00001"
    path.write_text("\n".join("\t".join(line) for line in lines))
    reindex(folder)
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.{suffix}: {lines[4][0]}: result.frac: expected {right}, got 0.00001\n" in shown


def test_a_twin_that_is_cut_short_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / f"{STEM}.tsv"
    path.write_text(path.read_text()[:-100])
    reindex(folder)
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.tsv: " in shown


def test_another_schema_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, lambda content: content.pop("additionalProperties"), name="schema.json", index=False)
    status, shown = run(folder, capsys)
    assert status == 1
    assert "schema.json: content: expected the schema of this version, got another\n" in shown


# What is not as the schema has it


def unknown(place: str) -> Callable[[Any], None]:
    def edit(content: Any) -> None:
        {
            "file": content,
            "group": content["groups"][0],
            "parameters": content["groups"][0]["parameters"],
            "notes": content["notes"],
            "schema": content["schema"],
        }[place]["extra"] = "1"

    return edit


@pytest.mark.parametrize("place", ["file", "group", "parameters", "notes", "schema"])
def test_an_unknown_field_is_named(place: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, unknown(place))
    status, shown = run(folder, capsys)
    assert status == 1
    assert "schema: expected what the schema says, got Additional properties are not allowed ('extra' was une" in shown


@pytest.mark.parametrize("column", ["gate", "result.bits", "result.exact", "d_gate.ulp"])
def test_a_number_that_is_no_text_is_named(column: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, place = cell(load(FUNCTION, DTYPE), 0, 60, column)
    change(folder, setter(column, 0.5))
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: groups/0/tests/60/{place}: schema: expected what the schema says, got 0.5 is not of" in shown


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("gate", "0x3C00"),
        ("gate", "3c00"),
        ("result.exact", "1.5"),
        ("result.exact", "0.5e0"),
        ("result.exact", "1." + 40 * "5" + "e0"),
        ("d_gate.ulp", "-05"),
        ("flags", "unknown-flag"),
        ("may", "result:perhaps"),
        ("id", "12345"),
    ],
)
def test_a_cell_that_is_written_otherwise_is_named(
    column: str, value: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, place = cell(load(FUNCTION, DTYPE), 0, 60, column)
    change(folder, setter(column, value))
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: groups/0/tests/60/{place}: schema: expected what the schema says, got '{value[:9]}" in shown


def test_a_bit_pattern_of_another_width_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, _ = cell(load(FUNCTION, DTYPE), 0, 60, "gate")
    change(folder, setter("gate", "0x3f800000"))
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"test {row[0]}, gate: expected 0x and 4 hex digits for float16, got '0x3f800000'" in shown


def test_a_cell_too_many_or_too_few_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(content: Any) -> None:
        content["groups"][0]["tests"][1].append("more")
        content["groups"][0]["tests"][2].pop()

    change(folder, edit)
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: groups/0/tests/1: schema: " in shown
    assert f"{STEM}.json: groups/0/tests/2: schema: " in shown


def test_columns_in_another_order_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(content: Any) -> None:
        columns = content["groups"][0]["columns"]
        columns[1], columns[2] = columns[2], columns[1]

    change(folder, edit)
    status, shown = run(folder, capsys)
    assert status == 1
    assert f"{STEM}.json: groups/0/columns: schema: " in shown


def test_the_two_forms_of_a_parameter_must_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (FOLDER / "schema.json", *FOLDER.glob("clamped_swiglu.float16.*")):
        shutil.copy(path, tmp_path)

    def edit(content: Any) -> None:
        content["groups"][0]["parameters"]["alpha"]["decimal"] = "1.7"

    change(tmp_path, edit, name="clamped_swiglu.float16.json")
    options = ["--functions", "clamped_swiglu", "--dtypes", "float16"]
    assert cli.main(["vectors", "verify", str(tmp_path), *options]) == 1
    assert "alpha: 1.7 has not the bits 0x3ffb3b645a1cac08" in capsys.readouterr().out


def test_a_shape_that_does_not_fit_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(content: Any) -> None:
        content["groups"][-1]["parameters"]["shape"] = "4 4"

    change(folder, edit)
    status, shown = run(folder, capsys)
    assert status == 1
    assert "parameters and inputs: expected a call of the function, got ValueError: " in shown


@pytest.mark.parametrize("parameter", ["layout", "axis", "shape"])
def test_a_parameter_that_is_missing_is_named(parameter: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, lambda content: content["groups"][-1]["parameters"].pop(parameter))
    status, shown = run(folder, capsys)
    assert status == 1
    assert "parameters and inputs: expected a call of the function, got " in shown and parameter in shown


# What cannot be read: exit 2


@pytest.mark.parametrize("name", [f"{STEM}.json", "index.json"])
def test_another_version_of_the_schema_is_refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, lambda content: content["schema"].update(version="2"), name=name, index=False)
    assert run(folder, capsys) == (2, f'gated vectors: {name}: expected schema.version to be "1", got "2"\n')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        ('{"schema": 1, "schema": 2}', 'not JSON: the key "schema" is there twice'),
        ('{"schema": NaN}', "not JSON: NaN is no JSON"),
        ("[1, 2]", 'expected schema.name to be "gated-vectors", got null'),
        (
            '{"schema": {"name": "wycheproof"}}',
            'expected schema.name to be "gated-vectors", got {"name": "wycheproof"}',
        ),
        ("[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        ("\udcff", "not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
@pytest.mark.parametrize("name", [f"{STEM}.json", "index.json"])
def test_what_is_no_file_of_vectors_is_refused(
    name: str, text: str, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_bytes(text.encode("utf-8", errors="surrogateescape"))
    status, shown = run(folder, capsys)
    assert status == 2
    assert shown.startswith(f"gated vectors: {name}: {reason}")
    assert shown.count("\n") == 1


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "no", capsys) == (2, f"gated vectors: {tmp_path / 'no'}: there is no such folder\n")


def test_a_folder_without_an_index_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "index.json").unlink()
    assert run(folder, capsys) == (2, f"gated vectors: {folder / 'index.json'}: the index is missing\n")


def test_an_index_with_other_fields_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, lambda index: index.update(more={}), name="index.json", index=False)
    status, shown = run(folder, capsys)
    assert (status, shown.partition(": expected")[0]) == (2, "gated vectors: index.json")
    change(
        folder,
        lambda index: (index.pop("more"), index["files"][f"{STEM}.json"].pop("tests")),
        name="index.json",
        index=False,
    )
    status, shown = run(folder, capsys)
    assert (status, shown.partition(", got")[0]) == (
        2,
        f"gated vectors: index.json: expected the texts sha256, tests of {STEM}.json",
    )
