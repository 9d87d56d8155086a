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
from gated.torch_impl import _cpu, kernels  # noqa: E402

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
    monkeypatch.setattr(torch, "zeros", lambda size, device: None)
    monkeypatch.setattr(kernels, "evaluate", lambda *operands: None)
    assert kernels._fails_on(torch.device("cuda:0")) == failure


def test_where_a_kernel_does_not_run_plain_operations_serve_and_the_status_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton")
    tried = []

    def fail(*operands: Any) -> Any:
        tried.append(operands)
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(_cpu, "is_plain", lambda *operands: False)
    monkeypatch.setattr(kernels, "_DEVICE", "cpu")
    monkeypatch.setattr(kernels, "_failures", {})
    monkeypatch.setattr(kernels, "evaluate", fail)
    x = torch.tensor([0.0, -100.0])
    assert torch.equal(G.silu(x), torch.tensor([0.0, -100 * math.exp(-100)]))
    G.silu(x)
    assert len(tried) == 1
    assert kernels.status().endswith("; not on cpu: RuntimeError: Failed to find C compiler.")
