"""The gated units: one packed array split in a gate and a value, or a pair; activation(gate) * value.

A packed array of size 2n along an axis says nothing about which half is the gate. The wrong ``layout`` gives numbers
that look right and are not, without an error; every function here says so because no default can be right for everyone.
The backward pass keeps the inputs alone.
"""

from __future__ import annotations

from gated.jax_impl._arrays import Array, Beta, beta_operand, checks
from gated.jax_impl._gated import clamped, packed_unit, unit

__all__ = ["bilinear", "clamped_swiglu", "gated_unit", "geglu", "glu", "reglu", "swiglu"]


def glu(x: Array, *, axis: int = -1, layout: str = "gate_last") -> Array:
    r"""The gated linear unit: :math:`\sigma(\text{gate}) \cdot \text{value}`.

    Source: Dauphin et al., "Language Modeling with Gated Convolutional Networks", arXiv:1612.08083, equation 1;
    Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 4.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        axis: the axis to split.
        layout: where the gate is along ``axis``. ``"gate_last"``: value in [0, n), gate in [n, 2n), as in
            ``jax.nn.glu`` and ``torch.nn.functional.glu``; ``"gate_first"``: the other way round, as in Llama's merged
            ``gate_up_proj``; ``"interleaved"``: gate at the even indices, value at the odd, as in gpt-oss. A wrong
            layout is silent: the result has the right shape and the wrong numbers.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n along ``axis``.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype, or ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.
    """
    axis = checks.packed("glu", x, axis=axis, layout=layout)
    return packed_unit("sigmoid", axis, layout, x)


def bilinear(x: Array, *, axis: int = -1, layout: str = "gate_last") -> Array:
    r"""The bilinear unit: :math:`\text{gate} \cdot \text{value}`.

    Source: Shazeer, arXiv:2002.05202, equation 4 (after Mnih and Hinton, 2007).

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"`` (value in [0, n), gate in [n, 2n)), ``"gate_first"``
            (the other way round) or ``"interleaved"`` (gate at the even indices, value at the odd). A wrong choice
            between the halves and ``"interleaved"`` is silent; the order of the halves does not matter, here alone.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n along ``axis``.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype, or ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.
    """
    axis = checks.packed("bilinear", x, axis=axis, layout=layout)
    return packed_unit("identity", axis, layout, x)


def reglu(x: Array, *, axis: int = -1, layout: str = "gate_last") -> Array:
    r"""ReGLU: :math:`\max(\text{gate}, 0) \cdot \text{value}`.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"`` (value in [0, n), gate in [n, 2n)), ``"gate_first"``
            (the other way round) or ``"interleaved"`` (gate at the even indices, value at the odd). A wrong layout is
            silent: the result has the right shape and the wrong numbers.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n along ``axis``.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype, or ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.
    """
    axis = checks.packed("reglu", x, axis=axis, layout=layout)
    return packed_unit("relu", axis, layout, x)


def geglu(x: Array, *, approximate: str = "none", axis: int = -1, layout: str = "gate_last") -> Array:
    r"""GEGLU: :math:`\operatorname{gelu}(\text{gate}) \cdot \text{value}`.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        approximate: ``"none"`` (erf) or ``"tanh"``; see :func:`gated.jax_impl.gelu`.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"`` (value in [0, n), gate in [n, 2n)), ``"gate_first"``
            (the other way round) or ``"interleaved"`` (gate at the even indices, value at the odd). A wrong layout is
            silent: the result has the right shape and the wrong numbers.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n along ``axis``.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype, or ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, ``approximate``
            or ``layout`` is unknown.
    """
    axis = checks.packed("geglu", x, axis=axis, layout=layout, approximate=approximate)
    return packed_unit("gelu" if approximate == "none" else "gelu_tanh", axis, layout, x)


def swiglu(x: Array, beta: Beta = 1.0, *, axis: int = -1, layout: str = "gate_last") -> Array:
    r"""SwiGLU: :math:`\operatorname{swish}_\beta(\text{gate}) \cdot \text{value}`.

    Here :math:`\operatorname{swish}_\beta(g) = g \, \sigma(\beta g)`.

    Source: Shazeer, arXiv:2002.05202, equation 5.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        beta: a Python number, or an array of the dtype of ``x`` that broadcasts to the gate without enlarging it;
            differentiable.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"`` (value in [0, n), gate in [n, 2n)), ``"gate_first"``
            (the other way round) or ``"interleaved"`` (gate at the even indices, value at the odd). A wrong layout is
            silent: the result has the right shape and the wrong numbers.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n along ``axis``.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype, ``beta`` neither that nor a number,
            or ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, ``beta`` does not
            broadcast to the gate, or ``layout`` is unknown.
    """
    axis = checks.packed("swiglu", x, axis=axis, layout=layout, beta=beta)
    return packed_unit("swish", axis, layout, x, beta_operand(beta, x))


def clamped_swiglu(
    x: Array,
    *,
    alpha: float = 1.702,
    limit: float = 7.0,
    offset: float = 1.0,
    axis: int = -1,
    layout: str = "gate_last",
) -> Array:
    r"""The clamped SwiGLU of gpt-oss.

    .. math::
        g \, \sigma(\alpha g) \cdot (v + \text{offset}), \qquad
        g = \min(\text{gate}, \text{limit}), \quad
        v = \max(-\text{limit}, \min(\text{value}, \text{limit}))

    The derivative of min and max is 1 inside and on the boundary, 0 outside.

    Source: gpt-oss, https://github.com/openai/gpt-oss (``swiglu`` in ``gpt_oss/torch/model.py``), whose layout is
    ``"interleaved"``.

    Args:
        x: float16, bfloat16, float32 or float64, of even size 2n along ``axis``.
        alpha: a finite Python number.
        limit: a Python number, at least 0; inf clamps nothing.
        offset: a finite Python number.
        axis: the axis to split.
        layout: where the gate is along ``axis``: ``"gate_last"`` (value in [0, n), gate in [n, 2n)), ``"gate_first"``
            (the other way round) or ``"interleaved"`` (gate at the even indices, value at the odd). A wrong layout is
            silent: the result has the right shape and the wrong numbers.

    Returns:
        An array of the dtype of ``x`` and of its shape, with n in place of 2n along ``axis``.

    Raises:
        TypeError: ``x`` is no JAX array of an allowed dtype, ``alpha``, ``limit`` or ``offset`` no Python number, or
            ``axis`` no int.
        ValueError: ``x`` is 0-d or odd along ``axis``, ``axis`` is out of range, a number is out of its range, or
            ``layout`` is unknown.
    """
    axis = checks.clamped("clamped_swiglu", x, alpha=alpha, limit=limit, offset=offset, axis=axis, layout=layout)
    return clamped(axis, layout, float(limit), float(offset), x, beta_operand(alpha, x))


def gated_unit(gate: Array, value: Array, *, activation: str = "swish", beta: Beta = 1.0) -> Array:
    r"""The gated unit on a pair: :math:`\operatorname{activation}(\text{gate}) \cdot \text{value}`.

    The activation counts as a real number: where it is too small for a float, its product with a large value is still
    right, and with an infinite one infinite. What has no limit, an exact 0 times inf, is nan.

    Source: Shazeer, arXiv:2002.05202, equations 4 and 5.

    Args:
        gate: float16, bfloat16, float32 or float64, any shape.
        value: of the shape and dtype of ``gate``; nothing is broadcast.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: of swish, else without effect: a Python number, or an array of the dtype of ``gate`` that broadcasts to it
            without enlarging it; differentiable.

    Returns:
        An array of the shape and dtype of ``gate``.

    Raises:
        TypeError: an argument is no JAX array of an allowed dtype, or the dtypes differ.
        ValueError: the shapes differ, ``beta`` does not broadcast to ``gate``, or ``activation`` is unknown.
    """
    checks.pair("gated_unit", gate, value, activation=activation, beta=beta)
    return unit(activation, gate, value, beta_operand(beta, gate))
