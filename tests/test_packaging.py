"""What is shipped: the contents and the metadata of wheel and sdist, and the types, as a user's checker sees them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import gated
import gated.contract

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def sources() -> set[str]:
    """Every file of the package, with the package's name."""
    paths = (path for path in (ROOT / "gated").rglob("*") if path.suffix == ".py" or path.name == "py.typed")
    return {path.relative_to(ROOT).as_posix() for path in paths}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and an sdist built from this checkout, the wheel from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"gated-{gated.__version__}.dist-info/METADATA").decode())


def test_two_distributions_are_built(built: Path) -> None:
    version = gated.__version__
    assert {path.name for path in built.iterdir()} == {f"gated-{version}-py3-none-any.whl", f"gated-{version}.tar.gz"}


def test_the_wheel_has_the_package_the_licence_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"gated-{gated.__version__}.dist-info"
    files = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    shipped = {name for name in wheel.namelist() if name.startswith("gated/")}
    assert set(wheel.namelist()) - shipped == {f"{info}/{name}" for name in files}
    assert {name for name in shipped if name.endswith((".py", ".typed"))} == sources()
    assert "gated/py.typed" in shipped
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_has_the_texts_of_this_checkout(wheel: zipfile.ZipFile) -> None:
    for name in sources():
        assert wheel.read(name) == (ROOT / name).read_bytes(), name


def test_the_sdist_has_package_tests_and_licence(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources() <= names
    assert {"LICENSE", "README.md", "pyproject.toml", f"tests/{Path(__file__).name}"} <= names
    assert not {name for name in names if ".git/" in name or "__pycache__" in name or "_cache/" in name}


def test_the_golden_vectors_are_shipped(wheel: zipfile.ZipFile, built: Path) -> None:
    """In the wheel, byte for byte, and in the sdist, with the C program that reads them."""
    vectors = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / "gated/vectors").iterdir()}
    assert len(vectors) == 134
    assert {name for name in wheel.namelist() if name.startswith("gated/vectors/")} == set(vectors)
    for name, content in vectors.items():
        assert wheel.read(name) == content, name
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*vectors, "examples/c/grade.c", "docs/vectors.md"} <= names


def test_the_page_of_reports_is_shipped(wheel: zipfile.ZipFile) -> None:
    folder = "gated/conformance/grading/page/"
    page = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / folder).iterdir()}
    assert {name for name in wheel.namelist() if name.startswith(folder)} == set(page)
    assert {Path(name).suffix for name in page} == {".css", ".j2", ".js"}
    for name, content in page.items():
        assert wheel.read(name) == content, name


def test_the_metadata_names_the_project_its_extras_and_its_python(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("gated", gated.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    extras = ["all", "cli", "docs", "examples", "jax", "onnx", "oracle", "report", "survey", "test", "torch", "triton"]
    assert metadata.get_all("Provides-Extra") == extras
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])


def test_without_an_extra_the_reference_s_three_needs_are_installed(metadata: Message) -> None:
    required = [one for one in metadata.get_all("Requires-Dist") or [] if "extra ==" not in one]
    assert sorted(one.split(">")[0] for one in required) == ["ml-dtypes", "numpy", "scipy"]


def test_every_extra_that_an_error_names_is_an_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    for backend in gated.contract.BACKENDS.values():
        if backend.extra:
            assert any(one.startswith(backend.requires) for one in extras[backend.extra])
    assert any(one.startswith("matplotlib") for one in extras["cli"])
    assert any(one.startswith("plotly") for one in extras["report"])
    assert extras["all"] == ["gated[torch,jax,cli,oracle,report]"]


def test_the_command_is_gated(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(f"gated-{gated.__version__}.dist-info/entry_points.txt").decode()
    assert text.split() == ["[console_scripts]", "gated", "=", "gated.cli:main"]


def test_the_built_wheel_imports_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """From the unpacked wheel, not from this checkout."""
    wheel.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import gated.numpy_ref as G, numpy as np\n"
        "assert G.__file__.startswith(sys.argv[1]), G.__file__\n"
        "assert G.silu(np.zeros(2)).tolist() == [0.0, 0.0]\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], check=True, timeout=100, cwd=tmp_path)


# Types


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """What ``mypy --strict`` says of the package and of the sample, a line each; none, if all is well."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "gated", "tests/typing_sample.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_user_s_program_type_checks(complaints: list[str]) -> None:
    assert [line for line in complaints if line.startswith("tests")] == []


def test_the_package_type_checks(complaints: list[str]) -> None:
    assert [line for line in complaints if not line.startswith("tests")] == []
