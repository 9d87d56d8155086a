"""A function of tensors with its exact results (``_truth.py``), and their comparison."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from _truth import LARGER, USUAL, Exact, Function, Truth, U, V, W, within  # noqa: E402

__all__ = ["LARGER", "USUAL", "Exact", "Tensor", "Truth", "U", "V", "Variant", "W", "check"]

Tensor = torch.Tensor


@dataclass(frozen=True)
class Variant(Function):
    """A function of tensors."""

    def tensors(
        self, seed: int = 0, sizes: Mapping[str, int] = USUAL, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        """``numbers`` as tensors."""
        return tuple(torch.from_numpy(one).to(dtype) for one in self.numbers(seed, sizes))

    def leaves(self, seed: int = 0, **kind: Any) -> tuple[Tensor, ...]:
        """Arguments that require gradients."""
        return tuple(one.requires_grad_() for one in self.tensors(seed, **kind))

    @functools.cached_property
    def cotangent(self) -> Tensor:
        """A cotangent for the usual sizes."""
        return torch.from_numpy(self.weights)


def check(results: Any, *truths: Exact) -> None:
    """Tensors are within the bound of what is exact."""
    results = [results] if isinstance(results, Tensor) else list(results)
    within([result.detach().numpy() for result in results], truths)
