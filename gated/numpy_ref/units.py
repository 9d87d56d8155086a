"""The gated units: one packed array split in a gate and a value, or a pair; activation(gate) * value.

A packed array of size 2n along an axis says nothing about which half is the gate. The wrong ``layout`` gives numbers
that look right and are not, without an error; every function here says so because no default can be right for everyone.
"""

from __future__ import annotations

import numpy as np

from gated.numpy_ref._arrays import Array, checks, elementwise
from gated.numpy_ref._pair import Float64
from gated.numpy_ref._wide import Wide, wide
from gated.numpy_ref.activations import FORMULAS, swish_formula

__all__ = ["bilinear", "clamped_swiglu", "gated_unit", "geglu", "glu", "reglu", "swiglu"]


def split(x: Array, axis: int, layout: str) -> tuple[Array, Array]:
    """The gate and the value of a packed array, as views."""

    def along(part: slice) -> Array:
        return x[(slice(None),) * axis + (part,)]

    n = x.shape[axis] // 2
    if layout == "interleaved":
        return along(slice(0, None, 2)), along(slice(1, None, 2))
    first, last = along(slice(0, n)), along(slice(n, None))
    return (first, last) if layout == "gate_first" else (last, first)


def unit_formula(activation: str, gate: Float64, value: Float64, beta: Float64) -> Wide:
    """activation(gate) * value."""
    return FORMULAS[activation](gate, beta) * wide(value)


def _unit(activation: str, gate: Array, value: Array, beta: float | Array = 1.0) -> Array:
    def formula(gate: Float64, value: Float64, beta: Float64) -> Wide:
        return unit_formula(activation, gate, value, beta)

    return elementwise(formula, gate, value, beta, like=gate)


def glu(x: Array, *, axis: int = -1, layout: str = "gate_last") -> Array:
    r"""The gated linear unit: :math:`\sigma(\text{gate}) \cdot \text{value}`.

    Source: Dauphin et al., "Language Modeling with Gated Convolutional Networks", arXiv:1612.08083, equation 1;
    Shazeer, arXiv:2002.05202, equation 4.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        axis: the axis to split.
        layout: where the gate is along ``axis``. ``"gate_last"``: value in [0, n), gate in [n, 2n), as in
            ``torch.nn.functional.glu`` and ``jax.nn.glu``; ``"gate_first"``: the other way round, as in Llama's merged
            ``gate_up_proj``; ``"interleaved"``: gate at the even indices, value at the odd, as in gpt-oss. A wrong
            layout is silent: the result has the right shape and the wrong numbers.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype, or ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.
    """
    axis = checks.packed("glu", x, axis=axis, layout=layout)
    return _unit("sigmoid", *split(x, axis, layout))


def bilinear(x: Array, *, axis: int = -1, layout: str = "gate_last") -> Array:
    r"""The bilinear unit: :math:`\text{gate} \cdot \text{value}`.

    Source: Shazeer, arXiv:2002.05202, equation 4 (after Mnih and Hinton, 2007).

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see
            :func:`glu`. A wrong layout is silent. The product is symmetric, so here ``"gate_first"`` and
            ``"gate_last"`` give the same; halves read as interleaved, or the reverse, do not.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype, or ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.
    """
    axis = checks.packed("bilinear", x, axis=axis, layout=layout)
    return _unit("identity", *split(x, axis, layout))


def reglu(x: Array, *, axis: int = -1, layout: str = "gate_last") -> Array:
    r"""ReGLU: :math:`\max(\text{gate}, 0) \cdot \text{value}`.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see
            :func:`glu`. A wrong layout is silent.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype, or ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.
    """
    axis = checks.packed("reglu", x, axis=axis, layout=layout)
    return _unit("relu", *split(x, axis, layout))


def geglu(x: Array, *, approximate: str = "none", axis: int = -1, layout: str = "gate_last") -> Array:
    r"""GEGLU: :math:`\operatorname{gelu}(\text{gate}) \cdot \text{value}`.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        approximate: ``"none"`` (erf) or ``"tanh"``; see :func:`gated.numpy_ref.gelu`.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see
            :func:`glu`. A wrong layout is silent.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype, or ``axis`` no int.
        ValueError: ``approximate`` or ``layout`` is unknown, ``x`` is 0-d or odd along ``axis``, or ``axis`` is out of
            range.
    """
    axis = checks.packed("geglu", x, axis=axis, layout=layout, approximate=approximate)
    return _unit("gelu" if approximate == "none" else "gelu_tanh", *split(x, axis, layout))


def swiglu(x: Array, beta: float | Array = 1.0, *, axis: int = -1, layout: str = "gate_last") -> Array:
    r"""SwiGLU: :math:`\operatorname{swish}_\beta(\text{gate}) \cdot \text{value}`.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        beta: a Python number, or an array of the dtype of ``x`` that broadcasts to the gate without enlarging it.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see
            :func:`glu`. A wrong layout is silent.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n.

    Raises:
        TypeError: an argument is no array of an allowed dtype, dtypes differ, or ``axis`` is no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, ``layout`` is unknown, or ``beta``
            does not broadcast to the gate.
    """
    axis = checks.packed("swiglu", x, axis=axis, layout=layout, beta=beta)
    return _unit("swish", *split(x, axis, layout), beta)


def clamped_swiglu(
    x: Array,
    *,
    alpha: float = 1.702,
    limit: float = 7.0,
    offset: float = 1.0,
    axis: int = -1,
    layout: str = "gate_last",
) -> Array:
    r"""The clamped SwiGLU of gpt-oss: :math:`g \, \sigma(\alpha g) \cdot (v + \text{offset})`.

    Here :math:`g = \min(\text{gate}, \text{limit})` and :math:`v = \operatorname{clip}(\text{value}, -\text{limit},
    \text{limit})`. gpt-oss itself packs its projection ``"interleaved"``.

    Source: OpenAI, gpt-oss, ``gpt_oss/torch/model.py``, function ``swiglu``.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        alpha: the slope inside the sigmoid, a Python number.
        limit: the clamp, a Python number of at least 0; ``math.inf`` clamps nothing.
        offset: what is added to the value, a Python number.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; see
            :func:`glu`. A wrong layout is silent.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n.

    Raises:
        TypeError: ``x`` is no array of an allowed dtype, ``alpha``, ``limit`` or ``offset`` no Python number, or
            ``axis`` no int.
        ValueError: ``alpha`` or ``offset`` is not finite, ``limit`` is negative or nan, ``x`` is 0-d or odd along
            ``axis``, ``axis`` is out of range, or ``layout`` is unknown.
    """
    axis = checks.clamped("clamped_swiglu", x, alpha=alpha, limit=limit, offset=offset, axis=axis, layout=layout)
    gate, value = split(x, axis, layout)

    def formula(gate: Float64, value: Float64) -> Wide:
        g, v = clamped(gate, value, limit, offset)
        return swish_formula(g, np.full_like(g, alpha)) * v

    return elementwise(formula, gate, value, like=gate)


def clamped(gate: Float64, value: Float64, limit: float, offset: float) -> tuple[Float64, Wide]:
    """min(gate, limit) and clip(value, -limit, limit) + offset; nan stays nan, and a zero keeps its sign."""
    v = wide(np.where(value > limit, limit, np.where(value < -limit, -limit, value)))
    return np.where(gate > limit, limit, gate), v + wide(np.full_like(value, offset)) if offset else v


def gated_unit(gate: Array, value: Array, *, activation: str = "swish", beta: float | Array = 1.0) -> Array:
    r"""The gated unit on a pair: :math:`\operatorname{activation}(\text{gate}) \cdot \text{value}`.

    Source: Shazeer, arXiv:2002.05202, equations 4 and 5; ONNX SwiGLU-28.

    Args:
        gate: float16, bfloat16, float32 or float64, any shape.
        value: an array of the shape and dtype of ``gate``; nothing is broadcast.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: swish's beta, a Python number, or an array of the dtype of ``gate`` that broadcasts to it without
            enlarging it. The other activations have no use for it.

    Returns:
        An array of the shape and dtype of ``gate``.

    Raises:
        TypeError: an argument is no array of an allowed dtype, or dtypes differ.
        ValueError: the shapes differ, ``activation`` is unknown, or ``beta`` does not broadcast to the gate.
    """
    checks.pair("gated_unit", gate, value, activation=activation, beta=beta)
    return _unit(activation, gate, value, beta)
