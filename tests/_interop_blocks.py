"""Gated feed-forward blocks of other libraries with random weights. Nothing is downloaded."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from _interop_restated import RESTATED
from _interop_samples import ROWS, Array, Block, D, E, F, Sample, State, named, torch_sample, weights

__all__ = ["BLOCKS", "RESTATED"]

NEIGHBOURS = "pip install --no-deps -r tests/neighbours.txt"

# Hugging Face transformers


def _config(**settings: Any) -> Any:
    return SimpleNamespace(
        hidden_size=D,
        intermediate_size=F,
        hidden_act="silu",
        mlp_bias=False,
        _experts_implementation="eager",
        **settings,
    )


def _mlp(path: str, **settings: Any) -> Callable[[np.random.Generator], Sample]:
    return lambda rng: torch_sample(named(f"transformers.models.{path}")(_config(**settings)), rng)


def _with(config: Any, **settings: Any) -> Any:
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def _each_expert(module: Any, x: Any) -> Any:
    """Every token through every expert with weight 1, one expert at a time."""
    ones = torch.ones(len(x), 1)
    calls = [module(x, torch.full((len(x), 1), expert), ones).reshape(len(x), -1) for expert in range(E)]
    return torch.stack(calls)


def _experts(path: str, config: Any) -> Callable[[np.random.Generator], Sample]:
    return lambda rng: torch_sample(named(f"transformers.models.{path}")(config), rng, _each_expert)


def _llama4_experts(rng: np.random.Generator) -> Sample:
    experts = named("transformers.models.llama4.modeling_llama4.Llama4TextExperts")
    module = experts(_config(num_local_experts=E))
    return torch_sample(module, rng, lambda module, x: module(x.repeat(E, 1)).reshape(E, len(x), D))


def _mixtral_checkpoint(rng: np.random.Generator) -> Sample:
    """What ``save_pretrained`` writes: the keys of the published checkpoints, not those in memory."""
    import tempfile

    import safetensors.torch
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": D, "intermediate_size": F, "num_local_experts": E, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 8}
    model = MixtralForCausalLM(MixtralConfig(**sizes, **heads))
    experts = model.model.layers[0].mlp.experts
    sample = torch_sample(experts, rng, _each_expert)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = safetensors.torch.load_file(f"{folder}/model.safetensors")
    prefix = "model.layers.0.block_sparse_moe.experts."
    state = {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}
    return Sample(state, sample.x, sample.output)


def _t5(rng: np.random.Generator) -> Sample:
    from transformers import T5Config

    config = T5Config(d_model=D, d_ff=F, feed_forward_proj="gated-gelu")
    return torch_sample(named("transformers.models.t5.modeling_t5.T5DenseGatedActDense")(config), rng)


def _transformers(name: str, family: str, make: Callable[[np.random.Generator], Sample], **rest: Any) -> Block:
    return Block(name, family, make, "transformers", "pip install transformers", **rest)


_TANH = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}


def _gemma(path: str) -> Callable[[np.random.Generator], Sample]:
    return lambda rng: torch_sample(named(f"transformers.models.{path}")(_with(_config(), **_TANH)), rng)


_MIXTRAL = _config(num_local_experts=E, num_experts=E, moe_intermediate_size=F)
_GPT_OSS = _config(num_local_experts=E, swiglu_alpha=1.702, swiglu_limit=7.0)
_DBRX = _config(ffn_hidden_size=F, moe_num_experts=E, ffn_act_fn={"name": "silu"})
_MODERNBERT = _with(_config(), hidden_activation="gelu", mlp_dropout=0.0)

HUGGING_FACE = (
    _transformers("LlamaMLP", "llama", _mlp("llama.modeling_llama.LlamaMLP")),
    _transformers(
        "LlamaMLP-bias",
        "llama",
        lambda rng: torch_sample(
            named("transformers.models.llama.modeling_llama.LlamaMLP")(_with(_config(), mlp_bias=True)), rng
        ),
    ),
    _transformers("Qwen2MLP", "llama", _mlp("qwen2.modeling_qwen2.Qwen2MLP")),
    _transformers("Qwen3MLP", "llama", _mlp("qwen3.modeling_qwen3.Qwen3MLP")),
    _transformers("MistralMLP", "llama", _mlp("mistral.modeling_mistral.MistralMLP")),
    _transformers("OlmoMLP", "llama", _mlp("olmo.modeling_olmo.OlmoMLP")),
    _transformers("Llama4TextMLP", "llama", _mlp("llama4.modeling_llama4.Llama4TextMLP")),
    _transformers("Dinov2SwiGLUFFN", "llama", _mlp("dinov2.modeling_dinov2.Dinov2SwiGLUFFN", mlp_ratio=2)),
    _transformers("GemmaMLP", "gemma", _gemma("gemma.modeling_gemma.GemmaMLP")),
    _transformers("Gemma2MLP", "gemma", _gemma("gemma2.modeling_gemma2.Gemma2MLP")),
    _transformers("Gemma3MLP", "gemma", _gemma("gemma3.modeling_gemma3.Gemma3MLP")),
    _transformers("Phi3MLP", "phi3", _mlp("phi3.modeling_phi3.Phi3MLP")),
    _transformers("Glm4MLP", "phi3", _mlp("glm4.modeling_glm4.Glm4MLP")),
    _transformers("T5DenseGatedActDense", "t5", _t5),
    _transformers(
        "ModernBertMLP",
        "modernbert",
        lambda rng: torch_sample(
            named("transformers.models.modernbert.modeling_modernbert.ModernBertMLP")(_MODERNBERT), rng
        ),
    ),
    _transformers("MixtralForCausalLM", "mixtral", _mixtral_checkpoint),
    _transformers("MixtralExperts", "mixtral-packed", _experts("mixtral.modeling_mixtral.MixtralExperts", _MIXTRAL)),
    _transformers(
        "Qwen3MoeExperts", "mixtral-packed", _experts("qwen3_moe.modeling_qwen3_moe.Qwen3MoeExperts", _MIXTRAL)
    ),
    _transformers("DbrxExperts", "dbrx", _experts("dbrx.modeling_dbrx.DbrxExperts", _DBRX), prefix="mlp.", experts=E),
    _transformers("Llama4TextExperts", "llama4", _llama4_experts),
    _transformers("GptOssExperts", "gpt-oss", _experts("gpt_oss.modeling_gpt_oss.GptOssExperts", _GPT_OSS)),
)

# Other libraries in PyTorch


def _timm_mlp() -> Any:
    """timm.layers.mlp without the ``__init__`` of its packages, which need torchvision."""
    spec = importlib.util.find_spec("timm")
    assert spec is not None and spec.submodule_search_locations
    root = spec.submodule_search_locations[0]
    with mock.patch.dict(sys.modules):
        for name, folder in (("timm", root), ("timm.layers", f"{root}/layers")):
            package = ModuleType(name)
            package.__path__ = [folder]
            sys.modules[name] = package
        return importlib.import_module("timm.layers.mlp")


def _timm(name: str, family: str, hidden: int, **settings: Any) -> Block:
    def make(rng: np.random.Generator) -> Sample:
        return torch_sample(getattr(_timm_mlp(), name)(D, hidden, **settings), rng)

    return Block(name, family, make, "timm", NEIGHBOURS)


def _x_transformers(rng: np.random.Generator) -> Sample:
    return torch_sample(named("x_transformers.x_transformers.FeedForward")(D, mult=2, glu=True), rng)


def _liger(rng: np.random.Generator) -> Sample:
    """Its kernel needs a GPU: the unit is called on the CPU as its reference in Liger's own tests is."""
    module = named("liger_kernel.transformers.swiglu.LigerPhi3SwiGLUMLP")(_config())

    def call(module: Any, x: Any) -> Any:
        gate, up_states = module.gate_up_proj(x).chunk(2, dim=-1)
        return module.down_proj(torch.nn.functional.silu(gate) * up_states)

    return torch_sample(module, rng, call)


def _diffusers(activation: str) -> Callable[[np.random.Generator], Sample]:
    feed_forward = "diffusers.models.attention.FeedForward"
    return lambda rng: torch_sample(named(feed_forward)(D, inner_dim=F, activation_fn=activation), rng)


def _flux2(rng: np.random.Generator) -> Sample:
    feed_forward = "diffusers.models.transformers.transformer_flux2.Flux2FeedForward"
    return torch_sample(named(feed_forward)(D, inner_dim=F, bias=True), rng)


def _xformers(packed: bool) -> Callable[[np.random.Generator], Sample]:
    return lambda rng: torch_sample(named("xformers.ops.swiglu_op.SwiGLU")(D, F, _pack_weights=packed), rng)


def _megatron(rng: np.random.Generator) -> Sample:
    """Megatron Core's MLP on one rank, which its parallel layers need a process group for."""
    import torch.distributed as dist
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
    from megatron.core.transformer.mlp import MLP, MLPSubmodules
    from megatron.core.transformer.transformer_config import TransformerConfig

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        parallel_state.initialize_model_parallel()
        config = TransformerConfig(
            num_layers=1,
            hidden_size=D,
            num_attention_heads=2,
            ffn_hidden_size=F,
            gated_linear_unit=True,
            activation_func=torch.nn.functional.silu,
            bias_activation_fusion=False,
            use_cpu_initialization=True,
            add_bias_linear=False,
        )
        module = MLP(
            config, MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear), ffn_hidden_size=F
        )
        return torch_sample(module, rng, lambda module, x: module(x[:, np.newaxis])[0][:, 0])
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()


def _gated(rng: np.random.Generator) -> Sample:
    return torch_sample(named("gated.torch_impl.nn.GatedFFN")(D, F, bias=True), rng)


_DIFFUSERS = {"imports": "diffusers", "install": NEIGHBOURS}
_XFORMERS = {"imports": "xformers", "install": NEIGHBOURS}

TORCH = (
    _timm("SwiGLU", "timm-swiglu", F),
    _timm("SwiGLUPacked", "timm-swiglu-packed", 2 * F),
    _timm("GluMlp", "timm-glumlp", 2 * F),
    Block("FeedForward", "x-transformers", _x_transformers, "x_transformers", NEIGHBOURS),
    Block("LigerPhi3SwiGLUMLP", "liger-packed", _liger, "liger_kernel", NEIGHBOURS),
    Block("GEGLU", "diffusers-geglu", _diffusers("geglu"), **_DIFFUSERS),
    Block("SwiGLU", "diffusers-swiglu", _diffusers("swiglu"), **_DIFFUSERS),
    Block("Flux2FeedForward", "flux2-swiglu", _flux2, **_DIFFUSERS),
    Block("SwiGLU", "xformers", _xformers(True), **_XFORMERS),
    Block("SwiGLU", "xformers-unpacked", _xformers(False), **_XFORMERS),
    Block("MLP", "megatron", _megatron, "megatron", NEIGHBOURS),
    Block("GatedFFN", "gated", _gated),
)

# JAX


def _jax(module_state: State, call: Callable[[Any], Any], rng: np.random.Generator) -> Sample:
    import jax

    x = weights(rng, ROWS, D) * 2
    return Sample(module_state, x, np.asarray(call(jax.numpy.asarray(x))))


def _tree(tree: Any, rng: np.random.Generator) -> Any:
    import jax

    return jax.tree.map(lambda leaf: jax.numpy.asarray(weights(rng, *leaf.shape)), tree)


def _nnx(rng: np.random.Generator) -> Sample:
    from flax import nnx

    from gated.jax_impl.nnx import GatedFFN

    graph, state = nnx.split(GatedFFN(D, F, bias=True, rngs=nnx.Rngs(0)))
    state = _tree(state, rng)
    return _jax(nnx.to_pure_dict(state), nnx.merge(graph, state), rng)


def _linen(rng: np.random.Generator) -> Sample:
    import jax

    from gated.jax_impl.linen import GatedFFN

    module = GatedFFN(D, F, bias=True)
    params = _tree(module.init(jax.random.key(0), jax.numpy.zeros((1, D))), rng)
    return _jax(params["params"], lambda x: module.apply(params, x), rng)


def _nnx_plain(rng: np.random.Generator) -> Sample:
    """Llama's block of ``nnx.Linear``, as ports of it to NNX have it."""
    import jax
    from flax import nnx

    class Plain(nnx.Module):
        def __init__(self) -> None:
            self.gate_proj, self.up_proj = nnx.Linear(D, F, rngs=nnx.Rngs(0)), nnx.Linear(D, F, rngs=nnx.Rngs(0))
            self.down_proj = nnx.Linear(F, D, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))

    graph, state = nnx.split(Plain())
    state = _tree(state, rng)
    return _jax(nnx.to_pure_dict(state), nnx.merge(graph, state), rng)


def _linen_plain(rng: np.random.Generator) -> Sample:
    """The same of ``linen.Dense``."""
    import jax
    from flax import linen as nn

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            gate, value = nn.Dense(F, name="gate_proj")(x), nn.Dense(F, name="up_proj")(x)
            return nn.Dense(D, name="down_proj")(jax.nn.silu(gate) * value)

    params = _tree(Plain().init(jax.random.key(0), jax.numpy.zeros((1, D))), rng)
    return _jax(params["params"], lambda x: Plain().apply(params, x), rng)


def _tokamax(rng: np.random.Generator) -> Sample:
    import absl.flags
    import jax
    import tokamax

    # It reads flags of absl, which no main function of absl has parsed here.
    absl.flags.FLAGS.mark_as_parsed()
    fused = jax.numpy.asarray(weights(rng, D, 2, F))

    def call(x: Array) -> Any:
        return tokamax.gated_linear_unit(x, fused, activation=jax.nn.silu, implementation="xla")

    return _jax({"weights": fused}, call, rng)


_FLAX = {"imports": "flax", "install": "pip install flax"}

JAX = (
    Block("GatedFFN", "gated-flax-nnx", _nnx, **_FLAX),
    Block("GatedFFN", "gated-flax-linen", _linen, **_FLAX),
    Block("Linear", "flax-nnx", _nnx_plain, **_FLAX),
    Block("Dense", "flax-linen", _linen_plain, **_FLAX),
    Block("gated_linear_unit", "tokamax", _tokamax, "tokamax", NEIGHBOURS),
)

BLOCKS = (*HUGGING_FACE, *TORCH, *JAX, *RESTATED)
