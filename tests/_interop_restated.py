"""Blocks restated from their sources, which the families' rows name, for what cannot be installed or run here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from _interop_samples import ROWS, Block, D, E, F, Sample, State, weights

__all__ = ["RESTATED"]

Restated = Callable[[Any, State], Any]


def _linear(x: Any, state: State, name: str) -> Any:
    return torch.nn.functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _restated(family: str, shapes: Mapping[str, tuple[int, ...]], forward: Restated) -> Block:
    """A block from the shapes of its arrays and the forward pass of its source, which the row names."""

    def make(rng: np.random.Generator) -> Sample:
        state = {key: torch.from_numpy(weights(rng, *shape)) for key, shape in shapes.items()}
        x = weights(rng, ROWS, D) * 2
        return Sample(state, x, forward(torch.from_numpy(x), state).numpy())

    return Block("source", family, make)


def _layers(*, biases: bool = True, **layers: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Weights (out, in), and biases, by the names of torch layers."""
    weights = {f"{name}.weight": shape for name, shape in layers.items()}
    return weights | ({f"{name}.bias": shape[:1] for name, shape in layers.items()} if biases else {})


def _halves(pair: str, down: str, unit: Callable[[Any, Any], Any]) -> Restated:
    """Packed in two halves, of which ``unit`` makes the product."""
    return lambda x, state: _linear(unit(*_linear(x, state, pair).chunk(2, dim=-1)), state, down)


def _silu_first(a: Any, b: Any) -> Any:
    return torch.nn.functional.silu(a) * b


def _tanh_gelu(x: Any) -> Any:
    return torch.nn.functional.gelu(x, approximate="tanh")


def _qwen1(x: Any, state: State) -> Any:
    a1, a2 = _linear(x, state, "w1"), _linear(x, state, "w2")
    return _linear(a1 * torch.nn.functional.silu(a2), state, "c_proj")


def _torchtitan(x: Any, state: State) -> Any:
    gate, up = _linear(x, state, "w13").unflatten(-1, (-1, 2)).unbind(-1)
    return _linear(torch.nn.functional.silu(gate) * up, state, "w2")


def _te_torch(x: Any, state: State) -> Any:
    functional = torch.nn.functional
    a, b = functional.linear(x, state["fc1_weight"], state["fc1_bias"]).chunk(2, dim=-1)
    return functional.linear(functional.silu(a) * b, state["fc2_weight"], state["fc2_bias"])


def _kernels(activation: Callable[[Any], Any]) -> Restated:
    """T5X's MlpBlock: the first activation is that of wi_0."""

    def forward(x: Any, state: State) -> Any:
        return (activation(x @ state["wi_0.kernel"]) * (x @ state["wi_1.kernel"])) @ state["wo.kernel"]

    return forward


def _stacked(weight: str, down: str, axes: str, activation: Callable[[Any], Any], *, biased: bool = False) -> Restated:
    """One einsum for both, whose index 0 on the axis of the pair is activated."""

    def forward(x: Any, state: State) -> Any:
        both = torch.einsum(f"nd,{axes}->npf", x, state[weight])
        if biased:
            both = both + state["wi_bias"]
        result = (activation(both[:, 0]) * both[:, 1]) @ state[down]
        return result + state["wo_bias"] if biased else result

    return forward


def _gguf(x: Any, state: State) -> Any:
    gate, up = _linear(x, state, "ffn_gate"), _linear(x, state, "ffn_up")
    return _linear(torch.nn.functional.silu(gate) * up, state, "ffn_down")


def _gguf_experts(x: Any, state: State) -> Any:
    gate, up = (torch.einsum("nd,efd->enf", x, state[f"ffn_{name}_exps.weight"]) for name in ("gate", "up"))
    return torch.einsum("enf,eof->eno", torch.nn.functional.silu(gate) * up, state["ffn_down_exps.weight"])


def _nnx_gemma(x: Any, state: State) -> Any:
    hidden = _tanh_gelu(x @ state["gate_proj.kernel"]) * (x @ state["up_proj.kernel"])
    return hidden @ state["down_proj.kernel"]


_SILU = torch.nn.functional.silu
_GELU = torch.nn.functional.gelu
_T5X_SHAPES = {"wi_0.kernel": (D, F), "wi_1.kernel": (D, F), "wo.kernel": (F, D)}

RESTATED = (
    _restated("qwen1", _layers(w1=(F, D), w2=(F, D), c_proj=(D, F)), _qwen1),
    _restated(
        "meta-llama",
        _layers(biases=False, w1=(F, D), w3=(F, D), w2=(D, F)),
        lambda x, state: _linear(_SILU(_linear(x, state, "w1")) * _linear(x, state, "w3"), state, "w2"),
    ),
    _restated("torchtitan-w13", _layers(biases=False, w13=(2 * F, D), w2=(D, F)), _torchtitan),
    _restated("dinov2", _layers(w12=(2 * F, D), w3=(D, F)), _halves("w12", "w3", _silu_first)),
    _restated(
        "flash-attn",
        _layers(fc1=(2 * F, D), fc2=(D, F)),
        lambda x, state: _linear(torch.nn.functional.glu(_linear(x, state, "fc1"), dim=-1), state, "fc2"),
    ),
    _restated(
        "olmo-ff-proj",
        _layers(ff_proj=(2 * F, D), ff_out=(D, F)),
        _halves("ff_proj", "ff_out", lambda x, gate: _SILU(gate) * x),
    ),
    _restated(
        "gpt-neox",
        _layers(dense_h_to_4h=(2 * F, D), dense_4h_to_h=(D, F)),
        _halves("dense_h_to_4h", "dense_4h_to_h", lambda x, gate: _GELU(gate) * x),
    ),
    _restated(
        "vllm-gate-up",
        _layers(gate_up_proj=(2 * F, D), down_proj=(D, F)),
        _halves("gate_up_proj", "down_proj", _silu_first),
    ),
    _restated(
        "te-torch", {"fc1_weight": (2 * F, D), "fc1_bias": (2 * F,), "fc2_weight": (D, F), "fc2_bias": (D,)}, _te_torch
    ),
    _restated("gguf", _layers(ffn_gate=(F, D), ffn_up=(F, D), ffn_down=(D, F)), _gguf),
    _restated(
        "gguf-experts",
        {"ffn_gate_exps.weight": (E, F, D), "ffn_up_exps.weight": (E, F, D), "ffn_down_exps.weight": (E, D, F)},
        _gguf_experts,
    ),
    _restated("t5x", _T5X_SHAPES, _kernels(_tanh_gelu)),
    _restated("maxtext", _T5X_SHAPES, _kernels(_SILU)),
    _restated(
        "flaxformer",
        {"wi_fused.kernel": (D, 2, F), "wo.kernel": (F, D)},
        _stacked("wi_fused.kernel", "wo.kernel", "dpf", _tanh_gelu),
    ),
    _restated(
        "maxtext-fused", {"wi.kernel": (D, 2, F), "wo.kernel": (F, D)}, _stacked("wi.kernel", "wo.kernel", "dpf", _SILU)
    ),
    _restated(
        "te-jax",
        {"wi_kernel": (D, 2, F), "wi_bias": (2, F), "wo_kernel": (F, D), "wo_bias": (D,)},
        _stacked("wi_kernel", "wo_kernel", "dpf", _SILU, biased=True),
    ),
    _restated(
        "gemma-flax",
        {"gating_einsum": (2, D, F), "linear": (F, D)},
        _stacked("gating_einsum", "linear", "pdf", _tanh_gelu),
    ),
    _restated(
        "gemma-flax-transposed",
        {"gating_einsum": (2, F, D), "linear": (F, D)},
        _stacked("gating_einsum", "linear", "pfd", _tanh_gelu),
    ),
    _restated(
        "gemma-flax-nnx", {"gate_proj.kernel": (D, F), "up_proj.kernel": (D, F), "down_proj.kernel": (F, D)}, _nnx_gemma
    ),
)
