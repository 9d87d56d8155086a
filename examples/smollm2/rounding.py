r"""How far a logit can be off in float32: the rounding of every operation, carried to the logit by its derivative.

The model is run in float64. To the result of each operation that rounds, a leaf :math:`\delta` of zeros is added. In
float32 that result is off by a sum of roundings, and to first order a logit L is off by
:math:`\sum_\delta (\partial L / \partial \delta) \, \delta`. Roundings are taken as independent, with mean 0, as in
N. J. Higham, T. Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41 (2019). Each
is bounded, so that by Hoeffding's inequality

.. math:: |\Delta L| \le \lambda \sqrt{\sum_\delta (\partial L / \partial \delta)^2 \, c_\delta^2}
   \quad \text{with probability at least } 1 - 2 e^{-\lambda^2 / 2},

where :math:`c_\delta^2` is the sum of the squares of what each rounding in an operation can do to its result. With
the unit roundoff :math:`u = 2^{-24}` a sum of k products has k roundings of products and k - 1 of partial sums, in any
order none larger than :math:`u \sum |a_i b_i|`: :math:`c^2 = 2 k u^2 (\sum |a_i b_i|)^2`, fused or not. The derivatives
are exact, to float64; the second order is smaller by a further factor of the relative errors.

The feed-forward block counts as its formula with an activation within the 5 ulp of the contract, so that the bound
holds for the original and for every backend. It is the worst case over signs that is left out: that one, with
:math:`\gamma_k` and absolute values in the place of squares, is 2,000 times larger for this model and forbids
little.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Float64", "Roundings", "double", "logit_bounds"]

U = 2.0**-24
TINY = 2.0**-126
"""What a sum or a product may lose where a runtime flushes subnormal numbers."""

ACTIVATION = 10 * U
"""5 ulp, each at most 2 u of the magnitude."""

LIKELIHOOD = 1e-9
"""With what probability one logit of an honest model may be outside of its bound."""

LAMBDA = math.sqrt(2 * math.log(2 / LIKELIHOOD))


class Float64(TorchFunctionMode):
    """Leaves out the casts to float32 that a model has inside, so that in float64 it is float64 throughout."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.nn.functional.softmax and args[0].dtype == torch.float64:
            kwargs["dtype"] = torch.float64
        if function is torch.Tensor.to and args[0].dtype == torch.float64 and torch.float32 in args:
            return args[0]
        return function(*args, **kwargs)


class Roundings(Float64):
    """Adds the leaves: ``leaves`` has each with its c.

    Raises:
        NotImplementedError: an operation in float64 of which no rule says how it rounds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.leaves: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.nn.functional.softmax:
            return self._softmax(*args)
        result = super().__torch_function__(function, types, args, kwargs)
        if not isinstance(result, Tensor) or result.dtype != torch.float64 or function.__name__ in EXACT:
            return result
        rule = RULES.get(function.__name__)
        if rule is None:
            raise NotImplementedError(f"Roundings: no rule says how {function.__name__} rounds")
        with torch.no_grad():
            c = rule(result, *args)
        return self._rounded(result, c)

    def _rounded(self, result: Tensor, c: Tensor) -> Tensor:
        leaf = torch.zeros_like(result, requires_grad=True)
        self.leaves.append((leaf, c + TINY))
        return result + leaf

    def _softmax(self, scores: Tensor) -> Tensor:
        """Along the last axis. An exponential's relative error is an error of the score, the sum's one of the row."""
        with torch.no_grad():
            below = scores - scores.amax(-1, keepdim=True)
            below[torch.softmax(scores, -1) == 0] = 0  # masked, or too far below to matter
            off = U * (below**2 + 4**2).sqrt()  # the rounding of the difference, an exponential within 2 ulp
        result = torch.softmax(self._rounded(scores, off), -1)
        ones = torch.ones_like(result[..., :1])
        result = result / self._rounded(ones, math.sqrt(scores.shape[-1]) * U * ones)
        return self._rounded(result, U * result.detach())


EXACT = {
    *("view", "reshape", "transpose", "contiguous", "expand", "unsqueeze", "cat", "neg", "__neg__", "__getitem__"),
    *("__get__", "dropout", "embedding", "requires_grad_", "detach", "clone", "float", "double", "zeros", "where"),
    *("tensor", "full", "masked_fill"),
}
"""Operations that move numbers or change their sign."""


def _once(result: Tensor, *operands: Any) -> Tensor:
    """One rounding, and that of each Python number to float32 before it."""
    numbers = sum(isinstance(one, float) for one in operands)
    return math.sqrt(1 + numbers) * U * result.abs()


def _matmul(result: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return math.sqrt(2 * a.shape[-1]) * U * (a.abs() @ b.abs())


def _linear(result: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    assert bias is None
    return _matmul(result, x, weight.T)


def _mean(result: Tensor, x: Tensor, *dims: Any) -> Tensor:
    """The partial sums and the division by their number."""
    return math.sqrt(x.shape[-1]) * U * x.abs().mean(-1, keepdim=True)


def _cast(result: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """Of numbers that the model computes in float32 in any case, the cosines and sines of positions: within 2 ulp."""
    return (4 * U if x.dtype == torch.float32 else 0.0) * result.abs()


RULES: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "pow"), _once),
    **dict.fromkeys(("__add__", "__radd__", "__mul__", "__rmul__", "__pow__", "__sub__", "__truediv__"), _once),
    **dict.fromkeys(("matmul", "__matmul__"), _matmul),
    "to": _cast,
    "linear": _linear,
    "mean": _mean,
    "rsqrt": lambda result, x: 4 * U * result.abs(),  # a root and a division, or one instruction within 2 ulp
    "silu": lambda result, x, **_: ACTIVATION * result.abs(),
}


def double(model: Any) -> Any:
    """A copy in float64 whose parameters need no gradients."""
    return copy.deepcopy(model).double().requires_grad_(False)


def logit_bounds(model: Any, tokens: Tensor, which: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """All logits in float64, and how far those at the (position, token) of ``which`` may be off in float32.

    Args:
        model: from :func:`double`.
        tokens: (1, length).
        which: the logits to bound. Each takes a backward pass.
    """
    with Roundings() as mode:
        logits = model(tokens, use_cache=False).logits[0]
    leaves = [leaf for leaf, _ in mode.leaves]
    bounds = []
    for position, token in which:
        slopes = torch.autograd.grad(logits[position, token], leaves, retain_graph=True, allow_unused=True)
        carried = [
            (slope * c).square().sum() for slope, (_, c) in zip(slopes, mode.leaves, strict=True) if slope is not None
        ]
        bounds.append(LAMBDA * torch.stack(carried).sum().sqrt())
    return logits.detach(), torch.stack(bounds)
