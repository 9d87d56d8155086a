"""examples/smollm2: on a small model of random weights, and on the real one where it may be fetched."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

EXAMPLE = Path(__file__).parent.parent / "examples" / "smollm2"
MODULES = ("blocks", "comparing", "decoder", "faults", "finetuning", "loading", "rounding", "running")


@pytest.fixture(scope="module")
def example() -> Iterator[SimpleNamespace]:
    """The example's modules, which are no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        for name in MODULES:
            assert name not in sys.modules
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
        for name in MODULES:
            del sys.modules[name]


@pytest.fixture(scope="module")
def model() -> Any:
    """Three layers of a Llama, with weights large enough for gates where the activations differ."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    return torch.randint(64, (1, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backend", ["torch", "jax", "numpy", "flax"])
def test_a_model_with_our_blocks_has_the_tokens_and_the_logits_of_the_original(
    example: SimpleNamespace, model: Any, text: torch.Tensor, backend: str
) -> None:
    original, ours = example.running.InTorch(model), example.running.runner(model, backend)
    assert ours.generate(text[:, :8], 12) == original.generate(text[:, :8], 12)
    found = example.comparing.compare(
        example.rounding.double(model), {"original": original, "ours": ours}, text, asked=8, count=8
    )
    assert 0 < found.shares["original"] <= 1
    assert 0 < found.shares["ours"] <= 1


@pytest.mark.parametrize("fault", ["gate-order", "gelu", "beta", "bfloat16"])
def test_a_mistake_in_one_layer_is_outside_of_the_bound(
    example: SimpleNamespace, model: Any, text: torch.Tensor, fault: str
) -> None:
    exact = example.rounding.double(model)
    for layer in range(3):
        found = example.comparing.compare(
            exact, {"theirs": example.running.broken(model, fault, [layer])}, text, asked=8, count=16
        )
        assert found.shares["theirs"] > 1, layer


def test_the_bound_is_that_of_float32_and_of_no_coarser_arithmetic(
    example: SimpleNamespace, model: Any, text: torch.Tensor
) -> None:
    """Every leaf moved by as much as its c allows, signs at random: the logits move by as much as the bound says."""
    rounding = example.rounding
    exact = rounding.double(model)
    which = [(position, 3) for position in range(24)]
    true, bounds = rounding.logit_bounds(exact, text, which)

    class Moved(rounding.Roundings):
        def _rounded(self, result: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return result + c * (2 * torch.randint(2, c.shape, generator=signs) - 1)

    signs = torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = []
        for _ in range(20):
            with Moved():
                draws.append(exact(text, use_cache=False).logits[0][:, 3] - true[:, 3])
    # With each leaf at plus or minus c, the standard deviation is the bound over lambda.
    spread = torch.stack(draws).std(0) * rounding.LAMBDA / bounds
    assert 0.8 < spread.square().mean().sqrt() < 1.2


def test_an_operation_without_a_rule_is_named(example: SimpleNamespace) -> None:
    x = torch.ones(2, dtype=torch.float64)
    with example.rounding.Roundings(), pytest.raises(NotImplementedError, match="no rule says how erf rounds"):
        torch.erf(x)


def test_training_has_the_gradients_of_the_original(example: SimpleNamespace, model: Any, text: torch.Tensor) -> None:
    steps = list(example.finetuning.finetune(copy.deepcopy(model), [text] * 3, rate=1e-2))
    assert steps[0].loss > steps[1].loss > steps[2].loss
    for step in steps:
        assert 0 < step.share <= 1
        assert step.loss == pytest.approx(step.original, rel=1e-4)
        # Both are off by their own rounding, and neither is exact.
        assert 0 < step.distance < 1e-4
        assert 0 < step.original_distance < 1e-4


def test_training_with_another_block_is_outside_of_the_bound(
    example: SimpleNamespace, model: Any, text: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gated.torch_impl.nn import GatedFFN

    def gelu(state: dict[str, torch.Tensor]) -> GatedFFN:
        block = GatedFFN(32, 48, activation="gelu")
        block.load_state_dict(state)
        return block

    monkeypatch.setitem(example.blocks.BACKENDS, "torch", gelu)
    (step,) = example.finetuning.finetune(copy.deepcopy(model), [text])
    assert step.share > 1


@pytest.mark.realmodel
@pytest.mark.parametrize("backend", ["torch", "jax", "numpy", "flax"])
def test_smollm2_has_the_same_tokens_in_every_backend(smollm2: Path, backend: str) -> None:
    shown = run("--gguf", str(smollm2), "--backend", backend, "--tokens", "16", "--logits", "4")
    assert "The same tokens for 6 of 6 prompts" in shown
    assert "Error of 24 logits" in shown


@pytest.mark.realmodel
def test_smollm2_is_trained_with_the_gradients_of_the_original(smollm2: Path) -> None:
    assert "from float64" in run("--gguf", str(smollm2), "--finetune", "2")


@pytest.mark.realmodel
def test_a_fault_that_changes_no_token_is_found(smollm2: Path) -> None:
    options = ("--fault", "beta", "--prompts", "2", "--tokens", "24")
    assert "The same tokens for 2 of 2 prompts" in run("--gguf", str(smollm2), *options, status=1)


def run(*options: str, status: int = 0) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLE), *options], capture_output=True, text=True, timeout=600)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout
