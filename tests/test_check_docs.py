"""docs/check.md: its commands end as it says, its code runs, and its tables have every id."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gated.cli import main
from gated.commands import check
from gated.conformance.adapters import FRAMEWORKS
from gated.conformance.grading.finding_ids import FINDING_IDS
from gated.conformance.grading.hypotheses_gradients import GRADIENT_HYPOTHESES
from gated.conformance.grading.hypotheses_projected import PROJECTED_HYPOTHESES
from gated.conformance.grading.hypotheses_units import UNIT_HYPOTHESES
from gated.conformance.grading.symptoms import SYMPTOMS

PAGE = (Path(__file__).parent.parent / "docs" / "check.md").read_text(encoding="utf-8")

# Those that findings show by themselves, which are of no table.
OTHERS = {"input-overwritten", "gradient-stopped", "gradient-of-other-function", "beta-gradient-not-summed"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def ids(section: str) -> list[str]:
    part = PAGE.partition(f"<!-- {section} -->")[2].partition(f"<!-- end of {section} -->")[0]
    return re.findall(r"^\| `([a-z0-9-]+)` \| \S", part, flags=re.MULTILINE)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page, which is the working directory; its modules are forgotten afterwards."""
    before = set(sys.modules)
    for language in ("python", "toml"):
        for block in blocks(language):
            if name := re.match(r"# ([a-z_]+\.[a-z]+)\n", block):
                (tmp_path / name[1]).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


def commands() -> list[tuple[str, int]]:
    """The commands of the page, with the exit status that each is said to have."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("gated ")]
    statuses = [re.search(r"# exit (\d)$", line) for line in lines]
    return [
        (line.partition("  # ")[0], int(found[1]) if found else 0) for line, found in zip(lines, statuses, strict=True)
    ]


@pytest.mark.parametrize(("command", "status"), commands())
def test_a_command_of_the_page_ends_as_it_says(command: str, status: int, files: Path) -> None:
    assert main(shlex.split(command)[1:]) == status
    for option in ("--json", "--html"):
        if found := re.search(rf"{option} (\S+)", command):
            assert (files / found[1]).stat().st_size > 0


def test_the_output_on_the_page_is_that_of_its_command(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = (command for command, status in commands() if status)
    main(shlex.split(command)[1:])
    shown = capsys.readouterr().out.splitlines()
    sample = PAGE.partition("<!-- sample -->\n\n```text\n")[2].partition("```")[0].splitlines()
    assert len(sample) > 10

    def heads(lines: list[str]) -> list[str]:
        """The first word of each line but those of evidence, the table and the time: other machines have other ones."""
        kept = [line for line in lines if re.match(r" {0,2}[^\W\d]", line) and not re.search(r"\d s$", line)]
        return [line.split()[0] for line in kept]

    assert heads(shown) == heads(sample)
    assert heads(sample)[-1] == "value-activated"


def test_the_code_of_the_page_runs(files: Path) -> None:
    scripts = [block for block in blocks("python") if not re.match(r"# [a-z_]+\.py\n", block)]
    assert len(scripts) == 1
    for code in scripts:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(code, "docs/check.md", "exec"), {})
        for promised in re.findall(r"print\(.*\)  # (.*)", code):
            assert promised in shown.getvalue()


def test_the_tests_of_the_page_pass(files: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_kernels.py"]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    # The value, what is found besides, and the target pass; NumPy has no gradient.
    assert re.search(r"\b3 passed, 2 skipped", done.stdout), done.stdout


def test_the_page_has_every_finding_in_its_words() -> None:
    assert ids("findings") == list(FINDING_IDS)
    for name, text in FINDING_IDS.items():
        assert f"| `{name}` | {text} |" in PAGE


def test_the_page_has_every_diagnosis() -> None:
    tables = (UNIT_HYPOTHESES, PROJECTED_HYPOTHESES, GRADIENT_HYPOTHESES, SYMPTOMS)
    found = ids("diagnoses")
    assert len(found) == len(set(found))
    assert set(found) == {one.id for table in tables for one in table} | OTHERS


def test_the_page_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    shown = capsys.readouterr().out
    options = set(re.findall(r"^ +(--[a-z-]+)", shown, flags=re.MULTILINE)) | {"--as"}
    for option in options:
        assert re.search(rf"`{option}\b", PAGE), option


def test_help_and_page_name_every_framework() -> None:
    names = ", ".join(FRAMEWORKS)
    assert names in PAGE
    assert names == check._FRAMEWORKS
