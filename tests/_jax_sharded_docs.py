"""Checks over eight devices: the code of ``docs/jax-sharding.md`` runs."""

from __future__ import annotations

import os
from pathlib import Path

from _docs import run_blocks
from _jax_sharded import check

PAGE = Path(__file__).parent.parent / "docs" / "jax-sharding.md"


@check("devices")
def the_code_of_the_page_runs(folder: Path) -> None:
    os.chdir(folder)  # where it may save
    run_blocks(PAGE, at_least=6)
