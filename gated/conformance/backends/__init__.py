"""How the conformance tools reach the project's own backends: one adapter a backend, a file each.

An adapter hands NumPy arrays over bit for bit, calls a public function with its own ``vjp``, and reads the results back
bit for bit. Implementations of others are reached through :mod:`gated.conformance.adapters`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

from gated.contract import BACKENDS, missing_framework

__all__ = ["ADAPTERS", "FORMS", "Adapter", "is_installed", "load", "of_backend"]

ADAPTERS: Final[Mapping[str, str]] = {
    "numpy": "gated.conformance.backends.numpy",
    "torch": "gated.conformance.backends.torch",
    "jax": "gated.conformance.backends.jax",
}

FORMS: Final[Mapping[str, str]] = {"torch-compiled": "torch", "jax-eager": "jax"}
"""The other forms in which a backend runs, for sweeps: through ``torch.compile``, and without ``jax.jit``."""


def of_backend(name: str) -> str:
    """The backend of an adapter."""
    return FORMS.get(name, name)


class Adapter(Protocol):
    """One implementation on one device."""

    name: str
    flushes: bool
    """Whether results below the smallest normal number may come back as zeros."""

    def value_and_cotangents(
        self,
        function: str,
        primals: Sequence[Any],
        cotangent: Any,
        static: Mapping[str, Any],
    ) -> tuple[Any, tuple[Any, ...]]:
        """The value of a public function and the cotangents of its primals.

        Args:
            function: its name.
            primals: NumPy arrays, Python numbers or None, in the order of ``contract.ARRAY_PARAMETERS``.
            cotangent: a NumPy array like the value.
            static: keywords; NumPy arrays among them are handed over as arrays.

        Returns:
            NumPy arrays, None for an absent bias.
        """


def is_installed(name: str) -> bool:
    """Whether the framework of a backend can be imported; it is not imported to find out."""
    return importlib.util.find_spec(BACKENDS[of_backend(name)].requires) is not None


def load(name: str, device: str | None = None) -> Adapter:
    """The adapter ``name``, of a backend or of a form of one, on ``device`` (None: the framework's default).

    Raises:
        ModuleNotFoundError: the framework is not installed; the text names the extra.
        ValueError: the framework has no such device.
    """
    backend = BACKENDS[of_backend(name)]
    if not is_installed(name):
        raise ModuleNotFoundError(missing_framework(backend.module, backend.requires, backend.extra))
    module = importlib.import_module(ADAPTERS[of_backend(name)])
    make = module.load_form if name in FORMS else module.load
    return cast(Adapter, make(device))
