"""Hugging Face transformers: what ACT2FN names, and the blocks of models with weights of a few numbers."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.phi3.configuration_phi3 import Phi3Config
from transformers.models.phi3.modeling_phi3 import Phi3MLP
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense

__all__ = [
    "gelu",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_pytorch_tanh",
    "gpt_oss",
    "llama",
    "phi3",
    "silu",
    "t5",
]

silu = ACT2FN["silu"]
gelu = ACT2FN["gelu"]
gelu_python = ACT2FN["gelu_python"]
gelu_new = ACT2FN["gelu_new"]
gelu_fast = ACT2FN["gelu_fast"]
gelu_accurate = ACT2FN["gelu_accurate"]
gelu_pytorch_tanh = ACT2FN["gelu_pytorch_tanh"]

llama = LlamaMLP(LlamaConfig(hidden_size=8, intermediate_size=16, num_attention_heads=1)).eval()
t5 = T5DenseGatedActDense(T5Config(d_model=8, d_ff=16, feed_forward_proj="gated-gelu")).eval()

phi3 = Phi3MLP(Phi3Config(hidden_size=8, intermediate_size=8, num_attention_heads=1)).eval()
"""Between its projections: they are identities."""
phi3.gate_up_proj, phi3.down_proj = nn.Identity(), nn.Identity()

_EXPERTS = GptOssExperts(GptOssConfig(hidden_size=8, intermediate_size=8, num_local_experts=1, num_attention_heads=1))


def gpt_oss(x: torch.Tensor) -> torch.Tensor:
    """``GptOssExperts._apply_gate``: what stands between the projections."""
    gated: torch.Tensor = _EXPERTS._apply_gate(x)
    return gated
