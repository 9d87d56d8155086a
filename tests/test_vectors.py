"""The golden vectors that are shipped: what they cover, that they are written again byte for byte, and proven."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
from _vectors import (
    ACTIVATIONS,
    DTYPES,
    FOLDER,
    FORMATS,
    FUNCTIONS,
    UNITS,
    WIDTHS,
    every_test,
    inputs,
    load,
    number,
    quantities,
    rows_of,
)

from gated import cli
from gated.conformance.vectors import FUNCTIONS as CATALOGUE
from gated.conformance.vectors.verifier import verify
from gated.conformance.vectors.writer import write

ALL = [(function, dtype) for function in FUNCTIONS for dtype in DTYPES]
ELEMENTWISE = [(function, dtype) for function in (*ACTIVATIONS, *UNITS) for dtype in DTYPES]


def binade(x: float) -> int | None:
    return None if x == 0 or not math.isfinite(x) else math.frexp(x)[1] - 1


def elementwise_inputs(function: str, dtype: str) -> dict[str, list[float]]:
    """All numbers of x, or of gate and value, that a file has one test for."""
    found: dict[str, list[float]] = {}
    for group in load(function, dtype)["groups"]:
        if group["kind"] == "elementwise":
            for name, numbers in inputs(group, dtype).items():
                found.setdefault(name, []).extend(one for (one,) in numbers)
    return found


# The folder


def test_the_folder_has_every_file_and_no_other() -> None:
    names = {"schema.json", "index.json"}
    for function, dtype in ALL:
        names |= {f"{function}.{dtype}.json", f"{function}.{dtype}.tsv"}
        names |= {f"{function}.{dtype}.packed.tsv"} if function in UNITS else set()
    assert {path.name for path in FOLDER.iterdir()} == names
    assert tuple(CATALOGUE) == FUNCTIONS


def test_the_folder_is_under_8_mb() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8_000_000


def test_the_index_has_every_file_with_its_hash_and_its_tests() -> None:
    files = json.loads((FOLDER / "index.json").read_text())["files"]
    assert {*files, "schema.json", "index.json"} == {path.name for path in FOLDER.iterdir()}
    for name, entry in files.items():
        assert entry["sha256"] == hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
    for function, dtype in ALL:
        count = sum(1 for _ in every_test(load(function, dtype)))
        assert files[f"{function}.{dtype}.json"]["tests"] == str(count)


@pytest.mark.parametrize(("function", "dtype"), ALL)
def test_a_file_is_what_the_schema_says(function: str, dtype: str) -> None:
    schema = json.loads((FOLDER / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(load(function, dtype))


@pytest.mark.parametrize(("function", "dtype"), ALL)
def test_ids_are_unique_and_bit_patterns_as_wide_as_the_dtype(function: str, dtype: str) -> None:
    ids = Counter()
    for group, test in every_test(load(function, dtype)):
        ids[test["id"]] += 1
        names = group["columns"][1 : group["columns"].index("result.bits")]
        for name in (*names, *(f"{quantity}.bits" for quantity in quantities(group))):
            assert {len(one) for one in test[name].split(" ")} == {2 + WIDTHS[dtype] // 4}
    assert set(ids.values()) == {1}


# Written again, and proven


def test_what_is_shipped_is_what_is_written(tmp_path: Path) -> None:
    """Some files of each kind; whoever has two minutes writes and compares them all."""
    chosen = [
        (("sigmoid", "swish", "geglu_tanh", "swiglu", "clamped_swiglu", "gated_ffn"), ("float16",), 1),
        (("swish", "gated_ffn"), ("float16",), 2),
        (("glu", "gated_ffn"), ("float64",), 2),
    ]
    for place, (functions, dtypes, jobs) in enumerate(chosen):
        written = [
            path for path in write(tmp_path / str(place), functions, dtypes, jobs=jobs) if path.name != "index.json"
        ]
        units = sum(function in UNITS for function in functions)
        assert len(written) == 2 * len(functions) + units + 1
        for path in written:
            assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name


def test_what_is_shipped_is_proven() -> None:
    functions = ("sigmoid", "gelu", "reglu", "swiglu", "clamped_swiglu", "gated_ffn")
    tests, failures = verify(FOLDER, functions, ("bfloat16", "float32"), jobs=2)
    assert [str(failure) for failure in failures] == []
    assert tests > 4000


def test_the_command_verifies_the_shipped_files(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--functions", "relu,glu", "--dtypes", "float16", "--jobs", "1"]
    assert cli.main(["vectors", "verify", *options]) == 0
    count = sum(1 for function in ("relu", "glu") for _ in every_test(load(function, "float16")))
    assert capsys.readouterr().out == f"{count} tests in 2 files: all right\n"


def test_the_command_writes_a_folder_that_it_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--functions", "relu", "--dtypes", "float16,bfloat16", "--jobs", "1"]
    folder = tmp_path / "made" / "here"
    assert cli.main(["vectors", "write", str(folder), *chosen]) == 0
    assert capsys.readouterr().out.startswith("6 files, 0.1")
    assert cli.main(["vectors", "verify", str(folder), *chosen]) == 0


@pytest.mark.parametrize("action", ["write", "verify"])
def test_an_unknown_function_is_refused(action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["vectors", action, str(tmp_path), "--functions", "silu"])
    assert stopped.value.code == 2
    assert "unknown: 'silu'; choose from sigmoid, swish" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert cli.main(["vectors", "write", str(tmp_path / "new"), "--functions", "relu"]) == 2


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    assert cli.main(["vectors", "write", str(tmp_path / "taken"), "--functions", "relu"]) == 2
    assert "taken: File exists" in capsys.readouterr().err


# Coverage


@pytest.mark.parametrize(("function", "dtype"), ELEMENTWISE)
def test_every_special_is_every_argument(function: str, dtype: str) -> None:
    precision, lowest, highest = FORMATS[dtype]
    smallest, normal = math.ldexp(1, lowest - precision + 1), math.ldexp(1, lowest)
    positive = [
        0.0,
        smallest,
        normal - smallest,
        normal,
        math.ldexp(2 - math.ldexp(1, 1 - precision), highest),
        math.inf,
    ]
    specials = {repr(sign * one) for one in positive for sign in (1, -1)} | {"nan"}
    found = elementwise_inputs(function, dtype)
    for name in ("x",) if function in ACTIVATIONS else ("gate", "value"):
        assert specials <= set(map(repr, found[name])), name


@pytest.mark.parametrize(("function", "dtype"), [one for one in ELEMENTWISE if one[1] != "float64"])
def test_every_binade_is_in_every_argument(function: str, dtype: str) -> None:
    precision, lowest, highest = FORMATS[dtype]
    found = elementwise_inputs(function, dtype)
    for name in ("x",) if function in ACTIVATIONS else ("gate", "value"):
        assert set(map(binade, found[name])) - {None} == set(range(lowest - precision + 1, highest + 1)), name


def test_every_binade_of_float64_is_in_swish_and_in_the_units_together() -> None:
    every = set(range(-1074, 1024))
    assert set(map(binade, elementwise_inputs("swish", "float64")["x"])) - {None} == every
    together: set[int | None] = set()
    for function in UNITS:
        found = elementwise_inputs(function, "float64")
        together |= {binade(x) for name in ("gate", "value") for x in found[name]}
        # sigmoid(-2^10) is 0, and gelu(-2^6).
        bend = 9 if "glu" in function and "geglu" not in function and function != "reglu" else 5
        assert set(range(-60, bend + 1)) <= set(map(binade, found["gate"])), function
    assert together - {None} == every


@pytest.mark.parametrize(("function", "dtype"), ELEMENTWISE)
def test_a_file_has_200_random_points(function: str, dtype: str) -> None:
    random = [test for group, test in every_test(load(function, dtype)) if group["name"] in ("random", "binade")]
    assert len(random) >= 200
    assert len({test["cotangent"] for test in random}) >= 100


@pytest.mark.parametrize(("function", "dtype"), [one for one in ELEMENTWISE if one[0] in UNITS])
def test_each_layout_has_its_detectors(function: str, dtype: str) -> None:
    found = set()
    for group, test in every_test(load(function, dtype)):
        if group["kind"] == "packed":
            assert test["flags"] == "gate-order"
            found.add((group["parameters"]["layout"], group["parameters"]["axis"]))
    assert found == {(layout, axis) for layout in ("gate_last", "gate_first", "interleaved") for axis in ("-1", "0")}


@pytest.mark.parametrize("dtype", DTYPES)
def test_swish_and_swiglu_have_every_flag_they_can(dtype: str) -> None:
    common = {"zero", "limit", "nan", "tail", "subnormal", "cancellation", "beta-zero", "beta-negative", "beta-large"}
    for function in ("swish", "swiglu"):
        flags = {flag for _, test in every_test(load(function, dtype)) for flag in test["flags"].split()}
        more = {"infinite-value", "overflow", "gate-order", "hidden-subnormal"} if function == "swiglu" else set()
        twice = set() if dtype == "float64" else {"double-rounding"}
        assert common | more | twice <= flags
    clamped = {flag for _, test in every_test(load("clamped_swiglu", dtype)) for flag in test["flags"].split()}
    assert "clamped" in clamped


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_are_blocks_with_and_without_biases_and_a_beta_for_each_unit(dtype: str) -> None:
    groups = load("gated_ffn", dtype)["groups"]
    assert {group["parameters"]["activation"] for group in groups} == {
        "identity",
        "sigmoid",
        "relu",
        "gelu",
        "gelu_tanh",
        "swish",
    }
    named = [{column for column in group["columns"] if "." not in column} for group in groups]
    assert any({"b", "c", "b2"} <= names for names in named) and any("beta" in names for names in named)
    assert any(not {"b", "c", "b2", "beta"} & names for names in named)
    for group in groups:
        taken = group["columns"][1 : group["columns"].index("cotangent")]
        assert quantities(group) == ["result", *(f"d_{name}" for name in taken)]


@pytest.mark.parametrize(("function", "dtype"), ELEMENTWISE)
def test_cotangents_are_of_the_graded_magnitudes(function: str, dtype: str) -> None:
    reach = 2.0**10 if dtype == "float16" else 2.0**16
    for cotangent in elementwise_inputs(function, dtype)["cotangent"]:
        assert 1 / reach <= abs(cotangent) <= reach


# Thresholds: the neighbours of a bisection lie next to each other, and differ in what the comment says


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["sigmoid", "swish", "gelu", "gelu_tanh"])
def test_both_sides_of_the_thresholds_of_underflow_are_there(function: str, dtype: str) -> None:
    precision, _, _ = FORMATS[dtype]
    normal = 1 << (precision - 1)
    (group,) = [one for one in load(function, dtype)["groups"] if one["name"] == "threshold"]
    by_comment = {test["comment"]: test for test in rows_of(group) if number(test["x"], dtype) < -2}
    for kind, least in (("normal", normal), ("not rounded to 0", 1)):
        text = "a normal result" if kind == "normal" else "a result not rounded to 0"
        inside, outside = by_comment[f"last with {text}"], by_comment[f"first without {text}"]
        assert int(outside["x"], 16) - int(inside["x"], 16) == 1
        magnitude = (1 << (WIDTHS[dtype] - 1)) - 1
        assert int(inside["result.bits"], 16) & magnitude >= least > int(outside["result.bits"], 16) & magnitude
