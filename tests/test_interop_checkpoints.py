"""Checkpoints on disk: read as the packages of their formats read them, and nothing else is taken for one."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gguf
import msgpack
import numpy as np
import pytest
import strategies  # noqa: F401 - registers the profile of Hypothesis
import torch
from _checkpoints import (
    DTYPES,
    NPZ_DTYPES,
    WRITE,
    assert_same,
    dtype,
    model,
    random_bits,
    write_gguf,
    write_msgpack,
    write_npz,
    write_safetensors,
)
from flax import serialization
from hypothesis import given
from hypothesis import strategies as st

from gated.interop import InteropError
from gated.interop.checkpoints import Spec, open_checkpoint

NAMES = st.text("abcxyz_019é", min_size=1, max_size=12)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def states(dtypes: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.builds(
        lambda shape, name, seed: random_bits(np.random.default_rng(seed), shape, name),
        SHAPES,
        st.sampled_from(dtypes),
        st.integers(0, 2**32),
    )
    return st.dictionaries(NAMES, arrays, min_size=1, max_size=6)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".msgpack"])
def test_arrays_are_those_that_the_formats_own_package_wrote(suffix: str, tmp_path: Path) -> None:
    @given(states(NPZ_DTYPES if suffix == ".npz" else DTYPES))
    def check(state: dict[str, Any]) -> None:
        found = open_checkpoint(WRITE[suffix](tmp_path / f"one{suffix}", state))
        assert {key: found.spec(key) for key in found} == {
            key: Spec(array.dtype, array.shape) for key, array in state.items()
        }
        assert_same(found, state)

    check()


@pytest.mark.parametrize("suffix", WRITE)
def test_a_checkpoint_is_a_mapping_that_reads_when_it_is_asked(suffix: str, tmp_path: Path) -> None:
    state = model(1)
    found = open_checkpoint(str(WRITE[suffix](tmp_path / f"one{suffix}", state)))
    assert len(found) == len(state) and "model.embed.weight" in found and "embed" not in found
    assert found.get("embed") is None
    with pytest.raises(KeyError, match="embed"):
        found["embed"]
    first = found["model.embed.weight"]
    first[:] = 0
    assert_same(found, state)


@pytest.mark.parametrize("name", ["wrong.npz", "wrong.pkl", "none"])
@pytest.mark.parametrize("suffix", WRITE)
def test_the_format_is_known_by_the_content(suffix: str, name: str, tmp_path: Path) -> None:
    WRITE[suffix](tmp_path / f"one{suffix}", model(1)).rename(tmp_path / name)
    if (suffix, name) == (".msgpack", "wrong.pkl"):
        # A pickle of protocol 0 has no bytes that tell it: there the name decides.
        with pytest.raises(InteropError, match="pickle"):
            open_checkpoint(tmp_path / name)
    else:
        assert_same(open_checkpoint(tmp_path / name), model(1))


# Formats


def test_arrays_of_npz_may_be_compressed_of_either_byte_order_and_in_columns(tmp_path: Path) -> None:
    state = {"big": np.arange(6, dtype=">f4").reshape(2, 3), "columns": np.asfortranarray(np.eye(3)[:2])}
    np.savez_compressed(tmp_path / "one.npz", **state)
    found = open_checkpoint(tmp_path / "one.npz")
    assert found["big"].dtype == found.spec("big").dtype == np.dtype("f4") and found["big"].dtype.isnative
    assert_same(found, {"big": np.arange(6, dtype="f4").reshape(2, 3), "columns": np.eye(3)[:2]})


def test_arrays_that_flax_divides_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 50)
    state = model(2) | {"odd": np.arange(101, dtype="i8")}
    path = write_msgpack(tmp_path / "one.msgpack", state)
    assert path.read_bytes().count(b"__msgpack_chunked_array__") > 3
    assert_same(open_checkpoint(path), state)


def test_maps_of_flax_may_have_numbers_as_keys_lists_scalars_and_other_things(tmp_path: Path) -> None:
    tree = {
        "layers": [{"w": np.ones(2)}, {"w": np.zeros(3)}],
        "by": {0: np.arange(3), 300: np.float32(2.5), -1: np.arange(2)},
        "step": 7,
        "rate": 0.5,
        "name": "a",
        "none": None,
        "flag": True,
        "complex": 1j,
        "empty": {},
    }
    path = tmp_path / "one.msgpack"
    path.write_bytes(msgpack.packb(tree, default=serialization._msgpack_ext_pack, strict_types=True))
    found = open_checkpoint(path)
    arrays = {
        "layers.0.w": np.ones(2),
        "layers.1.w": np.zeros(3),
        "by.0": np.arange(3),
        "by.300": np.float32(2.5).reshape(()),
        "by.-1": np.arange(2),
    }
    assert_same({key: found[key] for key in arrays}, arrays)
    assert set(found) - set(arrays) == {"step", "rate", "name", "none", "flag", "complex"}
    for key, what in {"step": "whole number", "name": "text", "none": "None", "complex": "complex"}.items():
        with pytest.raises(InteropError, match=f"'{key}' must be an array, got .*{what}"):
            found.spec(key)


def test_tensors_of_gguf_of_one_number_an_element_are_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state = {
        name: random_bits(rng, (3, 32), name)
        for name in ("bfloat16", "float16", "float32", "float64", "int8", "int16", "int32", "int64")
    }
    assert_same(open_checkpoint(write_gguf(tmp_path / "one.gguf", state)), state)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_quantised_tensors_are_refused_until_they_are_to_be_dequantised(kind: str, tmp_path: Path) -> None:
    quantisation = gguf.GGMLQuantizationType[kind]
    weight = np.random.default_rng(0).standard_normal((4, 64), np.float32)
    path = write_gguf(tmp_path / "one.gguf", {"w": weight, "norm": weight[0]}, quantisation)
    plain = open_checkpoint(path)
    assert_same({"norm": plain["norm"]}, {"norm": weight[0]})
    with pytest.raises(InteropError, match=rf"'w' is quantised, {kind}.*--dequantise"):
        plain["w"]
    data = gguf.quants.quantize(weight, quantisation)
    exact = gguf.quants.dequantize(data, quantisation)
    assert_same(open_checkpoint(path, dequantise=True), {"w": exact, "norm": weight[0]})


# Sharded


def sharded(folder: Path, state: dict[str, Any], files: int = 2) -> Path:
    """The arrays in turn in so many files, and their index."""
    names = {key: f"part-{number % files}.safetensors" for number, key in enumerate(state)}
    for name in set(names.values()):
        write_safetensors(folder / name, {key: state[key] for key in state if names[key] == name}, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    return index


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "index"])
def test_shards_are_read_as_one(whole: bool, tmp_path: Path) -> None:
    index = sharded(tmp_path, model())
    found = open_checkpoint(tmp_path if whole else index)
    assert_same(found, model())
    assert found.metadata == {"format": "pt"}
    assert {found.shard(key) for key in found} == {"part-0.safetensors", "part-1.safetensors"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda index: index.pop("weight_map"), "must have weight_map"),
        (lambda index: index["weight_map"].update(more="part-0.safetensors"), "'more' must be in part-0.safetensors"),
        (lambda index: index["weight_map"].pop("model.embed.weight"), "'model.embed.weight', which is in part-0"),
        (lambda index: index["weight_map"].update(more="part-9.safetensors"), "there is no such file"),
        (lambda index: index["weight_map"].update(more="../part-0.safetensors"), "beside the index, got '../part-0"),
        (lambda index: index["weight_map"].update(more="model.bin"), "got 'model.bin'"),
    ],
)
def test_an_index_that_disagrees_with_its_files_is_refused(change: Any, text: str, tmp_path: Path) -> None:
    index = sharded(tmp_path, model(1))
    content = json.loads(index.read_text())
    change(content)
    index.write_text(json.dumps(content))
    with pytest.raises(InteropError, match=text):
        open_checkpoint(tmp_path)


def test_a_folder_must_say_which_file_it_means(tmp_path: Path) -> None:
    with pytest.raises(InteropError, match="must have one index or one safetensors file, got none"):
        open_checkpoint(tmp_path)
    for name in "ab":
        write_safetensors(tmp_path / f"{name}.safetensors", model(1))
    with pytest.raises(InteropError, match=r"got a\.safetensors, b\.safetensors"):
        open_checkpoint(tmp_path)


# What is refused


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.pth", "model.pkl", "model.npz", "model.safetensors"])
@pytest.mark.parametrize("how", ["torch", "torch, old", *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_a_pickle_is_refused_and_never_run(how: str | int, name: str, tmp_path: Path) -> None:
    path, trap = tmp_path / name, tmp_path / "run"
    if isinstance(how, int):
        path.write_bytes(pickle.dumps({"w": Trap(trap)}, how))
    else:
        torch.save({"w": Trap(trap)}, path, _use_new_zipfile_serialization=how == "torch")
    told = how not in (0, 1) or path.suffix in (".bin", ".pt", ".pth", ".pkl")
    with pytest.raises(InteropError, match="pickle: refused|or has the name of one" if told else "cut short|must be"):
        open_checkpoint(path)
    assert not trap.exists()


def test_objects_in_npz_are_refused_and_never_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", good=np.ones(2), bad=np.array([Trap(tmp_path / "run")], object))
    with pytest.raises(InteropError, match=r"'bad.npy' has Python objects, which are a pickle: refused"):
        open_checkpoint(tmp_path / "one.npz")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "array", [np.ones(2, dtype("bfloat16")), np.array(["a"]), np.zeros(2, "M8[s]"), np.zeros(2, "i4,f4")]
)
def test_what_npz_does_not_tell_apart_is_refused(array: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", w=array)
    with pytest.raises(InteropError, match=r"'w.npy' must have a dtype of numbers"):
        open_checkpoint(tmp_path / "one.npz")


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\x01\x00", b"{}"])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(content)
    with pytest.raises(InteropError, match=r"must be safetensors .*, GGUF, npz without objects, or Flax's msgpack"):
        open_checkpoint(tmp_path / "one")


def read_all(path: Path) -> dict[str, Any]:
    found = open_checkpoint(path)
    return {key: found[key] for key in found}


@pytest.mark.parametrize("suffix", WRITE)
def test_a_file_that_is_cut_short_anywhere_is_refused(suffix: str, tmp_path: Path) -> None:
    whole = WRITE[suffix](
        tmp_path / f"whole{suffix}", {"a.w": np.arange(40.0), "b.w": np.ones((2, 3), "f2")}
    ).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in range(len(whole)):
        # GGUF pads its end: without all of that, every tensor is still there.
        if suffix == ".gguf" and length >= len(whole) - 20:
            continue
        path.write_bytes(whole[:length])
        with pytest.raises(InteropError):
            read_all(path)


@pytest.mark.parametrize("suffix", WRITE)
def test_a_damaged_file_gives_arrays_or_a_clear_error(suffix: str, tmp_path: Path) -> None:
    whole = WRITE[suffix](
        tmp_path / f"whole{suffix}", {"a.w": np.arange(3.0), "b.w": np.ones((2, 3), "f2")}
    ).read_bytes()
    path = tmp_path / f"bad{suffix}"

    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=3))
    def check(changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(whole)
        for place, value in changes:
            damaged[place] = value
        path.write_bytes(damaged)
        try:
            found = read_all(path)
        except InteropError as error:
            assert str(path) in str(error)
        else:
            assert all(array.dtype.kind in "biufcV" and not array.dtype.hasobject for array in found.values())

    check()


def test_a_byte_that_npz_lost_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "one.npz", {"w": np.arange(64.0)})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("w.npy").header_offset + 400
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InteropError, match="cut short or damaged: Bad CRC"):
        read_all(path)


def entry(**change: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | change


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"w": entry(shape=[3])}, r"'w' float32 \(3,\) must have the bytes 0 to 12, got 0 to 8"),
        ({"w": entry(data_offsets=[0, 8, 8])}, "'w' must have dtype, shape and data_offsets"),
        ({"w": entry(data_offsets=[4, 12])}, "must have the bytes 0 to 8, got 4 to 12"),
        ({"w": entry(), "v": entry(data_offsets=[4, 12])}, "must have the bytes 8 to 16, got 4 to 12"),
        ({"w": entry(), "v": entry(data_offsets=[8, 16])}, "cut short: expected 16 bytes of arrays, got 8"),
        ({"w": entry(shape=[])}, "must have the bytes 0 to 4"),
        ({"w": entry(shape=[1, 0], data_offsets=[0, 0])}, "something after the arrays"),
        ({"w": entry(shape=[-2])}, "'w' must have dtype, shape"),
        ({"w": entry(shape=[True, 2])}, "'w' must have dtype, shape"),
        ({"w": entry(shape=[2**40, 2**40])}, "'w' must have dtype, shape"),
        ({"w": entry(shape=[0, 2**80])}, "'w' must have dtype, shape"),
        ({"w": entry(shape=[1] * 65 + [2])}, "'w' must have dtype, shape"),
        ({"w": entry(dtype="F4")}, "must have a dtype of BOOL, .*, got 'F4'"),
        ({"w": entry(dtype=["F32"])}, "must have a dtype of BOOL"),
        ({"w": 3}, "'w' must have dtype, shape and data_offsets, got 3"),
        ({"w": entry(), "__metadata__": {"a": 1}}, "__metadata__ must be texts"),
    ],
)
def test_a_header_of_safetensors_that_lies_is_refused(header: Any, text: str, tmp_path: Path) -> None:
    raw = json.dumps(header).encode()
    path = tmp_path / "one.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(InteropError, match=text):
        open_checkpoint(path)


def test_arrays_far_into_a_large_file_are_found(tmp_path: Path) -> None:
    """Of 3 GiB, as files of models are; the file has a hole, so that it takes no room."""
    far = 3 << 30
    header = {
        "a": {"dtype": "U8", "shape": [1 << 15, far >> 15], "data_offsets": [0, far]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [far, far + 8]},
    }
    raw = json.dumps(header).encode()
    path = tmp_path / "one.safetensors"
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.seek(far, 1)
        file.write(np.array([1.5, -2.0], "<f4").tobytes())
    np.testing.assert_array_equal(open_checkpoint(path)["b"], np.float32([1.5, -2.0]))


@pytest.mark.parametrize("name", ["object", "O", "finfo", "void16", "<U4", "datetime64", "(2,)f4"])
def test_a_dtype_of_msgpack_that_is_no_number_is_refused(name: str, tmp_path: Path) -> None:
    inner = msgpack.packb(((2,), name, bytes(16)))
    (tmp_path / "one").write_bytes(msgpack.packb({"w": msgpack.ExtType(1, inner)}))
    with pytest.raises(InteropError, match="must have a shape and a dtype of numbers"):
        open_checkpoint(tmp_path / "one")


@pytest.mark.parametrize("byte", [b"\x91", b"\x81\xa1a", b"\x81"], ids=["lists", "maps", "keys"])
def test_maps_nested_without_end_are_refused(byte: bytes, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"\x81\xa1a" + byte * 100_000)
    with pytest.raises(InteropError, match="nested less than 64 deep"):
        open_checkpoint(tmp_path / "one")
