"""The Triton kernels on a GPU: ``pytest -m gpu``. Where there is none, as in CI, nothing of this runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
pytest.importorskip("flint")

import _triton  # noqa: E402
from _bounds import term  # noqa: E402
from _triton import ELEMENTWISE, LIMITS, use_kernels_only  # noqa: E402
from _triton_views import in_flag  # noqa: E402

import gated.torch_impl as G  # noqa: E402
from gated.conformance.error import FORMATS  # noqa: E402
from gated.torch_impl import kernels  # noqa: E402
from gated.torch_impl.nn import GatedFFN  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: no GPU has run this test yet"),
]


@pytest.fixture
def kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.status().startswith("used"), kernels.status()
    use_kernels_only("cuda", monkeypatch.setattr)


@pytest.mark.parametrize("function", ELEMENTWISE)
@pytest.mark.parametrize("dtype", LIMITS)
def test_kernels_are_within_the_contract_without_its_allowance(function: str, dtype: str, kernels_only: None) -> None:
    for one in _triton.grade(function, dtype, 1, 16384, "cuda"):
        assert one.share <= 1, one
        assert one.summed or one.error <= LIMITS[dtype][one.gradient], one


def _results(x: Any, beta: Any) -> list[Any]:
    x, beta = (one.detach().requires_grad_() for one in (x, beta))
    y = G.swiglu(x, beta, layout="interleaved")
    return [y.detach(), *torch.autograd.grad(y, (x, beta), torch.ones_like(y))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_device_gives_the_bits_of_the_interpreter(dtype: Any) -> None:
    """Kernels divide and exponentiate by the same IEEE operations everywhere."""
    numbers = (8 * torch.randn(4096, dtype=torch.float64)).to(dtype)
    ours = [one.cpu().numpy() for one in _results(numbers.cuda(), torch.full((2048,), 1.3, dtype=dtype).cuda())]
    expected = _triton.interpreted(_triton.swiglu_bits, numbers.numpy())
    assert [one.tobytes() for one in ours] == [one.tobytes() for one in expected]


def test_the_same_call_gives_the_same_bits_and_its_inputs_stay(kernels_only: None) -> None:
    x, beta = torch.randn(513, 4098, device="cuda"), torch.tensor(0.7, device="cuda")
    copy = x.clone()
    first, second = _results(x, beta), _results(x, beta)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(x, copy)


def test_a_side_stream_is_used(kernels_only: None) -> None:
    x = torch.randn(1 << 20, device="cuda")
    expected = G.silu(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = G.silu(x)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(y, expected)


def test_a_graph_captures_them(kernels_only: None) -> None:
    x = torch.randn(4096, device="cuda")
    G.silu(x)  # compiles: a capture must not
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = G.silu(x)
    x.copy_(torch.randn(4096, device="cuda"))
    graph.replay()
    assert torch.equal(y, G.silu(x))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_a_device_that_is_not_the_current_one_is_used(kernels_only: None) -> None:
    x = torch.randn(4096, device="cuda:1")
    assert torch.equal(G.silu(x).cpu(), G.silu(x.to("cuda:0")).cpu())


def assert_silu_within_the_contract(silu: Callable[[Any], Any], device: str) -> None:
    """Value and gradient in float32, held against the exact ones."""
    x, c = (8 * np.random.default_rng(5).standard_normal((2, 4096))).astype(np.float32)
    leaf = torch.from_numpy(x).to(device).requires_grad_()
    value = silu(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, torch.from_numpy(c).to(device))
    for result, partial, cotangent in ((value, "value", 1.0), (gradient, "x", c)):
        exact = term(FORMATS["float32"], "torch", "swish", partial, x, 1.0, cotangent, 1.0, gradient=partial == "x")
        error = np.abs(result.detach().cpu().numpy().astype(np.float64) - exact.high)
        assert exact.judged.all() and bool((error <= exact.unrounded).all())


def test_compiled_code_has_plain_operations_within_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_here(*operands: Any) -> Any:
        raise AssertionError("a kernel in a compiled region")

    monkeypatch.setattr(kernels, "evaluate", not_here)
    monkeypatch.setattr(kernels, "pullback", not_here)
    assert_silu_within_the_contract(torch.compile(G.silu, fullgraph=True), "cuda")


@pytest.mark.parametrize("place", range(4), ids=["x", "value", "cotangent", "beta"])
def test_a_sign_in_a_flag_is_seen(place: int, kernels_only: None) -> None:
    operands = [torch.randn(1031, device="cuda") for _ in range(4)]
    expected = _of_a_pair(*operands)
    operands[place] = in_flag(operands[place])
    assert all(map(torch.equal, _of_a_pair(*operands), expected))


def _of_a_pair(x: Any, value: Any, cotangent: Any, beta: Any) -> list[Any]:
    x, value, beta = (one.detach().requires_grad_() for one in (x, value, beta))
    y = G.gated_unit(x, value, activation="swish", beta=beta)
    return [y.detach(), *torch.autograd.grad(y, (x, value, beta), cotangent)]


def test_an_element_alone_gives_the_bits_that_it_gives_among_others(kernels_only: None) -> None:
    operands = [torch.randn(4096 + 17, device="cuda") for _ in range(4)]
    among = _of_a_pair(*operands)
    for part in (slice(1, None), slice(0, None, 3), slice(77, 78)):  # unaligned, stepped over, one
        alone = _of_a_pair(*(one[part] for one in operands))
        assert all(torch.equal(ours, whole[part]) for ours, whole in zip(alone, among, strict=True))


def test_more_than_two_to_the_31_elements() -> None:
    size = 2**31 + 4096
    if torch.cuda.mem_get_info()[0] < 5 * size:
        pytest.skip("needs 10 GB of the GPU's memory")
    x = torch.zeros(size, dtype=torch.float16, device="cuda")
    x[-4096:] = torch.linspace(-8, 8, 4096, device="cuda")
    y = G.silu(x)
    assert torch.equal(y[-4096:], G.silu(x[-4096:].clone())) and not bool(y[:4096].any())


def test_a_module_trains(kernels_only: None) -> None:
    module = GatedFFN(64, 160, learn_beta=True, device="cuda")
    module(torch.randn(8, 64, device="cuda")).square().sum().backward()
    assert all(one.grad is not None and bool(one.grad.isfinite().all()) for one in module.parameters())
