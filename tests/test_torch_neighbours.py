"""Hugging Face's feed-forward blocks: their weights load by name, and give the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from _torch import Tensor  # noqa: E402
from _torch_neighbours import exact_and_bounds, results  # noqa: E402
from transformers import GemmaConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, Qwen2Config  # noqa: E402
from transformers.models.gemma.modeling_gemma import GemmaMLP  # noqa: E402
from transformers.models.llama.modeling_llama import LlamaMLP  # noqa: E402
from transformers.models.mistral.modeling_mistral import MistralMLP  # noqa: E402
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP  # noqa: E402

from gated.torch_impl.nn import GatedFFN  # noqa: E402

D, HIDDEN = 48, 112
SIZES: dict[str, Any] = {"hidden_size": D, "intermediate_size": HIDDEN, "num_attention_heads": 4}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


BLOCKS: dict[str, tuple[Callable[[], torch.nn.Module], dict[str, Any]]] = {
    "Llama": (lambda: LlamaMLP(LlamaConfig(**SIZES)), {}),
    "Llama with biases": (lambda: LlamaMLP(LlamaConfig(**SIZES, mlp_bias=True)), {"bias": True}),
    "Mistral": (lambda: MistralMLP(MistralConfig(**SIZES)), {}),
    "Qwen2": (lambda: Qwen2MLP(Qwen2Config(**SIZES)), {}),
    "Gemma": (lambda: GemmaMLP(GemmaConfig(**SIZES, head_dim=12)), {"activation": "gelu_tanh"}),
}


def assert_same_block(theirs: torch.nn.Module, ours: torch.nn.Module, x: Tensor, activation: str) -> None:
    """Output and every gradient of both are within float32's bound of the exact ones."""
    c = torch.randn(x.shape)
    exact, bounds = exact_and_bounds(theirs, x, c, activation)
    for module in (theirs, ours):
        found = results(module, x, c)
        assert found.keys() == {name for name, one in exact.items() if one is not None}
        for name, one in found.items():
            worst = (abs(one - exact[name]) / bounds[name]).max()
            assert worst <= 1, f"{type(module).__name__}, {name}: {worst:.2f} of its bound"


@pytest.mark.parametrize("recompute", ["product", "all"])
@pytest.mark.parametrize("name", BLOCKS)
def test_the_state_dict_loads_by_name_and_the_result_is_the_same_forward_and_backward(
    name: str, recompute: str
) -> None:
    make, options = BLOCKS[name]
    theirs, ours = make(), GatedFFN(D, HIDDEN, recompute=recompute, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_same_block(theirs, ours, 4 * torch.randn(3, 5, D), options.get("activation", "swish"))


def test_the_other_gelu_of_a_gemma_checkpoint_would_not_pass() -> None:
    """The bound tells the tanh form from the erf form, 4.7e-4 apart."""
    make, _ = BLOCKS["Gemma"]
    theirs, ours = make(), GatedFFN(D, HIDDEN, activation="gelu")
    ours.load_state_dict(theirs.state_dict())
    with pytest.raises(AssertionError, match="GatedFFN, value"):
        assert_same_block(theirs, ours, 4 * torch.randn(3, 5, D), "gelu_tanh")


def test_a_block_is_made_with_the_weights_that_llama_gets_from_the_same_seed() -> None:
    made = []
    for make in (BLOCKS["Llama with biases"][0], lambda: GatedFFN(D, HIDDEN, bias=True)):
        torch.manual_seed(7)
        made.append(make().state_dict())
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_a_block_loads_from_a_safetensors_file(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    theirs, ours = BLOCKS["Llama"][0](), GatedFFN(D, HIDDEN)
    file = tmp_path / "model.safetensors"
    safetensors.save_file({f"model.layers.0.mlp.{name}": one for name, one in theirs.state_dict().items()}, file)
    prefix = "model.layers.0.mlp."
    ours.load_state_dict({name.removeprefix(prefix): one for name, one in safetensors.load_file(file).items()})
    assert_same_block(theirs, ours, torch.randn(7, D), "swish")
    safetensors.save_model(ours, tmp_path / "ours.safetensors")
    assert safetensors.load_model(theirs, tmp_path / "ours.safetensors") == (set(), [])


class Seen:
    """What goes into a module and comes out, as a forward hook."""

    def __call__(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.x, self.y = inputs[0].detach(), output.detach()


def mlps(model: torch.nn.Module) -> Iterator[tuple[Any, torch.nn.Module]]:
    for layer in model.model.layers:
        yield layer, layer.mlp


def test_the_blocks_of_a_whole_llama_model_are_exchanged_and_its_checkpoint_loads(tmp_path: Path) -> None:
    config = LlamaConfig(**SIZES, num_hidden_layers=2, vocab_size=64, num_key_value_heads=2)
    theirs, ours = LlamaForCausalLM(config), LlamaForCausalLM(config)
    for layer, _ in mlps(ours):
        layer.mlp = GatedFFN(D, HIDDEN)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    tokens = torch.randint(64, (2, 9))
    seen = []
    for _, mlp in mlps(ours):
        mlp.register_forward_hook(one := Seen())
        seen.append(one)
    loss = ours(input_ids=tokens, labels=tokens).loss
    loss.backward()
    for (_, mlp), (_, original), one in zip(mlps(ours), mlps(theirs), seen, strict=True):
        assert all(parameter.grad.any() for parameter in mlp.parameters())
        assert_same_block(original, mlp, one.x, "swish")
    ours.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))
