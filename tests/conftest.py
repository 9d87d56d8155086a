"""Fixtures: one test, every backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _calls import INSTALLED, NATIVES, Native


@pytest.fixture(params=INSTALLED)
def backend(request: pytest.FixtureRequest) -> Iterator[Native]:
    """Each installed backend in turn; float64 exists in JAX while the test runs."""
    native = NATIVES[request.param](request.param)
    with native.session():
        yield native
