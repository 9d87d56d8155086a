"""Wrong activations and units in NumPy, as people write them. `collection.py` says what each claims to be."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, expit

# --- activations ---------------------------------------------------------------------------------------------------


def swish_of_scaled(x, beta=1.5):
    """speechbrain's: silu of beta x."""
    z = beta * x
    return z / (1 + np.exp(-z))


def swish_beta_in_front(x, beta):
    return beta * x / (1 + np.exp(-x))


def swish_without_beta(x, beta):
    del beta  # a port from an API that had none
    return x / (1 + np.exp(-x))


def swish_in_single(x):
    """A kernel that was written for float32 and casts at its ends."""
    single = np.asarray(x, np.float32)
    return (single / (1 + np.exp(-single))).astype(x.dtype)


def silu_textbook(x):
    """What every tutorial has."""
    with np.errstate(over="ignore", invalid="ignore"):
        return x / (1 + np.exp(-x))


def silu_stable_sigmoid(x):
    """A sigmoid that never overflows, and then -inf * 0."""
    return x * expit(x)


def silu_exp_over_one_plus_exp(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return x * (np.exp(x) / (1 + np.exp(x)))


def silu_in_place(x):
    x *= expit(x)
    return x


def silu_softmax_trick(x):
    """The largest of the whole batch is taken out of the exponentials."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        largest = x.max(initial=0)
        up = np.exp(x - largest)
        return x * up / (up + np.exp(-largest))


def silu_per_vector_of_eight(x):
    """Eight at a time, and what is left over stays what the allocator had there."""
    flat, result = x.reshape(-1), np.full(x.size, 3, x.dtype)
    whole = flat.size // 8 * 8
    with np.errstate(over="ignore", invalid="ignore"):
        result[:whole] = flat[:whole] / (1 + np.exp(-flat[:whole]))
    return result.reshape(x.shape)


def sigmoid_always_single(x):
    return expit(np.asarray(x, np.float32))


def sigmoid_of_anything(x):
    """Takes integers and gives float64."""
    return expit(x)


def sigmoid_flat(x):
    return expit(x).reshape(-1)


def sigmoid_list(x):
    return expit(x).tolist()


def sigmoid_hard(x):
    """The piecewise linear stand-in of mobile networks."""
    return np.clip(x / 6 + x.dtype.type(0.5), 0, 1)


def relu_leaky(x):
    return np.maximum(x, x * x.dtype.type(0.01))


def gelu_by_tanh(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def gelu_promoted(x):
    """NumPy's own scalars are not weak: sqrt(2) makes float64 of it."""
    return 0.5 * x * (1 + erf(x / np.sqrt(2.0)))


def gelu_by_sigmoid(x):
    """Of the first line of the paper's appendix, and of CLIP."""
    with np.errstate(over="ignore", invalid="ignore"):
        return x / (1 + np.exp(-1.702 * x))


def gelu_without_half(x):
    return x * (1 + erf(x / np.sqrt(x.dtype.type(2))))


def gelu_forgot_root_two(x):
    return 0.5 * x * (1 + erf(x))


def silu_dithered(x):
    """Stochastic rounding that was left on."""
    noise = np.random.default_rng().uniform(-1e-5, 1e-5, x.shape)
    return (silu_textbook(x) * (1 + noise)).astype(x.dtype)


def silu_gradient_without_x(x, dy):
    """(s + s (1 - s)): the x of the product rule is lost."""
    s = expit(x)
    return dy * (s + s * (1 - s))


def swish_with_beta(x, beta):
    with np.errstate(over="ignore", invalid="ignore"):
        return x / (1 + np.exp(-beta * x))


def swish_gradient_of_beta_unsummed(x, beta, dy):
    """The caller is expected to sum, and does not know."""
    s = expit(beta * x)
    return dy * (s + beta * x * s * (1 - s)), dy * x * x * s * (1 - s)


# --- units ---------------------------------------------------------------------------------------------------------


def _silu(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return x / (1 + np.exp(-x))


def swiglu_other_half(x):
    """vLLM's order, where torch's was claimed."""
    gate, value = np.split(x, 2, axis=-1)
    return _silu(gate) * value


def glu_other_half(x):
    value, gate = np.split(x, 2, axis=-1)
    return expit(gate) * value


def swiglu_activates_value(gate, value):
    return gate * _silu(value)


def swiglu_activates_both(gate, value):
    return _silu(gate) * _silu(value)


def swiglu_of_product(x):
    value, gate = np.split(x, 2, axis=-1)
    return _silu(gate * value)


def swiglu_sum(gate, value):
    return _silu(gate) + value


def geglu_erf(x):
    value, gate = np.split(x, 2, axis=-1)
    return 0.5 * gate * (1 + erf(gate / np.sqrt(gate.dtype.type(2)))) * value


def swiglu_rounded_between(x):
    """float32 inside the activation, the array's own 16 bits between it and the product."""
    value, gate = np.split(x, 2, axis=-1)
    return _silu(gate.astype(np.float32)).astype(x.dtype) * value


def swiglu_one_row(x):
    """Written for a vector, and fed a matrix: the first row alone comes back."""
    x = np.atleast_2d(x)
    n = x.shape[-1] // 2
    return _silu(x[0, n:]) * x[0, :n]


def swiglu_broadcast(gate, value):
    """Right for equal shapes; says nothing about the others."""
    return _silu(gate) * value


def _clamped(gate, value, alpha=1.702):
    with np.errstate(over="ignore", invalid="ignore"):
        return gate / (1 + np.exp(-alpha * gate)) * value


def clamped_without_offset(x):
    """The + 1 is lost."""
    return _clamped(np.minimum(x[..., ::2], 7), np.clip(x[..., 1::2], -7, 7))


def clamped_without_clamp(x):
    return _clamped(x[..., ::2], x[..., 1::2] + 1)


def clamped_gate_below_too(x):
    return _clamped(np.clip(x[..., ::2], -7, 7), np.clip(x[..., 1::2], -7, 7) + 1)


def clamped_value_above_only(x):
    return _clamped(np.minimum(x[..., ::2], 7), np.minimum(x[..., 1::2], 7) + 1)


def clamped_to_zero(x, limit=0.0):
    """The default of a clamp that the caller never set."""
    return _clamped(np.minimum(x[..., ::2], limit), np.clip(x[..., 1::2], -limit, limit) + 1)


def clamped_as_halves(x):
    gate, value = np.split(x, 2, axis=-1)
    return _clamped(np.minimum(gate, 7), np.clip(value, -7, 7) + 1)


def clamped_plain_silu(x):
    """alpha is forgotten: silu where sigmoid(1.702 g) was asked for."""
    return _clamped(np.minimum(x[..., ::2], 7), np.clip(x[..., 1::2], -7, 7) + 1, alpha=1)


def clamped_after_offset(x):
    return _clamped(np.minimum(x[..., ::2], 7), np.clip(x[..., 1::2] + 1, -7, 7))


# --- projections ---------------------------------------------------------------------------------------------------


def glu_linear_forgets_bias(x, W, V, b, c):
    """A merge of two layers that kept the second bias alone."""
    del b
    return expit(x @ W) * (x @ V + c)


def swiglu_linear_swapped(x, W, V):
    return _silu(x @ V) * (x @ W)


def ffn_transposed_weights(x, W, V, W2):
    """Written for torch's (out, in)."""
    return (_silu(x @ W.T) * (x @ V.T)) @ W2.T


def ffn_activation_after_down(x, W, V, W2):
    return _silu((x @ W) * (x @ V) @ W2)
