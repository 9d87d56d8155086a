"""What a block of another library gives the tests: its state dict, an input, and what it made of it, in float32."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

__all__ = ["ROWS", "Array", "Block", "D", "E", "F", "Sample", "State", "named", "torch_sample", "weights"]

torch = pytest.importorskip("torch")

Array = np.ndarray[Any, Any]
State = Mapping[str, Any]

ROWS, D, F, E = 24, 16, 20, 3


@dataclass(frozen=True)
class Sample:
    """What a block holds and does: ``x`` is (rows, d_in) and ``output`` (rows, d_out), or with experts in front."""

    state: State
    x: Array
    output: Array


@dataclass(frozen=True)
class Block:
    """A block of a family.

    Attributes:
        name: of the class, and of the settings where there are several.
        family: its row.
        make: builds it, from a random generator.
        imports: the package it comes from; empty for a restatement.
        install: the line that installs that.
        activation: where it is not the row's.
        prefix: of the family's keys in the state.
        experts: the argument of ``to_reference``.
    """

    name: str
    family: str
    make: Callable[[np.random.Generator], Sample]
    imports: str = ""
    install: str = ""
    activation: str | None = None
    prefix: str = ""
    experts: int | None = None

    def sample(self) -> Sample:
        """The block with the weights of a fixed seed; the test is skipped where its library is not installed."""
        if self.imports and importlib.util.find_spec(self.imports) is None:
            pytest.skip(self.install)
        return self.make(np.random.default_rng(7))


def weights(rng: np.random.Generator, *shape: int) -> Array:
    """Such that gates reach from about -6 to 6: there erf and tanh gelu differ, and the halves do."""
    return (rng.standard_normal(shape) * 0.5).astype(np.float32)


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _filled(module: Any, rng: np.random.Generator) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(weights(rng, *parameter.shape)))
    return module.eval()


def torch_sample(module: Any, rng: np.random.Generator, call: Callable[[Any, Any], Any] | None = None) -> Sample:
    """A torch module called on rows; ``call`` where it needs more than the input."""
    x = weights(rng, ROWS, D) * 2
    with torch.no_grad():
        output = (call or (lambda module, x: module(x)))(_filled(module, rng), torch.from_numpy(x))
    return Sample(module.state_dict(), x, output.numpy().reshape(*output.shape[:-2], -1, output.shape[-1]))
