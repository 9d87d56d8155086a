"""Families of Hugging Face transformers, read in its version 5.23."""

from __future__ import annotations

from typing import Final

from gated.interop._parts import LLAMA, separate, together
from gated.interop.family import Clamp, Family

__all__ = ["HUGGING_FACE"]

HUGGING_FACE: Final = (
    Family(
        name="llama",
        parts=LLAMA,
        up="f d",
        down="o f",
        source="transformers:models/llama/modeling_llama.py: down_proj(act_fn(gate_proj(x)) * up_proj(x))",
        module="transformers.models.llama.modeling_llama.LlamaMLP",
        models="Llama, Mistral, Qwen2, Qwen3, OLMo, DINOv2 (Hugging Face), Liger's SwiGLU",
    ),
    Family(
        name="gemma",
        parts=LLAMA,
        up="f d",
        down="o f",
        activation="gelu_tanh",
        source="transformers:models/gemma/modeling_gemma.py: as llama; hidden_act is gelu_pytorch_tanh",
        module="transformers.models.gemma.modeling_gemma.GemmaMLP",
        models="Gemma 1, 2 and 3 (Hugging Face)",
    ),
    Family(
        name="phi3",
        parts=together("gate_up_proj", "down_proj", bias=".bias"),
        up="(2 f) d",
        down="o f",
        source="transformers:models/phi3/modeling_phi3.py: gate, up_states = chunk(2); up_states * activation_fn(gate)",
        module="transformers.models.phi3.modeling_phi3.Phi3MLP",
        models="Phi-3, Phi-4, GLM-4",
    ),
    Family(
        name="qwen1",
        parts=separate("w2", "w1", "c_proj", bias=".bias"),
        up="f d",
        down="o f",
        source="https://huggingface.co/Qwen/Qwen-7B, modeling_qwen.py: QWenMLP, c_proj(w1(x) * silu(w2(x)))",
        models="Qwen 1",
    ),
    Family(
        name="t5",
        parts=separate("wi_0", "wi_1", "wo"),
        up="f d",
        down="o f",
        activation="gelu_tanh",
        source="transformers:models/t5/modeling_t5.py: wo(act(wi_0(x)) * wi_1(x)); gated-gelu is the tanh form",
        module="transformers.models.t5.modeling_t5.T5DenseGatedActDense",
        models="T5 v1.1, Flan-T5, mT5, UMT5 (Hugging Face)",
    ),
    Family(
        name="modernbert",
        parts=together("Wi", "Wo", bias=".bias"),
        up="(2 f) d",
        down="o f",
        activation="gelu",
        source="transformers:models/modernbert/modeling_modernbert.py: input, gate = Wi(x).chunk(2); "
        "Wo(act(input) * gate), so that the half named gate is the value",
        module="transformers.models.modernbert.modeling_modernbert.ModernBertMLP",
        models="ModernBERT",
    ),
    Family(
        name="mixtral",
        parts=separate("{expert}.w1", "{expert}.w3", "{expert}.w2"),
        up="f d",
        down="o f",
        source="transformers:conversion_mapping.py: .experts.*.w1.weight, then w3, are concatenated into gate_up_proj",
        module="transformers.models.mixtral.modeling_mixtral.MixtralForCausalLM",
        models="Mixtral as checkpoints store it, an expert a key",
    ),
    Family(
        name="mixtral-packed",
        parts=together("gate_up_proj", "down_proj", weight=""),
        up="e (2 f) d",
        down="e o f",
        source="transformers:models/mixtral/modeling_mixtral.py: gate, up = linear(x, gate_up_proj[expert]).chunk(2)",
        module="transformers.models.mixtral.modeling_mixtral.MixtralExperts",
        models="Mixtral, Qwen3-MoE and others in memory, from transformers 5 on",
    ),
    Family(
        name="dbrx",
        parts=separate("w1", "v1", "w2", weight=""),
        up="(e f) d",
        down="(e f) o",
        source="transformers:models/dbrx/modeling_dbrx.py: DbrxExperts views w1, v1, w2 as (experts, d_hidden, d_in)",
        module="transformers.models.dbrx.modeling_dbrx.DbrxExperts",
        models="DBRX",
    ),
    Family(
        name="llama4",
        parts=together("gate_up_proj", "down_proj", weight=""),
        up="e d (2 f)",
        down="e f o",
        source="transformers:models/llama4/modeling_llama4.py: gate, up = bmm(x, gate_up_proj).chunk(2)",
        module="transformers.models.llama4.modeling_llama4.Llama4TextExperts",
        models="Llama 4's experts",
    ),
    Family(
        name="gpt-oss",
        parts=together("gate_up_proj", "down_proj", weight="", bias="_bias"),
        up="e d (f 2)",
        down="e f o",
        clamp=Clamp(alpha=1.702, limit=7.0, offset=1.0),
        source="transformers:models/gpt_oss/modeling_gpt_oss.py: gate, up = gate_up[..., ::2], gate_up[..., 1::2]",
        module="transformers.models.gpt_oss.modeling_gpt_oss.GptOssExperts",
        models="gpt-oss",
    ),
)
