"""Checks in several processes: the code of ``docs/distributed.md`` and the example run."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
from pathlib import Path

from _docs import run_blocks
from _torch_distributed import World, check

ROOT = Path(__file__).parent.parent


@check(4)
def the_code_of_the_page_runs(world: World) -> None:
    os.chdir(world.folder)  # where it may save
    run_blocks(ROOT / "docs" / "distributed.md", at_least=6)


@check(2)
def the_example_runs(world: World) -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        runpy.run_path(str(ROOT / "examples" / "torch_tensor_parallel.py"))["main"]()
    expected = f"{world.size} processes" if world.rank == 0 else ""
    assert (expected in shown.getvalue()) if expected else not shown.getvalue()
