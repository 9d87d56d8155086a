"""LoRA by PEFT on the projections of a block: it trains, merges, saves, and recomputation draws the same dropout."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from _torch import Tensor, assert_same, randn  # noqa: E402
from _torch_neighbours import FLOAT32, Eager, carried, double, down  # noqa: E402
from torch import nn  # noqa: E402

from gated.conformance.carried import Carried  # noqa: E402
from gated.torch_impl.nn import GatedFFN  # noqa: E402

D, HIDDEN, ROWS = 24, 40, 32
PROJECTIONS = ["gate_proj", "up_proj", "down_proj"]


class Model(nn.Module):
    """Two residual blocks."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"mlp": block}) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer["mlp"](x)
        return x


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def config(**options: Any) -> Any:
    # Not initialised to do nothing, as PEFT does it, so that every gradient is there from the first step.
    return peft.LoraConfig(r=4, lora_alpha=8, target_modules=PROJECTIONS, **{"init_lora_weights": False, **options})


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_adapters_attach_train_and_draw_the_same_dropout_when_recomputed(recompute: str) -> None:
    blocks = [GatedFFN(D, HIDDEN, recompute=recompute, dtype=torch.float64) for _ in range(2)]
    models = []
    for made in (Model(*blocks), Model(*map(Eager, blocks))):
        torch.manual_seed(1)
        models.append(peft.get_peft_model(made, config(lora_dropout=0.3)))
    ours, eager = models
    attached = [name for name, one in ours.named_modules() if isinstance(one, peft.tuners.lora.Linear)]
    assert [name.rpartition("model.")[2] for name in attached] == [
        f"layers.{layer}.mlp.{name}" for layer in (0, 1) for name in PROJECTIONS
    ]
    x, c = randn(ROWS, D), randn(ROWS, D)
    results = []
    for model in models:
        torch.manual_seed(2)
        results.append(model(x))
        torch.rand(1000)  # what a recomputation that did not restore the generator would draw past
        results[-1].backward(c)
    assert_same(*results)
    for (name, one), other in zip(ours.named_parameters(), eager.parameters(), strict=True):
        assert one.requires_grad == ("lora_" in name)
        if one.requires_grad:
            assert one.grad.all()
            assert_same(one.grad, other.grad)
        else:
            assert one.grad is None


def test_adapters_learn() -> None:
    model = peft.get_peft_model(Model(GatedFFN(D, HIDDEN, recompute="all")), config(init_lora_weights=True))
    x, wanted = torch.randn(ROWS, D), torch.randn(ROWS, D)
    frozen = {name: one.clone() for name, one in model.named_parameters() if not one.requires_grad}
    optimizer = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), wanted)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(one, frozen[name]) for name, one in model.named_parameters() if name in frozen)


@pytest.mark.parametrize(("recompute", "count"), [("product", 2), ("all", 0)])
def test_with_adapters_as_many_tensors_of_hidden_size_are_saved_as_without(recompute: str, count: int) -> None:
    ffn = peft.inject_adapter_in_model(config(), GatedFFN(D, HIDDEN, recompute=recompute))
    saved: set[int] = set()

    def pack(one: Tensor) -> Tensor:
        if one.numel() == ROWS * HIDDEN:
            saved.add(one.data_ptr())
        return one

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
        y = ffn(torch.randn(ROWS, D))
    assert len(saved) == count
    y.sum().backward()


def adapted(x: Carried, layer: Any, *, merged: Tensor | None = None) -> Carried:
    """x through a projection and its adapter; or, where they are merged, through the sum of their weights."""
    W, A, B = (carried(one.weight.T) for one in (layer.base_layer, layer.lora_A["default"], layer.lora_B["default"]))
    scale = carried(np.array(layer.scaling["default"]))
    if merged is None:
        by_adapter = FLOAT32.product(FLOAT32.product(x, A), B)
        return FLOAT32.plus(FLOAT32.product(x, W), FLOAT32.times(by_adapter, scale))
    total = FLOAT32.plus(W, FLOAT32.times(FLOAT32.product(A, B), scale))
    assert (abs(double(merged).T - total.value) <= total.error).all()
    return FLOAT32.product(x, total)


def test_merged_adapters_give_the_same_result() -> None:
    block = GatedFFN(D, HIDDEN)
    x = torch.randn(ROWS, D)
    plain = block(x)
    model = peft.get_peft_model(Model(block), config())
    ffn = model.base_model.model.layers[0]["mlp"]
    layers = {name: copy.deepcopy(getattr(ffn, name)) for name in PROJECTIONS}
    apart = ffn(x)
    merged = model.merge_and_unload().layers[0]["mlp"]
    assert [type(child) for child in merged.children()] == [nn.Linear] * 3
    together = merged(x)

    def bound(weights: dict[str, Tensor | None]) -> Carried:
        gate, value = (adapted(carried(x), layers[name], merged=weights[name]) for name in PROJECTIONS[:2])
        hidden = down(gate, value, carried(np.eye(HIDDEN)), None)
        return adapted(hidden, layers["down_proj"], merged=weights["down_proj"])

    of_sum = {name: getattr(merged, name).weight for name in PROJECTIONS}
    for y, weights in ((apart, dict.fromkeys(PROJECTIONS)), (together, of_sum)):
        expected = bound(weights)
        assert (abs(double(y) - expected.value) <= expected.error).all()
        assert (abs(double(plain) - expected.value) > expected.error).mean() > 0.9


def test_an_adapter_is_switched_off_saved_and_loaded(tmp_path: Path) -> None:
    block = GatedFFN(D, HIDDEN)
    base = Model(copy.deepcopy(block))
    x = torch.randn(ROWS, D)
    plain = base(x)
    model = peft.get_peft_model(base, config())
    adapted_ = model(x)
    assert not torch.equal(adapted_, plain)
    with model.disable_adapter():
        assert torch.equal(model(x), plain)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(Model(block), tmp_path)
    assert torch.equal(again(x), adapted_)
