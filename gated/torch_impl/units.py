"""The gated units: activation(gate) * value, on one packed array or on a pair.

``layout`` says where the gate is in a packed array of size 2n along ``axis``:

    ===============  ======================  ======================
    layout           gate                    value
    ===============  ======================  ======================
    "gate_last"      indices n to 2n - 1     indices 0 to n - 1
    "gate_first"     indices 0 to n - 1      indices n to 2n - 1
    "interleaved"    even indices            odd indices
    ===============  ======================  ======================
"""

from __future__ import annotations

import torch

from gated.contract import ACTIVATIONS

from ._arrays import Beta, checks, factor, is_ordinary_pair, number
from ._autograd import apply
from ._forms import Form

__all__ = ["bilinear", "clamped_swiglu", "gated_unit", "geglu", "glu", "reglu", "swiglu"]


def glu(x: torch.Tensor, *, axis: int = -1, layout: str = "gate_last") -> torch.Tensor:
    r"""The gated linear unit, :math:`\sigma(g) \, v` for the gate g and the value v packed in ``x``.

    Args:
        x: any shape with an even size 2n along ``axis``; float16, bfloat16, float32 or float64.
        axis: the axis that holds gate and value.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; the module's table says what they mean.
            A wrong layout is silent: it swaps gate and value, and no shape tells.

    Returns:
        An array of the dtype of ``x`` and of size n along ``axis``. 16-bit dtypes are computed in float32 and rounded
        once.

    Raises:
        TypeError: ``x`` is no tensor or of another dtype, or ``axis`` is no integer.
        ValueError: ``x`` is 0-d or of an odd size along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.

    Source: Y. N. Dauphin, A. Fan, M. Auli, D. Grangier, "Language Modeling with Gated Convolutional Networks",
    arXiv:1612.08083; N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 4.
    """
    position = checks.packed("glu", x, axis=axis, layout=layout)
    return apply(Form("sigmoid", position, layout), x, None, None)


def bilinear(x: torch.Tensor, *, axis: int = -1, layout: str = "gate_last") -> torch.Tensor:
    r"""The bilinear unit, :math:`g \, v` for the gate g and the value v packed in ``x``.

    Args:
        x: any shape with an even size 2n along ``axis``; float16, bfloat16, float32 or float64.
        axis: the axis that holds gate and value.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; the module's table says what they mean.
            A wrong layout is silent: no shape tells, and here not even the value does.

    Returns:
        An array of the dtype of ``x`` and of size n along ``axis``.

    Raises:
        TypeError: ``x`` is no tensor or of another dtype, or ``axis`` is no integer.
        ValueError: ``x`` is 0-d or of an odd size along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 4.
    """
    position = checks.packed("bilinear", x, axis=axis, layout=layout)
    return apply(Form("identity", position, layout), x, None, None)


def reglu(x: torch.Tensor, *, axis: int = -1, layout: str = "gate_last") -> torch.Tensor:
    r"""The rectified gated unit, :math:`\max(g, 0) \, v` for the gate g and the value v packed in ``x``.

    Args:
        x: any shape with an even size 2n along ``axis``; float16, bfloat16, float32 or float64.
        axis: the axis that holds gate and value.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; the module's table says what they mean.
            A wrong layout is silent: it swaps gate and value, and no shape tells.

    Returns:
        An array of the dtype of ``x`` and of size n along ``axis``. The derivative of the rectifier at 0 is 0.

    Raises:
        TypeError: ``x`` is no tensor or of another dtype, or ``axis`` is no integer.
        ValueError: ``x`` is 0-d or of an odd size along ``axis``, ``axis`` is out of range, or ``layout`` is unknown.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 5.
    """
    position = checks.packed("reglu", x, axis=axis, layout=layout)
    return apply(Form("relu", position, layout), x, None, None)


def geglu(x: torch.Tensor, *, approximate: str = "none", axis: int = -1, layout: str = "gate_last") -> torch.Tensor:
    r"""The Gaussian error gated unit, :math:`\mathrm{gelu}(g) \, v` for the gate g and the value v packed in ``x``.

    Args:
        x: any shape with an even size 2n along ``axis``; float16, bfloat16, float32 or float64.
        approximate: ``"none"`` (erf) or ``"tanh"``, as :func:`gated.torch_impl.gelu` has it.
        axis: the axis that holds gate and value.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; the module's table says what they mean.
            A wrong layout is silent: it swaps gate and value, and no shape tells.

    Returns:
        An array of the dtype of ``x`` and of size n along ``axis``. 16-bit dtypes are computed in float32 and rounded
        once.

    Raises:
        TypeError: ``x`` is no tensor or of another dtype, or ``axis`` is no integer.
        ValueError: ``x`` is 0-d or of an odd size along ``axis``, ``axis`` is out of range, or ``approximate`` or
            ``layout`` is unknown.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 5.
    """
    position = checks.packed("geglu", x, axis=axis, layout=layout, approximate=approximate)
    return apply(Form("gelu" if approximate == "none" else "gelu_tanh", position, layout), x, None, None)


def swiglu(x: torch.Tensor, beta: Beta = 1.0, *, axis: int = -1, layout: str = "gate_last") -> torch.Tensor:
    r"""The Swish gated unit, :math:`\mathrm{swish}_\beta(g) \, v = g \, \sigma(\beta g) \, v`.

    g is the gate and v the value packed in ``x``. With :math:`z = \beta g` and :math:`s = \sigma(z)` the derivatives
    are :math:`(s + z s (1 - s)) \, v` in g, :math:`g s` in v and :math:`g^2 s (1 - s) \, v` in beta.

    Args:
        x: any shape with an even size 2n along ``axis``; float16, bfloat16, float32 or float64.
        beta: a Python number, which is never rounded to a 16-bit dtype, or an array of the dtype of ``x`` that
            broadcasts to the gate's shape without enlarging it; differentiable.
        axis: the axis that holds gate and value.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``; the module's table says what they mean.
            A wrong layout is silent: it swaps gate and value, and no shape tells.

    Returns:
        An array of the dtype of ``x`` and of size n along ``axis``. 16-bit dtypes are computed in float32 and rounded
        once.

    Raises:
        TypeError: ``x`` or ``beta`` is of another kind or dtype, their dtypes differ, or ``axis`` is no integer.
        ValueError: ``x`` is 0-d or of an odd size along ``axis``, ``axis`` is out of range, ``layout`` is unknown, or
            ``beta`` does not broadcast to the gate.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 5.
    """
    position = checks.packed("swiglu", x, axis=axis, layout=layout, beta=beta)
    return apply(Form("swish", position, layout), x, None, factor(beta, x.dtype))


def clamped_swiglu(
    x: torch.Tensor,
    *,
    alpha: float = 1.702,
    limit: float = 7.0,
    offset: float = 1.0,
    axis: int = -1,
    layout: str = "gate_last",
) -> torch.Tensor:
    r"""The clamped SwiGLU of gpt-oss, :math:`g' \, \sigma(\alpha g') \, (v' + \mathrm{offset})`.

    :math:`g' = \min(g, \mathrm{limit})` and :math:`v' = \mathrm{clip}(v, -\mathrm{limit}, \mathrm{limit})` for the gate
    g and the value v packed in ``x``. The derivatives of min and clip are 1 inside and on the boundary, 0 outside.

    Args:
        x: any shape with an even size 2n along ``axis``; float16, bfloat16, float32 or float64.
        alpha: a finite Python number.
        limit: a Python number, at least 0; infinity does not clamp.
        offset: a finite Python number.
        axis: the axis that holds gate and value.
        layout: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"`` (that of gpt-oss); the module's table says what
            they mean. A wrong layout is silent: it swaps gate and value, and no shape tells.

    Returns:
        An array of the dtype of ``x`` and of size n along ``axis``. 16-bit dtypes are computed in float32 and rounded
        once.

    Raises:
        TypeError: ``x`` is no tensor or of another dtype, ``axis`` is no integer, or ``alpha``, ``limit`` or
            ``offset`` is no Python number.
        ValueError: ``x`` is 0-d or of an odd size along ``axis``, ``axis`` is out of range, ``layout`` is unknown,
            ``alpha`` or ``offset`` is not finite, or ``limit`` is negative.

    Source: the ``swiglu`` of OpenAI's gpt-oss, https://github.com/openai/gpt-oss (gpt_oss/torch/model.py).
    """
    position = checks.clamped("clamped_swiglu", x, alpha=alpha, limit=limit, offset=offset, axis=axis, layout=layout)
    form = Form("swish", position, layout, limit=number(limit, x.dtype), offset=number(offset, x.dtype))
    return apply(form, x, None, number(alpha, x.dtype))


def gated_unit(gate: torch.Tensor, value: torch.Tensor, *, activation: str = "swish", beta: Beta = 1.0) -> torch.Tensor:
    r"""A gated unit on a pair, :math:`A(g) \, v` for the gate g, the value v and an activation A.

    The activation is taken as a real number: where the value is infinite and the activation is not zero, however tiny,
    the result is an infinity. Where it is zero (swish and gelu of 0 and of :math:`-\infty`) the product is nan.

    Args:
        gate: any shape; float16, bfloat16, float32 or float64.
        value: of the shape and dtype of ``gate``.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: for ``"swish"``, a Python number, or an array of the dtype of ``gate`` that broadcasts to its shape
            without enlarging it; differentiable. The other activations do not depend on it.

    Returns:
        An array of the shape and dtype of ``gate``. 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: an argument is of another kind or dtype, or the dtypes differ.
        ValueError: the shapes differ, the activation is unknown, or ``beta`` does not broadcast to the gate.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equations 4 and 5.
    """
    if not (type(activation) is str and activation in ACTIVATIONS and is_ordinary_pair(gate, value, beta)):
        checks.pair("gated_unit", gate, value, activation=activation, beta=beta)
    return apply(Form(activation), gate, value, factor(beta, gate.dtype))
