"""``gated identify``: what it prints, writes and exits with."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gated.numpy_ref as G
from gated.cli import main

pytest.importorskip("rich")

D, F, OUT = 8, 12, 6


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A block with the names of Meta's Llama, an input and its output."""
    rng = np.random.default_rng(2)
    W, V, W2 = (rng.standard_normal(shape).astype(np.float32) * 0.5 for shape in ((D, F), (D, F), (F, OUT)))
    x = rng.standard_normal((10, D)).astype(np.float32) * 4
    np.savez(tmp_path / "w.npz", **{"ffn.w1.weight": W.T, "ffn.w3.weight": V.T, "ffn.w2.weight": W2.T})
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", G.gated_ffn(x, W, V, W2))
    np.save(tmp_path / "small.npy", x * np.float32(1e-4))
    np.save(tmp_path / "small_y.npy", G.gated_ffn(x * np.float32(1e-4), W, V, W2, activation="gelu"))
    return tmp_path


def run(folder: Path, *more: str, weights: str = "w.npz", x: str = "x.npy", y: str = "y.npy") -> int:
    return main(["identify", str(folder / weights), "--input", str(folder / x), "--output", str(folder / y), *more])


def report(folder: Path) -> Any:
    return json.loads((folder / "r.json").read_text())


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_match_is_named(kind: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "safetensors":
        numpy = pytest.importorskip("safetensors.numpy")
        # safetensors writes the memory as it lies: a transposed view would be stored as something else.
        arrays = {key: np.ascontiguousarray(array) for key, array in np.load(files / "w.npz").items()}
        numpy.save_file(arrays, files / "w.safetensors")
    assert run(files, "--json", str(files / "r.json"), weights=f"w.{kind}") == 0
    shown = capsys.readouterr().out
    assert "match: meta-llama, swish" in shown and "W = ffn.w1.weight.T" in shown
    best = report(files)["matches"][0]
    assert report(files)["verdict"] == "match" and best["family"] == "meta-llama" and best["prefix"] == "ffn."
    assert best["activation"] == "swish" and best["beta"] == 1.0 and best["error"] <= 1 < best["margin"]
    assert best["arrays"] == {"W": "ffn.w1.weight.T", "V": "ffn.w3.weight.T", "W2": "ffn.w2.weight.T"}


def test_none_is_said_and_exits_1(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(files / "wrong.npy", np.load(files / "y.npy")[::-1])
    assert run(files, "--json", str(files / "r.json"), y="wrong.npy") == 1
    assert "none: no way to read the weights gives the output" in capsys.readouterr().out
    assert report(files)["verdict"] == "none" and report(files)["separation"] is None


def test_sizes_that_nothing_fits_are_said(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(files / "narrow.npy", np.load(files / "x.npy")[:, :5])
    assert run(files, "--json", str(files / "r.json"), x="narrow.npy") == 1
    assert "none: no arrays of the weights fit together" in " ".join(capsys.readouterr().out.split())
    assert report(files)["tried"] == 0 and report(files)["matches"] == []


def test_ambiguous_is_said_and_the_proposed_input_written(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proposed = files / "more.npy"
    options = ("--json", str(files / "r.json"), "--propose", str(proposed))
    assert run(files, *options, x="small.npy", y="small_y.npy") == 1
    shown = capsys.readouterr().out
    assert "ambiguous: this input cannot tell" in shown and "1 and 2 would be told apart" in shown
    told = report(files)
    assert told["verdict"] == "ambiguous" and all(one["distance"] > 1 for one in told["separation"]["distances"])
    x = np.concatenate([np.load(files / "small.npy"), np.load(proposed)])
    state = np.load(files / "w.npz")
    W, V, W2 = (np.ascontiguousarray(state[f"ffn.{name}.weight"].T) for name in ("w1", "w3", "w2"))
    np.save(files / "x2.npy", x)
    np.save(files / "y2.npy", G.gated_ffn(x, W, V, W2, activation="gelu"))
    assert run(files, "--json", str(files / "r.json"), x="x2.npy", y="y2.npy") == 0
    assert report(files)["matches"][0]["activation"] == "gelu"


def test_a_pickle_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "w.pt").write_bytes(pickle.dumps({"a": 1}))
    np.save(files / "objects.npy", np.array([{}], object), allow_pickle=True)
    assert run(files, weights="w.pt") == 2
    assert "pickle" in capsys.readouterr().err
    assert run(files, x="objects.npy") == 2
    assert "--input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "more", "text"),
    [
        ({"weights": "absent.npz"}, (), "absent.npz: No such file"),
        ({"x": "absent.npy"}, (), "--input: "),
        ({"y": "w.npz"}, (), "--output: "),
        ({"x": "y.npy", "y": "small.npy"}, ("--prefix", "layers."), "under the prefix 'layers.'"),
        ({}, ("--json", "/nowhere/r.json"), "--json: "),
        ({}, ("--propose", "/nowhere/x.npy"), "--propose: "),
    ],
)
def test_what_cannot_be_read_or_written_is_one_line_and_exits_2(
    arguments: dict[str, str], more: tuple[str, ...], text: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files, *more, **arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and text in shown.err
