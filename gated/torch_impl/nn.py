"""The gated activations as modules.

The children ``gate_proj``, ``up_proj`` and ``down_proj`` are ``torch.nn.Linear``, are called as modules, and bear the
names of Llama's MLP: its checkpoints load by name, and tools that exchange, hook or shard linear layers find them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gated import contract

from ._learned import BetaModule, check_input, recomputed, requires_grad
from .activations import swish
from .units import gated_unit, glu, swiglu

__all__ = ["GLU", "GatedFFN", "GatedLinear", "SwiGLU", "Swish"]

Device = torch.device | str | None


class Swish(BetaModule):
    r"""Swish, :math:`x \, \sigma(\beta x)`. Input and output have any one shape.

    Args:
        beta: a Python number.
        learn_beta: whether beta is a parameter, 0-d, that starts at this number.
        device: of the parameter.
        dtype: of the parameter; a call uses it in the dtype of the input.

    Source: Ramachandran et al., "Searching for Activation Functions", arXiv:1710.05941.
    """

    def __init__(
        self,
        beta: float = 1.0,
        *,
        learn_beta: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        contract.check_module("Swish", beta=beta)
        super().__init__(beta, learn_beta, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """swish_beta(x), of the shape and dtype of ``x``."""
        return swish(x, self.beta_beside(x))

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return self.beta_repr()


class GLU(nn.Module):
    r"""The gated linear unit, :math:`\sigma(g) \, v`, for the gate g and the value v packed in one array.

    The size along ``axis`` is 2n before and n after.

    Args:
        axis: the axis that holds gate and value.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``, as in :mod:`gated.torch_impl.units`.
            A wrong layout is silent: it swaps gate and value, and no shape tells.

    Source: Dauphin et al., arXiv:1612.08083; N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202,
    equation 4.
    """

    def __init__(self, *, axis: int = -1, layout: str = "gate_last") -> None:
        super().__init__()
        contract.check_module("GLU", layout=layout)
        self.axis, self.layout = axis, layout

    def forward(self, x: Tensor) -> Tensor:
        """The unit of the packed ``x``."""
        return glu(x, axis=self.axis, layout=self.layout)

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"axis={self.axis}, layout={self.layout!r}"


class SwiGLU(BetaModule):
    r"""The Swish gated unit, :math:`g \, \sigma(\beta g) \, v`, for the gate g and the value v packed in one array.

    The size along ``axis`` is 2n before and n after.

    Args:
        beta: a Python number.
        learn_beta: whether beta is a parameter, 0-d, that starts at this number.
        axis: the axis that holds gate and value.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``, as in :mod:`gated.torch_impl.units`.
            A wrong layout is silent: it swaps gate and value, and no shape tells.
        device: of the parameter.
        dtype: of the parameter; a call uses it in the dtype of the input.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 5.
    """

    def __init__(
        self,
        beta: float = 1.0,
        *,
        learn_beta: bool = False,
        axis: int = -1,
        layout: str = "gate_last",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        contract.check_module("SwiGLU", beta=beta, layout=layout)
        super().__init__(beta, learn_beta, device, dtype)
        self.axis, self.layout = axis, layout

    def forward(self, x: Tensor) -> Tensor:
        """The unit of the packed ``x``."""
        return swiglu(x, self.beta_beside(x), axis=self.axis, layout=self.layout)

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"{self.beta_repr()}, axis={self.axis}, layout={self.layout!r}"


class GatedLinear(BetaModule):
    r"""A gated unit with its projections, :math:`A(x W + b) \odot (x V + c)`.

    ``gate_proj`` holds W (transposed, as ``torch.nn.Linear`` has it) and b, ``up_proj`` V and c. Shapes: (..., d_in) to
    (..., d_out).

    Args:
        in_features: d_in.
        out_features: d_out.
        activation: A: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: for ``"swish"``, a Python number.
        learn_beta: whether beta is a parameter, 0-d, that starts at this number.
        bias: whether the projections have biases.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: the activation is unknown, or beta is to be learned for one that does not depend on it.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equations 4 and 5.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "swish",
        beta: float = 1.0,
        learn_beta: bool = False,
        bias: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        contract.check_module("GatedLinear", beta=beta, learn_beta=learn_beta, activation=activation)
        super().__init__(beta, learn_beta, device, dtype)
        self.in_features = in_features
        self.activation = activation
        self.gate_proj = nn.Linear(in_features, out_features, bias, device, dtype)
        self.up_proj = nn.Linear(in_features, out_features, bias, device, dtype)

    def reset_parameters(self, std: float = 0.02) -> None:
        r"""The usual initialisation of Llama models: weights :math:`\sim N(0, \mathrm{std}^2)`, biases 0.

        A learned beta goes back to the value it started from.

        The constructor leaves each projection as ``torch.nn.Linear`` initialises it, with the weights that Hugging
        Face's ``LlamaMLP`` gets from the same seed; there too the model, not the module, asks for this initialisation.
        A loop that resets every module of a model resets the projections last, and so to ``torch.nn.Linear``'s. A child
        that is no ``torch.nn.Linear`` any more is left alone.

        Args:
            std: the standard deviation, a Python number; 0.02 is the ``initializer_range`` of ``LlamaConfig``.

        Raises:
            TypeError: ``std`` is no Python number.
            ValueError: ``std`` is negative or not finite.

        Source: ``PreTrainedModel._init_weights`` and ``LlamaConfig`` of Hugging Face transformers.
        """
        name = type(self).__name__
        if not 0 <= contract.check_number(name, "std", std) < math.inf:
            raise ValueError(f"{name}: std must be at least 0 and finite, got {std!r}")
        self._reset_beta()
        for child in self.children():
            if isinstance(child, nn.Linear):
                nn.init.normal_(child.weight, std=std)
                if child.bias is not None:
                    nn.init.zeros_(child.bias)

    def unit(self, gate: Tensor, value: Tensor) -> Tensor:
        """A(gate) * value"""
        return gated_unit(gate, value, activation=self.activation, beta=self.beta_beside(gate))

    def forward(self, x: Tensor) -> Tensor:
        """A(x W + b) * (x V + c), of shape (..., d_out)."""
        check_input("GatedLinear", x, self.in_features)
        return self.unit(self.gate_proj(x), self.up_proj(x))

    def tensor_parallel_plan(self, **options: Any) -> dict[str, Any]:
        """The plan of this module for ``torch.distributed.tensor.parallel.parallelize_module``.

        That of :func:`gated.torch_impl.tensor_parallel.tensor_parallel_plan`, which says what the options are.
        """
        from .tensor_parallel import tensor_parallel_plan

        return dict(tensor_parallel_plan(down_proj=hasattr(self, "down_proj"), **options))

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"activation={self.activation!r}" + (f", {self.beta_repr()}" if self.activation == "swish" else "")


class GatedFFN(GatedLinear):
    r"""The gated feed-forward block, :math:`(A(x W + b) \odot (x V + c)) \, W_2 + b_2`.

    ``gate_proj`` holds W (transposed, as ``torch.nn.Linear`` has it) and b, ``up_proj`` V and c, ``down_proj`` W_2 and
    b_2. Shapes: (..., d_in) to (..., d_out).

    Args:
        in_features: d_in.
        hidden_features: d_hidden.
        out_features: d_out; None means d_in.
        activation: A: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: for ``"swish"``, a Python number.
        learn_beta: whether beta is a parameter, 0-d, that starts at this number.
        bias: whether the projections have biases.
        recompute: what the backward pass computes again. ``"product"``: the product of activation and value; the gate
            and the value are kept, two tensors of hidden size. ``"all"``: all of hidden size; nothing but x is kept.
            Children that are recomputed are called again. Inside a transform of ``torch.func`` and in forward AD
            nothing is recomputed.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: the activation or ``recompute`` is unknown, or beta is to be learned for an activation that does not
            depend on it.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 6.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int | None = None,
        *,
        activation: str = "swish",
        beta: float = 1.0,
        learn_beta: bool = False,
        bias: bool = False,
        recompute: str = "product",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        contract.check_module("GatedFFN", beta=beta, learn_beta=learn_beta, activation=activation, recompute=recompute)
        super().__init__(
            in_features,
            hidden_features,
            activation=activation,
            beta=beta,
            learn_beta=learn_beta,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.recompute = recompute
        out_features = in_features if out_features is None else out_features
        self.down_proj = nn.Linear(hidden_features, out_features, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, of shape (..., d_out)."""
        check_input("GatedFFN", x, self.in_features)
        if self.recompute == "all":
            return recomputed(self, self._block, x, reads=dict(self.named_parameters()))
        gate, value = self.gate_proj(x), self.up_proj(x)
        if not requires_grad(gate, value, self.beta):
            return self._down(gate, value)  # one product kept for down_proj, not gate and value
        of_projections = ("gate_proj.", "up_proj.")
        reads = {name: one for name, one in self.named_parameters() if not name.startswith(of_projections)}
        return recomputed(self, self._down, gate, value, reads=reads)

    def _block(self, x: Tensor) -> Tensor:
        return self._down(self.gate_proj(x), self.up_proj(x))

    def _down(self, gate: Tensor, value: Tensor) -> Tensor:
        result: Tensor = self.down_proj(self.unit(gate, value))
        return result

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"{super().extra_repr()}, recompute={self.recompute!r}"
