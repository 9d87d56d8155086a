"""The README's code runs, its tables name what exists, and its commands are the ones that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gated.numpy_ref as reference
from gated.contract import ARRAY_PARAMETERS, LAYOUTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_readme_code_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    for promised in re.findall(r"print\(.*\)  # (\[.*\])", code):
        assert promised in shown


def test_the_readme_has_its_two_commands() -> None:
    found = dict(re.findall(r"<!-- command: (\w+) -->\n```sh\n(.*?)\n```", README))
    assert found["validate"].endswith(".venv/bin/gated validate")
    assert found["test"].endswith(".venv/bin/pytest -n 2")
    assert found["test"] in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_readme_names_every_function_and_layout() -> None:
    rows = re.findall(r"^\| `(\w+)\(", README, flags=re.MULTILINE)
    assert rows == [*ARRAY_PARAMETERS, "vjp", "jvp"]
    assert set(rows) == set(reference.__all__)
    assert re.findall(r'^\| `"(\w+)"` \|', README, flags=re.MULTILINE) == list(LAYOUTS)


def test_every_link_and_figure_of_the_docs_is_there() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("https://"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
