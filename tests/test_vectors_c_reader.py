"""Readers of the golden vectors who start from their documents: the C program of the examples, the page's own code."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _vectors import FOLDER, every_test, load, number, numbers_of

ROOT = Path(__file__).parent.parent


# In C


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
