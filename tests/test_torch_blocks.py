"""Large CPU tensors in the PyTorch backend: blocks, threads and memory change no result."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from _torch import ACTIVATIONS, LAYOUTS, Tensor, assert_same, halves, plain_activation, randn  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it
from gated.torch_impl import _memory  # noqa: E402

# More than one block of up to three threads, and sizes that are multiples of no other.
ROWS, COLUMNS = 131, 2111
# Two results of float32, of terms up to 8, each within 8 units in the last place. Not to the bit: torch has one
# exponential for vectors and one for what is left over, and where that is depends on the threads.
LAST_PLACES = {"rtol": 2e-6, "atol": 16e-6}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[1, 2, 3, 8], ids=lambda threads: f"{threads} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def gradients(fn: Callable[..., Tensor], inputs: tuple[Tensor, ...], c: Tensor) -> tuple[Tensor, ...]:
    leaves = [one.detach().requires_grad_() for one in inputs]
    value = fn(*leaves)
    return value, *torch.autograd.grad(value, leaves, c)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_packed_arrays_of_many_blocks_are_the_formula(layout: str, axis: int, threads: None) -> None:
    shape = [7, 19, COLUMNS]
    shape[axis] *= 2
    x, c = randn(*shape), randn(7, 19, COLUMNS)

    def plain(x: Tensor) -> Tensor:
        gate, value = (half.movedim(-1, axis) for half in halves(x.movedim(axis, -1), layout))
        return plain_activation("swish", gate) * value

    ours = gradients(lambda x: G.swiglu(x, axis=axis, layout=layout), (x,), c)
    assert_same(ours, gradients(plain, (x,), c))


@pytest.mark.parametrize("beta_shape", [(), (COLUMNS,), (ROWS, 1), (1, 1), (1, COLUMNS), (ROWS, COLUMNS)])
def test_the_gradient_of_a_beta_sums_the_terms_of_all_blocks(beta_shape: tuple[int, ...], threads: None) -> None:
    gate, value, c, beta = randn(ROWS, COLUMNS), randn(ROWS, COLUMNS), randn(ROWS, COLUMNS), randn(*beta_shape)
    ours = gradients(lambda g, v, b: G.gated_unit(g, v, beta=b), (gate, value, beta), c)
    plain = gradients(lambda g, v, b: plain_activation("swish", g, b) * v, (gate, value, beta), c)
    assert_same(ours[:3], plain[:3])
    # n terms of size about 1, added up in another order.
    torch.testing.assert_close(ours[3], plain[3], rtol=1e-12, atol=ROWS * COLUMNS * 2.0**-53)


@pytest.mark.parametrize("beta_shape", [(COLUMNS,), (ROWS, 1)])
def test_the_gradient_of_a_beta_beside_transposed_arrays(beta_shape: tuple[int, ...], threads: None) -> None:
    gate, value, c = (randn(COLUMNS, ROWS).T for _ in range(3))
    beta = randn(*beta_shape)
    ours = gradients(lambda g, v, b: G.gated_unit(g, v, beta=b), (gate, value, beta), c)
    plain = gradients(lambda g, v, b: plain_activation("swish", g, b) * v, (gate, value, beta), c)
    assert_same(ours[:3], plain[:3])
    torch.testing.assert_close(ours[3], plain[3], rtol=1e-12, atol=ROWS * COLUMNS * 2.0**-53)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_dtypes_are_the_formula_in_float64_rounded(activation: str, dtype: torch.dtype) -> None:
    gate, value, c = (randn(ROWS, COLUMNS).mul_(3).to(dtype) for _ in range(3))
    ours = gradients(lambda g, v: G.gated_unit(g, v, activation=activation), (gate, value), c)
    wide = (gate.double(), value.double())
    exact = gradients(lambda g, v: plain_activation(activation, g) * v, wide, c.double())
    # 8 units in the last place of the largest term; a unit of bfloat16 is 2^16 of float32, and its rounding a half.
    unit = torch.finfo(dtype).eps
    bound = 8 * unit if dtype == torch.float32 else 0.51 * unit
    g, v = wide
    s = torch.sigmoid(g)
    scales = [exact[0].abs(), (c * v).abs().double() * (1 + (g * s * (1 - s)).abs()) * 1.1, exact[2].abs()]
    for result, truth, scale in zip(ours, exact, scales, strict=True):
        assert ((result.double() - truth).abs() <= bound * scale + 1e-37).all()


@pytest.mark.parametrize("view", ["transposed", "sliced", "expanded", "flipped", "reversed axes"])
def test_arrays_of_many_blocks_in_any_strides(view: str, threads: None) -> None:
    base = randn(2 * ROWS, 2 * COLUMNS)
    x = {
        "transposed": lambda: base.T,
        "sliced": lambda: base[:, : 2 * COLUMNS - 2 : 2],
        "expanded": lambda: base[:1].expand(ROWS, -1),
        "flipped": lambda: base.flip(1),
        "reversed axes": lambda: base.reshape(2, ROWS, 2, COLUMNS).permute(3, 2, 1, 0),
    }[view]()
    c = randn(*x.shape[:-1], x.shape[-1] // 2).mT.contiguous().mT
    assert_same(gradients(G.swiglu, (x,), c), gradients(G.swiglu, (x.contiguous(),), c.contiguous()))


def test_extreme_numbers_do_not_touch_those_beside_them(threads: None) -> None:
    gate, value, c = (torch.randn(ROWS, COLUMNS) for _ in range(3))
    before = gradients(G.gated_unit, (gate, value), c)
    extremes = torch.tensor([torch.nan, torch.inf, -torch.inf, 3e38, -3e38, -90.0, 1e-45])
    places = torch.arange(0, gate.numel(), 997)
    mixed = gate.clone()
    mixed.view(-1)[places] = extremes.repeat(len(places))[: len(places)]
    after = gradients(G.gated_unit, (mixed, value), c)
    ordinary = torch.ones(gate.numel(), dtype=torch.bool)
    ordinary[places] = False
    for old, new in zip(before, after, strict=True):
        # Two results within 8 units in the last place of the exact one; the largest term is below 1.3 times c v.
        scale = torch.maximum(new.abs(), 1.3 * (c * value).abs()).view(-1)[ordinary]
        error = (old - new).view(-1)[ordinary].abs()
        assert (error <= 16 * torch.finfo(torch.float32).eps * scale).all()
    alone = gradients(G.gated_unit, (mixed.view(-1)[places], value.view(-1)[places]), c.view(-1)[places].contiguous())
    for one, new in zip(alone, after, strict=True):
        torch.testing.assert_close(new.view(-1)[places], one, rtol=2e-6, atol=0, equal_nan=True)


def test_modes_and_default_devices_reach_the_blocks(threads: None) -> None:
    x = torch.randn(ROWS, 2 * COLUMNS, requires_grad=True)
    value = G.swiglu(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(G.swiglu(x), value, **LAST_PLACES)
    with torch.inference_mode():
        result = G.swiglu(x)
    assert result.is_inference()
    torch.testing.assert_close(result.clone(), value, **LAST_PLACES)
    with torch.device("meta"):
        result = G.swiglu(x).detach()
    torch.testing.assert_close(result, value, **LAST_PLACES)


def test_many_threads_may_call_at_once() -> None:
    xs = [torch.randn(ROWS, 2 * COLUMNS, requires_grad=True) for _ in range(6)]
    c = torch.randn(ROWS, COLUMNS)

    def work(x: Tensor) -> tuple[Tensor, ...]:
        torch.set_num_threads(2)
        return gradients(G.swiglu, (x,), c)

    before = torch.get_num_threads()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        together = list(pool.map(work, xs))
    torch.set_num_threads(before)
    for x, results in zip(xs, together, strict=True):
        # One thread or two: the blocks are of other sizes, and torch's exponentials depend on that.
        torch.testing.assert_close(results, gradients(G.swiglu, (x,), c), **LAST_PLACES)


def test_large_results_are_the_same_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3000, 6000)
    assert x.nbytes / 2 >= _memory.LARGE
    calls: list[Any] = []
    monkeypatch.setattr(_memory, "ADVISE", lambda *where: calls.append(where))
    value = G.swiglu(x)
    ((address, size),) = calls
    # Whole pages within the result.
    assert value.data_ptr() <= address and address + size <= value.data_ptr() + value.nbytes
    assert address % 4096 == size % 4096 == 0 and size > value.nbytes - 2 * 4096
    monkeypatch.setattr(_memory, "ADVISE", None)
    torch.testing.assert_close(G.swiglu(x), value, **LAST_PLACES)


def test_the_pages_of_a_large_result_are_touched_by_every_thread(threads: None) -> None:
    x = torch.empty(1500, 3001, 4).permute(2, 0, 1)  # dense, in another order
    assert x.nbytes >= _memory.LARGE
    result = _memory.new_like(x)
    assert result.shape == x.shape and result.stride() == x.stride()
    if torch.get_num_threads() > 1:
        flat = torch.full_like(x, 7.0).as_strided((x.numel(),), (1,))
        _memory._touch(flat)
        touched = (flat == 0).nonzero().view(-1)
        assert len(touched) == torch.get_num_threads() * 2**15  # torch shares so many among all threads
        page = 2**21 // 4
        assert touched[0] == 0 and touched.diff().max() <= page and x.numel() - touched[-1] <= page
