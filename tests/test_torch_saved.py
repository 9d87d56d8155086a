"""What is saved for the backward pass: the inputs, and of a feed-forward block two tensors of hidden size or none.

Saved-tensor hooks see what autograd keeps; the profiler's allocations see whatever else stays alive.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from _torch import ACTIVATIONS, ALL_UNITS, LAYOUTS, Tensor, assert_same, plain_activation, randn  # noqa: E402
from torch.autograd.graph import saved_tensors_hooks  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it
from gated.torch_impl import nn as gated_nn  # noqa: E402

ROWS, D_IN, HIDDEN, D_OUT = 64, 24, 40, 16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def leaf(*shape: int, needed: bool = True, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_(needed)


def saved(fn: Callable[[], Tensor], **inputs: Tensor) -> tuple[set[str], list[Tensor]]:
    """Which of the inputs are saved, by name, and what else is: one tensor a storage."""
    names = {one.untyped_storage().data_ptr(): name for name, one in inputs.items()}
    found: set[str] = set()
    others: dict[int, Tensor] = {}

    def pack(one: Tensor) -> Tensor:
        address = one.untyped_storage().data_ptr()
        if address in names:
            found.add(names[address])
        else:
            others[address] = one.detach()
        return one

    with saved_tensors_hooks(pack, lambda one: one):
        result = fn()
    del result  # alive until here: an address is not used twice
    return found, list(others.values())


def kept_bytes(fn: Callable[[], Tensor]) -> int:
    """What a call leaves allocated beside its result."""
    from torch.profiler import ProfilerActivity, profile

    fn()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = fn()
    return int(sum(event.self_cpu_memory_usage for event in profiler.events())) - result.untyped_storage().nbytes()


def bytes_of(tensors: list[Tensor]) -> int:
    return sum(one.untyped_storage().nbytes() for one in tensors)


# Elementwise functions: the inputs alone


@pytest.mark.parametrize("name", ["sigmoid", "swish", "silu", "gelu", "relu"])
def test_an_activation_saves_its_input_alone(name: str) -> None:
    x = leaf(3, 8)
    assert saved(lambda: getattr(G, name)(x), x=x) == ({"x"}, [])
    assert kept_bytes(lambda: getattr(G, name)(x)) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ALL_UNITS)
def test_a_packed_unit_saves_the_packed_tensor_alone(name: str, layout: str) -> None:
    x = leaf(3, 8)
    assert saved(lambda: ALL_UNITS[name](x, layout=layout), x=x) == ({"x"}, [])
    assert kept_bytes(lambda: ALL_UNITS[name](x, layout=layout)) == 0


@pytest.mark.parametrize("shape", [(), (4,), (3, 4)])
def test_a_tensor_beta_is_saved_as_it_was_given(shape: tuple[int, ...]) -> None:
    x, gate, value, beta = leaf(3, 8), leaf(3, 4), leaf(3, 4), leaf(*shape)
    assert saved(lambda: G.swiglu(x, beta), x=x, beta=beta) == ({"x", "beta"}, [])
    assert saved(lambda: G.swish(gate, beta), x=gate, beta=beta) == ({"x", "beta"}, [])
    found = saved(lambda: G.gated_unit(gate, value, beta=beta), gate=gate, value=value, beta=beta)
    assert found == ({"gate", "value", "beta"}, [])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_pair_saves_gate_and_value_alone_in_their_dtype(activation: str, dtype: torch.dtype) -> None:
    gate, value = leaf(3, 8, dtype=dtype), leaf(3, 8, dtype=dtype)
    found = saved(lambda: G.gated_unit(gate, value, activation=activation), gate=gate, value=value)
    assert found == ({"gate", "value"}, [])
    assert kept_bytes(lambda: G.gated_unit(gate, value, activation=activation)) == 0


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("activation", ["identity", "swish"])
def test_of_a_pair_that_is_saved_which_the_wanted_gradients_depend_on(
    activation: str, needs: tuple[bool, bool, bool]
) -> None:
    """In the value the unit is linear, and with the identity in the gate: that gradient does not depend on it."""
    operands = [leaf(3, 8, needed=need) for need in needs]
    gate, value, beta = operands

    def unit() -> Tensor:
        return G.gated_unit(gate, value, activation=activation, beta=beta)

    expected = {"gate", "value", "beta"} if any(needs) else set()
    if needs == (False, True, False):
        expected = {"gate", "beta"}
    if activation == "identity" and needs == (True, False, False):
        expected = {"value", "beta"}
    assert saved(unit, gate=gate, value=value, beta=beta) == (expected, [])
    wanted = [one for one in operands if one.requires_grad]
    if wanted:
        y = unit()
        plain = plain_activation(activation, gate, beta) * value + 0 * beta
        c = torch.randn_like(y)
        for ours, theirs in zip(*(torch.autograd.grad(one, wanted, c) for one in (y, plain)), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("activation", ["identity", "swish", "gelu"])
@pytest.mark.parametrize("moving", ["gate", "value"])
def test_what_is_not_saved_is_not_missed_in_other_modes_and_orders(activation: str, moving: str) -> None:
    fixed, x = randn(3, 4), randn(3, 4, requires_grad=True)

    def pair(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x, fixed) if moving == "gate" else (fixed, x)

    def ours(x: Tensor) -> Tensor:
        return G.gated_unit(*pair(x), activation=activation)

    def plain(x: Tensor) -> Tensor:
        gate, value = pair(x)
        return plain_activation(activation, gate) * value

    assert torch.autograd.gradcheck(ours, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ours, x)
    results = []
    for fn in (ours, plain):

        def loss(x: Tensor, fn: Callable[[Tensor], Tensor] = fn) -> Tensor:
            return fn(x).square().sum()

        (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
        results.append(
            [
                torch.autograd.grad(first.square().sum(), x),
                torch.func.hessian(loss)(x.detach()),
                torch.func.jacfwd(torch.func.jacfwd(loss))(x.detach()),
                torch.vmap(torch.func.grad(lambda row, fn=fn: loss(x.detach() + row)))(fixed),
            ]
        )
    assert_same(*results)


# Projected forms and modules: x, the weights, and tensors of hidden size

FORMS: dict[str, int] = {"glu_linear": 2, "swiglu_linear": 2, "gated_linear": 2, "gated_ffn": 2}


def projected(function: str, *, bias: bool) -> dict[str, Tensor]:
    arguments = {"x": leaf(ROWS, D_IN), "W": leaf(D_IN, HIDDEN), "V": leaf(D_IN, HIDDEN)}
    if function == "gated_ffn":
        arguments["W2"] = leaf(HIDDEN, D_OUT)
    if bias:
        arguments |= {"b": leaf(HIDDEN), "c": leaf(HIDDEN)}
        if function == "gated_ffn":
            arguments["b2"] = leaf(D_OUT)
    return arguments


def gate_and_value(arguments: Mapping[str, Tensor]) -> list[Tensor]:
    """As the functions compute them: the products of torch's linear."""
    x = arguments["x"]
    return [
        torch.nn.functional.linear(x, arguments[weight].T, arguments.get(bias)).detach()
        for weight, bias in (("W", "b"), ("V", "c"))
    ]


def rng_state() -> int:
    """What torch.utils.checkpoint keeps, so that a dropout draws the same numbers again."""
    return int(torch.get_rng_state().numel())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("function", FORMS)
def test_a_projected_form_saves_x_the_weights_gate_and_value(function: str, bias: bool) -> None:
    arguments = projected(function, bias=bias)
    found, others = saved(lambda: getattr(G, function)(**arguments), **arguments)
    assert {"x", "W", "V"} <= found <= {"x", "W", "V", "W2"}
    assert sorted(map(torch.Tensor.tolist, others)) == sorted(map(torch.Tensor.tolist, gate_and_value(arguments)))
    hidden = ROWS * HIDDEN * 4
    assert kept_bytes(lambda: getattr(G, function)(**arguments)) == 2 * hidden + (
        rng_state() if function == "gated_ffn" else 0
    )


@pytest.mark.parametrize("beta", [1.5, "tensor"])
def test_gated_ffn_computes_the_product_again_for_the_right_gradients(beta: Any) -> None:
    arguments = {
        name: one.double().detach().requires_grad_() for name, one in projected("gated_ffn", bias=True).items()
    }
    if beta == "tensor":
        beta = arguments["beta"] = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    x, W, V, W2, b, c, b2 = (arguments[name] for name in ("x", "W", "V", "W2", "b", "c", "b2"))
    gate = x @ W + b
    plain = (gate * torch.sigmoid(beta * gate) * (x @ V + c)) @ W2 + b2
    ours = G.gated_ffn(**{"beta": beta, **arguments})
    wanted = list(arguments.values())
    first = [torch.autograd.grad(y.square().sum(), wanted, create_graph=True) for y in (ours, plain)]
    second = [torch.autograd.grad(g[0].square().sum(), wanted) for g in first]
    # In float64, sums of up to 64 terms of size up to 1e6 in another order.
    for mine, theirs in zip([*first[0], *second[0]], [*first[1], *second[1]], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-9)


def test_gated_ffn_saves_nothing_where_nothing_is_differentiated() -> None:
    arguments = {name: one.detach() for name, one in projected("gated_ffn", bias=True).items()}
    assert saved(lambda: G.gated_ffn(**arguments), **arguments) == (set(), [])
    assert kept_bytes(lambda: G.gated_ffn(**arguments)) == 0


def modules(**options: Any) -> dict[str, tuple[torch.nn.Module, int]]:
    """Modules with the number of tensors of hidden size that they save."""
    return {
        "GatedLinear": (gated_nn.GatedLinear(D_IN, HIDDEN, **options), 2),
        "GatedFFN": (gated_nn.GatedFFN(D_IN, HIDDEN, D_OUT, **options), 2),
        "GatedFFN all": (gated_nn.GatedFFN(D_IN, HIDDEN, D_OUT, recompute="all", **options), 0),
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"learn_beta": True}], ids=str)
@pytest.mark.parametrize("name", modules())
def test_a_module_saves_x_its_weights_and_two_tensors_of_hidden_size_or_none(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    module, count = modules(dtype=dtype, **options)[name]
    x = leaf(ROWS, D_IN, dtype=dtype)
    parameters = dict(module.named_parameters())
    found, others = saved(lambda: module(x), x=x, **parameters)
    assert "x" in found <= {"x", "beta", *(f"{one}_proj.weight" for one in ("gate", "up", "down"))}
    assert [tuple(one.shape) for one in others] == [(ROWS, HIDDEN)] * count
    state = rng_state() if name != "GatedLinear" else 0
    assert kept_bytes(lambda: module(x)) == count * ROWS * HIDDEN * dtype.itemsize + state


def test_a_gated_ffn_saves_half_of_the_hidden_sized_bytes_of_eager_llama() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = pytest.importorskip("transformers").LlamaConfig(
        hidden_size=32, intermediate_size=HIDDEN, num_attention_heads=4, hidden_act="silu"
    )
    theirs, ours = llama.LlamaMLP(config), gated_nn.GatedFFN(32, HIDDEN)
    x = leaf(ROWS, 32)
    others = [saved(lambda m=m: m(x), x=x, **dict(m.named_parameters()))[1] for m in (theirs, ours)]
    assert [len(one) for one in others] == [4, 2]
    assert bytes_of(others[0]) == 2 * bytes_of(others[1]) == 4 * ROWS * HIDDEN * 4
    assert kept_bytes(lambda: theirs(x)) == bytes_of(others[0])
    assert kept_bytes(lambda: ours(x)) == bytes_of(others[1]) + rng_state()


# Frozen parts, as adapters leave them

FROZEN: dict[str, tuple[tuple[str, ...], bool, list[str]]] = {
    # what does not move, whether x does, and what of hidden size is kept
    "all weights": (("gate_proj", "up_proj", "down_proj"), True, ["gate", "value"]),
    "all weights and x": (("gate_proj", "up_proj", "down_proj"), False, []),
    "down": (("down_proj",), False, ["gate", "value"]),
    "gate": (("gate_proj",), False, ["gate", "value"]),
    "up": (("up_proj",), False, ["gate", "value"]),
    "gate and up and x": (("gate_proj", "up_proj"), False, ["product"]),
}


@pytest.mark.parametrize("case", FROZEN)
def test_a_gated_ffn_with_frozen_projections_saves_no_more_than_it_needs(case: str) -> None:
    frozen, moves, expected = FROZEN[case]
    ffn = gated_nn.GatedFFN(D_IN, HIDDEN, D_OUT)
    for name in frozen:
        ffn.get_submodule(name).requires_grad_(False)
    x = leaf(ROWS, D_IN, needed=moves)
    _, others = saved(lambda: ffn(x), x=x, **dict(ffn.named_parameters()))
    gate, value = ffn.gate_proj(x), ffn.up_proj(x)
    by_name = {"gate": gate, "value": value, "product": ffn.unit(gate, value)}
    assert sorted(map(Tensor.tolist, others)) == sorted(by_name[name].tolist() for name in expected)
    with torch.no_grad():
        assert saved(lambda: ffn(x)) == (set(), [])
