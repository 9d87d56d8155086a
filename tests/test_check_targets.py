"""TARGET: its four forms, what it loads, and which framework it is guessed to be of."""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _check import TARGETS
from hypothesis import given
from hypothesis import strategies as st

from gated.conformance.grading import target as targets
from gated.conformance.grading.target import Location, Symbol, TargetError


@pytest.fixture(autouse=True)
def path_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded file's folder stays on the path, and another test's processes would find a json.py there."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("torch.nn.functional:silu", Location("module", "torch.nn.functional", "silu")),
        ("package:Class.method", Location("module", "package", "Class.method")),
        ("a/b.py:f", Location("file", "a/b.py", "f")),
        ("/a: b/c.py:f.g", Location("file", "/a: b/c.py", "f.g")),
        ("a/model.onnx", Location("model", "a/model.onnx", "")),
        ("./libx.so:f", Location("library", "./libx.so", "f")),
        ("/usr/lib/libx.so.1.2:f", Location("library", "/usr/lib/libx.so.1.2", "f")),
        ("libx.dylib:f", Location("library", "libx.dylib", "f")),
    ],
)
def test_the_forms_of_a_target(text: str, location: Location) -> None:
    assert targets.parse(text) == location


@pytest.mark.parametrize(
    "text",
    ["", ":", "torch", "file.py", "libx.so", "a/b:f", "file.py:", "file.py:1f", "a-b:f", "libx.so:a.b", "x.so:", ":f"],
)
def test_what_has_none_of_the_forms_is_refused(text: str) -> None:
    with pytest.raises(TargetError) as error:
        targets.parse(text)
    assert str(error.value).startswith(f"{text}: ")


@given(st.text(max_size=30))
def test_any_text_is_a_location_or_a_target_error(text: str) -> None:
    try:
        location = targets.parse(text)
    except TargetError as error:
        assert "TARGET must be" in str(error) or "has no attributes" in str(error)
    else:
        assert text in (location.place, f"{location.place}:{location.attribute}")


def test_a_file_is_loaded_once_and_under_a_name_of_its_own(tmp_path: Path) -> None:
    """A file of the name of a module does not stand in its way."""
    (tmp_path / "json.py").write_text(
        "loads = []\nloads.append(1)\ndef f(x):\n    return len(loads)\ndef g(x):\n    return f\n"
    )
    f, g = targets.load(f"{tmp_path}/json.py:f"), targets.load(f"{tmp_path}/json.py:g")
    import json

    assert f(0) == 1 and g(0) is f and json.loads("1") == 1


def test_a_file_imports_its_neighbours_also_when_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour_of_target.py").write_text("value = 7\n")
    (tmp_path / "late.py").write_text("def f(x):\n    import neighbour_of_target as n\n    return n.value\n")
    assert targets.load(f"{tmp_path}/late.py:f")(0) == 7


def test_a_dotted_attribute_is_followed() -> None:
    found = targets.load(f"{TARGETS}/numpy_targets.py:Nested.Inner.silu")
    assert found(np.zeros(1))[0] == 0


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("sillu", r"has no attribute sillu; nearest: silu"),
        ("Nested.Outer.silu", r"has no attribute Outer; nearest: Inner"),
        ("number", "must be callable, got int"),
    ],
)
def test_an_attribute_that_is_missing_is_named_with_the_nearest(attribute: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        targets.load(f"{TARGETS}/numpy_targets.py:{attribute}")


def test_a_framework_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, *rest: Any) -> None:
            if name.partition(".")[0] == "onnxruntime":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(
        TargetError, match="there is no module onnxruntime; install it with: pip install onnxruntime onnx"
    ):
        targets.load("onnxruntime:f")


# The framework


def test_files_and_symbols_are_of_their_evaluators(tmp_path: Path) -> None:
    assert targets.guess_framework(Path("model.onnx")) == "onnxruntime"
    assert targets.guess_framework(Symbol(Path("libx.so"), "f")) == "c"


def closed_over(module: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        return module.abs(x)

    return f


def through_another(module: Any) -> Callable[[Any], Any]:
    inner = closed_over(module)

    def f(x: Any) -> Any:
        return inner(x)

    return f


class Called:
    """A callable of one framework."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Any) -> Any:
        return np.abs(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.tanh,
        lambda: math.exp,
        lambda: operator.neg,
        lambda: closed_over(np),
        lambda: Called(np),
        lambda: functools.partial(np.multiply, 2),
    ],
)
def test_what_names_numpy_or_nothing_is_of_numpy(make: Callable[[], Any]) -> None:
    assert targets.guess_framework(make()) == "numpy"


def torch_targets() -> list[Any]:
    torch = pytest.importorskip("torch")
    file = f"{TARGETS}/torch_targets.py"
    return [
        torch.sigmoid,
        torch.nn.functional.silu,
        torch.nn.functional.gelu,
        torch.nn.SiLU,
        torch.nn.SiLU(),
        torch.compile(torch.nn.functional.silu),
        torch.jit.script(torch.nn.SiLU()),
        closed_over(torch),
        through_another(torch),
        functools.partial(torch.nn.functional.gelu, approximate="tanh"),
        torch.nn.SiLU().forward,
        targets.load(f"{file}:Product"),
        targets.load(f"{file}:uses_numpy_too"),
        targets.load(f"{file}:names_nothing"),
    ]


def jax_targets() -> list[Any]:
    jax = pytest.importorskip("jax")
    file = f"{TARGETS}/jax_targets.py"
    names = ("product", "reverse_only", "donates", "Scaled", "LinenScaled")
    return [jax.nn.silu, jax.nn.sigmoid, jax.jit(np.abs), jax.numpy.tanh, closed_over(jax.numpy)] + [
        targets.load(f"{file}:{name}") for name in names
    ]


def test_numpy_code_beside_another_framework_is_asked_about() -> None:
    pytest.importorskip("jax")
    text = f"{TARGETS}/jax_targets.py:gives_numpy"
    with pytest.raises(targets.TargetError, match=r"its code names numpy and its file jax; say which with --framework"):
        targets.guess_framework(targets.load(text), text)


@pytest.mark.parametrize(("framework", "found"), [("torch", torch_targets), ("jax", jax_targets)])
def test_what_is_of_a_framework_or_names_one_is_guessed(framework: str, found: Callable[[], list[Any]]) -> None:
    for one in found():
        assert targets.guess_framework(one) == framework, one


def test_code_that_names_several_is_asked_about() -> None:
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")

    def both(x: Any) -> Any:
        return torch.abs(x), jax.numpy.abs(x)

    with pytest.raises(TargetError, match="f: its code names jax and torch; say which with --framework"):
        targets.guess_framework(both, "f")


# What is imported before the target


@pytest.mark.parametrize(
    ("source", "frameworks"),
    [
        ("import torch.nn as nn, json", ("torch",)),
        ("from jax import numpy\nimport numpy as np", ("jax", "numpy")),
        ("def f(x):\n    import tensorflow as tf\n    return tf.abs(x)", ("tensorflow",)),
        ("from . import torch", ()),
        ("def f(:", ()),
    ],
)
def test_the_frameworks_that_a_source_imports_are_read_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, frameworks: tuple[str, ...]
) -> None:
    package = tmp_path / "package_of_targets" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise AssertionError('this must not run')\n")
    (package / "__init__.py").write_text("")
    (package / "file.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert targets.frameworks_imported(f"{package}/file.py:f") == frameworks
    assert targets.frameworks_imported("package_of_targets.inner.file:f") == frameworks


def test_a_target_of_a_framework_itself_is_of_it() -> None:
    assert targets.frameworks_imported("torch.nn.functional:silu") == ("torch",)
    assert targets.frameworks_imported("model.onnx") == ()
    assert targets.frameworks_imported("no_such_package:f") == ()
