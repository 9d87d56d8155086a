"""The PyTorch backend's modules."""

from __future__ import annotations

import copy
import io
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from _torch import Tensor, assert_same, randn  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it
from gated.torch_impl import nn as gated_nn  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "Swish(beta=2.0)": lambda: gated_nn.Swish(2),
    "Swish(beta=1.0, learn_beta=True)": lambda: gated_nn.Swish(learn_beta=True),
    "GLU(axis=-1, layout='gate_last')": gated_nn.GLU,
    "SwiGLU(beta=1.0, axis=1, layout='interleaved')": lambda: gated_nn.SwiGLU(axis=1, layout="interleaved"),
    "GatedLinear(\n  activation='gelu'\n"
    "  (gate_proj): Linear(in_features=4, out_features=6, bias=False)\n"
    "  (up_proj): Linear(in_features=4, out_features=6, bias=False)\n)": lambda: gated_nn.GatedLinear(
        4, 6, activation="gelu"
    ),
    "GatedFFN(\n  activation='swish', beta=1.5, learn_beta=True, recompute='all'\n"
    "  (gate_proj): Linear(in_features=4, out_features=6, bias=True)\n"
    "  (up_proj): Linear(in_features=4, out_features=6, bias=True)\n"
    "  (down_proj): Linear(in_features=6, out_features=3, bias=True)\n)": lambda: gated_nn.GatedFFN(
        4, 6, 3, beta=1.5, learn_beta=True, bias=True, recompute="all"
    ),
}


@pytest.mark.parametrize("text", MODULES)
def test_modules_show_copy_pickle_save_and_load(text: str) -> None:
    module = MODULES[text]()
    assert repr(module) == text
    x = torch.randn(2, 4)
    y = module(x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), y)
        assert repr(other) == text
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = MODULES[text]()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.fill_(math.pi)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(x), y)


def test_a_gated_ffn_loads_a_llama_mlp_by_name() -> None:
    assert list(gated_nn.GatedFFN(4, 6).state_dict()) == ["gate_proj.weight", "up_proj.weight", "down_proj.weight"]
    with_beta = gated_nn.GatedFFN(4, 6, learn_beta=True, bias=True)
    assert sorted(with_beta.state_dict()) == sorted(
        ["beta", *(f"{p}_proj.{kind}" for p in ("gate", "up", "down") for kind in ("weight", "bias"))]
    )


@pytest.mark.parametrize("recompute", ["product", "all"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_gated_ffn_is_its_formula_and_so_are_its_gradients(recompute: str, bias: bool) -> None:
    ffn = gated_nn.GatedFFN(4, 6, 3, learn_beta=True, beta=1.5, bias=bias, recompute=recompute, dtype=torch.float64)
    x = randn(2, 5, 4, requires_grad=True)
    gate = x @ ffn.gate_proj.weight.T + (ffn.gate_proj.bias if bias else 0)
    value = x @ ffn.up_proj.weight.T + (ffn.up_proj.bias if bias else 0)
    plain = (gate * torch.sigmoid(ffn.beta * gate) * value) @ ffn.down_proj.weight.T + (
        ffn.down_proj.bias if bias else 0
    )
    ours = ffn(x)
    assert_same(ours, plain)
    wanted = [x, *ffn.parameters()]
    first = [torch.autograd.grad(y.square().sum(), wanted, create_graph=True) for y in (ours, plain)]
    assert_same(*first)
    assert_same(*(torch.autograd.grad(g[0].square().sum(), wanted) for g in first))


@pytest.mark.parametrize(("recompute", "kept"), [("product", 2), ("all", 0)])
def test_a_gated_ffn_keeps_two_hidden_sized_tensors_or_none(recompute: str, kept: int) -> None:
    ffn = gated_nn.GatedFFN(4, 11, recompute=recompute)
    x = torch.randn(7, 4, requires_grad=True)
    hidden: set[int] = set()

    def pack(one: Tensor) -> Tensor:
        if one.numel() == 7 * 11:
            hidden.add(one.data_ptr())
        return one

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
        y = ffn(x)
    assert len(hidden) == kept
    finished: list[str] = []
    for name, child in ffn.named_children():
        child.register_forward_hook(lambda *_, name=name: finished.append(name))
    y.sum().backward()
    # The last product is not computed again: the recomputation stops at the last tensor it has to give back.
    assert finished == ([] if recompute == "product" else ["gate_proj", "up_proj"])


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_a_gated_ffn_goes_through_every_transform(recompute: str) -> None:
    ffn = gated_nn.GatedFFN(3, 4, recompute=recompute, dtype=torch.float64)
    parameters = dict(ffn.named_parameters())
    x = randn(2, 3)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(ffn, parameters, (x,)).square().sum()

    by_func = torch.func.grad(loss)(parameters, x)
    by_backward = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
    assert_same(list(by_func.values()), by_backward)
    rows = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x[:, None])
    assert_same([one.sum(0) for one in rows.values()], by_backward)
    tangent = torch.func.jvp(lambda x: loss(parameters, x), (x,), (x,))[1]
    assert_same(tangent, (torch.func.grad(loss, 1)(parameters, x) * x).sum())
    with torch.no_grad():
        assert not ffn(x).requires_grad


def test_a_learned_beta_is_used_in_the_dtype_of_the_input_as_weights_are() -> None:
    module = gated_nn.Swish(1.1, learn_beta=True)
    x = (8 * torch.randn(1000)).to(torch.bfloat16)
    y = module(x)
    assert torch.equal(y, G.swish(x, torch.tensor(1.1, dtype=torch.bfloat16)))
    assert not torch.equal(y, G.swish(x, 1.1))
    y.float().sum().backward()
    assert module.beta.grad.dtype == torch.float32 and module.beta.grad != 0


def test_children_may_be_exchanged_and_run_as_modules() -> None:
    ffn = gated_nn.GatedFFN(4, 6)
    ffn.up_proj = torch.nn.Sequential(ffn.up_proj, torch.nn.Dropout(0.5))
    calls: list[str] = []
    for name, child in ffn.named_children():
        child.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    ffn(torch.randn(2, 4))
    assert calls == ["gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: gated_nn.GLU(layout="x"), ValueError, "GLU: layout must be"),
        (lambda: gated_nn.SwiGLU(layout="x"), ValueError, "SwiGLU: layout must be"),
        (lambda: gated_nn.GatedLinear(2, 2, activation="silu"), ValueError, "GatedLinear: activation must be"),
        (
            lambda: gated_nn.GatedFFN(2, 2, activation="gelu", learn_beta=True),
            ValueError,
            "GatedFFN: learn_beta=True needs",
        ),
        (
            lambda: gated_nn.GatedFFN(2, 2, recompute="x"),
            ValueError,
            'GatedFFN: recompute must be "product" or "all", got \'x\'',
        ),
        (lambda: gated_nn.Swish("1"), TypeError, "Swish: beta must be a Python number, got str"),
    ],
)
def test_modules_refuse_wrong_settings_when_they_are_made(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_without_torch_the_import_names_the_extra() -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
try:
    import gated.torch_impl
except ModuleNotFoundError as error:
    print(error, type(error.__cause__).__name__, sep="|")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == (
        "gated.torch_impl needs the package torch, which is not installed; "
        'install it with: pip install "gated[torch]"|ModuleNotFoundError'
    )


CHANGED = "modified by an inplace operation"


@pytest.mark.parametrize("name", ["gate_proj.weight", "up_proj.weight", "down_proj.weight", "beta"])
@pytest.mark.parametrize("recompute", ["product", "all"])
def test_a_weight_changed_before_the_backward_pass_is_an_error_though_it_is_not_saved(
    recompute: str, name: str
) -> None:
    ffn = gated_nn.GatedFFN(4, 6, learn_beta=True, recompute=recompute)
    y = ffn(torch.randn(3, 4, requires_grad=True))
    with torch.no_grad():
        ffn.get_parameter(name).mul_(2)
    with pytest.raises(RuntimeError, match=CHANGED):
        y.sum().backward()


@pytest.mark.parametrize("changed", ["W", "V", "W2", "beta"])
def test_an_argument_of_gated_ffn_changed_before_the_backward_pass_is_an_error(changed: str) -> None:
    shapes = {"x": (3, 4), "W": (4, 6), "V": (4, 6), "W2": (6, 4), "beta": ()}
    arguments = {name: randn(*shape).requires_grad_() for name, shape in shapes.items()}
    y = G.gated_ffn(**arguments)
    with torch.no_grad():
        arguments[changed].mul_(2)
    with pytest.raises(RuntimeError, match=CHANGED):
        y.sum().backward()


def test_what_the_backward_pass_does_not_need_may_change() -> None:
    """As with torch.nn.Linear, whose weight is not saved where its input needs no gradient."""
    ffn = gated_nn.GatedFFN(4, 6)
    x = torch.randn(3, 4)
    ffn(x).sum().backward()
    expected = ffn.gate_proj.weight.grad
    ffn.gate_proj.weight.grad = None
    y = ffn(x)
    with torch.no_grad():
        ffn.gate_proj.weight.mul_(2)
    y.sum().backward()
    assert_same(ffn.gate_proj.weight.grad, expected)
