"""A beta that may be a parameter, the input of a module with projections, and recomputation in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gated import contract

from ._arrays import Beta, checks
from ._plain import is_transformed

__all__ = ["BetaModule", "check_input", "recomputed", "requires_grad"]

# torch 2.6 cannot tell an exporter from a compiler.
_is_exporting: Final[Callable[[], bool]] = getattr(torch.compiler, "is_exporting", lambda: False)


class BetaModule(nn.Module):
    """A module with a beta: a number, or, where ``learn_beta`` is set, a 0-d parameter of that name."""

    share_beta: Callable[[Tensor], Tensor] | None = None
    """What a learned beta goes through where its gradient is shared: :func:`.tensor_parallel.replicate_betas`."""

    def __init__(
        self, beta: float, learn_beta: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.initial_beta = float(beta)
        self.beta: float | nn.Parameter = self.initial_beta
        if learn_beta:
            self.beta = nn.Parameter(torch.empty((), device=device, dtype=dtype))
            self._reset_beta()

    def reset_parameters(self) -> None:
        """Sets a learned beta to its initial value."""
        self._reset_beta()

    def _reset_beta(self) -> None:
        if isinstance(self.beta, nn.Parameter):
            nn.init.constant_(self.beta, self.initial_beta)

    def beta_beside(self, x: Tensor) -> Beta:
        """beta for a call on ``x``: a parameter in the dtype of ``x``, as the weights of mixed precision are."""
        if isinstance(self.beta, Tensor) and isinstance(x, Tensor):
            beta = self.beta if self.share_beta is None else self.share_beta(self.beta)
            return beta.to(x.dtype)
        return self.beta

    def beta_repr(self) -> str:
        return f"beta={self.initial_beta}" + (", learn_beta=True" if isinstance(self.beta, nn.Parameter) else "")


def check_input(module: str, x: Tensor, in_features: int) -> None:
    """What a module with projections checks itself; dtypes and devices are the business of its linear layers."""
    if not isinstance(x, Tensor) or x.is_nested:
        checks.array(module, "x", x)  # refuses it: it has no shape to check
    contract.check_features(module, x.shape, in_features)


def requires_grad(*operands: object) -> bool:
    """Whether a gradient is asked for in any of the operands that are tensors."""
    return any(isinstance(operand, Tensor) and operand.requires_grad for operand in operands)


class _Part(nn.Module):
    """Code of a module as a module of its own."""

    def __init__(self, module: nn.Module, code: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.code = module, code

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.code(*inputs)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _on_its_tensors(module: nn.Module, code: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Code of a module with the module's tensors of now, whatever they are when it runs.

    ``torch.func.functional_call`` takes the tensors that it lends to a module back before the backward pass.
    """
    given = _tensors(module)

    def run(*inputs: Tensor) -> Tensor:
        now = _tensors(module)
        if all(now.get(name) is tensor for name, tensor in given.items()):
            return code(*inputs)
        lent = {f"module.{name}": tensor for name, tensor in given.items()}
        result: Tensor = torch.func.functional_call(_Part(module, code), lent, inputs)
        return result

    return run


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was changed in place; None where torch does not count it."""
    return None if tensor.is_inference() else tensor._version


def _of_unchanged(reads: Mapping[str, object], code: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Code that reads some tensors beside its inputs, and refuses to run when they were changed in place.

    Autograd says so of what it saves; what the code reads when it runs again is not saved.
    """
    tensors = {name: one for name, one in reads.items() if isinstance(one, Tensor)}
    versions = {name: _version(tensor) for name, tensor in tensors.items()}

    def run(*inputs: Tensor) -> Tensor:
        for name, tensor in tensors.items():
            now = _version(tensor)
            if now != versions[name]:
                raise RuntimeError(
                    f"one of the variables needed for gradient computation has been modified by an inplace operation: "
                    f"{name}, of shape {tuple(tensor.shape)}, is at version {now}; expected version {versions[name]}"
                )
        return code(*inputs)

    return run


def recomputed(
    module: nn.Module | None, code: Callable[..., Tensor], *inputs: Tensor, reads: Mapping[str, object]
) -> Tensor:
    """``code(*inputs)``, of which the inputs alone are kept; in the backward pass it runs again, as far as needed.

    Where nothing is kept (no gradients, an exporter) and where saved tensors cannot be exchanged (``torch.func``,
    forward AD) it is a plain call.

    Args:
        module: the one whose tensors the code takes from it; None where there is none.
        code: what is computed.
        inputs: its arguments.
        reads: what it computes with beside them, by name.

    Raises:
        RuntimeError: in the backward pass, where one of ``reads`` was changed in place after the forward pass.
    """
    if not torch.is_grad_enabled() or is_transformed() or _is_exporting():
        return code(*inputs)
    if not torch.compiler.is_compiling():
        code = _of_unchanged(reads, code)
        code = code if module is None else _on_its_tensors(module, code)
    result: Tensor = checkpoint(code, *inputs, use_reentrant=False)
    return result
