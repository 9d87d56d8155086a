"""The API is one in all backends: names, parameters, files, docstrings; and each backend stands alone."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _calls import DERIVATIVES, SIGNATURES, Native, signatures

import gated
from gated.contract import ARRAY_PARAMETERS, BACKENDS, LAYOUTS

PACKAGE = Path(gated.__file__).parent
FILES = {
    "activations": ["sigmoid", "swish", "silu", "gelu", "relu"],
    "units": ["glu", "bilinear", "reglu", "geglu", "swiglu", "clamped_swiglu", "gated_unit"],
    "projections": ["glu_linear", "swiglu_linear", "gated_linear", "gated_ffn"],
    "derivatives": ["vjp", "jvp"],
}
ALL = SIGNATURES | signatures(DERIVATIVES)
MODULES = signatures("""
def Swish(beta=1.0, *, learn_beta=False): ...
def GLU(*, axis=-1, layout="gate_last"): ...
def SwiGLU(beta=1.0, *, learn_beta=False, axis=-1, layout="gate_last"): ...
def GatedLinear(in_features, out_features, *, activation="swish", beta=1.0, learn_beta=False, bias=False): ...
def GatedFFN(in_features, hidden_features, out_features=None, *, activation="swish", beta=1.0, learn_beta=False,
             bias=False, recompute="product"): ...
""")
MODULE_FILES = {"gated.torch_impl.nn": "torch", "gated.jax_impl.nnx": "flax", "gated.jax_impl.linen": "flax"}


def bare(signature: inspect.Signature) -> list[tuple[str, Any, Any]]:
    """A signature without its annotations: names, kinds and defaults in order."""
    return [(each.name, each.kind, each.default) for each in signature.parameters.values()]


# The functions


def test_the_files_have_every_function_of_the_contract() -> None:
    assert [name for names in FILES.values() for name in names] == list(ALL)
    assert list(SIGNATURES) == list(ARRAY_PARAMETERS)


@pytest.mark.parametrize("name", ALL)
def test_a_signature_is_that_of_the_design(backend: Native, name: str) -> None:
    found, expected = bare(inspect.signature(backend[name])), bare(ALL[name])
    assert found == expected
    assert [type(default) for *_, default in found] == [type(default) for *_, default in expected]


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_parameters_to_differentiate_in_are_parameters(name: str) -> None:
    parameters = list(SIGNATURES[name].parameters)
    named = ARRAY_PARAMETERS[name]
    assert list(named) == [each for each in parameters if each in named]


def test_the_public_names_are_those_of_the_design(backend: Native) -> None:
    assert backend.module.__all__ == sorted(ALL)
    assert {name for name in vars(backend.module) if inspect.isfunction(vars(backend.module)[name])} <= {
        *ALL,
        "missing_framework",
    }


@pytest.mark.parametrize(("file", "names"), FILES.items(), ids=list(FILES))
def test_a_function_is_in_the_file_of_its_name(backend: Native, file: str, names: list[str]) -> None:
    module = importlib.import_module(f"{backend.module.__name__}.{file}")
    assert sorted(module.__all__) == sorted(names)
    for name in names:
        assert backend[name].__module__ == module.__name__
        assert backend[name].__qualname__ == name
        assert backend[name] is getattr(module, name)


@pytest.mark.parametrize("name", ALL)
def test_a_docstring_has_its_sections_and_every_parameter(backend: Native, name: str) -> None:
    doc = inspect.getdoc(backend[name]) or ""
    sections = re.findall(r"^(Args|Returns|Raises):$", doc, flags=re.MULTILINE)
    assert sections == ["Args", "Returns", "Raises"]
    described = doc[doc.index("Args:") : doc.index("Returns:")]
    assert re.findall(r"^    \*{0,2}(\w+):", described, flags=re.MULTILINE) == list(ALL[name].parameters)
    assert "TypeError:" in doc[doc.index("Raises:") :]


@pytest.mark.parametrize("name", [name for name, one in SIGNATURES.items() if "layout" in one.parameters])
def test_a_docstring_says_that_a_wrong_layout_is_silent(backend: Native, name: str) -> None:
    says_so(inspect.getdoc(backend[name]) or "")


def says_so(doc: str) -> None:
    assert re.search(r"\bis\s+silent\b", doc)
    for layout in LAYOUTS:
        assert f'"{layout}"' in doc


# The modules


def public_modules() -> Iterator[Any]:
    for file, framework in MODULE_FILES.items():
        for name in MODULES:
            yield pytest.param(file, framework, name, id=f"{file.removeprefix('gated.')}.{name}")


@pytest.mark.parametrize(("file", "framework", "name"), list(public_modules()))
def test_a_module_takes_what_the_design_says_and_then_its_framework_s_keywords(
    file: str, framework: str, name: str
) -> None:
    pytest.importorskip(framework)
    module = getattr(importlib.import_module(file), name)
    _, *found = bare(inspect.signature(module.__init__))
    expected = bare(MODULES[name])
    assert found[: len(expected)] == expected
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in found[len(expected) :])


@pytest.mark.parametrize(("file", "framework", "name"), list(public_modules()))
def test_the_docstring_of_a_module_has_every_parameter(file: str, framework: str, name: str) -> None:
    pytest.importorskip(framework)
    module = getattr(importlib.import_module(file), name)
    doc = inspect.getdoc(module) or ""
    for parameter in MODULES[name].parameters:
        assert re.search(rf"^    {parameter}:", doc, flags=re.MULTILINE), parameter
    assert "Source:" in doc
    if "layout" in MODULES[name].parameters:
        says_so(doc)


@pytest.mark.parametrize(("file", "framework"), list(MODULE_FILES.items()))
def test_the_module_files_have_the_same_names(file: str, framework: str) -> None:
    pytest.importorskip(framework)
    assert sorted(importlib.import_module(file).__all__) == sorted(MODULES)


# Who imports whom, read from the text


def imported(path: Path) -> set[str]:
    """The modules of ``gated`` that a file imports, at its head or inside a function."""
    found = set()
    package = ["gated", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{source}.{alias.name}" for alias in node.names} if source == "gated" else {source}
    return {name for name in found if name.split(".")[0] == "gated"}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_imports_itself_and_the_contract_alone(name: str) -> None:
    own = BACKENDS[name].module
    files = sorted((PACKAGE / own.removeprefix("gated.")).rglob("*.py"))
    assert len(files) > len(FILES)
    for path in files:
        others = {one for one in imported(path) if one != "gated.contract" and not f"{one}.".startswith(f"{own}.")}
        assert not others, path


def test_nothing_imports_the_command() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "gated.cli" not in imported(path), path
