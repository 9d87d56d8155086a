"""The PyTorch backend at infinity, near the ends of the range, and where an activation is too small for its dtype."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from _torch import INF, Tensor, plain_activation  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_derivatives_have_their_limits_at_infinity(name: str, order: int, dtype: torch.dtype) -> None:
    fn = {
        "silu": G.silu,
        "gelu": G.gelu,
        "gelu_tanh": lambda x: G.gelu(x, approximate="tanh"),
        "sigmoid": G.sigmoid,
        "relu": G.relu,
    }[name]
    largest = torch.finfo(dtype).max
    x = torch.tensor([-INF, -largest, largest, INF, math.nan], dtype=dtype, requires_grad=True)
    result = fn(x)
    for _ in range(order):
        (result,) = torch.autograd.grad(result.sum(), x, create_graph=True)
    limit = 1.0 if order == 1 and name != "sigmoid" else 0.0
    assert result[:4].tolist() == [0.0, 0.0, limit, limit]
    assert result[4].isnan() or (name == "relu" and order == 3)


def test_swish_with_an_extreme_beta_has_its_limits() -> None:
    x = torch.tensor([-INF, -2.0, -0.0, 0.0, 2.0, INF], requires_grad=True)
    expected = {
        0.0: ([-INF, -1.0, -0.0, 0.0, 1.0, INF], [0.5] * 6, [INF, 1.0, 0.0, 0.0, 1.0, INF]),
        INF: ([-0.0, -0.0, -0.0, 0.0, 2.0, INF], [0.0, 0.0, 0.5, 0.5, 1.0, 1.0], [0.0] * 6),
        -INF: ([-INF, -2.0, -0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.5, 0.5, 0.0, 0.0], [0.0] * 6),
    }
    for beta, (values, slopes, beta_slopes) in expected.items():
        for given in (beta, torch.full((6,), beta, requires_grad=True)):
            y = G.swish(x, given)
            assert y.tolist() == values
            assert torch.signbit(y).tolist() == [math.copysign(1, v) < 0 for v in values]
            grads = torch.autograd.grad(y.sum(), [x, given] if isinstance(given, Tensor) else [x])
            assert grads[0].tolist() == slopes
            if len(grads) == 2:
                assert grads[1].tolist() == beta_slopes


def test_the_second_derivatives_in_beta_have_their_limits() -> None:
    x = torch.tensor([-INF, -1e30, 1e30, INF], requires_grad=True)
    beta = torch.ones(4, requires_grad=True)
    grads = torch.autograd.grad(G.swish(x, beta).sum(), [x, beta], create_graph=True)
    for grad in grads:
        for second in torch.autograd.grad(grad.sum(), [x, beta], create_graph=True):
            assert second.tolist() == [0.0] * 4


def test_an_infinite_number_is_a_step_and_one_past_float32_is_refused() -> None:
    x = torch.tensor([-2.0, 0.0, 2.0], requires_grad=True)
    for beta in (1e300, 1e-300, 10**300):
        with pytest.raises(ValueError, match=r"swish: beta must be 0 or of a magnitude from 2\*\*-126 to 2\*\*128"):
            G.vjp(G.swish, x, beta)
    y = G.swish(x, math.inf)
    assert y.tolist() == [0.0, 0.0, 2.0]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0.0, 0.5, 1.0]


def test_no_partial_product_leaves_the_range_when_the_result_does_not() -> None:
    # In float32 gate * value = 9e76 and e^-171 = 5e-75 are no numbers, nor is value * c = 1e42; the products are.
    gate, value = torch.tensor([3e38, -3e38, 1e-37], requires_grad=True), torch.tensor([3e38, 3e38, 1e38])
    beta = torch.tensor([-5.7e-37, 5.7e-37, -3e38], requires_grad=True)
    c = torch.tensor([1.0, 1.0, 1e4])
    g, v, b = (one.detach().double().requires_grad_() for one in (gate, value, beta))
    ours = [G.gated_unit(gate, value, beta=beta), *torch.autograd.grad(G.gated_unit(gate, value, beta=beta), gate, c)]
    plain = g * torch.sigmoid(b * g) * v
    # z = -171 is rounded by up to half a unit in its last place, which is a relative 1e-5 of e^z.
    torch.testing.assert_close(ours[0].double(), plain, rtol=1e-4, atol=0)
    torch.testing.assert_close(ours[1].double(), torch.autograd.grad(plain, g, c.double())[0], rtol=1e-4, atol=0)


def test_the_tail_of_gelu_keeps_its_digits_without_any_allowance_for_its_exponential() -> None:
    # e^(-x^2/2) with x^2/2 rounded would be off by up to 40 units in the last place here.
    x = torch.linspace(-12.9, 0, 20001, dtype=torch.float32)
    exact = plain_activation("gelu", x.double())
    ulp = 2.0 ** (torch.frexp(exact).exponent.clamp_min(-125) - 24)
    assert ((G.gelu(x).double() - exact).abs() / ulp).max() < 5


def test_an_activation_too_small_for_the_dtype_is_not_zero_beside_a_large_or_infinite_value() -> None:
    gate = torch.tensor([-100.0, -200.0, -INF])
    value = torch.tensor([1e30, INF, INF])
    for activation in ("sigmoid", "swish", "gelu", "gelu_tanh"):
        if activation.startswith("gelu"):
            gate = gate / 7
        exact = plain_activation(activation, gate.double()) * 1e30
        y = G.gated_unit(gate, value, activation=activation)
        # e^-t with t up to 102, whose rounding costs t half units in the last place.
        assert y[0].item() == pytest.approx(exact[0].item(), rel=1e-4)
        assert y[1].item() == (INF if activation == "sigmoid" else -INF)
        assert y[2].isnan()
