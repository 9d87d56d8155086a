"""`gated validate --gguf`: small files made here, damaged files, and a real model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from gated import cli
from gated.conformance import model
from gated.conformance.backends import load


def write(path: Path, *, layers: int = 2, architecture: str = "llama", quantised: bool = True, **change: Any) -> Path:
    """A GGUF file with small feed-forward blocks; ``change`` gives another shape, or None, for a part."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    rng = np.random.default_rng(1)
    shapes = {"gate": (96, 64), "up": (96, 64), "down": (64, 96)} | change
    for layer in range(layers):
        for part, shape in shapes.items():
            if shape is None:
                continue
            weight = rng.standard_normal(shape, np.float32) / np.float32(8)
            name = f"blk.{layer}.ffn_{part}.weight"
            if quantised:
                kind = gguf.GGMLQuantizationType.Q4_1
                writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, weight)
    writer.add_tensor("token_embd.weight", rng.standard_normal((8, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_layer_agrees_in_every_backend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "tiny.gguf")
    assert cli.main(["validate", "--gguf", str(path), "--json", str(tmp_path / "r.json")]) == 0
    out = capsys.readouterr().out
    assert "tiny (llama): 2 layers, activation swish" in out
    assert "2 of 2 layers agree, forward and backward." in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert [layer["layer"] for layer in report["layers"]] == [0, 1]
    for layer in report["layers"]:
        assert layer["shape"] == [64, 96, 64]
        assert set(layer["value"]) == {"numpy", "torch", "jax"}
        assert 0 < max(layer["value"].values()) <= 1
        assert 0 < max(layer["gradient"].values()) <= 1


def test_weights_are_read_as_the_quantised_file_has_them(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", layers=1, quantised=False)
    weights = model.ModelFile(path).read(0)
    rng = np.random.default_rng(1)
    gate = rng.standard_normal((96, 64), np.float32) / np.float32(8)
    np.testing.assert_array_equal(weights.W, gate.T)
    assert weights.W2.shape == (96, 64)


def test_gemma_has_the_tanh_gelu(tmp_path: Path) -> None:
    assert model.ModelFile(write(tmp_path / "g.gguf", architecture="gemma2")).activation == "gelu_tanh"


def test_a_layer_with_gate_and_value_swapped_does_not_agree(tmp_path: Path, monkeypatch: Any) -> None:
    file = model.ModelFile(write(tmp_path / "tiny.gguf", layers=1))
    adapter = load("numpy")
    honest = type(adapter).value_and_cotangents

    def swapped(self: Any, function: str, primals: Any, cotangent: Any, static: Any) -> Any:
        x, w, v, w2 = primals
        value, (dx, dw, dv, dw2) = honest(self, function, (x, v, w, w2), cotangent, static)
        return value, (dx, dv, dw, dw2)

    monkeypatch.setattr(type(adapter), "value_and_cotangents", swapped)
    (row,) = model.run_layers(file, [adapter])
    assert row.value["numpy"] > 1000
    assert not row.agrees


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["validate", "--backends", "numpy", "--gguf", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert len(captured.err.splitlines()) == 1
    return captured.err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(tmp_path / "none.gguf", capsys)
    assert "Is a directory" in refused(tmp_path, capsys)


def test_a_file_that_is_no_gguf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.gguf"
    for content in (b"", b"GG", b"PK\x03\x04 a zip file", b"\0" * 4096):
        path.write_bytes(content)
        assert "expected a GGUF file" in refused(path, capsys)


def test_a_file_that_is_cut_short_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "tiny.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for end in (4, 8, 20, 24, 60, 200, 500, len(whole) // 2, len(whole) - 9000):
        path.write_bytes(whole[:end])
        assert "cut short" in refused(path, capsys)


def test_a_file_without_a_gated_ffn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(write(tmp_path / "none.gguf", gate=None, up=None, down=None), capsys)
    assert "no gated feed-forward block: expected tensors blk.N.ffn_gate.weight" in text
    text = refused(write(tmp_path / "plain.gguf", gate=None), capsys)
    assert "layer 0 has no gated feed-forward block: ffn_gate missing" in text


def test_a_file_whose_shapes_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(write(tmp_path / "x.gguf", up=(64, 64)), capsys)
    assert "layer 0: ffn_gate (96, 64), ffn_up (64, 64) and ffn_down (64, 96) do not fit" in text


@pytest.mark.realmodel
def test_smollm2_agrees_in_all_layers_and_backends(smollm2: Path, tmp_path: Path) -> None:
    assert cli.main(["validate", "--gguf", str(smollm2), "--json", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["layers"]) == 30
    assert all(layer["agrees"] and layer["shape"] == [576, 1536, 576] for layer in report["layers"])
    assert all(set(layer["value"]) == {"numpy", "torch", "jax"} for layer in report["layers"])
    assert report["model"]["architecture"] == "llama"
