"""Checkpoints for tests: small models, written by the packages whose formats they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")
serialization = pytest.importorskip("flax.serialization")
safetensors_torch = pytest.importorskip("safetensors.torch")

Array = np.ndarray[Any, Any]
State = Mapping[str, Array]

WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.uint64}
NPZ_DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool", "complex64"]
DTYPES = [*NPZ_DTYPES, "bfloat16", "float8_e4m3fn", "float8_e5m2"]


def dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def random_bits(rng: np.random.Generator, shape: tuple[int, ...], name: str) -> Array:
    """Any bits at all, nan with payloads among them."""
    kind = dtype(name)
    if name == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * kind.itemsize), kind).reshape(shape)


def model(
    layers: int = 3, name: str = "float32", *, d: int = 6, f: int = 10, prefix: str = "model.layers.{}.mlp."
) -> dict[str, Array]:
    """A model of the family llama, with a norm beside each block and an embedding, of random bits."""
    rng = np.random.default_rng(5)
    state = {"model.embed.weight": random_bits(rng, (7, d), name)}
    for layer in range(layers):
        shapes = {"gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f)}
        for part, shape in shapes.items():
            state[f"{prefix.format(layer)}{part}.weight"] = random_bits(rng, shape, name)
        state[f"model.layers.{layer}.norm.weight"] = random_bits(rng, (d,), "float32")
    return state


def assert_same(found: State, expected: State) -> None:
    """The same keys, dtypes, shapes and bits."""
    assert set(found) == set(expected)
    for key, array in expected.items():
        other = found[key]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), key
        word = WORDS[array.dtype.itemsize]
        assert np.array_equal(*(np.ascontiguousarray(one).reshape(-1).view(word) for one in (other, array))), key


# Written by the packages


def write_safetensors(path: Path, state: State, metadata: dict[str, str] | None = None) -> Path:
    """By safetensors.torch, which has bfloat16 and float8."""
    tensors = {}
    for key, array in state.items():
        plain = torch.frombuffer(bytearray(array.tobytes() or b"\0" * 16), dtype=getattr(torch, array.dtype.name))
        tensors[key] = plain[: array.size].reshape(array.shape)
    safetensors_torch.save_file(tensors, path, metadata)
    return path


def write_npz(path: Path, state: State) -> Path:
    np.savez(path, **state)
    return path


def nested(state: State) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, array in state.items():
        *steps, last = key.split(".")
        node = tree
        for step in steps:
            node = node.setdefault(step, {})
        node[last] = array
    return tree


def write_msgpack(path: Path, state: State) -> Path:
    path.write_bytes(serialization.msgpack_serialize(nested(state), in_place=True))
    return path


def write_gguf(path: Path, state: State, kind: gguf.GGMLQuantizationType | None = None) -> Path:
    """Arrays of more than one axis quantised as ``kind``, if it is given."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, array in state.items():
        if kind is not None and array.ndim > 1:
            writer.add_tensor(key, gguf.quants.quantize(array, kind), raw_dtype=kind)
        elif array.dtype == dtype("bfloat16"):
            writer.add_tensor(key, array.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(key, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


WRITE = {".safetensors": write_safetensors, ".npz": write_npz, ".msgpack": write_msgpack, ".gguf": write_gguf}


# Read by the packages


def read_safetensors(path: Path) -> State:
    found = {}
    for key, tensor in safetensors_torch.load_file(path).items():
        kind = dtype(str(tensor.dtype).removeprefix("torch."))
        found[key] = np.frombuffer(bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()), kind).reshape(
            tuple(tensor.shape)
        )
    return found


def read_npz(path: Path) -> State:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def read_msgpack(path: Path) -> State:
    def flat(tree: Any, before: str = "") -> dict[str, Array]:
        if not isinstance(tree, dict):
            return {before: np.asarray(tree)}
        parts = [flat(value, f"{before}.{name}" if before else name) for name, value in tree.items()]
        return {key: array for part in parts for key, array in part.items()}

    return flat(serialization.msgpack_restore(path.read_bytes()))


READ = {".safetensors": read_safetensors, ".npz": read_npz, ".msgpack": read_msgpack}
