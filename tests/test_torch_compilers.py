"""The PyTorch backend under compilers, exporters, fake tensors and autocast."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from _torch import INF, Tensor  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it
from gated.torch_impl import nn as gated_nn  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_compiled_functions_give_the_eager_values_and_gradients() -> None:
    def loss(x: Tensor, beta: Tensor) -> Tensor:
        return (G.swiglu(x, beta, layout="interleaved") + G.geglu(x) + G.clamped_swiglu(x)).square().sum()

    x, beta = torch.randn(4, 6, requires_grad=True), torch.tensor(1.5, requires_grad=True)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(x, beta), [x, beta])
    torch.testing.assert_close(ours, torch.autograd.grad(loss(x, beta), [x, beta]))
    edge = torch.tensor([[-INF, 1.0, 2.0, INF]], requires_grad=True)
    fn = torch.compile(G.silu, fullgraph=True, backend="aot_eager")
    assert torch.autograd.grad(fn(edge).sum(), edge)[0][0, ::3].tolist() == [0.0, 1.0]


def test_export_gives_plain_operations() -> None:
    program = torch.export.export(gated_nn.GatedFFN(4, 8), (torch.randn(2, 4),))
    assert all(
        node.target.namespace == "aten"
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    )


def test_meta_and_fake_tensors() -> None:
    x = torch.empty(3, 8, device="meta", requires_grad=True)
    y = G.swiglu(x)
    assert y.shape == (3, 4) and y.is_meta
    assert torch.autograd.grad(y.sum(), x)[0].shape == (3, 8)
    with torch._subclasses.FakeTensorMode():
        assert G.geglu(torch.randn(3, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_autocast_changes_the_products_and_keeps_a_beta() -> None:
    x, w, v = torch.randn(3, 4), torch.randn(4, 6), torch.randn(4, 6)
    beta = torch.tensor(1.1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = G.swiglu_linear(x, w, v, beta=beta)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert beta.grad.dtype == torch.float32
    assert G.silu(x).dtype == torch.float32
