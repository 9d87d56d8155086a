"""The code of README and pages runs, the README's tables name what exists, and its commands are those that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gated.numpy_ref as reference
from gated.contract import ARRAY_PARAMETERS, LAYOUTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = [
    pytest.param(page, code, id=f"{page}-{index}")
    for page in ("README.md", "docs/torch.md", "docs/jax.md", "docs/jax-kernels.md")
    for index, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL))
]


@pytest.mark.parametrize(("page", "code"), BLOCKS)
def test_the_code_of_the_docs_runs(page: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, page, "exec"), {})
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
