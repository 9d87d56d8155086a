"""Checks in several processes: the code of ``docs/distributed.md`` and the example run."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
from pathlib import Path

from _torch_distributed import World, check

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "distributed.md").read_text(), flags=re.DOTALL)


@check(4)
def the_code_of_the_page_runs(world: World) -> None:
    assert len(BLOCKS) >= 6
    os.chdir(world.folder)  # where it may save
    namespace: dict[str, object] = {}
    for number, code in enumerate(BLOCKS):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(code, f"docs/distributed.md, block {number}", "exec"), namespace)
        for promised in re.findall(r"print\(.*\)  # (.*)", code):
            assert promised in shown.getvalue(), (promised, shown.getvalue())


@check(2, 4)
def the_example_runs(world: World) -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        runpy.run_path(str(ROOT / "examples" / "torch_tensor_parallel.py"))["main"]()
    expected = f"{world.size} processes" if world.rank == 0 else ""
    assert (expected in shown.getvalue()) if expected else not shown.getvalue()
