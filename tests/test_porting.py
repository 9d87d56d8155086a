"""docs/porting.md: its files are written and its commands run, by section; the mistakes of its table are told."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import gated.numpy_ref as G
from gated.conformance import check
from gated.interop import identify

Array = NDArray[Any]

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "porting.md").read_text(encoding="utf-8")

# Which programs and packages a section needs; every other one does with what the tests need anyway.
PROGRAMS = {"To C": ["cc"], "To Rust": ["cc", "rustc"]}
PACKAGES = {"To JAX": ["flax"], "To a kernel of your own": ["triton"]}


def sections() -> dict[str, str]:
    """The text of each section that has commands, by its heading."""
    parts = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
    return {name: text for name, text in zip(parts[1::2], parts[2::2], strict=True) if "```sh\n" in text}


def blocks(text: str) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r"^```([a-z]+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def write(code: str, folder: Path) -> None:
    """Writes the file that its first line names."""
    name = re.match(r"(?:#|//|/\*) ([a-z_]+\.[a-z]+)\b", code)
    assert name, code
    (folder / name[1]).write_text(code)


def run_section(text: str, folder: Path) -> None:
    """Writes its files and runs its commands, in the order of the page; what is shown must be what was printed."""
    printed = None
    for language, code in blocks(text):
        if language == "sh":
            printed = "".join(run(command, folder) for command in code.splitlines())
        elif language == "text":
            assert printed is not None
            assert re.fullmatch(pattern(code), plain(printed)), f"{printed}\nis not what the page shows:\n{code}"
        else:
            write(code, folder)


def run(command: str, folder: Path) -> str:
    """What it prints; it ends as its comment says, with 0 if there is none."""
    said = re.search(r"# exit (\d)$", command)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_"))}
    environment = inherited | {
        "GATED": str(ROOT),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == (int(said[1]) if said else 0), (command, done.stdout, done.stderr)
    return done.stdout


def plain(shown: str) -> str:
    """With one blank, or one dash, for several: the widths of a table's columns follow its figures."""
    return re.sub(r"([ -])\1+", r"\1", shown)


def pattern(shown: str) -> str:
    """What matches it: a line of dots stands for any lines, a figure with a point or an exponent for any figure."""
    lines = []
    for line in plain(shown).splitlines():
        # An exponent is known by its sign: 98839469 and 2e31 of an id are none.
        pieces = re.split(r"-?\b\d+\.\d+(?:e[+-]\d+)?\b|-?\b\d+e[+-]\d+\b", line)
        lines.append(r"(?:.*\n)*?" if line == "..." else r"\S+".join(map(re.escape, pieces)) + r" *\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page in which the first section was run: each other one starts from there."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    folder = tmp_path_factory.mktemp("port")
    for language, code in blocks(PAGE):
        if language not in ("sh", "text"):
            write(code, folder)
    run_section(sections()["Record"], folder)
    return folder


@pytest.mark.parametrize("name", [name for name in sections() if name != "Record"])
def test_a_section_runs_as_it_says(name: str, recorded: Path) -> None:
    for program in PROGRAMS.get(name, []):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install {'rustc' if program == 'rustc' else 'gcc'}")
    for package in PACKAGES.get(name, []):
        pytest.importorskip(package)
    run_section(sections()[name], recorded)


def test_the_proof_fails_a_port_that_is_wrong(recorded: Path) -> None:
    right = dict(np.load(recorded / "torch.npz"))
    # Gradients of gate and value taken for each other, and an output that is off by what the tanh form of GELU makes.
    for wrong in (
        {"W": right["V"], "V": right["W"]},
        {"y": right["y"] + np.float32(4.7e-4)},
        {"y": right["y"] * np.nan},
    ):
        np.savez(recorded / "wrong.npz", **(right | wrong))
        run("python prove.py wrong.npz  # exit 1", recorded)


# The table of mistakes


def column(number: int) -> list[str]:
    """What stands in code in a column of the table."""
    rows = PAGE.partition("| mistake |")[2].splitlines()[2:]
    return [code for row in rows for code in re.findall(r"`([^`]+)`", row.split(" | ")[number])]


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def as_torch(x: Array, W: Array) -> Array:
    """torch.nn.functional.linear, which takes (out, in)."""
    return x @ W.T


def swapped_gradient(x: Array, c: Array) -> tuple[Array]:
    return (np.roll(G.vjp(G.swiglu, x)[1](c)[0], x.shape[-1] // 2, axis=-1),)


# The id, what is implemented so, what it is said to be, and how.
MISTAKES: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "gate-order": (lambda x: G.swiglu(x, layout="gate_first"), "swiglu", {}),
    "weights-swapped": (lambda x, W, V: G.swiglu_linear(x, V, W), "swiglu_linear", {}),
    "weight-not-transposed": (lambda x, W, V: G.gated_unit(as_torch(x, W), as_torch(x, V)), "swiglu_linear", {}),
    "interleaved-read-as-halves": (lambda x: G.swiglu(x, layout="gate_first"), "swiglu", {"layout": "interleaved"}),
    "halves-read-as-interleaved": (lambda x: G.swiglu(x, layout="interleaved"), "swiglu", {"layout": "gate_first"}),
    "gelu-tanh-for-erf": (lambda x: G.gelu(x, approximate="tanh"), "gelu", {}),
    "gelu-erf-for-tanh": (G.gelu, "gelu", {"approximate": "tanh"}),
    "beta-ignored": (G.silu, "swish", {"beta": 1.702}),
    "beta-value": (lambda x: G.swish(x, 1.702), "silu", {}),
    "gelu-sigmoid": (lambda x: G.swish(x, 1.702), "gelu", {}),
    "clamp-missing": (lambda x: G.clamped_swiglu(x, limit=math.inf), "clamped_swiglu", {}),
    "offset-missing": (lambda x: G.clamped_swiglu(x, offset=0.0), "clamped_swiglu", {}),
    "bias-dropped": (lambda x, W, V, b, c: G.swiglu_linear(x, W, V, b), "swiglu_linear", {"bias": True}),
    "bfloat16-arithmetic-in-float32": (lambda x: G.silu(x.astype(ml_dtypes.bfloat16)).astype(x.dtype), "silu", {}),
    "double-rounding": (
        lambda gate, value: G.silu(gate) * value,
        "gated_unit",
        {"dtypes": ["float16"], "profile": "contract"},
    ),
    "tail-underflow": (lambda x: x / (1 + np.exp(-x)), "silu", {"profile": "contract"}),
    "overflow-nan": (lambda x: x * np.exp(x) / (1 + np.exp(x)), "silu", {}),
    "gradient-halves-swapped": (G.swiglu, "swiglu", {"gradient": swapped_gradient}),
    "gradient-without-derivative": (
        G.gated_unit,
        "gated_unit",
        {"gradient": lambda gate, value, c: (c * value, c * G.silu(gate))},
    ),
    "gradient-of-other-function": (G.silu, "silu", {"gradient": lambda x, c: G.vjp(G.gelu, x)[1](c)}),
}


def test_check_tells_each_mistake_of_the_table_by_its_id() -> None:
    assert sorted(column(2)) == sorted(MISTAKES)
    for name, (implemented, function, said) in MISTAKES.items():
        how: dict[str, Any] = {"dtypes": ["float32"], "profile": "field"} | said
        with np.errstate(all="ignore"):
            report = check(implemented, function, framework="numpy", **how)
        assert report.verdict == "fail", name
        assert name == report.diagnosis[0].id, (name, [one.id for one in report.diagnosis])


def test_identify_shows_what_the_table_says() -> None:
    rng = np.random.default_rng(0)
    shapes = [(6, 16), (16, 24), (16, 24), (24, 16), (24,)]
    x, W, V, W2, b = (rng.standard_normal(shape, np.float32) for shape in shapes)
    down = {"down": W2.T}
    separate = {"gate": W.T, "up": V.T} | down
    y = G.gated_ffn(x, W, V, W2)
    shown = set()

    def found(state: dict[str, Array], y: Array, dtype: str | None = None) -> None:
        """Collects what is shown of it, in the page's words: n is 24, and what is looked at is the array key."""
        matches = identify(state, x, y, dtype=dtype)
        best = matches[0]
        shown.add(matches.verdict if matches.verdict != "match" else best.function)
        shown.update(
            f"{letter} = {text}".replace("24", "n")
            for letter, text in best.arrays.items()
            if "key" in text and letter != "V"
        )

    found({"key": np.concatenate([W.T, V.T])} | down, y)
    found({"key": np.concatenate([V.T, W.T])} | down, y)
    found({"key": np.stack([W.T, V.T], axis=1).reshape(-1, 16)} | down, y)
    found({"key": W, "up": V.T} | down, y)
    found({"key": W.T, "up": V.T} | down, y)
    for activation in ("gelu", "gelu_tanh"):
        found(separate, G.gated_ffn(x, W, V, W2, activation=activation))
    found(separate, G.gated_ffn(x, W, V, W2, beta=1.702))
    packed = np.concatenate([x @ W, x @ V], axis=-1)
    found(separate, G.clamped_swiglu(packed, layout="gate_first") @ W2)
    biased = G.gated_ffn(x, W, V, W2, b, np.zeros_like(b), np.zeros(16, np.float32))
    found({"key": b} | separate, biased)
    assert identify(separate, x, biased).verdict == "none"
    gate, value = ((x @ weight).astype(ml_dtypes.bfloat16) for weight in (W, V))
    narrow = (G.silu(gate) * value).astype(np.float32) @ W2
    assert identify(separate, x, narrow).verdict == "none"
    found(separate, narrow, "bfloat16")
    shown.add("none")
    assert set(column(3)) - {"--dtype bfloat16", "prove.py"} == shown
