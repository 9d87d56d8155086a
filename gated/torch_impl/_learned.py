"""What the modules share: a beta that may be a parameter, and the recomputation of a part in the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ._arrays import Beta
from ._plain import is_transformed

__all__ = ["BetaModule", "recomputed"]


class BetaModule(nn.Module):
    """A module with a beta: a number, or, where ``learn_beta`` is set, a 0-d parameter of that name."""

    def __init__(
        self, beta: float, learn_beta: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.initial_beta = float(beta)
        self.beta: float | nn.Parameter = self.initial_beta
        if learn_beta:
            self.beta = nn.Parameter(torch.empty((), device=device, dtype=dtype))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets a learned beta to its initial value."""
        if isinstance(self.beta, nn.Parameter):
            nn.init.constant_(self.beta, self.initial_beta)

    def beta_beside(self, x: Tensor) -> Beta:
        """beta for a call on ``x``: a parameter in the dtype of ``x``, as the weights of mixed precision are."""
        return self.beta.to(x.dtype) if isinstance(self.beta, nn.Parameter) else self.beta

    def beta_repr(self) -> str:
        return f"beta={self.initial_beta}" + (", learn_beta=True" if isinstance(self.beta, nn.Parameter) else "")


def recomputed(code: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``code(*inputs)``, of which the inputs alone are kept; in the backward pass it runs again, as far as needed.

    Where nothing is kept (no gradients) and where saved tensors cannot be exchanged (``torch.func``, forward AD) it is
    a plain call.
    """
    if not torch.is_grad_enabled() or is_transformed():
        return code(*inputs)
    result: Tensor = checkpoint(code, *inputs, use_reentrant=False)
    return result
