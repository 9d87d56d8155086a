"""Families of code in JAX: kernels are (in, out)."""

from __future__ import annotations

from typing import Final

from gated.interop._parts import separate, together
from gated.interop.family import Family

__all__ = ["JAX"]

_KERNELS: Final = separate("gate_proj", "up_proj", "down_proj", weight=".kernel", bias=".bias")
_T5X: Final = separate("wi_0", "wi_1", "wo", weight=".kernel")

JAX: Final = (
    Family(
        name="t5x",
        parts=_T5X,
        up="d f",
        down="f o",
        activation="gelu_tanh",
        configurable=True,
        source="https://github.com/google-research/t5x, t5x/examples/scalable_t5/layers.py at 03dfc44: MlpBlock, "
        "where wi_0 has the first activation; flax.linen.gelu is the tanh form",
        models="T5 v1.1, mT5, UMT5 (T5X)",
    ),
    Family(
        name="flaxformer",
        parts=together("wi_fused", "wo", weight=".kernel"),
        up="d 2 f",
        down="f o",
        activation="gelu_tanh",
        configurable=True,
        source="https://github.com/google/flaxformer, flaxformer/components/dense.py at 3cbba27: "
        "MlpBlock with fuse_kernels",
        models="Flaxformer, fuse_kernels=True",
    ),
    Family(
        name="maxtext",
        parts=separate("wi_0", "wi_1", "wo", weight=".kernel", bias=".bias"),
        up="d f",
        down="f o",
        configurable=True,
        source="https://github.com/AI-Hypercomputer/maxtext, src/MaxText/layers/linears.py at f0fd1e5: MlpBlock",
        models="MaxText; a scanned stack has a layer axis besides",
    ),
    Family(
        name="maxtext-fused",
        parts=together("wi", "wo", weight=".kernel", bias=".bias"),
        up="d 2 f",
        down="f o",
        configurable=True,
        source="https://github.com/AI-Hypercomputer/maxtext, src/MaxText/layers/linears.py at f0fd1e5: MlpBlock, "
        "fused_mlp, x[:, :, idx]",
        models="MaxText, fused_mlp=True",
    ),
    Family(
        name="te-jax",
        parts=together("wi", "wo", weight="_kernel", bias="_bias"),
        up="d 2 f",
        down="f o",
        configurable=True,
        source="https://github.com/NVIDIA/TransformerEngine, transformer_engine/jax/flax/module.py: LayerNormMLP",
        models="Transformer Engine's LayerNormMLP (JAX), less its norm",
    ),
    Family(
        name="tokamax",
        parts={"WV": "weights"},
        up="d 2 f",
        down="f o",
        configurable=True,
        source="tokamax:_src/ops/gated_linear_unit/base.py: activation(x @ weights[:, 0]) * (x @ weights[:, 1])",
        module="tokamax.gated_linear_unit",
        models="tokamax.gated_linear_unit, which has no down projection",
    ),
    Family(
        name="gemma-flax",
        parts={"WV": "gating_einsum", "W2": "linear"},
        up="2 d f",
        down="f o",
        activation="gelu_tanh",
        source="gemma:gm/nn/_modules.py: FeedForward, gelu(gate[..., 0, :]) * gate[..., 1, :], '...F,NFH->...NH'",
        models="Gemma (Flax Linen), transpose_gating_einsum=False",
    ),
    Family(
        name="gemma-flax-transposed",
        parts={"WV": "gating_einsum", "W2": "linear"},
        up="2 f d",
        down="f o",
        activation="gelu_tanh",
        source="gemma:gm/nn/_modules.py: FeedForward, '...F,NHF->...NH'",
        models="Gemma (Flax Linen), transpose_gating_einsum=True",
    ),
    Family(
        name="gemma-flax-nnx",
        parts=separate("gate_proj", "up_proj", "down_proj", weight=".kernel"),
        up="d f",
        down="f o",
        activation="gelu_tanh",
        source="https://github.com/google/flax, examples/gemma/modules.py: FeedForward",
        models="Gemma (Flax NNX)",
    ),
    Family(
        name="gated-flax-nnx",
        parts=_KERNELS,
        up="d f",
        down="f o",
        configurable=True,
        source="gated:jax_impl/nnx.py: GatedFFN",
        module="gated.jax_impl.nnx.GatedFFN",
        models="this package, in Flax NNX",
    ),
    Family(
        name="gated-flax-linen",
        parts=_KERNELS,
        up="d f",
        down="f o",
        configurable=True,
        source="gated:jax_impl/linen.py: GatedFFN; the keys follow params",
        module="gated.jax_impl.linen.GatedFFN",
        models="this package, in Flax Linen",
    ),
    Family(
        name="flax-nnx",
        parts=_KERNELS,
        up="d f",
        down="f o",
        configurable=True,
        source="flax:nnx/nn/linear.py: Linear, a kernel (in_features, out_features), under Llama's names",
        module="flax.nnx.Linear",
        models="Flax NNX ports of Llama",
    ),
    Family(
        name="flax-linen",
        parts=_KERNELS,
        up="d f",
        down="f o",
        configurable=True,
        source="flax:linen/linear.py: Dense, a kernel (in, features), under Llama's names",
        module="flax.linen.Dense",
        models="Flax Linen ports of Llama",
    ),
)
