"""Checks over eight devices: the code of ``docs/jax-sharding.md`` runs."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

from _jax_sharded import check

PAGE = Path(__file__).parent.parent / "docs" / "jax-sharding.md"


@check("devices")
def the_code_of_the_page_runs(folder: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 6
    os.chdir(folder)  # where it may save
    namespace: dict[str, object] = {}
    for number, code in enumerate(blocks):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(code, f"docs/jax-sharding.md, block {number}", "exec"), namespace)
        for promised in re.findall(r"print\(.*\)  # (.*)", code):
            assert promised in shown.getvalue(), (promised, shown.getvalue())
