"""What an import loads, how long it takes, what it says when a framework is missing: each in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from _calls import INSTALLED

import gated
from gated.contract import BACKENDS

HEAVY = {"numpy", "scipy", "torch", "jax", "jaxlib", "flax", "ml_dtypes", "matplotlib", "rich", "flint", "gguf"}
# What each backend may load of these: JAX loads SciPy and ml_dtypes itself, and torch, through SymPy, python-flint.
MAY_LOAD = {
    "numpy": {"numpy", "scipy", "ml_dtypes"},
    "torch": {"torch", "numpy", "flint"},
    "jax": {"jax", "jaxlib", "numpy", "scipy", "ml_dtypes"},
}


def run(code: str) -> str:
    """The output of ``code`` in a fresh interpreter, which must end well."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def loaded(statement: str) -> set[str]:
    """The top-level modules that ``statement`` loads, beyond those of a bare interpreter."""
    return set(
        json.loads(
            run(f"""
                import json, sys
                before = set(sys.modules)
                {statement}
                print(json.dumps(sorted({{name.split(".")[0] for name in set(sys.modules) - before}})))
            """)
        )
    )


def test_the_door_names_the_backends_and_loads_the_standard_library_alone() -> None:
    assert {f"gated.{name}" for name in gated.BACKENDS} == {backend.module for backend in BACKENDS.values()}
    assert loaded("import gated") - sys.stdlib_module_names <= {"gated"}


def test_the_contract_loads_the_standard_library_alone() -> None:
    assert loaded("import gated.contract") - sys.stdlib_module_names == {"gated"}


def test_importing_the_door_takes_milliseconds() -> None:
    """The best of several, so that a busy machine does not count."""
    code = """
        import time
        start = time.perf_counter()
        import gated
        print(time.perf_counter() - start)
    """
    assert min(float(run(code)) for _ in range(5)) < 0.030


@pytest.mark.parametrize("name", INSTALLED)
def test_a_backend_loads_no_other_framework(name: str) -> None:
    found = loaded(f"import {BACKENDS[name].module}")
    assert found & HEAVY <= MAY_LOAD[name]


def without(package: str, statement: str) -> str:
    """What ``statement`` raises where ``package`` is not installed: type, text, the missing name, the cause's type."""
    return run(f"""
        import sys

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == {package!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Missing())
        try:
            {statement}
        except Exception as error:
            print(type(error).__name__, error.name, type(error.__cause__).__name__, error, sep=" | ")
    """).strip()


@pytest.mark.parametrize(
    ("package", "module", "extra", "needs"),
    [
        ("torch", "gated.torch_impl", "torch", ""),
        ("jax", "gated.jax_impl", "jax", ""),
        ("flax", "gated.jax_impl.nnx", "jax", "jax"),
        ("flax", "gated.jax_impl.linen", "jax", "jax"),
        ("matplotlib", "gated.figures", "cli", ""),
    ],
)
def test_a_missing_framework_is_named_with_the_extra_that_installs_it(
    package: str, module: str, extra: str, needs: str
) -> None:
    if needs:
        pytest.importorskip(needs)
    assert without(package, f"import {module}") == (
        f"ModuleNotFoundError | {package} | ModuleNotFoundError | {module} needs the package {package}, which is not "
        f'installed; install it with: pip install "gated[{extra}]"'
    )


@pytest.mark.parametrize("package", ["torch", "jax", "flax"])
def test_what_does_not_need_a_framework_imports_without_it(package: str) -> None:
    """The frameworks are optional to each other, and flax to the functions of JAX."""
    others = [BACKENDS[name].module for name in INSTALLED if BACKENDS[name].requires != package]
    statement = "; ".join(f"import {module}" for module in ["gated", "gated.contract", *others])
    assert without(package, statement) == ""


@pytest.mark.parametrize("name", [name for name in INSTALLED if BACKENDS[name].extra])
def test_another_missing_package_is_not_blamed_on_the_framework(name: str) -> None:
    """A framework that is installed and broken says so itself."""
    module, package = BACKENDS[name].module, BACKENDS[name].requires
    text = run(f"""
        import sys

        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name == {package!r}:
                    raise ModuleNotFoundError("No module named 'its_dependency'", name="its_dependency")

        sys.meta_path.insert(0, Broken())
        try:
            import {module}
        except ModuleNotFoundError as error:
            print(error)
    """)
    assert text.strip() == "No module named 'its_dependency'"
