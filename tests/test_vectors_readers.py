"""Readers of the golden vectors: the backends are graded with them, a C program reads the twins, mpmath agrees."""

from __future__ import annotations

import csv
import math
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from _calls import INSTALLED
from _vectors import (
    ACTIVATIONS,
    DTYPES,
    FOLDER,
    FORMATS,
    UNITS,
    Expected,
    error,
    every_test,
    expected,
    inputs,
    load,
    number,
    quantities,
    rows_of,
)

from gated.conformance import error as measure
from gated.conformance.adapters import load as load_adapter

ROOT = Path(__file__).parent.parent
FFN = ("x", "W", "V", "W2", "b", "c", "b2")


# The backends, graded


def as_array(numbers: Any, dtype: str) -> Any:
    return np.array(numbers, np.float64).astype(measure.FORMATS[dtype].dtype)


def numbers_of(group: Any) -> dict[str, float]:
    return {name: float(one["decimal"]) for name, one in group["parameters"].items() if isinstance(one, dict)}


def shape_of(group: Any, name: str) -> tuple[int, ...]:
    return tuple(map(int, group["parameters"][name].split()))


def results(adapter: Any, content: Any, group: Any) -> dict[str, list[list[float]]]:
    """What a backend gives for a group: of each quantity and test the elements."""
    dtype, function = content["dtype"], content["function"]
    given = inputs(group, dtype)
    static: dict[str, Any] = dict(numbers_of(group))
    static |= {name: one for name, one in content["call"].items() if name != "name"}
    beta = [static.pop("beta")] if "beta" in static else []
    if group["kind"] == "projected":
        (cotangent,) = given["cotangent"]
        arrays = {name: as_array(given[name][0], dtype).reshape(shape_of(group, f"{name}.shape")) for name in given}
        primals = [arrays.get(name) for name in FFN] + ([arrays["beta"]] if "beta" in arrays else beta)
        static["activation"] = group["parameters"]["activation"]
        value, cotangents = adapter.value_and_cotangents("gated_ffn", tuple(primals), arrays["cotangent"], static)
        found = {"result": value} | dict(zip((f"d_{name}" for name in (*FFN, "beta")), cotangents, strict=True))
        assert len(cotangent) == value.size
        return {name: [found[name].astype(np.float64).ravel().tolist()] for name in quantities(group)}
    if group["kind"] == "packed":
        x = as_array(given["x"][0], dtype).reshape(shape_of(group, "shape"))
        axis = int(group["parameters"]["axis"])
        static |= {"layout": group["parameters"]["layout"], "axis": axis}
        half = [size // 2 if place == axis % x.ndim else size for place, size in enumerate(x.shape)]
        cotangent = as_array(given["cotangent"][0], dtype).reshape(half)
        value, (in_x, *_) = adapter.value_and_cotangents(content["call"]["name"], (x, *beta), cotangent, static)
        return {name: [one.astype(np.float64).ravel().tolist()] for name, one in (("result", value), ("d_x", in_x))}
    flat = {name: as_array([one for (one,) in given[name]], dtype) for name in given}
    unit = function in UNITS
    if unit:
        static["layout"] = "gate_last"
    x = np.concatenate([flat["value"], flat["gate"]]) if unit else flat["x"]
    primals = (x, flat["beta"]) if "beta" in flat else (x, *beta)
    value, (in_x, *in_beta) = adapter.value_and_cotangents(content["call"]["name"], primals, flat["cotangent"], static)
    half = len(x) // 2
    found = {"result": value} | ({"d_value": in_x[:half], "d_gate": in_x[half:]} if unit else {"d_x": in_x})
    if "beta" in flat:
        found["d_beta"] = in_beta[0]
    return {name: [[one] for one in found[name].astype(np.float64).tolist()] for name in quantities(group)}


def graded(adapter: Any, content: Any) -> tuple[int, list[str]]:
    """How many numbers were graded, and those that are not as they must be."""
    count, failures = 0, []
    for group in content["groups"]:
        for quantity, rows in results(adapter, content, group).items():
            for test, row in zip(rows_of(group), rows, strict=True):
                wanted = expected(group, test, quantity)
                assert len(wanted) == len(row)
                for got, one in zip(row, wanted, strict=True):
                    count += 1
                    off = error(got, one, content["dtype"], flushes=adapter.flushes)
                    if not off <= float(one.most):
                        failures.append(f"{test['id']} {quantity} {got!r} {one} {off}")
    return count, failures


# JAX compiles every shape: some files are enough to know that the vectors know it flushes.
GRADED = [
    (backend, function)
    for backend in INSTALLED
    for function in (*ACTIVATIONS, *UNITS, "gated_ffn")
    if backend != "jax" or function in ("swish", "geglu")
]


@pytest.mark.parametrize(("backend", "function"), GRADED)
def test_the_backends_pass(backend: str, function: str) -> None:
    adapter = load_adapter(backend)
    for dtype in ("float32",) if backend == "jax" else DTYPES:
        count, failures = graded(adapter, load(function, dtype))
        assert failures == []
        assert count > 300


class Faulty:
    """An implementation of swish and swiglu with a fault."""

    flushes = False

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward

    def value_and_cotangents(self, function: str, primals: Any, cotangent: Any, static: Any) -> Any:
        reference = load_adapter("numpy")
        _, cotangents = reference.value_and_cotangents(function, primals, cotangent, static)
        with np.errstate(all="ignore"):
            return self.forward(*primals, **static), cotangents


def wrong_ids(fault: Callable[..., Any], function: str, dtype: str) -> set[str]:
    return {failure.split()[0] for failure in graded(Faulty(fault), load(function, dtype))[1]}


def flagged(function: str, dtype: str, flag: str) -> set[str]:
    return {test["id"] for _, test in every_test(load(function, dtype)) if flag in test["flags"].split()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_naive_formula_is_found_out_in_the_tail(dtype: str) -> None:
    def naive(x: Any, beta: Any) -> Any:
        if dtype == "bfloat16":
            wide = x.astype(np.float32)
            return (wide / (1 + np.exp(-np.asarray(beta, np.float32) * wide))).astype(x.dtype)
        return x / (1 + np.exp((-np.asarray(beta) * x).astype(x.dtype)))

    wrong = wrong_ids(naive, "swish", dtype)
    hidden = [
        test for _, test in every_test(load("swish", dtype)) if test["comment"].startswith("e^-x reaches the end")
    ]
    assert len(hidden) == 3
    # The least of the three is past the end.
    assert hidden[-1]["id"] in wrong


def test_rounding_twice_is_found_out() -> None:
    """silu(gate) rounded to bfloat16, then the product: what eager code does."""

    def twice(x: Any, beta: Any, *, axis: int = -1, layout: str) -> Any:
        if x.ndim > 1 or layout != "gate_last":
            return np.zeros([0])  # not of the elementwise groups
        value, gate = np.split(x.astype(np.float64), 2)
        activation = (gate / (1 + np.exp(-np.asarray(beta, np.float64) * gate))).astype(x.dtype)
        return (activation.astype(np.float64) * value).astype(x.dtype)

    content = load("swiglu", "bfloat16")
    content["groups"] = [group for group in content["groups"] if group["name"] == "random"]
    _, failures = graded(Faulty(twice), content)
    assert len(failures) >= 15


def test_a_float32_on_the_way_gives_other_bits() -> None:
    found = 0
    content = load("swish", "float16")
    twice = flagged("swish", "float16", "double-rounding")
    for group, test in every_test(content):
        if test["id"] in twice and group["name"] == "hard":
            (one,) = expected(group, test, "d_x")
            through = np.float16(np.float32(float(Fraction(one.exact))))
            assert float(through) != number(one.bits, "float16")
            found += 1
    assert found >= 5


@pytest.mark.parametrize("function", UNITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_another_layout_is_wrong_in_every_result(function: str, dtype: str) -> None:
    adapter = load_adapter("numpy")
    content = load(function, dtype)
    for group in content["groups"]:
        if group["kind"] != "packed":
            continue
        layout = group["parameters"]["layout"]
        for other in {"gate_last", "gate_first", "interleaved"} - {layout}:
            if function == "bilinear" and "interleaved" not in (layout, other):
                continue
            wrong = {**group, "parameters": {**group["parameters"], "layout": other}}
            (row,) = results(adapter, content, wrong)["result"]
            (test,) = rows_of(group)
            for got, one in zip(row, expected(group, test, "result"), strict=True):
                assert error(got, one, dtype) > 100 * float(one.most) or dtype == "bfloat16"
                assert error(got, one, dtype) > 10


# Other gates of the measure


@pytest.mark.parametrize(
    ("got", "off"),
    [
        (0.0, math.inf),
        (-0.0, 0.5),
        (-math.inf, 2.0**277),
        (math.inf, 2.0**277),
        (math.nan, math.inf),
        (-(2.0**-149), 0.5),
        (2.0**-149, 1.5),
    ],
)
def test_the_reader_s_measure(got: float, off: float) -> None:
    """Half the smallest subnormal, below 0: a tie that rounds to -0."""
    one = Expected("0x80000000", str(Fraction(-1, 2**150)), "-149", "5", "flush")
    assert error(got, one, "float32") == off
    assert error(-0.0, one, "float32", flushes=True) == 0


# mpmath, with formulas of its own


def second_opinion(function: str, given: dict[str, Any], parameters: dict[str, float]) -> dict[str, Any]:
    """The result, by other formulas: tanh for sigmoid, ncdf for erfc; the gradients by mpmath's differentiation."""
    mp = mpmath.mp
    beta = mp.mpf(given["beta"]) if "beta" in given else mp.mpf(parameters.get("beta", 1.0))

    def sigmoid(t: Any) -> Any:
        return (1 + mp.tanh(t / 2)) / 2

    def activation(x: Any, b: Any) -> Any:
        if function in ("sigmoid", "glu"):
            return sigmoid(x)
        if function in ("swish", "swiglu"):
            return x * sigmoid(b * x)
        if function in ("gelu", "geglu"):
            return x * mp.ncdf(x)
        if function in ("relu", "reglu"):
            return max(x, mp.mpf(0))
        if function == "bilinear":
            return x
        inner = mp.sqrt(2 / mp.pi) * (x + mp.mpf(44715) / 10**6 * x**3)
        return x * (1 + mp.tanh(inner)) / 2

    def call(gate: Any, value: Any, b: Any) -> Any:
        if function == "clamped_swiglu":
            limit = mp.mpf(parameters["limit"])
            gate, value = min(gate, limit), min(max(value, -limit), limit)
            return gate * sigmoid(mp.mpf(parameters["alpha"]) * gate) * (value + mp.mpf(parameters["offset"]))
        return activation(gate, b) * value

    gate, value = mp.mpf(given.get("x", given.get("gate", 0))), mp.mpf(given.get("value", 1))
    cotangent = mp.mpf(given["cotangent"])
    found = {"result": call(gate, value, beta)}
    first = "d_x" if "x" in given else "d_gate"
    found[first] = cotangent * mp.diff(lambda g: call(g, value, beta), gate)
    if "value" in given:
        found["d_value"] = cotangent * mp.diff(lambda v: call(gate, v, beta), value)
    if "beta" in given:
        found["d_beta"] = cotangent * mp.diff(lambda b: call(gate, value, b), beta)
    return found


@pytest.mark.parametrize("function", [*ACTIVATIONS, *UNITS])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_mpmath_gives_the_same_decimals(function: str, dtype: str) -> None:
    """Values to 38 digits; derivatives, which mpmath takes as differences, to 18."""
    content = load(function, dtype)
    rng = random.Random(f"{function} {dtype}")
    pool = [(g, t) for g, t in every_test(content) if g["name"] in ("random", "beta", "beta-0.1")]
    tried = 0
    # 1 + tanh cancels in the tail: sigmoid(-1000) is 10^-434.
    with mpmath.workdps(1000 if dtype == "float64" else 80):
        for group, test in rng.sample(pool, 20):
            given = {name: number(test[name], dtype) for name in inputs({**group, "tests": []}, dtype)}
            if not all(map(math.isfinite, given.values())) or given.get("beta") == 0 or given.get("x") == 0:
                continue
            for name, value in second_opinion(function, given, numbers_of(group)).items():
                exact = mpmath.mpf(test[f"{name}.exact"])
                unit = mpmath.mpf(2) ** int(test[f"{name}.ulp"])
                digits = 38 if name == "result" else 18
                assert abs(value - exact) <= mpmath.mpf(10) ** -digits * max(abs(exact), 0 if digits == 38 else unit)
                tried += 1
    assert tried >= 20


@pytest.mark.parametrize("function", [*ACTIVATIONS, *UNITS])
def test_python_s_own_rounding_of_the_decimals_gives_the_bits(function: str) -> None:
    """float() of a decimal is correctly rounded; float64 is the dtype it knows. Its 40 digits may be those of a tie."""
    ties, tried = 0, 0
    for group, test in every_test(load(function, "float64")):
        for quantity in quantities(group):
            for one in expected(group, test, quantity):
                if one.exact.lstrip("<>-") == "1e-20000" or one.ulp == "":
                    continue
                tried += 1
                rounded = number(one.bits, "float64")
                if repr(float(one.exact)) != repr(rounded):
                    place = (
                        int(math.copysign(1, rounded)) * Fraction(2) ** 1024
                        if math.isinf(rounded)
                        else Fraction(rounded)
                    )
                    past = (Fraction(one.exact) - place) / Fraction(2) ** int(one.ulp)
                    assert abs(abs(past) - Fraction(1, 2)) < Fraction(1, 10**20)
                    ties += 1
    assert tried > 500 and ties < tried / 50


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_s_value_is_what_mpmath_says(dtype: str) -> None:
    (group,) = [one for one in load("gated_ffn", dtype)["groups"] if one["name"] == "block-swish-b-c-b2"]
    given = {name: numbers for name, (numbers,) in inputs(group, dtype).items()}
    (test,) = rows_of(group)
    with mpmath.workdps(60):
        mp = mpmath.mp

        def matrix(name: str) -> Any:
            shape = shape_of(group, f"{name}.shape")
            rows, columns = shape if len(shape) == 2 else (1, *shape)
            return mp.matrix(rows, columns) + mp.matrix(
                [given[name][i * columns : (i + 1) * columns] for i in range(rows)]
            )

        x, ones = matrix("x"), mp.matrix([[1], [1]])
        gate, value = x * matrix("W") + ones * matrix("b"), x * matrix("V") + ones * matrix("c")
        hidden = mp.matrix(gate.rows, gate.cols)
        for i in range(gate.rows):
            for j in range(gate.cols):
                hidden[i, j] = gate[i, j] * (1 + mp.tanh(gate[i, j] / 2)) / 2 * value[i, j]
        block = hidden * matrix("W2") + ones * matrix("b2")
        cotangent = matrix("cotangent")
        in_w2 = hidden.T * cotangent
        for name, found in (("result", block), ("d_W2", in_w2), ("d_b2", ones.T * cotangent)):
            for one, exact in zip(expected(group, test, name), list(found), strict=True):
                assert abs(mp.mpf(one.exact) - exact) <= mp.mpf(10) ** -38 * abs(exact)


# The twins


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["relu", "swish", "swiglu", "clamped_swiglu", "gated_ffn"])
def test_a_twin_says_the_same(function: str, dtype: str) -> None:
    """Read as csv; frac is what the decimals say, to 5 digits."""
    rows = {}
    for path in FOLDER.glob(f"{function}.{dtype}*.tsv"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        rows |= {row["id"]: row for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)}
    tests = list(every_test(load(function, dtype)))
    assert set(rows) == {test["id"] for _, test in tests}
    for group, test in tests:
        row = rows[test["id"]]
        for name, value in numbers_of(group).items():
            assert float(row[name]) == value
        for column in group["columns"][1 : group["columns"].index("result.bits")]:
            if column == "beta" and group["kind"] == "elementwise":
                assert repr(float(row["beta"])) == repr(number(test["beta"], dtype))
            else:
                assert row[column] == test[column].replace("0x", "")
        for quantity in quantities(group):
            assert row[f"{quantity}.bits"] == test[f"{quantity}.bits"].replace("0x", "")
            fractions = row[f"{quantity}.frac"].split(" ")
            for frac, one in zip(fractions, expected(group, test, quantity), strict=True):
                check_fraction(frac, one, dtype)
        assert row["flags"] == (test["flags"] or "-")
        if group["kind"] == "elementwise":
            assert row["may"] == (test["may"] or "-")


def check_fraction(frac: str, one: Expected, dtype: str) -> None:
    if one.exact in ("nan", "inf", "-inf"):
        assert frac == "-"
        return
    exact = Fraction(0) if one.exact.lstrip("<>-") == "1e-20000" else Fraction(one.exact)
    if frac in ("inf", "-inf"):
        assert abs(exact) > Fraction(10) ** 400 and (exact > 0) == (frac == "inf")
        return
    rounded = number(one.bits, dtype)
    place = (
        Fraction(2) ** (FORMATS[dtype][2] + 1) * (1 if rounded > 0 else -1)
        if math.isinf(rounded)
        else Fraction(rounded)
    )
    past = (exact - place) / Fraction(2) ** int(one.ulp)
    assert abs(past - Fraction(frac)) <= Fraction(1, 200000)
    # The last of 40 digits may be rounded past a tie.
    assert math.isinf(rounded) or abs(past) <= Fraction(1, 2) + Fraction(1, 10**20)


# A reader in C


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("c")

    def build(name: str, *flags: str) -> Path:
        source, warnings = ROOT / "examples/c/grade.c", ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
        command = [compiler, "-std=c99", "-O2", *warnings, *flags, "-o", str(folder / name), str(source), "-lm"]
        subprocess.run(command, check=True, timeout=60)
        return folder / name

    return build


def grade(program: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


SWISH = str(FOLDER / "swish.float32.tsv")


def test_a_c_program_reads_them_and_finds_the_loss_of_the_naive_formula(compiled: Callable[..., Path]) -> None:
    status, shown = grade(compiled("naive"), SWISH, "5")
    assert status == 1
    found = {float(x): float(off) for x, off in re.findall(r"x (\S+)  got .* error (\S+) ulp", hexes(shown))}
    assert found[-math.inf] == math.inf
    lost = {x: off for x, off in found.items() if math.isfinite(x)}
    assert lost and all(-104 < x < -88.7 for x in lost)
    # -91.2: the result is 1.92 2^-126, whose ulp is 2^-149: 1.92 2^23 units to 0.
    assert max(lost.values()) == lost[float(np.float32(-91.2))] == pytest.approx(1.9149 * 2**23, rel=1e-4)


def hexes(text: str) -> str:
    """The inputs as decimals."""
    return re.sub(r"x ([0-9a-f]{8})", lambda found: f"x {number(found[1], 'float32')!r}", text)


def test_the_same_formula_in_double_passes(compiled: Callable[..., Path]) -> None:
    status, shown = grade(compiled("double", "-DIN_DOUBLE"), SWISH, "0.5001")
    assert status == 0, shown
    tests = [
        test
        for group, test in every_test(load("swish", "float32"))
        if (number(test["beta"], "float32") if "beta" in test else numbers_of(group)["beta"]) == 1
    ]
    assert shown.startswith(f"{len(tests)} tests, 0 past 0.5001 ulp; largest finite error 0.5")


IN_DOUBLE = "x == -INFINITY ? -0.0f : (float)(x / (1 + exp(-(double)x)))"


@pytest.mark.parametrize(
    ("candidate", "status", "failing"),
    [
        (IN_DOUBLE, 0, ()),
        (f"fabsf({IN_DOUBLE}) < 1.1754943e-38f ? copysignf(0, x) : {IN_DOUBLE}", 0, ()),
        (f"x == 0 ? 0 : {IN_DOUBLE}", 1, ("80000000",)),
        (f"fabsf(x) < 1e-30f ? 0 : {IN_DOUBLE}", 1, ("80000001",)),
        (f"isnan(x) ? 0 : {IN_DOUBLE}", 1, ("7fc00000",)),
        (f"nextafterf({IN_DOUBLE}, 1)", 1, ("00000000", "80000000")),
        (f"isinf(x) ? copysignf(3.4e38f, x) : {IN_DOUBLE}", 1, ("7f800000", "ff800000")),
        (f"x > 3e38f ? INFINITY : {IN_DOUBLE}", 1, ("7f7fffff",)),
    ],
)
def test_the_c_program_finds_what_is_wrong_and_nothing_else(
    candidate: str, status: int, failing: tuple[str, ...], tmp_path: Path
) -> None:
    """Within 0.75 ulp; flushing subnormal results is allowed, the sign of a zero is not free."""
    source = (ROOT / "examples/c/grade.c").read_text()
    assert source.count("return x / (1 + expf(-x));") == 1
    (tmp_path / "mine.c").write_text(source.replace("x / (1 + expf(-x));", f"{candidate};"))
    program = tmp_path / "mine"
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    command = [compiler, "-std=c99", "-D_XOPEN_SOURCE=600", "-o", str(program), str(tmp_path / "mine.c"), "-lm"]
    subprocess.run(command, check=True, timeout=60)
    code, shown = grade(program, SWISH, "0.75")
    assert code == status, shown
    for x in failing:
        assert f"x {x}  got" in shown


@pytest.mark.parametrize("arguments", [(), (SWISH,), ("/nowhere", "5")])
def test_the_c_program_refuses_wrong_usage(arguments: tuple[str, ...], compiled: Callable[..., Path]) -> None:
    status, _ = grade(compiled("naive"), *arguments)
    assert status == 2


# The page


def test_the_page_s_python_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/vectors.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "docs/vectors.md", "exec"), {})
    (promised,) = re.findall(r"# (-1\.\S+ True)", code)
    assert capsys.readouterr().out.strip() == promised
