"""The PyTorch backend in several processes: DTensors, tensor parallelism, FSDP2, distributed checkpoints.

What is proved stands in ``_torch_distributed_*.py``: checks that all processes of a group run. Each is a test here, and
names the processes in which it failed. A group is started once, also for all workers of pytest-xdist.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fcntl", reason="the workers share a group by a lock on a file")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this build of torch has no gloo", allow_module_level=True)

import _torch_distributed as groups  # noqa: E402
from _torch import ALL_UNITS, LAYOUTS, assert_same, halves  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from gated.torch_impl import nn as gated_nn  # noqa: E402
from gated.torch_impl.tensor_parallel import repack, tensor_parallel_plan  # noqa: E402

groups.import_checks()
Outcome = tuple[dict[str, dict[str, str]], Path]


@pytest.fixture(scope="session")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Outcome]:
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    return lambda size: groups.faults_of(size, root)


@pytest.mark.parametrize(("size", "name"), [(size, name) for size in groups.SIZES for name in groups.CHECKS[size]])
def test_in_processes(size: int, name: str, outcome: Callable[[int], Outcome]) -> None:
    faults = outcome(size)[0].get(name, {})
    if faults:
        texts = "\n".join(f"rank {rank}: {text}" for rank, text in faults.items())
        pytest.fail(f"{name}: failed on {len(faults)} of {size} processes\n{texts}", pytrace=False)


def test_a_checkpoint_of_four_processes_loads_in_a_process_without_a_group(outcome: Callable[[int], Outcome]) -> None:
    folder = outcome(4)[1]
    expected = torch.load(folder / "expected.pt", weights_only=True)
    code = """
import sys, torch
import torch.distributed.checkpoint as dcp
from _torch_distributed_modules import Model
folder, *ways = sys.argv[1:]
for way in ways:
    model = Model(bias=True, learn_beta=True)
    state = model.state_dict()
    dcp.load(state, checkpoint_id=f"{folder}/checkpoint-{way}", no_dist=True)
    model.load_state_dict(state)
    torch.save(model.state_dict(), f"{folder}/loaded-{way}.pt")
"""
    ways = ("tp", "fsdp", "tp-and-fsdp")
    subprocess.run([sys.executable, "-c", code, str(folder), *ways], check=True, timeout=120, env=groups.environment())
    for way in ways:
        loaded = torch.load(folder / f"loaded-{way}.pt", weights_only=True)
        assert list(loaded) == list(expected)
        assert all(torch.equal(loaded[name], one) for name, one in expected.items()), way


# The parts that need no group


def test_the_plan_names_the_projections_and_takes_a_prefix() -> None:
    assert [*tensor_parallel_plan()] == ["", "gate_proj", "up_proj", "down_proj"]
    assert [*tensor_parallel_plan("layers.*.mlp")] == [
        "layers.*.mlp",
        "layers.*.mlp.gate_proj",
        "layers.*.mlp.up_proj",
        "layers.*.mlp.down_proj",
    ]
    assert repr(gated_nn.GatedFFN(2, 2).tensor_parallel_plan()) == repr(tensor_parallel_plan())
    assert repr(gated_nn.GatedLinear(2, 2).tensor_parallel_plan()) == repr(tensor_parallel_plan(down_proj=False))
    assert [*tensor_parallel_plan(down_proj=False)] == ["", "gate_proj", "up_proj"]


def test_the_rules_for_dtensors_are_imported_where_there_is_one() -> None:
    code = """
import sys, gated.torch_impl as G, gated.torch_impl.nn, torch
G.swish(torch.ones(3, requires_grad=True)).sum().backward()
print([name for name in sys.modules if name.startswith("gated") and ("dtensor" in name or "parallel" in name)])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@given(
    pairs=st.integers(0, 6),
    source=st.sampled_from(LAYOUTS),
    target=st.sampled_from(LAYOUTS),
    axis=st.sampled_from((0, 1, -1)),
)
def test_repacking_moves_gate_and_value_and_nothing_else(pairs: int, source: str, target: str, axis: int) -> None:
    packed = torch.arange(float(12 * pairs)).view(2 * pairs, 6) if axis == 0 else torch.arange(12.0).view(2, 6)
    again = repack(packed, source, target, axis=axis)
    for ours, one in zip(
        halves(again.movedim(axis, -1), target), halves(packed.movedim(axis, -1), source), strict=True
    ):
        assert torch.equal(ours, one)
    assert torch.equal(repack(again, target, source, axis=axis), packed)
    assert again.data_ptr() != packed.data_ptr() or not packed.numel()


@given(shards=st.integers(1, 6), pairs_each=st.integers(1, 4), function=st.sampled_from(sorted(ALL_UNITS)))
def test_shards_of_an_interleaved_array_are_packed_arrays(shards: int, pairs_each: int, function: str) -> None:
    unit = ALL_UNITS[function]
    x = torch.linspace(-4, 4, 3 * 2 * shards * pairs_each, dtype=torch.float64).view(3, -1)
    parts = [
        unit(part, layout="interleaved") for part in repack(x, "gate_first", "interleaved", axis=1).chunk(shards, 1)
    ]
    assert_same(torch.cat(parts, 1), unit(x, layout="gate_first"))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: repack(torch.ones(3), "gate_first", "interleaved"), ValueError, "repack: x must have an even size"),
        (lambda: repack(torch.ones(4), "first", "interleaved"), ValueError, 'repack: source must be "gate_last", '),
        (lambda: repack(torch.ones(4), "gate_first", "x"), ValueError, 'repack: target must be "gate_last", '),
        (lambda: repack(torch.ones(4), "gate_first", "interleaved", axis=1), ValueError, "repack: axis must be"),
        (lambda: repack([1.0], "gate_first", "interleaved"), TypeError, "repack: x must be an array of this backend"),
    ],
)
def test_repack_refuses_what_has_no_halves(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_plan_needs_a_torch_that_applies_styles_to_the_module_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.8.1"))
    with pytest.raises(RuntimeError, match=r"tensor_parallel_plan: torch 2\.9 or newer is needed, got 2\.8\.1"):
        tensor_parallel_plan()
