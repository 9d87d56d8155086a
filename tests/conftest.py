"""Fixtures: one test, every backend."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
