"""A user's program, for the type checker alone: what the public functions take and give."""

from typing import Any, assert_type

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

import gated
import gated.contract as contract
import gated.numpy_ref as G
import gated.torch_impl as T

Array = NDArray[Any]

assert_type(gated.__version__, str)
assert_type(gated.BACKENDS, tuple[str, str, str])
assert_type(contract.missing_framework("gated.torch_impl", "torch", "torch"), str)

# NumPy: arrays of every dtype, beta a number or an array

x = np.ones((2, 6), np.float32)
half = np.ones((2, 3), ml_dtypes.bfloat16)
W, V, W2, b = np.ones((6, 3)), np.ones((6, 3)), np.ones((3, 5)), np.ones(3)
beta = np.ones(3, np.float32)

assert_type(G.sigmoid(x), Array)
assert_type(G.swish(x), Array)
assert_type(G.swish(x, 2), Array)
assert_type(G.swish(x, beta=beta), Array)
assert_type(G.silu(x), Array)
assert_type(G.gelu(x, approximate="tanh"), Array)
assert_type(G.relu(x), Array)
assert_type(G.glu(x, axis=0, layout="gate_first"), Array)
assert_type(G.bilinear(x), Array)
assert_type(G.reglu(x, layout="interleaved"), Array)
assert_type(G.geglu(x, approximate="tanh", axis=1), Array)
assert_type(G.swiglu(x, 1.5, axis=-1), Array)
assert_type(G.clamped_swiglu(x, alpha=1, limit=7, offset=0.0), Array)
assert_type(G.gated_unit(half, half, activation="gelu_tanh", beta=1.0), Array)
assert_type(G.glu_linear(x, W, V), Array)
assert_type(G.swiglu_linear(x, W, V, b, None, beta), Array)
assert_type(G.gated_linear(x, W, V, None, b, activation="relu"), Array)
assert_type(G.gated_ffn(x, W, V, W2, b2=np.ones(5), activation="identity", beta=beta), Array)

value, pullback = G.vjp(G.swiglu, x, 1.0, layout="gate_last")
assert_type(value, Array)
assert_type(pullback(value), tuple[Array | None, ...])
assert_type(G.jvp(G.swish, (x, 1.0), [x, 0.5]), tuple[Array, Array])

# PyTorch: the same calls on tensors

t = torch.ones(2, 6)
w, w2 = torch.ones(6, 3), torch.ones(3, 5)

assert_type(T.sigmoid(t), torch.Tensor)
assert_type(T.swish(t, torch.tensor(2.0)), torch.Tensor)
assert_type(T.gelu(t, approximate="none"), torch.Tensor)
assert_type(T.swiglu(t, 1.5, axis=0, layout="interleaved"), torch.Tensor)
assert_type(T.clamped_swiglu(t, limit=7), torch.Tensor)
assert_type(T.gated_unit(t, t, activation="relu"), torch.Tensor)
assert_type(T.gated_linear(t, w, w, None, torch.ones(3)), torch.Tensor)
assert_type(T.gated_ffn(t, w, w, w2, beta=2), torch.Tensor)

out, pull = T.vjp(T.glu, t)
assert_type(out, torch.Tensor)
assert_type(pull(out), tuple[torch.Tensor | None, ...])
assert_type(T.jvp(T.silu, (t,), (t,)), tuple[torch.Tensor, torch.Tensor])

# What a type checker refuses: an ignore that it has no use for is an error under --strict

G.swish([1.0, 2.0])  # type: ignore[arg-type]
G.swish(x, "1")  # type: ignore[arg-type]
G.swish(x, None)  # type: ignore[arg-type]
G.glu(x, -1)  # type: ignore[call-arg]
G.glu(x, axis=1.0)  # type: ignore[arg-type]
G.glu(x, layout=None)  # type: ignore[arg-type]
G.gelu(x, "tanh")  # type: ignore[call-arg]
G.gated_unit(x)  # type: ignore[call-arg]
G.gated_linear(x, W, V, activation=None)  # type: ignore[arg-type]
T.swish(x)  # type: ignore[arg-type]
T.glu(t, 0)  # type: ignore[call-arg]
