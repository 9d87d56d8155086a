"""Flax NNX modules: Swish, GLU, SwiGLU, GatedLinear, GatedFFN.

The projections are ``nnx.Linear`` children with the names of a Llama checkpoint (gate_proj, up_proj, down_proj), called
as modules: LoRA, quantised layers and sharding annotations go where they go in any NNX model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros
from jax.typing import DTypeLike

from gated.contract import check_module, missing_framework

try:
    from flax import nnx
except ModuleNotFoundError as error:
    if error.name != "flax":
        raise
    raise ModuleNotFoundError(missing_framework("gated.jax_impl.nnx", "flax", "jax"), name="flax") from error

from gated.jax_impl._arrays import Array, Beta
from gated.jax_impl._explicit import dot_general as summed
from gated.jax_impl._modules import DotGeneral, Initializer, Precision, check_beta, check_input, lecun_normal, like
from gated.jax_impl.activations import swish
from gated.jax_impl.units import gated_unit, glu, swiglu

__all__ = ["GLU", "GatedFFN", "GatedLinear", "SwiGLU", "Swish"]

Layer = Callable[..., Array]
State = nnx.State[Any, Any]


def _beta(beta: float, learn_beta: bool, param_dtype: DTypeLike) -> nnx.Param[Array] | float:
    return nnx.Param(jnp.asarray(beta, param_dtype)) if learn_beta else float(beta)


def _used(beta: nnx.Param[Array] | float, x: Array) -> Beta:
    """beta for a call on ``x``."""
    return like(beta[...], x) if isinstance(beta, nnx.Variable) else beta


def _given(out_sharding: Any) -> dict[str, Any]:
    """The keyword of ``nnx.Linear`` where there is need of it: a layer in its place may take x alone."""
    return {} if out_sharding is None else {"out_sharding": out_sharding}


class Swish(nnx.Module):
    r"""Swish, :math:`x \, \sigma(\beta x)`, of any shape.

    Source: Ramachandran, Zoph and Le, arXiv:1710.05941.

    Args:
        beta: a Python number.
        learn_beta: whether ``beta`` is a scalar parameter, with that number as its initial value.
        param_dtype: the dtype of that parameter; a call uses it in the dtype of ``x``.
    """

    def __init__(self, beta: float = 1.0, *, learn_beta: bool = False, param_dtype: DTypeLike = jnp.float32) -> None:
        check_module("Swish", beta=beta)
        check_beta("Swish", learn_beta, param_dtype)
        self.beta = _beta(beta, learn_beta, param_dtype)

    def __call__(self, x: Array) -> Array:
        """swish(x), of the shape and dtype of ``x``."""
        return swish(x, _used(self.beta, x))


class GLU(nnx.Module):
    r"""The gated linear unit, :math:`\sigma(\text{gate}) \cdot \text{value}`, on one packed array.

    Source: Dauphin et al., arXiv:1612.08083, equation 1; Shazeer, arXiv:2002.05202, equation 4.

    Args:
        axis: the axis to split; its size 2n becomes n.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see :func:`gated.jax_impl.glu`. A wrong layout
            is silent: the result has the right shape and the wrong numbers.
    """

    def __init__(self, *, axis: int = -1, layout: str = "gate_last") -> None:
        check_module("GLU", layout=layout)
        self.axis = axis
        self.layout = layout

    def __call__(self, x: Array) -> Array:
        """glu(x)."""
        return glu(x, axis=self.axis, layout=self.layout)


class SwiGLU(nnx.Module):
    r"""SwiGLU, :math:`\operatorname{swish}_\beta(\text{gate}) \cdot \text{value}`, on one packed array.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Args:
        beta: a Python number.
        learn_beta: whether ``beta`` is a scalar parameter, with that number as its initial value.
        axis: the axis to split; its size 2n becomes n.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see :func:`gated.jax_impl.glu`. A wrong layout
            is silent: the result has the right shape and the wrong numbers.
        param_dtype: the dtype of a learnt ``beta``; a call uses it in the dtype of ``x``.
    """

    def __init__(
        self,
        beta: float = 1.0,
        *,
        learn_beta: bool = False,
        axis: int = -1,
        layout: str = "gate_last",
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        check_module("SwiGLU", beta=beta, layout=layout)
        check_beta("SwiGLU", learn_beta, param_dtype)
        self.beta = _beta(beta, learn_beta, param_dtype)
        self.axis = axis
        self.layout = layout

    def __call__(self, x: Array) -> Array:
        """swiglu(x)."""
        return swiglu(x, _used(self.beta, x), axis=self.axis, layout=self.layout)


class GatedLinear(nnx.Module):
    r"""A gated unit with its projections: :math:`\operatorname{activation}(xW + b) \cdot (xV + c)`.

    From (..., in_features) to (..., out_features). Children: ``gate_proj`` with W and b, ``up_proj`` with V and c,
    kernels (in_features, out_features).

    Source: Shazeer, arXiv:2002.05202, equations 4 and 5.

    Args:
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
        kernel_init: makes the kernels. Wrapped in ``nnx.with_partitioning`` it annotates them too.
        bias_init: makes the biases, likewise.
        rngs: the random streams of the initialisation.
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
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: Precision = None,
        preferred_element_type: DTypeLike | None = None,
        dot_general: DotGeneral | None = None,
        kernel_init: Initializer = lecun_normal,
        bias_init: Initializer = zeros,
        rngs: nnx.Rngs,
    ) -> None:
        check_module("GatedLinear", activation=activation, beta=beta, learn_beta=learn_beta)
        check_beta("GatedLinear", learn_beta, param_dtype)

        def linear() -> nnx.Linear:
            return nnx.Linear(
                in_features,
                out_features,
                use_bias=bias,
                dtype=dtype,
                param_dtype=param_dtype,
                precision=precision,
                preferred_element_type=preferred_element_type,
                dot_general=dot_general or summed,
                kernel_init=kernel_init,
                bias_init=bias_init,
                rngs=rngs,
            )

        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.beta = _beta(beta, learn_beta, param_dtype)
        self.gate_proj = linear()
        self.up_proj = linear()

    def __call__(self, x: Array, out_sharding: Any = None) -> Array:
        """(..., in_features) -> (..., out_features), in ``out_sharding`` where a mesh of explicit axes needs it."""
        check_input("GatedLinear", x, self.in_features)
        sharding = _given(out_sharding)
        gate, value = self.gate_proj(x, **sharding), self.up_proj(x, **sharding)
        return gated_unit(gate, value, activation=self.activation, beta=_used(self.beta, gate))


class GatedFFN(nnx.Module):
    r"""The feed-forward block: :math:`\bigl(\operatorname{activation}(xW + b) \cdot (xV + c)\bigr) W_2 + b_2`.

    From (..., in_features) to (..., out_features). Children: ``gate_proj`` with W and b, ``up_proj`` with V and c,
    kernels (in_features, hidden_features); ``down_proj`` with W2 and b2, kernel (hidden_features, out_features).

    Source: Shazeer, arXiv:2002.05202, equation 6.

    Args:
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
        kernel_init: makes the kernels. Wrapped in ``nnx.with_partitioning`` it annotates them too.
        bias_init: makes the biases, likewise.
        down_kernel_init: makes the kernel of ``down_proj``; None means ``kernel_init``.
        down_bias_init: makes its bias; None means ``bias_init``.
        rngs: the random streams of the initialisation.
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
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: Precision = None,
        preferred_element_type: DTypeLike | None = None,
        dot_general: DotGeneral | None = None,
        kernel_init: Initializer = lecun_normal,
        bias_init: Initializer = zeros,
        down_kernel_init: Initializer | None = None,
        down_bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_module("GatedFFN", activation=activation, beta=beta, learn_beta=learn_beta, recompute=recompute)
        check_beta("GatedFFN", learn_beta, param_dtype)

        def linear(size_in: int, size_out: int, kernel_init: Initializer, bias_init: Initializer) -> nnx.Linear:
            return nnx.Linear(
                size_in,
                size_out,
                use_bias=bias,
                dtype=dtype,
                param_dtype=param_dtype,
                precision=precision,
                preferred_element_type=preferred_element_type,
                dot_general=dot_general or summed,
                kernel_init=kernel_init,
                bias_init=bias_init,
                rngs=rngs,
            )

        self.in_features = in_features
        self.hidden_features = hidden_features
        self.out_features = in_features if out_features is None else out_features
        self.activation = activation
        self.recompute = recompute
        self.beta = _beta(beta, learn_beta, param_dtype)
        self.gate_proj = linear(in_features, hidden_features, kernel_init, bias_init)
        self.up_proj = linear(in_features, hidden_features, kernel_init, bias_init)
        self.down_proj = linear(
            hidden_features, self.out_features, down_kernel_init or kernel_init, down_bias_init or bias_init
        )

    def __call__(self, x: Array, out_sharding: Any = None) -> Array:
        """(..., in_features) -> (..., out_features), in ``out_sharding`` where a mesh of explicit axes needs it."""
        check_input("GatedFFN", x, self.in_features)
        # Closed over, as the number beta is: as an argument of jax.checkpoint that would be an array, and lose what
        # float32 has no room for.
        sharding = _given(out_sharding)

        def block(ffn: GatedFFN, x: Array) -> Array:
            gate, value = ffn.gate_proj(x), ffn.up_proj(x)
            activation, beta = ffn.activation, _used(ffn.beta, gate)

            def down(down_proj: Layer, gate: Array, value: Array) -> Array:
                return down_proj(gated_unit(gate, value, activation=activation, beta=beta), **sharding)

            return _recomputed(down, ffn.down_proj, gate, value)

        return _recomputed(block, self, x) if self.recompute == "all" else block(self, x)


def _recomputed(formula: Callable[..., Array], layer: Layer, *arrays: Array) -> Array:
    """``formula(layer, *arrays)``, computed again in the backward pass.

    A pure function of the layer's state: ``nnx.remat`` takes the layer's own variables into its trace, which is refused
    where a transformation of JAX closed over them.
    """
    if not isinstance(layer, nnx.Module):
        result: Array = jax.checkpoint(functools.partial(formula, layer))(*arrays)
        return result
    graph, state, *constants = nnx.split(layer, nnx.Variable, ...)

    @jax.checkpoint
    def pure(state: State, *arrays: Array) -> tuple[Array, State]:
        before = {id(leaf): leaf for leaf in jax.tree.leaves(state)}
        twin = nnx.merge(graph, state, *constants)
        result = formula(twin, *arrays)

        def changed(path: Any, leaf: Any) -> bool:
            return isinstance(leaf, nnx.Variable) and any(id(one) not in before for one in jax.tree.leaves(leaf))

        return result, nnx.state(twin, changed)

    result, updates = pure(state, *arrays)
    # What is as it was is not written: a layer that changes nothing may be closed over.
    if jax.tree.leaves(updates):
        nnx.update(layer, updates)
    return result
