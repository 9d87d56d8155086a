"""`gated convert`: whole checkpoints between families, a few arrays in memory, and nothing lost whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
import strategies  # noqa: F401 - registers the profile of Hypothesis
from _checkpoints import (
    READ,
    WRITE,
    Array,
    assert_same,
    model,
    nested,
    random_bits,
    read_safetensors,
    write_gguf,
    write_npz,
    write_safetensors,
)
from flax import serialization
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from gated import cli
from gated.interop import InteropError, convert
from gated.interop.checkpoints import open_checkpoint, plan_conversion, write_conversion
from gated.interop.checkpoints.placed import PlacedWriter

State = Mapping[str, Array]


def run(*arguments: object) -> int:
    return cli.main(["convert", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command says as it exits with 2."""
    before = {path: path.read_bytes() for path in files(arguments)}
    capsys.readouterr()
    assert run(*arguments) == 2
    assert {path: path.read_bytes() for path in files(arguments)} == before, "nothing is written, and nothing lost"
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("gated convert: ")
    return err


def files(arguments: tuple[object, ...]) -> list[Path]:
    """Every file in the folders of SRC and DST."""
    folders = {Path(str(one)).absolute().parent for one in arguments[:2]}
    return sorted({path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file()})


def expected(state: State, source: str, target: str, layers: int = 3) -> dict[str, Array]:
    """Each block by `convert`, and the other arrays."""
    result = {key: array for key, array in state.items() if ".mlp." not in key}
    for layer in range(layers):
        result |= convert(state, source, target, prefix=f"model.layers.{layer}.mlp.")
    return result


@pytest.mark.parametrize("target", ["phi3", "flax-nnx", "torchtitan-w13"])
@pytest.mark.parametrize("to", READ)
@pytest.mark.parametrize("suffix", WRITE)
def test_every_format_converts_into_every_other(suffix: str, to: str, target: str, tmp_path: Path) -> None:
    state = model()
    source, result, again = (tmp_path / name for name in (f"a{suffix}", f"b{to}", f"c{to}"))
    WRITE[suffix](source, state)
    before = source.read_bytes()
    assert run(source, result, "--from", "llama", "--to", target) == 0
    assert_same(READ[to](result), expected(state, "llama", target))
    assert run(result, again, "--from", target, "--to", "llama") == 0
    assert_same(READ[to](again), state)
    assert source.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {source.name, result.name, again.name}


@pytest.mark.parametrize("to", [".safetensors", ".msgpack"])
@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float16", "int8"])
def test_no_bit_of_any_dtype_changes(name: str, to: str, tmp_path: Path) -> None:
    state = model(2, name)
    source = write_safetensors(tmp_path / "a.safetensors", state)
    assert run(source, tmp_path / f"b{to}", "--from", "llama", "--to", "phi3") == 0
    assert_same(READ[to](tmp_path / f"b{to}"), expected(state, "llama", "phi3", 2))


def test_the_file_of_msgpack_is_the_one_that_flax_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.msgpack"

    @given(
        st.lists(st.sampled_from([0, 1, 15, 16, 127, 128, 300, 70_000]), max_size=2),
        st.integers(1, 40),
        st.sampled_from([1 << 30, 4096]),
    )
    def check(shape: list[int], names: int, limit: int) -> None:
        monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", limit)
        monkeypatch.setattr("gated.interop.checkpoints.msgpack.LIMIT", limit)
        if np.prod(shape) > 150_000:
            shape = shape[:1]
        odd = {f"x{'y' * number}{number}": np.zeros(shape if number == 0 else 2, "f2") for number in range(names)}
        state = model(1) | odd
        WRITE[".msgpack"](source, state)
        plan = plan_conversion(open_checkpoint(source), "llama", "flax-nnx")
        write_conversion(plan, tmp_path / "b.msgpack", force=True)
        # The order of maps is that of writing, blocks first.
        ordered = expected(state, "llama", "flax-nnx", 1)
        keys = sorted(ordered, key=lambda key: ".mlp." not in key)
        tree = nested({key: ordered[key] for key in keys})
        same = (tmp_path / "b.msgpack").read_bytes() == serialization.msgpack_serialize(tree, in_place=True)
        assert same

    check()


def test_a_file_of_npz_has_no_date(tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz", model())
    for name in ("b.npz", "c.npz"):
        assert run(source, tmp_path / name, "--from", "llama", "--to", "phi3") == 0
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()


# Which blocks, and which keys


def test_prefixes_choose_the_blocks_and_rename_them(tmp_path: Path) -> None:
    state = model(12)
    source = write_safetensors(tmp_path / "a.safetensors", state)
    call = ["--from", "llama", "--to", "gguf", "--prefix", "model.layers.1*.mlp.", "--target-prefix", "blk.1*."]
    assert run(source, tmp_path / "b.npz", *call, "--only-ffn") == 0
    wanted: dict[str, Array] = {}
    for layer in (1, 10, 11):
        wanted |= convert(state, "llama", "gguf", prefix=f"model.layers.{layer}.mlp.", target_prefix=f"blk.{layer}.")
    assert_same(READ[".npz"](tmp_path / "b.npz"), wanted)
    assert run(source, tmp_path / "c.npz", *call) == 0
    rest = {key: array for key, array in state.items() if not re.match(r"model\.layers\.1\d?\.mlp", key)}
    assert_same(READ[".npz"](tmp_path / "c.npz"), wanted | rest)


def test_a_block_may_have_no_prefix(tmp_path: Path) -> None:
    state = {key.rpartition("mlp.")[2]: array for key, array in model(1).items() if ".mlp." in key}
    source = write_safetensors(tmp_path / "a.safetensors", state)
    assert run(source, tmp_path / "b.npz", "--from", "llama", "--to", "phi3", "--prefix", "") == 0
    assert_same(READ[".npz"](tmp_path / "b.npz"), convert(state, "llama", "phi3"))


def test_experts_of_their_own_keys_become_one_array_and_back(tmp_path: Path) -> None:
    state: dict[str, Array] = {"norm.weight": random_bits(np.random.default_rng(0), (4,), "float32")}
    for layer in range(2):
        for expert in range(3):
            for name, shape in {"w1": (10, 6), "w3": (10, 6), "w2": (6, 10)}.items():
                key = f"layers.{layer}.moe.{expert}.{name}.weight"
                state[key] = random_bits(np.random.default_rng(len(state)), shape, "bfloat16")
    source = write_safetensors(tmp_path / "a.safetensors", state)
    assert run(source, tmp_path / "b.safetensors", "--from", "mixtral", "--to", "dbrx") == 0
    packed = read_safetensors(tmp_path / "b.safetensors")
    assert set(packed) == {
        "norm.weight",
        *(f"layers.{layer}.moe.{one}" for layer in (0, 1) for one in ("w1", "v1", "w2")),
    }
    assert packed["layers.0.moe.w1"].shape == (30, 6)
    back = ["--from", "dbrx", "--to", "mixtral", "--experts", 3]
    assert run(tmp_path / "b.safetensors", tmp_path / "c.safetensors", *back) == 0
    assert_same(read_safetensors(tmp_path / "c.safetensors"), state)


def test_attention_with_a_name_of_the_family_is_no_block(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"mlp.w1": (10, 6), "mlp.w2": (10, 6), "mlp.c_proj": (6, 10), "attn.c_proj": (6, 6)}
    state = {f"h.0.{name}.weight": random_bits(rng, shape, "float32") for name, shape in shapes.items()}
    source = write_safetensors(tmp_path / "a.safetensors", state)
    assert run(source, tmp_path / "b.npz", "--from", "qwen1", "--to", "llama") == 0
    attention = {"h.0.attn.c_proj.weight": state["h.0.attn.c_proj.weight"]}
    assert_same(READ[".npz"](tmp_path / "b.npz"), convert(state, "qwen1", "llama", prefix="h.0.mlp.") | attention)


def test_quantised_models_are_converted_only_as_float32_and_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    rng = np.random.default_rng(0)
    shapes = {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    state = {f"blk.0.{name}.weight": rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    source = write_gguf(tmp_path / "a.gguf", state, kind)
    call = (source, tmp_path / "b.safetensors", "--from", "gguf", "--to", "phi3")
    assert "'blk.0.ffn_gate.weight' is quantised, Q8_0" in refused(capsys, *call)
    assert run(*call, "--dequantise") == 0
    rounded = {key: gguf.quants.dequantize(gguf.quants.quantize(one, kind), kind) for key, one in state.items()}
    assert_same(read_safetensors(tmp_path / "b.safetensors"), convert(rounded, "gguf", "phi3", prefix="blk.0."))


# Shards and metadata


def shard(folder: Path, state: State) -> Path:
    """Each array in the file of its turn, so that every block is spread over all three."""
    folder.mkdir()
    names = {key: f"model-0000{number % 3 + 1}-of-00003.safetensors" for number, key in enumerate(state)}
    for name in set(names.values()):
        own = {key: array for key, array in state.items() if names[key] == name}
        write_safetensors(folder / name, own, {"format": "pt", "of": name[:11]})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def read_folder(folder: Path) -> State:
    found: dict[str, Array] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= read_safetensors(path)
    return found


def test_a_folder_of_shards_becomes_one_of_the_same_shards(tmp_path: Path) -> None:
    state = model()
    source, result = shard(tmp_path / "a", state), tmp_path / "b"
    assert run(source, result, "--from", "llama", "--to", "phi3") == 0
    wanted = expected(state, "llama", "phi3")
    assert_same(read_folder(result), wanted)
    assert {path.name for path in result.iterdir()} == {path.name for path in source.iterdir()}
    index = json.loads((result / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in wanted.values())
    assert set(index["weight_map"]) == set(wanted)
    for key, name in index["weight_map"].items():
        assert key in read_safetensors(result / name)
        if key in state and ".mlp." not in key:
            assert key in read_safetensors(source / name)
    with safe_open(result / "model-00001-of-00003.safetensors", "np") as one:
        assert one.metadata()["format"] == "pt"


@pytest.mark.parametrize("size", ["600", "1KB", "1GB"])
def test_shards_have_the_size_that_is_asked_for(size: str, tmp_path: Path) -> None:
    state = model(4)
    source, result = write_safetensors(tmp_path / "a.safetensors", state, {"format": "pt"}), tmp_path / "b"
    assert run(source, result, "--from", "llama", "--to", "phi3", "--shard-size", size) == 0
    assert_same(read_folder(result), expected(state, "llama", "phi3", 4))
    paths = sorted(result.glob("*.safetensors"))
    limit = {"600": 600, "1KB": 1000, "1GB": 10**9}[size]
    for path in paths:
        sizes = [array.nbytes for array in read_safetensors(path).values()]
        assert sum(sizes) <= limit or len(sizes) == 1
    count = len(paths)
    assert (count == 1) == (size == "1GB")
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    assert [path.name for path in paths] == (["model.safetensors"] if count == 1 else names)
    assert (result / "model.safetensors.index.json").exists() == (count > 1)
    assert_same(open_checkpoint(result), expected(state, "llama", "phi3", 4))


def test_metadata_of_safetensors_are_kept_in_one_file(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(), {"format": "pt", "note": "ä"})
    assert run(source, tmp_path / "b.safetensors", "--from", "llama", "--to", "phi3") == 0
    with safe_open(tmp_path / "b.safetensors", "np") as one:
        assert one.metadata() == {"format": "pt", "note": "ä"}


def test_arrays_of_safetensors_are_aligned(tmp_path: Path) -> None:
    state = model(2, "bfloat16") | {"odd": np.zeros(3, np.int8), "wide": np.ones(2), "bit": np.ones(1, bool)}
    source = write_safetensors(tmp_path / "a.safetensors", state)
    assert run(source, tmp_path / "b.safetensors", "--from", "llama", "--to", "phi3") == 0
    content = (tmp_path / "b.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    widths = {"BF16": 2, "I8": 1, "F64": 8, "BOOL": 1, "F32": 4}
    assert {(8 + length + one["data_offsets"][0]) % widths[one["dtype"]] for one in header.values()} == {0}


# Memory


def peak(source: Path, result: Path, target: str) -> int:
    tracemalloc.start()
    try:
        write_conversion(plan_conversion(open_checkpoint(source), "llama", target), result)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Of one block: three arrays are read, and then a pair is made of two, or to be compared, three are read of either file.
# They are copied and compared in small pieces, and a megabyte is for headers, keys and zip's buffers.
ARRAYS, REST = 6, 1 << 20


@pytest.mark.parametrize("target", ["phi3", "flax-nnx"])
@pytest.mark.parametrize("to", READ)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".msgpack"])
def test_memory_is_bounded_by_a_few_arrays_however_many_layers_there_are(
    suffix: str, to: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gated.interop.checkpoints.checkpoint.CHUNK", 1 << 16)
    state = model(16, d=256, f=512)
    largest = max(array.nbytes for array in state.values())
    bound = ARRAYS * largest + REST
    source = WRITE[suffix](tmp_path / f"a{suffix}", state)
    assert 2 * largest < peak(source, tmp_path / f"b{to}", target) < bound
    assert bound < sum(array.nbytes for array in state.values()) / 5


_RSS = """
import resource, sys
from gated.interop.checkpoints import open_checkpoint, plan_conversion, write_conversion
write_conversion(plan_conversion(open_checkpoint(sys.argv[1]), "llama", "phi3"), sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_the_process_too_has_a_few_arrays_in_memory(tmp_path: Path) -> None:
    def resident(layers: int) -> int:
        source = write_safetensors(tmp_path / "a.safetensors", model(layers, d=512, f=1024))
        line = [sys.executable, "-c", _RSS, str(source), str(tmp_path / f"b{layers}.safetensors")]
        return int(subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout)

    # 6 MiB a layer: 22 layers more would be 132 MiB more.
    assert resident(24) - resident(2) < 16 * 2**20


# What goes wrong


def test_what_is_not_the_family_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(change: Callable[[dict[str, Array]], object], *options: object, source: str = "llama") -> str:
        state = model()
        change(state)
        write_safetensors(tmp_path / "a.safetensors", state)
        line = (tmp_path / "a.safetensors", tmp_path / "b.npz", "--from", source, "--to", "phi3", *options)
        return refused(capsys, *line)

    gate = "model.layers.2.mlp.gate_proj.weight"
    assert f"needs the key '{gate}'" in say(lambda state: state.pop(gate))
    assert "must have shape (10, 6), got (6, 10)" in say(
        lambda state: state.update({gate.replace("gate", "up"): state[gate].T.copy()})
    )
    assert "must have the dtype of" in say(lambda state: state.update({gate: state[gate].view("i4")}))
    assert "perhaps one of" in say(lambda state: None, source="lama")
    assert "to phi3" not in say(lambda state: None, source="gemma") and "gelu_tanh" in say(
        lambda state: None, source="gemma"
    )
    assert "must have a block of family dinov2, keys that end in 'w12.weight'" in say(
        lambda state: None, source="dinov2"
    )
    said = say(lambda state: None, "--prefix", "layers.*.mlp.")
    assert "under 'layers.*.mlp.', got none of 13 keys; there are blocks under 'model.layers.0.mlp.'" in said
    assert "must tell 3 blocks apart" in say(lambda state: None, "--target-prefix", "mlp.")
    assert "no more * than prefix" in say(
        lambda state: None, "--prefix", "model.layers.2.mlp.", "--target-prefix", "*."
    )
    taken = {"model.layers.1.mlp.gate_up_proj.weight": np.ones(1, "f4")}
    assert "must be no other array's key, which is copied" in say(lambda state: state.update(taken))
    for more in ("weight_scale_inv", "lora_A.weight"):
        said = say(lambda state, more=more: state.update({gate.replace("weight", more): np.ones(1, "f4")}))
        assert f"gate_proj.{more}' belongs to an array of a block" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_the_format_of_the_result_cannot_hold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(1, "bfloat16"))
    call = ("--from", "llama", "--to", "phi3")
    assert "has dtype bfloat16, which npz does not have" in refused(capsys, source, tmp_path / "b.npz", *call)
    for name in ("b.gguf", "b.bin", "b.json", "b.SAFETENSORS"):
        assert "must end in .safetensors, .npz, .msgpack" in refused(capsys, source, tmp_path / name, *call)
    assert "goes with a folder" in refused(capsys, source, tmp_path / "b.npz", *call, "--shard-size", "1GB")
    assert "must be in a folder that can be written" in refused(capsys, source, tmp_path / "none" / "b.npz", *call)
    wide = WRITE[".npz"](tmp_path / "c.npz", model(1) | {"wide": np.ones(2, "complex128")})
    assert "'wide' has dtype complex128, which safetensors" in refused(capsys, wide, tmp_path / "b.safetensors", *call)
    both = WRITE[".npz"](tmp_path / "d.npz", model(1) | {"model.embed": np.ones(2)})
    assert "must not be the beginning" in refused(capsys, both, tmp_path / "b.msgpack", *call)
    step = tmp_path / "e.msgpack"
    step.write_bytes(serialization.msgpack_serialize(nested(model(1)) | {"step": 3}))
    assert "'step' must be an array, got a whole number" in refused(capsys, step, tmp_path / "b.npz", *call)
    assert run(step, tmp_path / "b.npz", *call, "--only-ffn") == 0


@pytest.mark.parametrize("line", [["--shard-size", "0"], ["--shard-size", "1TB"], ["--experts", "0"], ["--to"]])
def test_wrong_options_are_usage_errors(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("a", "b", "--from", "llama", "--to", "phi3", *line)
    assert stop.value.code == 2 and line[0] in capsys.readouterr().err


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("--from", "llama", "--to", "phi3")
    assert "none.npz: No such file" in refused(capsys, tmp_path / "none.npz", tmp_path / "b.npz", *call)
    (tmp_path / "model.bin").write_bytes(b"\x80\x02}q\x00.")
    assert "is a pickle" in refused(capsys, tmp_path / "model.bin", tmp_path / "b.npz", *call)
    source = write_safetensors(tmp_path / "a.safetensors", model())
    source.write_bytes(source.read_bytes()[:-1])
    assert "cut short" in refused(capsys, source, tmp_path / "b.npz", *call)


@pytest.mark.parametrize("name", ["b.npz", "b"])
def test_what_is_there_is_replaced_only_by_force(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_safetensors(tmp_path / "a.safetensors", model(1))
    second = write_safetensors(tmp_path / "c.safetensors", model(2))
    result = tmp_path / name
    assert run(first, result, "--from", "llama", "--to", "phi3") == 0
    line = (second, result, "--from", "llama", "--to", "phi3")
    assert f"{name} is there already; force=True (--force)" in refused(capsys, *line)
    assert run(*line, "--force") == 0
    assert_same(open_checkpoint(result), expected(model(2), "llama", "phi3", 2))
    assert len(list(tmp_path.iterdir())) == 3


def test_force_replaces_neither_a_folder_with_other_files_nor_another_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(1))
    call = ("--from", "llama", "--to", "phi3", "--force")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    assert "must hold safetensors files alone to be replaced, got config.json" in refused(
        capsys, source, tmp_path / "b", *call
    )
    (tmp_path / "c.npz").mkdir()
    assert run(source, tmp_path / "c.npz", *call) == 0, "an empty folder is one, whatever its name"
    (tmp_path / "d").write_text("")
    assert "must be a folder" in refused(capsys, source, tmp_path / "d", *call)
    os.mkfifo(tmp_path / "e.npz")
    assert "must be a file" in refused(capsys, source, tmp_path / "e.npz", *call)


def test_the_source_is_never_the_destination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("--from", "llama", "--to", "phi3", "--force")
    source = write_safetensors(tmp_path / "a.safetensors", model(1))
    (tmp_path / "link.safetensors").symlink_to(source)
    os.link(source, tmp_path / "hard.safetensors")
    for name in ("a.safetensors", "link.safetensors", "hard.safetensors"):
        assert "must be another path than the source" in refused(capsys, source, tmp_path / name, *call)
    folder = shard(tmp_path / "b", model())
    assert "must be another path than the source" in refused(capsys, folder, folder, *call)
    # As caches of models have it: the folder's files are links to others.
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in folder.iterdir():
        (cache / path.name).symlink_to(path)
    assert "must be another path than the source" in refused(capsys, cache, cache, *call)


def test_a_link_at_the_destination_is_followed(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(1))
    (tmp_path / "real.npz").write_bytes(b"old")
    (tmp_path / "link.npz").symlink_to("real.npz")
    assert run(source, tmp_path / "link.npz", "--from", "llama", "--to", "phi3", "--force") == 0
    assert (tmp_path / "link.npz").is_symlink()
    assert_same(READ[".npz"](tmp_path / "real.npz"), expected(model(1), "llama", "phi3", 1))


_LIMITED = """
import resource, sys
from gated import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("name", ["b.safetensors", "b.npz", "b.msgpack", "b"])
@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_disk_that_takes_no_more_leaves_what_was_there(share: float, name: str, tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(2, d=64, f=100))
    assert run(source, tmp_path / name, "--from", "llama", "--to", "flax-nnx") == 0
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    limit = int(share * source.stat().st_size)
    arguments = ["convert", source, tmp_path / name, "--from", "llama", "--to", "phi3", "--force"]
    line = [sys.executable, "-c", _LIMITED, str(limit), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and os.strerror(errno.EFBIG) in done.stderr and done.stderr.count("\n") == 1
    assert name in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_a_disk_without_room_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model())
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    said = refused(capsys, source, tmp_path / "b.npz", "--from", "llama", "--to", "phi3")
    total = sum(array.nbytes for array in model().values())
    assert f"the disk must have {total} bytes free, got 100" in said


@pytest.mark.parametrize("name", ["b.safetensors", "b.npz", "b"])
@pytest.mark.parametrize("after", [0, 5, 9, 13])
def test_an_interruption_leaves_nothing(after: int, name: str, tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model())
    plan = plan_conversion(open_checkpoint(source), "llama", "phi3")
    calls: list[str] = []

    def advance(what: str) -> None:
        calls.append(what)
        if len(calls) > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_conversion(plan, tmp_path / name, advance=advance)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_progress_counts_every_block_and_array_twice(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model())
    plan = plan_conversion(open_checkpoint(source), "llama", "phi3")
    calls: list[str] = []
    write_conversion(plan, tmp_path / "b.npz", advance=calls.append)
    assert len(calls) == plan.steps == 2 * (3 + 4)
    assert calls[:7] == calls[7:] == [*(f"model.layers.{layer}.mlp." for layer in range(3)), *plan.copied]


@pytest.mark.parametrize(
    "key", ["model.layers.1.mlp.gate_up_proj.weight", "model.layers.1.mlp.down_proj.weight", "model.embed.weight"]
)
def test_what_is_read_back_is_compared_to_the_last_bit(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(2, d=300, f=400))
    put = PlacedWriter.put

    def damaged(writer: PlacedWriter, name: str, array: Array) -> None:
        if name == key:
            array = array.copy()
            array.view(np.uint8)[-1, -1] ^= 1
        put(writer, name, array)

    monkeypatch.setattr(PlacedWriter, "put", damaged)
    plan = plan_conversion(open_checkpoint(source), "llama", "phi3")
    with pytest.raises(InteropError, match="differs, read back from the file"):
        write_conversion(plan, tmp_path / "b.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_took_the_name_meanwhile_is_kept(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(1))
    plan = plan_conversion(open_checkpoint(source), "llama", "phi3")
    result = tmp_path / "b.npz"
    with pytest.raises(InteropError, match="is there already, since a moment"):
        write_conversion(plan, result, advance=lambda _: result.write_text("mine") and None)
    assert result.read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_take_its_name_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(1))
    assert run(source, tmp_path / "b", "--from", "llama", "--to", "flax-nnx") == 0
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.suffix == ".part":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    assert run(source, tmp_path / "b", "--from", "llama", "--to", "phi3", "--force") == 2
    assert_same(read_folder(tmp_path / "b"), expected(model(1), "llama", "flax-nnx", 1))
    assert len(list(tmp_path.iterdir())) == 2


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model())
    assert run(source, tmp_path / "b.npz", "--from", "llama", "--to", "phi3") == 0
    size = sum(array.nbytes for array in model().values())
    assert capsys.readouterr().out == (
        f"{tmp_path / 'b.npz'}: 3 blocks, llama to phi3; 4 arrays as they were; {size} bytes, read back and compared\n"
    )


@pytest.mark.parametrize("name", ["b.npz", "b"])
def test_all_is_on_the_disk_before_it_has_the_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", model(2))
    flushed: list[tuple[int, bool]] = []
    sync = os.fsync

    def recorded(handle: int) -> None:
        flushed.append((os.fstat(handle).st_ino, (tmp_path / name).exists()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    assert (
        run(source, tmp_path / name, "--from", "llama", "--to", "phi3", *(["--shard-size", 900] * (name == "b"))) == 0
    )
    written = [tmp_path / name, *(path for path in (tmp_path / name).rglob("*"))]
    assert len(written) == 1 or len(written) > 3
    assert {(path.stat().st_ino, False) for path in written} | {(tmp_path.stat().st_ino, True)} == set(flushed)
