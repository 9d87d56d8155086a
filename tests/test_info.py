"""The command `gated info`: what it prints and writes, with frameworks and Triton there, missing, too old or broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from _calls import ARRAYS, INSTALLED, NATIVES, call

from gated import cli
from gated.conformance import backends
from gated.conformance.versions import versions
from gated.contract import ARRAY_PARAMETERS, BACKENDS

ALL = {*ARRAY_PARAMETERS, "vjp", "jvp"}
ELEMENTWISE = [name for name, shapes in ARRAYS.items() if "W" not in shapes]

TEXT = {"type": "string", "minLength": 1}
NAMED_TEXTS = {"type": "object", "additionalProperties": TEXT}


def obj(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


PATH = obj(
    {
        "device": TEXT,
        "mode": TEXT,
        "functions": {"type": "array", "items": {"enum": sorted(ALL)}, "minItems": 1, "uniqueItems": True},
        "path": TEXT,
    }
)
BACKEND = obj(
    {"devices": {**NAMED_TEXTS, "minProperties": 1}, "paths": {"type": "array", "items": PATH, "minItems": 1}},
    {"triton_kernels": TEXT},
)
SCHEMA = obj(
    {
        "versions": NAMED_TEXTS,
        "backends": obj({}, dict.fromkeys(BACKENDS, BACKEND)),
        "skipped": obj({}, dict.fromkeys(BACKENDS, TEXT)),
    }
)


def written(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """What the command writes as JSON, of the schema."""
    file = tmp_path / "info.json"
    assert cli.main(["info", *arguments, "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    pytest.importorskip("jsonschema").validate(content, SCHEMA)
    return dict(content)


def run(code: str, *path: Path) -> str:
    """The output of ``code`` in a fresh interpreter, with folders of packages before the others."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, *sys.path]))}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=environment).stdout


def test_every_function_has_a_path_on_every_device_of_every_backend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = written(tmp_path)
    shown = capsys.readouterr().out
    assert list(content["backends"]) == list(INSTALLED)
    assert content["skipped"] == {name: mock.ANY for name in BACKENDS if name not in INSTALLED}
    for name, backend in content["backends"].items():
        kinds = {device.partition(":")[0] for device in backend["devices"]}
        assert {path["device"].partition(":")[0] for path in backend["paths"]} == kinds
        first = next(iter(backend["paths"]))["mode"]
        for kind in kinds:
            here = [path for path in backend["paths"] if path["device"] == kind and path["mode"] == first]
            listed = [function for path in here for function in path["functions"]]
            assert sorted(listed) == sorted(ALL), name
        for path in backend["paths"]:
            assert path["path"].split()[0] in shown
        for device, what in backend["devices"].items():
            assert f"{device} ({what})" in shown


def test_the_projected_forms_of_jax_name_their_kernels(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    (paths,) = (backend["paths"] for backend in written(tmp_path, "--backends", "jax")["backends"].values())
    for path in paths:
        assert ("fused_projections on TPUs and GPUs" in path["path"]) == ("gated_ffn" in path["functions"])


def test_the_versions_are_those_that_validate_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = written(tmp_path, "--backends", "numpy")
    assert content["versions"].items() >= versions().items()
    assert set(content["versions"]) - set(versions()) <= {"triton"}
    shown = capsys.readouterr().out
    assert all(f"{name} {version}" in shown for name, version in content["versions"].items())


def test_only_the_frameworks_asked_for_are_imported(tmp_path: Path) -> None:
    content = written(tmp_path, "--backends", "numpy")
    assert list(content["backends"]) == ["numpy"] and content["skipped"] == {}
    loaded = run("""
        import sys
        from gated import cli
        cli.main(["info", "--backends", "numpy"])
        print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "jax", "flint", "triton"}))
    """)
    assert loaded.splitlines()[-1] == "[]"


def test_a_missing_framework_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "is_installed", lambda name: name == "numpy")
    content = written(tmp_path)
    assert list(content["backends"]) == ["numpy"]
    for name in ("torch", "jax"):
        reason = (
            f"gated.{name}_impl needs the package {name}, which is not installed; "
            f'install it with: pip install "gated[{name}]"'
        )
        assert content["skipped"][name] == reason
    assert f"skipped: {name}: {reason}" in capsys.readouterr().out
    assert cli.main(["info", "--backends", "torch"]) == 2
    assert capsys.readouterr().err.startswith("gated info: gated.torch_impl needs the package torch")


def test_a_framework_that_is_broken_on_this_machine_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jax")
    with mock.patch("jax.devices", side_effect=RuntimeError("no such platform: quantum")):
        content = written(
            tmp_path,
        )
        assert content["skipped"]["jax"] == "jax cannot be used: no such platform: quantum"
        assert cli.main(["info", "--backends", "jax"]) == 2
    assert "gated info: jax cannot be used: no such platform: quantum" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--backends", "tensorflow"], ["--json", "no/such/folder/info.json"], ["validate"]]
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    try:
        status: Any = cli.main(["info", *arguments])
    except SystemExit as error:  # argparse's own
        status = error.code
    assert status == 2


# Triton: said once, never an error


def kernels(shown: str) -> str:
    (line,) = [line for line in shown.splitlines() if line.startswith("Triton kernels: ")]
    return line.removeprefix("Triton kernels: ")


INFO = 'from gated import cli; assert cli.main(["info", "--backends", "torch"]) == 0'
# And the functions compute, whatever Triton is like.
COMPUTE = "import torch, gated.torch_impl as G; assert G.silu(torch.zeros(2)).tolist() == [0.0, 0.0]"


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def test_without_triton_the_reason_is_said_once(torch: Any) -> None:
    shown = run(f"""
        import sys

        class WithoutTriton:
            def __init__(self, finders):
                self.finders = finders
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "triton":
                    return None
                specs = (finder.find_spec(name, path, target) for finder in self.finders)
                return next((spec for spec in specs if spec is not None), None)

        sys.meta_path[:] = [WithoutTriton(list(sys.meta_path))]
        {INFO}
        {COMPUTE}
    """)
    assert kernels(shown) == "not used: triton is not installed"


@pytest.mark.parametrize("version", ["2.1.0", "oldest", "99.1.2+git"])
def test_a_triton_that_is_too_old_is_not_used_and_said_so(torch: Any, version: str) -> None:
    pytest.importorskip("triton")
    from gated.torch_impl.kernels import OLDEST

    oldest = ".".join(map(str, OLDEST))
    version = f"{oldest}.0" if version == "oldest" else version
    said = kernels(run(f"import triton; triton.__version__ = {version!r}\n{INFO}\n{COMPUTE}"))
    if version == "2.1.0":
        assert said == f"not used: triton is too old: 2.1.0 < {oldest}"
    else:
        assert said == f"used on CUDA and ROCm tensors (triton {version})"


def test_a_triton_that_is_broken_is_not_used_and_said_so(torch: Any, tmp_path: Path) -> None:
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton/__init__.py").write_text('raise ImportError("its library is missing")\n')
    said = "not used: triton cannot be imported: its library is missing"
    assert kernels(run(f"{INFO}\n{COMPUTE}", tmp_path)) == said


# Other devices. None is here: meta tensors stand in for those of an accelerator.


@pytest.fixture
def accelerators(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    named = SimpleNamespace(get_device_name=lambda index: f"Abacus {index}")
    monkeypatch.setattr(torch, "get_device_module", lambda device: named)


def eager_paths(content: dict[str, Any]) -> dict[str, str]:
    """The paths of swiglu by device."""
    paths = content["backends"]["torch"]["paths"]
    return {one["device"]: one["path"] for one in paths if one["mode"] == "eager" and "swiglu" in one["functions"]}


@pytest.mark.parametrize("served", [(False, False), (True, False), (True, True)], ids=str)
def test_a_device_gets_kernels_where_they_serve_its_tensors(
    accelerators: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: tuple[bool, bool]
) -> None:
    from gated.torch_impl import kernels as package

    answers = iter(served)
    monkeypatch.setattr(package, "serve", lambda x: x.is_meta and next(answers))
    content = written(tmp_path, "--backends", "torch")
    assert list(content["backends"]["torch"]["devices"].items())[1:] == [("meta:0", "Abacus 0"), ("meta:1", "Abacus 1")]
    plain, triton = "plain operations in scaled arithmetic", "Triton kernels"
    found = eager_paths(content)
    assert found.pop("cpu").startswith("blocks")
    expected = {0: {"meta": plain}, 1: {"meta:0": triton, "meta:1": plain}, 2: {"meta": triton}}
    assert found == expected[sum(served)]


# What it says of the CPU is so


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_the_paths_of_torch_on_the_cpu_are_those_taken(torch: Any, function: str) -> None:
    from gated.torch_impl import _autograd, _cpu

    native = NATIVES["torch"]("torch")
    arguments = {name: one.requires_grad_() for name, one in native.built(call(function)).items()}
    primals = tuple(arguments.values())

    with (
        mock.patch.object(_cpu, "evaluate", wraps=_cpu.evaluate) as evaluate,
        mock.patch.object(_cpu, "pullback", wraps=_cpu.pullback) as pullback,
        mock.patch.object(_autograd, "pushforward", wraps=_autograd.pushforward) as pushforward,
    ):
        counts = []
        for what in (
            lambda: native[function](**arguments).sum().backward(),
            lambda: native.module.vjp(native[function], *primals)[1](native[function](**arguments)),
            lambda: native.module.jvp(native[function], primals, primals),
            lambda: native[function](**{name: one.detach().to("meta") for name, one in arguments.items()}),
        ):
            for one in (evaluate, pullback, pushforward):
                one.reset_mock()
            what()
            counts.append(tuple(one.call_count for one in (evaluate, pullback, pushforward)))
    assert counts == [(1, 1, 0), (2, 1, 0), (1, 0, 1), (0, 0, 0)]


def test_compiled_code_takes_none_of_them(torch: Any) -> None:
    from gated.torch_impl import _cpu, swiglu

    x = torch.randn(3, 8, requires_grad=True)
    with (
        mock.patch.object(_cpu, "evaluate", wraps=_cpu.evaluate) as evaluate,
        mock.patch.object(_cpu, "pullback", wraps=_cpu.pullback) as pullback,
    ):
        torch.compile(swiglu, backend="aot_eager", fullgraph=True)(x).sum().backward()
    assert x.grad.any() and not evaluate.called and not pullback.called
