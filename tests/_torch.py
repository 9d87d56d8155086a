"""What the tests of the PyTorch backend share: the formulas in plain torch operations, and how results are compared.

Values are compared in float64 with the formula, to a few rounding errors of either; exact accuracy is the business of
the conformance tests and of ``test_torch_accuracy.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import gated.torch_impl as G  # noqa: E402 - G as the design has it

Tensor = torch.Tensor
INF = math.inf
ACTIVATIONS = ("identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish")
LAYOUTS = ("gate_last", "gate_first", "interleaved")
# Both sides of a comparison are off by a few units in the last place of terms of size about 1 to 10.
CLOSE = {"rtol": 1e-12, "atol": 1e-13}

ALL_UNITS: dict[str, Callable[..., Tensor]] = {
    "glu": G.glu,
    "bilinear": G.bilinear,
    "reglu": G.reglu,
    "geglu": G.geglu,
    "swiglu": G.swiglu,
    "clamped_swiglu": G.clamped_swiglu,
}


def randn(*shape: int, requires_grad: bool = False) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).requires_grad_(requires_grad)


def plain_activation(name: str, x: Tensor, beta: Any = 1.0) -> Tensor:
    """The formula, to be differentiated by torch itself. Good for ordinary numbers."""
    if name == "identity":
        return x
    if name == "sigmoid":
        return torch.sigmoid(x)
    if name == "relu":
        return x * (x > 0)
    if name == "gelu":
        return x * torch.erfc(-x / math.sqrt(2)) / 2
    if name == "gelu_tanh":
        return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return x * torch.sigmoid(beta * x)


def halves(x: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """Gate and value of a packed array, along its last axis."""
    if layout == "interleaved":
        return x[..., 0::2], x[..., 1::2]
    first, last = x.chunk(2, -1)
    return (first, last) if layout == "gate_first" else (last, first)


def leaves(tree: Any) -> list[Tensor]:
    return list(torch.utils._pytree.tree_leaves(tree))


def assert_same(ours: Any, plain: Any) -> None:
    for a, b in zip(leaves(ours), leaves(plain), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
