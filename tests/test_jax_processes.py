"""The JAX backend in two processes of ``jax.distributed``, which talk by gloo over the loopback device.

What is proved stands in ``_jax_sharded_processes.py``: checks that both processes run. Each is a test here, and names
the processes in which it failed. The group is started once, also for all workers of pytest-xdist.
"""

from __future__ import annotations

import pytest

pytest.importorskip("jax")
pytest.importorskip("fcntl", reason="the workers share a group by a lock on a file")

import _jax_sharded as groups

groups.import_checks("processes")


@pytest.mark.parametrize("name", groups.CHECKS["processes"])
def test_in_two_processes(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    groups.fail_for("processes", name, groups.session_folder(tmp_path_factory))
