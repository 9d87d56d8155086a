"""How anyone's implementation is reached: one adapter a framework, a file each.

An :class:`~gated.conformance.adapters.base.Adapter` loads a target, hands it arrays bit for bit, calls it, takes its
gradient, and reads the results back bit for bit. docs/adapters.md says how to add one. The project's own backends are
reached through :mod:`gated.conformance.backends`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Final, NamedTuple, cast

from gated.conformance.adapters.base import Adapter
from gated.conformance.grading.target import TargetError, one_line

__all__ = ["FRAMEWORKS", "Adapter", "Framework", "is_installed", "load"]


class Framework(NamedTuple):
    """Where an adapter is, the packages that it needs, and what pip installs them by."""

    module: str
    packages: tuple[str, ...]
    install: str


_TORCH: Final = Framework("torch", ("torch",), '"gated[torch]"')
_JAX: Final = Framework("jax", ("jax",), '"gated[jax]"')

FRAMEWORKS: Final[Mapping[str, Framework]] = {
    "numpy": Framework("numpy", ("numpy",), "numpy"),
    "torch": _TORCH,
    "torch-compiled": _TORCH,
    "jax": _JAX,
    "jax-jit": _JAX,
    "onnxruntime": Framework("onnx", ("onnxruntime", "onnx"), "onnxruntime onnx"),
    "onnx-reference": Framework("onnx", ("onnx",), "onnx"),
    "tensorflow": Framework("tensorflow", ("tensorflow",), "tensorflow"),
    "keras": Framework("keras", ("keras",), "keras tensorflow"),
    "c": Framework("c", (), ""),
}
"""Every adapter by name."""


def is_installed(name: str) -> bool:
    """Whether the packages that an adapter needs can be imported; they are not imported to find out."""
    return not _missing(name)


def _missing(name: str) -> list[str]:
    return [package for package in FRAMEWORKS[name].packages if importlib.util.find_spec(package) is None]


def load(name: str, device: str | None = None) -> Adapter:
    """The adapter ``name`` on ``device`` (None: the framework's default), without a target yet.

    Raises:
        ModuleNotFoundError: the framework is not installed; the text names the package and how to install it.
        TargetError: there is no such adapter, its framework cannot be imported, or it has no such device.
    """
    if name not in FRAMEWORKS:
        raise TargetError(f"--framework must be one of {', '.join(FRAMEWORKS)}, got {name!r}")
    for package in _missing(name):
        raise ModuleNotFoundError(
            f"--framework {name} needs the package {package}, which is not installed; install it with: "
            f"pip install {FRAMEWORKS[name].install}",
            name=package,
        )
    try:
        module = importlib.import_module(f"{__name__}.{FRAMEWORKS[name].module}")
    except ImportError as error:  # installed and broken, or a Keras whose backend is missing
        raise TargetError(f"--framework {name}: its import raised {one_line(error)}") from error
    return cast(Adapter, module.ADAPTERS[name](device))
