"""When the Triton kernels are used, and what is said where they are not."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import gated.torch_impl as G  # noqa: E402
from gated.torch_impl import _cpu, _forms, kernels  # noqa: E402

LOADED = "[name for name in sys.modules if name.startswith('gated.torch_impl.kernels.')]"


def in_python(code: str) -> Any:
    """What code prints as JSON in an interpreter of its own."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_what_is_computed_on_the_cpu_loads_no_kernel() -> None:
    code = f"""
import json, sys, torch, gated.torch_impl as G, gated.torch_impl.nn
x = torch.ones(4, requires_grad=True)
G.swiglu(x).sum().backward()
torch.func.vmap(G.silu)(x.detach())
print(json.dumps({LOADED}))
"""
    assert in_python(code) == []


STATUS = """
import json, torch, gated.torch_impl as G
from gated.torch_impl import kernels
print(json.dumps([kernels.status(), kernels.serve(torch.ones(2)), G.silu(torch.zeros(2)).tolist()]))
"""


def test_a_missing_triton_is_said_and_does_no_harm() -> None:
    hidden = "import sys; sys.modules['triton'] = None\n"
    assert in_python(hidden + STATUS) == ["not used: triton is not installed", False, [0, 0]]


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("3.3.1", "not used: triton is too old: 3.3.1 < 3.4"),
        ("2.1.0+git", "not used: triton is too old: 2.1.0+git < 3.4"),
        ("3.4.0", "used on CUDA and ROCm tensors (triton 3.4.0)"),
        ("3.10.0", "used on CUDA and ROCm tensors (triton 3.10.0)"),
        (None, "not used: triton cannot be imported: libtriton.so: no such file"),
    ],
)
def test_the_status_says_which_triton_and_why_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str | None, status: str
) -> None:
    broken = "raise ImportError('libtriton.so: no such file')"
    (tmp_path / "triton.py").write_text(f"__version__ = {version!r}" if version else broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    kernels._triton.cache_clear()
    try:
        assert kernels.status() == status
    finally:
        kernels._triton.cache_clear()
        sys.modules.pop("triton", None)


def test_the_cpu_and_meta_tensors_are_not_served() -> None:
    pytest.importorskip("triton")
    assert kernels.status().startswith("used on CUDA and ROCm tensors (triton ")
    assert not kernels.serve(torch.ones(2))
    assert not kernels.serve(torch.ones(2, device="meta"))
    assert not kernels.serve(None, 1.0)


@pytest.mark.parametrize(
    ("capability", "hip", "failure"),
    [
        ((7, 5), None, "compute capability 7.5 < 8.0"),
        ((8, 0), None, None),
        ((12, 0), None, None),
        ((7, 5), "6.4", None),  # numbers of AMD's
    ],
)
def test_old_devices_are_not_served(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, failure: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(kernels, "_try_on", lambda device: None)
    assert kernels._fails_on(torch.device("cuda:0")) == failure


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that would serve the CPU, and have not been tried."""
    pytest.importorskip("triton")
    monkeypatch.setattr(_cpu, "is_plain", lambda *operands: False)
    monkeypatch.setattr(kernels, "_DEVICE", "cpu")
    monkeypatch.setattr(kernels, "_failures", {})


def stand_in(
    monkeypatch: pytest.MonkeyPatch, name: str, errors: list[Exception] | None = None
) -> list[tuple[Any, ...]]:
    """Plain operations in a kernel's place, which raise the errors first; the calls that there are."""
    calls = []
    plain = getattr(_forms, name)

    def call(*operands: Any) -> Any:
        calls.append(operands)
        if errors:
            raise errors.pop(0)
        return plain(*operands)

    monkeypatch.setattr(kernels, name, call)
    return calls


X = torch.tensor([0.0, -100.0])
SILU = torch.tensor([0.0, -100 * math.exp(-100)])


@pytest.mark.parametrize("kernel", ["evaluate", "pullback"])
def test_where_a_kernel_does_not_run_plain_operations_serve_and_the_status_says_why(
    monkeypatch: pytest.MonkeyPatch, untried: None, kernel: str
) -> None:
    calls = {name: stand_in(monkeypatch, name) for name in ("evaluate", "pullback")}
    error = RuntimeError("Failed to find C compiler.\nPlease specify via CC")
    calls[kernel] = stand_in(monkeypatch, kernel, [error])
    assert torch.equal(G.silu(X), SILU)
    seen = {name: len(some) for name, some in calls.items()}
    assert seen[kernel] == 1
    x = X.clone().requires_grad_()
    G.silu(x).sum().backward()
    assert {name: len(some) for name, some in calls.items()} == seen
    assert kernels.status().endswith("; not on cpu: RuntimeError: Failed to find C compiler.")


def test_what_is_tried_is_swish_forward_and_backward_in_float32(monkeypatch: pytest.MonkeyPatch, untried: None) -> None:
    forward, backward = (stand_in(monkeypatch, name) for name in ("evaluate", "pullback"))
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert kernels.serve(X)
    finally:
        torch.set_default_dtype(default)
    tried = forward + backward
    assert [form.activation for form, *_ in tried] == ["swish", "swish"]
    tensors = [one for _, *operands in tried for one in operands if isinstance(one, torch.Tensor)]
    assert {(one.dtype, one.device) for one in tensors} == {(torch.float32, X.device)}
    assert kernels.serve(X) and len(forward + backward) == 2  # once in a process


@pytest.mark.parametrize("kernel", ["evaluate", "pullback"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("HIP error: out of memory"),
        MemoryError(),
    ],
    ids=repr,
)
def test_too_little_memory_for_the_trial_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch, untried: None, kernel: str, error: Exception
) -> None:
    stand_in(monkeypatch, "pullback" if kernel == "evaluate" else "evaluate")
    calls = stand_in(monkeypatch, kernel, [error, error])
    for tried in (1, 2):
        assert torch.equal(G.silu(X), SILU)  # in plain operations
        assert len(calls) == tried
        assert "not on" not in kernels.status()
    assert kernels.serve(X)


def test_too_little_memory_for_a_call_is_said(monkeypatch: pytest.MonkeyPatch, untried: None) -> None:
    stand_in(monkeypatch, "evaluate")
    stand_in(monkeypatch, "pullback")
    G.silu(X)
    stand_in(monkeypatch, "evaluate", [torch.OutOfMemoryError("CUDA out of memory.")])
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        G.silu(X)
