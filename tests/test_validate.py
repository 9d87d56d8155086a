"""The command `gated validate`: the table, the exit status, the JSON, and that it finds what is wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import pty
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import gated.numpy_ref as reference
from gated import cli
from gated.conformance import backends, runner
from gated.conformance.backends.numpy import NumpyAdapter
from gated.conformance.error import FORMATS
from gated.contract import ARRAY_PARAMETERS, DTYPES

BACKENDS = ("numpy", "torch", "jax")


class Altered(NumpyAdapter):
    """The reference with its results changed on the way out."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def value_and_cotangents(self, function: str, primals: Any, cotangent: Any, static: Any) -> Any:
        value, cotangents = super().value_and_cotangents(function, primals, cotangent, static)
        return self.change(value, cotangents, primals, static)


def verdicts(change: Any, function: str, dtype: str) -> set[str]:
    return {row.verdict for row in runner.run([Altered(change)], [function], [dtype], size=2000)}


# JAX compiles every call anew, for 20 seconds a dtype: `gated validate`, which CI runs too, has all of them.
@pytest.mark.parametrize(
    "backend, dtype",
    [(backend, dtype) for backend in BACKENDS for dtype in DTYPES if backend != "jax" or dtype == "bfloat16"],
)
def test_every_function_of_every_backend_is_within_the_contract(backend: str, dtype: str) -> None:
    functions = ("gelu", "swish", "clamped_swiglu", "gated_ffn") if backend == "jax" else tuple(ARRAY_PARAMETERS)
    rows = list(runner.run([backends.load(backend)], functions, [dtype], size=1000))
    assert len(rows) == len(functions)
    past = {
        (row.function, row.dtype, one.quantity, one.case): (one.error, one.bound, one.at)
        for row in rows
        for one in row.all
        if one.share > 1
    }
    assert not past
    assert {row.verdict for row in rows} == {"within"}, [row.failure for row in rows if row.failure]


def test_a_value_one_ulp_off_is_found_in_16_bits() -> None:
    def one_off(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        value = value.copy()
        value[np.flatnonzero(np.isfinite(value) & (value != 0))[::500]] *= value.dtype.type(1.001)
        return value, cotangents

    assert verdicts(one_off, "silu", "float16") == {"not met"}


def test_swapped_halves_are_found() -> None:
    def swapped(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        other = {"gate_last": "gate_first", "gate_first": "gate_last", "interleaved": "gate_last"}[static["layout"]]
        return reference.swiglu(*primals, **static | {"layout": other}), cotangents

    assert verdicts(swapped, "swiglu", "float32") == {"not met"}


def test_a_gradient_for_the_other_half_is_found() -> None:
    def swapped(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        if static["layout"] == "interleaved":
            return value, cotangents
        return value, (np.roll(cotangents[0], len(cotangents[0]) // 2), *cotangents[1:])

    assert verdicts(swapped, "geglu", "float64") == {"not met"}


def test_double_rounding_is_found_in_bfloat16() -> None:
    def twice(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        return reference.gated_unit(reference.silu(primals[0]), primals[1], activation="identity"), cotangents

    rows = list(runner.run([Altered(twice)], ["gated_unit"], ["bfloat16"], size=4000))
    swish = [one for one in rows[0].all if one.case == "swish" and one.quantity == "value"]
    assert swish[0].share > 1


def where_exact(condition: Any, wrong: float) -> Any:
    """A change of the value to ``wrong`` where the exact value of gate * value meets the condition."""

    def change(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        with np.errstate(all="ignore"):
            exact = primals[0].astype(np.longdouble) * primals[1].astype(np.longdouble)
            return np.where(condition(exact), value.dtype.type(wrong), value), cotangents

    return change


@pytest.mark.parametrize("wrong", [np.nan, -3.0, 1e30])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_a_wrong_number_past_the_range_is_found(dtype: str, wrong: float) -> None:
    largest = FORMATS[dtype].largest
    past = where_exact(lambda exact: np.isfinite(exact) & (np.abs(exact) > 4 * np.longdouble(largest)), wrong)
    rows = list(runner.run([Altered(past)], ["gated_unit"], [dtype], size=4000))
    (identity,) = [one for one in rows[0].all if one.case == "identity" and one.quantity == "value"]
    assert identity.error == np.inf or identity.error > 2**7
    assert identity.failing > 10


def test_a_lost_sign_of_zero_is_found() -> None:
    def unsigned(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        return np.where(value == 0, value.dtype.type(0), value), cotangents

    for dtype in ("bfloat16", "float32", "float64"):
        assert verdicts(unsigned, "silu", dtype) == {"not met"}
        assert verdicts(unsigned, "swiglu", dtype) == {"not met"}


def test_the_reference_is_not_held_against_its_own_limits_and_signs(monkeypatch: Any) -> None:
    from gated.numpy_ref import _wide

    honest = _wide.Wide.to_float64
    monkeypatch.setattr(_wide.Wide, "to_float64", lambda self: np.abs(honest(self)) * np.sign(honest(self)))
    for dtype in ("float32", "float64"):
        rows = list(runner.run([backends.load("numpy")], ["gelu", "glu"], [dtype], size=1000))
        assert {row.verdict for row in rows} == {"not met"}


def test_an_implementation_that_writes_to_its_inputs_is_an_error() -> None:
    def scribbler(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        primals[0][...] = 0
        return value, cotangents

    rows = list(runner.run([Altered(scribbler), backends.load("numpy")], ["silu"], ["float32"], size=1000))
    assert "read-only" in rows[0].failure
    assert rows[1].verdict == "within"


def test_a_wrong_axis_is_found() -> None:
    def last_axis(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        return reference.glu(*primals, layout=static["layout"]), cotangents

    rows = list(runner.run([Altered(last_axis)], ["glu"], ["float32"], size=1000))
    assert {row.verdict for row in rows} <= {"not met", "error"}


def test_a_numbers_gradient_that_is_not_summed_right_is_found() -> None:
    def short(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        if len(primals) == 2 and not isinstance(primals[1], np.ndarray):
            cotangents = (cotangents[0], np.asarray(cotangents[1] * cotangents[1].dtype.type(1.1)))
        return value, cotangents

    for dtype in ("float16", "float32", "float64"):
        assert verdicts(short, "swish", dtype) == {"not met"}


def test_the_largest_error_is_shown_where_another_is_nearer_its_bound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a rounded argument has an allowance, the largest error is not the one nearest its bound."""
    (row,) = runner.run([backends.load("torch")], ["swish"], ["float32"], size=2000)
    top = row.largest(gradient=False)
    assert top is not None and row.value is not None
    assert top.largest == max(one.largest for one in row.all if one.quantity == "value")
    assert all(one.largest >= one.error for one in row.all)
    assert cli.main(["validate", "--backends", "torch", "--functions", "swish", "--dtypes", "float32"]) == 0
    out = capsys.readouterr().out
    assert "; max at " in out


def test_a_wrong_dtype_and_a_wrong_shape_are_found() -> None:
    assert verdicts(lambda value, *rest: (value.astype(np.float64), rest[0]), "relu", "float32") == {"not met"}
    assert verdicts(lambda value, *rest: (value[:-1], rest[0]), "relu", "float32") == {"not met"}


def test_swapped_weights_are_found_in_a_projection() -> None:
    def swapped(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        x, w, v, *rest = primals
        return reference.gated_ffn(x, v, w, *rest[:-1], beta=rest[-1], **static), cotangents

    assert verdicts(swapped, "gated_ffn", "bfloat16") == {"not met"}


def test_a_backend_that_raises_is_an_error_row(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(backends, "load", lambda name, device=None: Altered(broken))
    assert cli.main(["validate", "--backends", "numpy", "--functions", "relu", "--dtypes", "float32"]) == 1
    out = capsys.readouterr().out
    assert "RuntimeError: no kernel for this" in out
    assert "1 rows: 0 within the contract, 0 not met, 1 errors." in out


def test_a_bound_that_is_not_met_is_said_in_full_and_exits_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def lost_tail(value: Any, cotangents: Any, primals: Any, static: Any) -> Any:
        return np.where(primals[0] < -88, value.dtype.type(-0.0), value), cotangents

    monkeypatch.setattr(backends, "load", lambda name, device=None: Altered(lost_tail))
    assert cli.main(["validate", "--backends", "numpy", "--functions", "silu", "--dtypes", "float32"]) == 1
    out = capsys.readouterr().out
    assert "not met" in out
    assert "silu float32 numpy: value" in out
    assert "got -0" in out


def test_the_table_in_a_pipe_is_plain_text(tmp_path: Any) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "gated.cli",
            "validate",
            "--backends",
            "numpy",
            "--functions",
            "relu",
            "--json",
            "r.json",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0
    assert run.stderr == ""
    assert run.stdout.isascii()
    assert "\x1b" not in run.stdout
    for word in ("function", "dtype", "backend", "inputs", "bound", "verdict", "65,536", "within", "4 rows"):
        assert word in run.stdout
    report = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert report["verdict"] == "within"
    assert [row["dtype"] for row in report["rows"]] == list(DTYPES)
    first = report["rows"][0]["measurements"][0]
    assert first["quantity"] == "value"
    assert first["bound_ulp"] == 0.51
    assert first["bits"]["x"].startswith("0x")


def test_the_table_on_a_terminal_has_colours() -> None:
    command = [sys.executable, "-m", "gated.cli", "validate", "--backends", "numpy", "--functions", "relu"]
    main, side = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "160"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        shown = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        assert process.wait() == 0
    os.close(main)
    assert b"\x1b[32mwithin" in shown
    assert b"validating" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backends", "tensorflow"], "unknown: 'tensorflow'; choose from numpy, torch, jax"),
        (["--functions", "swiglu,swiglo"], "unknown: 'swiglo'"),
        (["--dtypes", "float8"], "unknown: 'float8'"),
        (["--seed", "x"], "must be a whole number of at least 0"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["validate", *arguments])
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backends", "torch", "--device", "cuda:77"], 'torch cannot use the device "cuda:77"'),
        (["--backends", "jax", "--device", "abacus"], 'jax cannot use the device "abacus"'),
        (
            ["--backends", "numpy", "--json", "no/such/folder/x.json"],
            "must be a file that can be written, in a folder that exists",
        ),
        (["--gguf", "x.gguf", "--dtypes", "float32"], "goes with neither --functions nor --dtypes"),
    ],
)
def test_unusable_options_exit_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_missing_backend_is_named_as_skipped(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(backends, "is_installed", lambda name: name == "numpy")
    assert cli.main(["validate", "--functions", "relu", "--dtypes", "float16"]) == 0
    out = capsys.readouterr().out
    assert "skipped: torch: gated.torch_impl needs the package torch" in out
    assert 'pip install "gated[jax]"' in out


def test_a_missing_backend_asked_for_by_name_exits_2(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(backends, "is_installed", lambda name: False)
    assert cli.main(["validate", "--backends", "torch"]) == 2
    assert 'pip install "gated[torch]"' in capsys.readouterr().err


def test_nothing_measured_is_never_a_pass() -> None:
    assert not runner.within([])
    assert runner.Row("relu", "float32", "numpy").verdict == "error"


def test_the_inputs_cover_every_binade_and_the_specials() -> None:
    from gated.conformance.cases import cases
    from gated.conformance.error import FORMATS

    for dtype, form in FORMATS.items():
        x = next(cases("silu", dtype)).primals[0].astype(np.float64)
        _, exponents = np.frexp(x[np.isfinite(x) & (x > 0)])
        assert set(range(form.lowest - form.precision + 1, form.highest + 1)) <= set((exponents - 1).tolist())
        _, exponents = np.frexp(x[np.isfinite(x) & (x < 0)])
        assert set(range(form.lowest - form.precision + 1, form.highest + 1)) <= set((exponents - 1).tolist())
        assert np.isnan(x).any()
        assert {np.inf, -np.inf, 0.0, form.largest, -form.smallest_subnormal} <= set(x.tolist())
        assert np.signbit(x[x == 0]).any()
    assert next(cases("silu", "bfloat16")).size == 2**16


def test_several_processes_measure_the_same() -> None:
    work = (["relu", "swish"], ["bfloat16", "float64"])
    alone = {(row.function, row.dtype): row for row in runner.run([backends.load("numpy")], *work, size=500)}
    together = list(runner.run_in_processes(["numpy"], *work, jobs=2, size=500))
    assert len(together) == len(alone) == 4
    for row in together:
        assert row == alone[row.function, row.dtype]


def test_a_process_that_dies_is_an_error_row() -> None:
    def kill() -> None:
        for child in multiprocessing.active_children():
            child.kill()

    timer = threading.Timer(1.0, kill)
    timer.start()
    rows = list(runner.run_in_processes(["numpy"], ["gated_unit"], ["float64", "float32"], jobs=1, size=10**6))
    timer.join()
    assert len(rows) == 2
    assert {row.verdict for row in rows} == {"error"}
    assert rows[0].failure == "the process that measured it died"
