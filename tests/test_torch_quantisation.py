"""Quantised projections, torchao's and torch.ao's: weights alone or activations too, off by steps of their grids."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from _torch_neighbours import Array, Eager, carried, double, ffn_forward, letters  # noqa: E402
from torch import nn  # noqa: E402

from gated.torch_impl.nn import GatedFFN, GatedLinear  # noqa: E402

D, HIDDEN, ROWS = 48, 112, 16
# A symmetric grid of int8: 255 steps over twice the largest magnitude. The quotient by the step, up to 127.5 and off by
# three roundings in float32, is rounded to the nearest integer; the largest is 127.
LEVELS = 127.5
HALF_STEP = 0.5 + 127.5 * 3 * 2.0**-24


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def torchao_config(name: str) -> Any:
    return getattr(pytest.importorskip("torchao.quantization"), name)()


def quantised(module: nn.Module, name: str) -> nn.Module:
    """A copy of a module that torchao has quantised."""
    from torchao.quantization import quantize_

    module = copy.deepcopy(module)
    quantize_(module, torchao_config(name))
    return module


def steps(rows: Array) -> Array:
    """How far a number may be from its own on a grid of its row."""
    return HALF_STEP * np.max(np.abs(rows), axis=-1, keepdims=True) / LEVELS


CONFIGS = ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_block_with_quantised_projections_is_off_by_the_steps_of_their_grids(name: str, bias: bool) -> None:
    torchao_config(name)
    ffn, x = GatedFFN(D, HIDDEN, bias=bias), torch.randn(ROWS, D)
    given = letters(dict(ffn.named_parameters()))
    weights = [carried(given[one], steps(given[one].T).T) for one in ("W", "V", "W2")]
    biases = {one: given[one] for one in ("b", "c", "b2") if one in given}
    dynamic = name.startswith("Int8Dynamic")
    x_step = steps(double(x)) if dynamic else 0.0
    hidden_step: Any = 0.0
    if dynamic:
        # The grid of the product is that of its computed numbers, which are off by what comes before.
        hidden = ffn_forward(
            carried(x, x_step),
            weights[0],
            weights[1],
            carried(np.eye(HIDDEN)),
            biases=biases | {"b2": np.zeros(HIDDEN)},
        )
        hidden_step = steps(hidden.reach)
    expected = ffn_forward(carried(x, x_step), *weights, biases=biases, hidden_step=hidden_step)
    y = quantised(ffn, name)(x)
    off = abs(double(y) - expected.value)
    assert (off <= expected.error).all()
    plain = ffn_forward(carried(x), *(carried(given[one]) for one in ("W", "V", "W2")), biases=biases)
    assert (off > plain.error).mean() > 0.9  # quantised it is
    assert y.dtype == torch.float32


@pytest.mark.parametrize("recompute", ["product", "all"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_quantised_children_are_called_with_the_unit_between_them(name: str, recompute: str) -> None:
    torchao_config(name)
    ffn = GatedFFN(D, HIDDEN, recompute=recompute)
    ours, eager = quantised(ffn, name), quantised(Eager(ffn), name)
    x = torch.randn(2, ROWS, D)
    with torch.no_grad():
        gate, value = ours.gate_proj(x), ours.up_proj(x)
        assert torch.equal(gate, eager.gate_proj(x)) and torch.equal(value, eager.up_proj(x))
        assert torch.equal(ours(x), ours.down_proj(ours.unit(gate, value)))
    with torch.enable_grad():
        assert torch.equal(ours(x), ours.down_proj(ours.unit(gate, value)))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_quantised_llama_block_gives_the_same_result(name: str) -> None:
    """From equal gates and values: up to the roundings of silu and product, and where they fall on the grid."""
    torchao_config(name)
    ffn = GatedFFN(D, HIDDEN)
    ours, eager = quantised(ffn, name), quantised(Eager(ffn), name)
    x = torch.randn(ROWS, D)
    with torch.no_grad():
        gate, value = ours.gate_proj(x), ours.up_proj(x)
        hidden = ours.unit(gate, value), nn.functional.silu(gate) * value
        off = abs(double(ours(x)) - double(eager(x)))
        if name.startswith("Int8Dynamic"):
            from torchao.quantization import Int8Tensor, PerRow

            hidden = tuple(Int8Tensor.from_hp(one, PerRow()).dequantize() for one in hidden)
    given = [double(one) for one in hidden]
    apart = abs(given[0] - given[1])
    # Ours is within 5 ulp of 2 u, eager's two operations within 4; on a grid, they may fall to either side of a step.
    u = 2.0**-24
    step = 2 * steps(given[0]) if name.startswith("Int8Dynamic") else 0.0
    assert (apart <= 20 * u * abs(given[0]) + step).all()
    # The sums of both: gamma of HIDDEN products and of the three factors of their scales.
    W2 = abs(double(ours.down_proj.weight.dequantize()).T)
    assert (off <= (apart + 2 * (HIDDEN + 4) * u * abs(given[0])) @ W2).all()


def test_torch_s_own_dynamic_quantisation_exchanges_the_projections() -> None:
    """torch.ao.quantization, deprecated: one grid a tensor, of 8 bits for weights and 7 for activations."""
    quantization = pytest.importorskip("torch.ao.quantization")
    if not hasattr(quantization, "quantize_dynamic") or torch.backends.quantized.engine == "none":
        pytest.skip("this torch has no dynamic quantisation")
    ffn, x = GatedFFN(D, HIDDEN), torch.randn(ROWS, D)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = quantization.quantize_dynamic(ffn, {nn.Linear}, dtype=torch.qint8)
        y = one(x)
        scales = {name: child.weight().q_scale() for name, child in one.named_children()}
    assert all("DynamicQuantizedLinear" in repr(child) for child in one.children())
    given = letters(dict(ffn.named_parameters()))
    weights = [
        carried(given[letter], scales[name])
        for letter, name in (("W", "gate_proj"), ("V", "up_proj"), ("W2", "down_proj"))
    ]

    def step(rows: Array) -> float:
        """Half a step of rounding, and half of one by which the zero point moves the ends of the grid."""
        return float(max(rows.max(), 0.0) - min(rows.min(), 0.0)) / 127

    x_step = step(double(x))
    hidden = ffn_forward(carried(x, x_step), weights[0], weights[1], carried(np.eye(HIDDEN)), biases={})
    reach = step(np.concatenate([hidden.value + hidden.error, hidden.value - hidden.error]))
    expected = ffn_forward(carried(x, x_step), *weights, biases={}, hidden_step=reach)
    assert (abs(double(y) - expected.value) <= expected.error).all()


def test_a_gated_linear_is_quantised_as_well() -> None:
    torchao_config(CONFIGS[0])
    layer = GatedLinear(D, HIDDEN, activation="gelu", bias=True)
    ours, x = quantised(layer, CONFIGS[0]), torch.randn(ROWS, D)
    assert torch.equal(ours(x), ours.unit(ours.gate_proj(x), ours.up_proj(x)))
    assert not torch.equal(ours(x), layer(x))


def test_a_quantised_block_saves_copies_and_loads() -> None:
    torchao_config(CONFIGS[0])
    ours, x = quantised(GatedFFN(D, HIDDEN), CONFIGS[0]), torch.randn(ROWS, D)
    y = ours(x)
    assert torch.equal(copy.deepcopy(ours)(x), y)
    fresh = quantised(GatedFFN(D, HIDDEN), CONFIGS[0])
    fresh.load_state_dict(ours.state_dict(), assign=True)
    assert torch.equal(fresh(x), y)
