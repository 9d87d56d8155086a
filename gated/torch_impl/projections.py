"""The gated units with their projections: activation(x @ W + b) * (x @ V + c), and the feed-forward block."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear

from ._arrays import Beta, checks, factor
from ._autograd import apply
from ._forms import Form
from ._learned import recomputed, requires_grad

__all__ = ["gated_ffn", "gated_linear", "glu_linear", "swiglu_linear"]


def _project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight + bias. Both in one operation: a 16-bit sum is rounded once."""
    return linear(x, weight.T, bias)


def _unit(gate: Tensor, value: Tensor, activation: str, beta: Beta) -> Tensor:
    return apply(Form(activation), gate, value, factor(beta, gate.dtype))


def _gated(x: Tensor, W: Tensor, V: Tensor, b: Tensor | None, c: Tensor | None, activation: str, beta: Beta) -> Tensor:
    return _unit(_project(x, W, b), _project(x, V, c), activation, beta)


def glu_linear(x: Tensor, W: Tensor, V: Tensor, b: Tensor | None = None, c: Tensor | None = None) -> Tensor:
    r"""The gated linear unit with its projections, :math:`\sigma(x W + b) \odot (x V + c)`.

    Args:
        x: shape (..., d_in); float16, bfloat16, float32 or float64.
        W: the gate's projection, shape (d_in, d_hidden); of the dtype of ``x``, as all arrays.
        V: the value's projection, shape (d_in, d_hidden).
        b: the gate's bias, shape (d_hidden,), or None.
        c: the value's bias, shape (d_hidden,), or None.

    Returns:
        An array of shape (..., d_hidden) and the dtype of ``x``. The projections are rounded to that dtype.

    Raises:
        TypeError: an argument is of another kind or dtype, or the dtypes differ.
        ValueError: the shapes do not fit.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 4, after Dauphin et al.,
    arXiv:1612.08083.
    """
    checks.projected("glu_linear", x=x, W=W, V=V, b=b, c=c)
    return _gated(x, W, V, b, c, "sigmoid", 1.0)


def swiglu_linear(
    x: Tensor, W: Tensor, V: Tensor, b: Tensor | None = None, c: Tensor | None = None, beta: Beta = 1.0
) -> Tensor:
    r"""SwiGLU with its projections, :math:`\mathrm{swish}_\beta(x W + b) \odot (x V + c)`.

    Args:
        x: shape (..., d_in); float16, bfloat16, float32 or float64.
        W: the gate's projection, shape (d_in, d_hidden); of the dtype of ``x``, as all arrays.
        V: the value's projection, shape (d_in, d_hidden).
        b: the gate's bias, shape (d_hidden,), or None.
        c: the value's bias, shape (d_hidden,), or None.
        beta: a Python number, or an array that broadcasts to shape (..., d_hidden) without enlarging it;
            differentiable.

    Returns:
        An array of shape (..., d_hidden) and the dtype of ``x``. The projections are rounded to that dtype.

    Raises:
        TypeError: an argument is of another kind or dtype, or the dtypes differ.
        ValueError: the shapes do not fit.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 5.
    """
    checks.projected("swiglu_linear", x=x, W=W, V=V, b=b, c=c, beta=beta)
    return _gated(x, W, V, b, c, "swish", beta)


def gated_linear(
    x: Tensor,
    W: Tensor,
    V: Tensor,
    b: Tensor | None = None,
    c: Tensor | None = None,
    *,
    activation: str = "swish",
    beta: Beta = 1.0,
) -> Tensor:
    r"""A gated unit with its projections, :math:`A(x W + b) \odot (x V + c)` for an activation A.

    Args:
        x: shape (..., d_in); float16, bfloat16, float32 or float64.
        W: the gate's projection, shape (d_in, d_hidden); of the dtype of ``x``, as all arrays.
        V: the value's projection, shape (d_in, d_hidden).
        b: the gate's bias, shape (d_hidden,), or None.
        c: the value's bias, shape (d_hidden,), or None.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: for ``"swish"``, a Python number, or an array that broadcasts to shape (..., d_hidden) without enlarging
            it; differentiable. The other activations do not depend on it.

    Returns:
        An array of shape (..., d_hidden) and the dtype of ``x``. The projections are rounded to that dtype.

    Raises:
        TypeError: an argument is of another kind or dtype, or the dtypes differ.
        ValueError: the shapes do not fit, or the activation is unknown.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equations 4 and 5.
    """
    checks.projected("gated_linear", x=x, W=W, V=V, b=b, c=c, activation=activation, beta=beta)
    return _gated(x, W, V, b, c, activation, beta)


def gated_ffn(
    x: Tensor,
    W: Tensor,
    V: Tensor,
    W2: Tensor,
    b: Tensor | None = None,
    c: Tensor | None = None,
    b2: Tensor | None = None,
    *,
    activation: str = "swish",
    beta: Beta = 1.0,
) -> Tensor:
    r"""The gated feed-forward block, :math:`(A(x W + b) \odot (x V + c)) \, W_2 + b_2` for an activation A.

    Args:
        x: shape (..., d_in); float16, bfloat16, float32 or float64.
        W: the gate's projection, shape (d_in, d_hidden); of the dtype of ``x``, as all arrays.
        V: the value's projection, shape (d_in, d_hidden).
        W2: the projection down, shape (d_hidden, d_out).
        b: the gate's bias, shape (d_hidden,), or None.
        c: the value's bias, shape (d_hidden,), or None.
        b2: the bias of the projection down, shape (d_out,), or None.
        activation: ``"identity"``, ``"sigmoid"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"swish"``.
        beta: for ``"swish"``, a Python number, or an array that broadcasts to shape (..., d_hidden) without enlarging
            it; differentiable. The other activations do not depend on it.

    Of hidden size, the gate and the value alone are kept for the backward pass, which computes their product again; the
    transforms of ``torch.func``, and so :func:`gated.torch_impl.vjp`, keep the product too.

    Returns:
        An array of shape (..., d_out) and the dtype of ``x``. Each product is rounded to that dtype.

    Raises:
        TypeError: an argument is of another kind or dtype, or the dtypes differ.
        ValueError: the shapes do not fit, or the activation is unknown.

    Source: N. Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 6.
    """
    checks.projected("gated_ffn", x=x, W=W, V=V, W2=W2, b=b, c=c, b2=b2, activation=activation, beta=beta)
    gate, value = _project(x, W, b), _project(x, V, c)

    def down(gate: Tensor, value: Tensor) -> Tensor:
        return _project(_unit(gate, value, activation, beta), W2, b2)

    if not requires_grad(gate, value, beta):
        return down(gate, value)
    return recomputed(None, down, gate, value, reads={"W2": W2, "beta": beta})
