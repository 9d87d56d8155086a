"""Runs the blocks of code of a page, one after the other, as one program."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

__all__ = ["run_blocks"]


def run_blocks(page: Path, *, at_least: int) -> None:
    """Runs them in one namespace, in the working directory; what a ``print(...)  # text`` promises is shown."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert len(blocks) >= at_least
    namespace: dict[str, object] = {}
    for number, code in enumerate(blocks):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(code, f"{page.name}, block {number}", "exec"), namespace)
        for promised in re.findall(r"print\(.*\)  # (.*)", code):
            assert promised in shown.getvalue(), (promised, shown.getvalue())
