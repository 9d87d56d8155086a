"""What is done to torch's modules elsewhere is done to these: initialised, cast, re-parametrised, hooked, autocast."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from _torch import Tensor, assert_same, randn  # noqa: E402
from scipy import stats  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it
from gated.torch_impl.nn import GLU, GatedFFN, GatedLinear, SwiGLU, Swish  # noqa: E402

D, HIDDEN = 96, 160


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Initialisation


def distance(sample: Tensor, distribution: Callable[[Any], Any]) -> float:
    """The largest distance of the sample's distribution function from the other."""
    x = np.sort(sample.detach().double().flatten().numpy())
    exact, n = distribution(x), len(x)
    return float(max((exact - np.arange(n) / n).max(), (np.arange(1, n + 1) / n - exact).max()))


def furthest(sample: Tensor) -> float:
    """Which distance a sample of the distribution exceeds once in 10^9 (Dvoretzky, Kiefer, Wolfowitz and Massart)."""
    return math.sqrt(math.log(2 / 1e-9) / (2 * sample.numel()))


def is_llama(weight: Tensor, std: float = 0.02) -> bool:
    """Normal of this standard deviation: by the distribution, and by the sum of the squares, chi-squared."""
    n = weight.numel()
    spread = float((weight.detach().double() / std).square().sum())
    squares = stats.chi2(n)
    return distance(weight, stats.norm(scale=std).cdf) <= furthest(weight) and (
        squares.ppf(1e-9) <= spread <= squares.isf(1e-9)
    )


def is_linear(weight: Tensor) -> bool:
    """torch.nn.Linear's own: uniform up to 1 / sqrt(fan_in)."""
    end = weight.shape[1] ** -0.5
    return distance(weight, stats.uniform(-end, 2 * end).cdf) <= furthest(weight)


def ffn(**options: Any) -> GatedFFN:
    return GatedFFN(D, HIDDEN, D + 16, **{"beta": 1.5, "learn_beta": True, "bias": True, **options})


def projections(module: nn.Module) -> list[nn.Linear]:
    return [child for child in module.children() if isinstance(child, nn.Linear)]


@pytest.mark.parametrize("make", [ffn, lambda **options: GatedLinear(D, HIDDEN, bias=True, **options)])
@pytest.mark.parametrize("std", [None, 0.02, 0.006])
def test_reset_parameters_is_the_initialisation_of_llama(make: Callable[..., Any], std: float | None) -> None:
    module = make()
    assert all(is_linear(child.weight) and not is_llama(child.weight) for child in projections(module))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(math.nan)
    module.reset_parameters(**({} if std is None else {"std": std}))
    for child in projections(module):
        assert is_llama(child.weight, std or 0.02) and not is_linear(child.weight)
        assert not child.bias.any()
    if module.initial_beta != 1:
        assert module.beta == 1.5


def test_the_initialisation_is_that_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=D, intermediate_size=HIDDEN, num_attention_heads=4, num_hidden_layers=1, vocab_size=8, mlp_bias=True
    )
    assert config.initializer_range == 0.02
    for child in projections(transformers.LlamaModel(config).layers[0].mlp):
        assert is_llama(child.weight) and not child.bias.any()


@pytest.mark.parametrize("module", [Swish(1.5, learn_beta=True), SwiGLU(1.5, learn_beta=True), Swish(1.5), GLU()])
def test_the_others_reset_their_beta(module: Any) -> None:
    for beta in module.parameters():
        with torch.no_grad():
            beta.fill_(7)
        module.reset_parameters()
        assert beta == 1.5
    if not isinstance(module, GLU):
        module.reset_parameters()
        assert module.beta == 1.5


def model() -> nn.Module:
    return nn.Sequential(Swish(1.5, learn_beta=True), ffn(device="cpu"), SwiGLU(learn_beta=True), GatedLinear(56, 8))


def test_every_module_with_parameters_of_its_own_resets_them_after_meta_initialisation() -> None:
    """As FSDP asks of modules that were made on the meta device: memory, then every module's reset_parameters."""
    with torch.device("meta"):
        made = model()
    assert all(one.is_meta for one in (*made[0].parameters(), *made[2].parameters(), *made[3].parameters()))
    made = made.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(math.nan)
    for module in made.modules():
        if list(module.parameters(recurse=False)):
            module.reset_parameters()
    assert not any(one.isnan().any() for one in made.parameters())
    # The projections come last and are as torch.nn.Linear makes them, as the constructor leaves them.
    assert all(is_linear(one.weight) for one in made.modules() if isinstance(one, nn.Linear))
    assert [made[index].beta.item() for index in range(3)] == [1.5, 1.5, 1.0]
    made[1].reset_parameters()
    assert all(is_llama(one.weight) for one in made[1].children())
    assert made(torch.randn(3, D)).shape == (3, 8)


def test_a_child_that_is_no_linear_layer_any_more_is_left_alone() -> None:
    module = ffn()
    module.up_proj = nn.Sequential(nn.Linear(D, HIDDEN), nn.Dropout(0.1))
    before = copy.deepcopy(module.up_proj.state_dict())
    module.reset_parameters()
    assert all(torch.equal(one, before[name]) for name, one in module.up_proj.state_dict().items())
    assert is_llama(module.gate_proj.weight) and is_llama(module.down_proj.weight)


@pytest.mark.parametrize(
    ("std", "error", "text"),
    [
        (-0.02, ValueError, "GatedFFN: std must be at least 0 and finite, got -0.02"),
        (math.nan, ValueError, "GatedFFN: std must be at least 0 and finite, got nan"),
        (math.inf, ValueError, "GatedFFN: std must be at least 0 and finite, got inf"),
        ("0.02", TypeError, "GatedFFN: std must be a Python number, got str"),
    ],
)
def test_a_wrong_standard_deviation_is_refused_before_anything_is_changed(
    std: Any, error: type[Exception], text: str
) -> None:
    module = ffn()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(error) as caught:
        module.reset_parameters(std)
    assert str(caught.value) == text
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())


# State


def test_a_state_dict_has_no_key_too_many_and_must_have_none_too_few() -> None:
    learned, fixed = ffn(), ffn(learn_beta=False)
    assert set(learned.state_dict()) - set(fixed.state_dict()) == {"beta"}
    assert not dict(fixed.named_buffers()) and not dict(Swish(2.0).state_dict()) and not GLU().state_dict()
    with pytest.raises(RuntimeError, match=r'Missing key.*"beta"'):
        learned.load_state_dict(fixed.state_dict())
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"beta"'):
        fixed.load_state_dict(learned.state_dict())


def test_a_state_dict_is_assigned_into_a_module_without_memory() -> None:
    given = ffn()
    with torch.device("meta"):
        module = ffn()
    module.load_state_dict(given.state_dict(), assign=True)
    x = torch.randn(3, D)
    assert torch.equal(module(x), given(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_module_is_cast_with_its_beta(dtype: torch.dtype) -> None:
    module = ffn().to(dtype)
    assert {one.dtype for one in module.parameters()} == {dtype}
    x = torch.randn(3, D, dtype=dtype)
    linear = nn.functional.linear
    gate, value = (linear(x, one.weight, one.bias) for one in (module.gate_proj, module.up_proj))
    hidden = G.gated_unit(gate, value, beta=module.beta)
    assert torch.equal(module(x), linear(hidden, module.down_proj.weight, module.down_proj.bias))
    module(x).sum().backward()
    assert {one.grad.dtype for one in module.parameters()} == {dtype}


# Children that others have changed. The same block in plain operations, with the same children, is what is right.


def plain(module: GatedFFN, x: Tensor) -> Tensor:
    gate = module.gate_proj(x)
    result: Tensor = module.down_proj(gate * torch.sigmoid(module.beta * gate) * module.up_proj(x))
    return result


def weight_norm(module: nn.Module) -> None:
    nn.utils.parametrizations.weight_norm(module)


def orthogonal(module: nn.Module) -> None:
    nn.utils.parametrizations.orthogonal(module)


def pruned(module: nn.Module) -> None:
    prune.l1_unstructured(module, "weight", 0.5)


@pytest.mark.parametrize("recompute", ["product", "all"])
@pytest.mark.parametrize("change", [weight_norm, orthogonal, pruned])
def test_re_parametrised_children_give_the_right_results_and_gradients(
    change: Callable[[nn.Module], None], recompute: str
) -> None:
    module = GatedFFN(6, 9, beta=1.5, learn_beta=True, bias=True, recompute=recompute, dtype=torch.float64)
    for child in projections(module):
        change(child)
        assert not isinstance(child.weight, nn.Parameter)
    x = randn(4, 6, requires_grad=True)
    results = []
    for y in (module(x), plain(module, x)):
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])])
    assert_same(*results)


def test_full_backward_hooks_see_the_gradients_of_input_and_output() -> None:
    module, seen = ffn(dtype=torch.float64), []
    module.register_full_backward_hook(lambda _, inputs, outputs: seen.append((*inputs, *outputs)))
    x = randn(3, D, requires_grad=True)
    y = module(x)
    c = torch.randn_like(y)
    y.backward(c)
    ((by_x, by_y),) = seen
    assert torch.equal(by_x, x.grad) and torch.equal(by_y, c)


def test_a_hook_on_a_projection_may_change_what_the_unit_gets() -> None:
    module = ffn(dtype=torch.float64)
    module.gate_proj.register_forward_hook(lambda _, inputs, output: 2 * output)
    x = randn(3, D)
    assert_same(module(x), plain(module, x))


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_under_autocast_the_projections_and_the_unit_between_them_are_of_its_dtype(recompute: str) -> None:
    """The backward pass, outside of it, computes again within it."""
    module, x = ffn(recompute=recompute), torch.randn(3, D, requires_grad=True)
    low = torch.bfloat16
    with torch.autocast("cpu", low):
        y = module(x)
    leaves = [one.detach().to(low).requires_grad_() for one in (x, *module.parameters())]
    names = ["x", *(name for name, _ in module.named_parameters())]
    by = dict(zip(names, leaves, strict=True))
    linear = nn.functional.linear
    gate, value = (linear(by["x"], by[f"{one}_proj.weight"], by[f"{one}_proj.bias"]) for one in ("gate", "up"))
    hidden = G.gated_unit(gate, value, beta=by["beta"])
    by_hand = linear(hidden, by["down_proj.weight"], by["down_proj.bias"])
    assert y.dtype == low and torch.equal(y, by_hand)
    c = torch.randn_like(y)
    y.backward(c)
    for mine, one in zip((x, *module.parameters()), torch.autograd.grad(by_hand, leaves, c), strict=True):
        assert mine.grad.dtype == torch.float32
        assert torch.equal(mine.grad, one.float())


def test_a_copy_shares_nothing_and_a_tied_weight_stays_tied() -> None:
    module = ffn()
    module.up_proj.weight = module.gate_proj.weight
    other = copy.deepcopy(module)
    assert other.up_proj.weight is other.gate_proj.weight
    assert not {one.data_ptr() for one in other.parameters()} & {one.data_ptr() for one in module.parameters()}
    module(torch.randn(3, D)).sum().backward()
    assert module.gate_proj.weight.grad.any() and other.gate_proj.weight.grad is None
