"""Flax Linen modules: Swish, GLU, SwiGLU, GatedLinear, GatedFFN.

The projections are ``nn.Dense`` submodules with the names of a Llama checkpoint (gate_proj, up_proj, down_proj). The
modules take the same arguments as those of :mod:`gated.jax_impl.nnx`; a learnt beta is the parameter ``beta``.
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
from jax.nn.initializers import zeros
from jax.typing import DTypeLike

from gated.contract import check_module, missing_framework

try:
    import flax.linen as nn
except ModuleNotFoundError as error:
    if error.name != "flax":
        raise
    raise ModuleNotFoundError(missing_framework("gated.jax_impl.linen", "flax", "jax"), name="flax") from error

from gated.jax_impl._arrays import Array, Beta
from gated.jax_impl._explicit import dot_general as summed
from gated.jax_impl._modules import DotGeneral, Initializer, Precision, check_beta, check_input, lecun_normal, like
from gated.jax_impl.activations import swish
from gated.jax_impl.units import gated_unit, glu, swiglu

__all__ = ["GLU", "GatedFFN", "GatedLinear", "SwiGLU", "Swish"]


def _beta(module: nn.Module) -> Beta:
    """beta of ``module``: the parameter, or the number."""
    if not module.learn_beta:
        return float(module.beta)
    learnt: Array = module.param("beta", lambda _: jnp.asarray(module.beta, module.param_dtype))
    return learnt


class Swish(nn.Module):
    r"""Swish, :math:`x \, \sigma(\beta x)`, of any shape.

    Source: Ramachandran, Zoph and Le, arXiv:1710.05941.

    Attributes:
        beta: a Python number.
        learn_beta: whether ``beta`` is a scalar parameter, with that number as its initial value.
        param_dtype: the dtype of that parameter; a call uses it in the dtype of ``x``.
    """

    beta: float = 1.0
    _: dataclasses.KW_ONLY
    learn_beta: bool = False
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_module("Swish", beta=self.beta)
        check_beta("Swish", self.learn_beta, self.param_dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """swish(x), of the shape and dtype of ``x``."""
        return swish(x, like(_beta(self), x))


class GLU(nn.Module):
    r"""The gated linear unit, :math:`\sigma(\text{gate}) \cdot \text{value}`, on one packed array.

    Source: Dauphin et al., arXiv:1612.08083, equation 1; Shazeer, arXiv:2002.05202, equation 4.

    Attributes:
        axis: the axis to split; its size 2n becomes n.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see :func:`gated.jax_impl.glu`. A wrong layout
            is silent: the result has the right shape and the wrong numbers.
    """

    _: dataclasses.KW_ONLY
    axis: int = -1
    layout: str = "gate_last"

    def __post_init__(self) -> None:
        check_module("GLU", layout=self.layout)
        super().__post_init__()

    def __call__(self, x: Array) -> Array:
        """glu(x)."""
        return glu(x, axis=self.axis, layout=self.layout)


class SwiGLU(nn.Module):
    r"""SwiGLU, :math:`\operatorname{swish}_\beta(\text{gate}) \cdot \text{value}`, on one packed array.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Attributes:
        beta: a Python number.
        learn_beta: whether ``beta`` is a scalar parameter, with that number as its initial value.
        axis: the axis to split; its size 2n becomes n.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see :func:`gated.jax_impl.glu`. A wrong layout
            is silent: the result has the right shape and the wrong numbers.
        param_dtype: the dtype of a learnt ``beta``; a call uses it in the dtype of ``x``.
    """

    beta: float = 1.0
    _: dataclasses.KW_ONLY
    learn_beta: bool = False
    axis: int = -1
    layout: str = "gate_last"
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_module("SwiGLU", beta=self.beta, layout=self.layout)
        check_beta("SwiGLU", self.learn_beta, self.param_dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """swiglu(x)."""
        return swiglu(x, like(_beta(self), x), axis=self.axis, layout=self.layout)


class GatedLinear(nn.Module):
    r"""A gated unit with its projections: :math:`\operatorname{activation}(xW + b) \cdot (xV + c)`.

    From (..., in_features) to (..., out_features). Submodules: ``gate_proj`` with W and b, ``up_proj`` with V and c,
    kernels (in_features, out_features).

    Source: Shazeer, arXiv:2002.05202, equations 4 and 5.

    Attributes:
        in_features: the size of the last axis of x.
        out_features: the size of the last axis of the result.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: of swish: a Python number.
        learn_beta: whether ``beta`` is a scalar parameter, with that number as its initial value.
        bias: whether the projections have biases.
        dtype: of the computation; None takes what x and the parameters promote to.
        param_dtype: of the parameters.
        precision: of the products, as ``jax.lax.dot_general`` takes it.
        preferred_element_type: the dtype in which the products are given, where not ``dtype``.
        dot_general: in place of ``jax.lax.dot_general``.
        kernel_init: makes the kernels. Wrapped in ``nn.with_partitioning`` or ``nn.with_logical_partitioning`` it
            annotates them too.
        bias_init: makes the biases, likewise.
    """

    in_features: int
    out_features: int
    _: dataclasses.KW_ONLY
    activation: str = "swish"
    beta: float = 1.0
    learn_beta: bool = False
    bias: bool = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: Precision = None
    preferred_element_type: DTypeLike | None = None
    dot_general: DotGeneral | None = None
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros

    def __post_init__(self) -> None:
        check_module("GatedLinear", activation=self.activation, beta=self.beta, learn_beta=self.learn_beta)
        check_beta("GatedLinear", self.learn_beta, self.param_dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(..., in_features) -> (..., out_features)."""
        check_input("GatedLinear", x, self.in_features)
        gate = _dense(self, self.out_features, "gate_proj")(x)
        value = _dense(self, self.out_features, "up_proj")(x)
        return gated_unit(gate, value, activation=self.activation, beta=like(_beta(self), gate))


class GatedFFN(nn.Module):
    r"""The feed-forward block: :math:`\bigl(\operatorname{activation}(xW + b) \cdot (xV + c)\bigr) W_2 + b_2`.

    From (..., in_features) to (..., out_features). Submodules: ``gate_proj`` with W and b, ``up_proj`` with V and c,
    kernels (in_features, hidden_features); ``down_proj`` with W2 and b2, kernel (hidden_features, out_features).

    Source: Shazeer, arXiv:2002.05202, equation 6.

    Attributes:
        in_features: the size of the last axis of x.
        hidden_features: the size of the gate and the value.
        out_features: the size of the last axis of the result; None means ``in_features``.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: of swish: a Python number.
        learn_beta: whether ``beta`` is a scalar parameter, with that number as its initial value.
        bias: whether the projections have biases.
        recompute: ``"product"`` keeps the gate and the value for the backward pass and computes their product again;
            ``"all"`` keeps nothing of hidden size.
        dtype: of the computation; None takes what x and the parameters promote to.
        param_dtype: of the parameters.
        precision: of the products, as ``jax.lax.dot_general`` takes it.
        preferred_element_type: the dtype in which the products are given, where not ``dtype``.
        dot_general: in place of ``jax.lax.dot_general``.
        kernel_init: makes the kernels. Wrapped in ``nn.with_partitioning`` or ``nn.with_logical_partitioning`` it
            annotates them too.
        bias_init: makes the biases, likewise.
        down_kernel_init: makes the kernel of ``down_proj``; None means ``kernel_init``.
        down_bias_init: makes its bias; None means ``bias_init``.
    """

    in_features: int
    hidden_features: int
    out_features: int | None = None
    _: dataclasses.KW_ONLY
    activation: str = "swish"
    beta: float = 1.0
    learn_beta: bool = False
    bias: bool = False
    recompute: str = "product"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: Precision = None
    preferred_element_type: DTypeLike | None = None
    dot_general: DotGeneral | None = None
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    down_kernel_init: Initializer | None = None
    down_bias_init: Initializer | None = None

    def __post_init__(self) -> None:
        check_module(
            "GatedFFN",
            activation=self.activation,
            beta=self.beta,
            learn_beta=self.learn_beta,
            recompute=self.recompute,
        )
        check_beta("GatedFFN", self.learn_beta, self.param_dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(..., in_features) -> (..., out_features)."""
        check_input("GatedFFN", x, self.in_features)
        # Not inside of remat: a number as its argument would be an array, and lose what float32 has no room for; and a
        # parameter that is made there is no jax.Array.
        beta = _beta(self)
        learnt = None if isinstance(beta, float) else beta
        block = nn.remat(GatedFFN._block) if self.recompute == "all" else GatedFFN._block
        result: Array = block(self, x, learnt)
        return result

    def _block(self, x: Array, learnt: Array | None) -> Array:
        gate = _dense(self, self.hidden_features, "gate_proj")(x)
        value = _dense(self, self.hidden_features, "up_proj")(x)
        return nn.remat(GatedFFN._down)(self, gate, value, learnt)

    def _down(self, gate: Array, value: Array, learnt: Array | None) -> Array:
        beta = float(self.beta) if learnt is None else like(learnt, gate)
        product = gated_unit(gate, value, activation=self.activation, beta=beta)
        size = self.in_features if self.out_features is None else self.out_features
        return _dense(self, size, "down_proj", self.down_kernel_init, self.down_bias_init)(product)


def _dense(
    parent: GatedLinear | GatedFFN,
    features: int,
    name: str,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> nn.Dense:
    """A projection of ``parent``, in whose compact call it is made."""
    dot_general = parent.dot_general or summed
    if parent.preferred_element_type is not None:
        dot_general = functools.partial(dot_general, preferred_element_type=parent.preferred_element_type)
    return nn.Dense(
        features,
        use_bias=parent.bias,
        dtype=parent.dtype,
        param_dtype=parent.param_dtype,
        precision=parent.precision,
        dot_general=dot_general,
        kernel_init=kernel_init or parent.kernel_init,
        bias_init=bias_init or parent.bias_init,
        name=name,
    )
