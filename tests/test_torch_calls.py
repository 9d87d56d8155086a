"""What a call of the PyTorch backend does to the caller's tensors, and what ``vjp`` and ``jvp`` make of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from _torch import ALL_UNITS, Tensor, assert_same, randn  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL_UNITS)
def test_inputs_are_never_written_and_a_second_backward_gives_the_same(name: str, dtype: torch.dtype) -> None:
    x = (10 * randn(4, 8)).to(dtype).requires_grad_()
    c = randn(4, 4).to(dtype)
    before = x.detach().clone(), c.clone(), x._version, c._version
    y = ALL_UNITS[name](x)
    (first,) = torch.autograd.grad(y, x, c, retain_graph=True)
    (second,) = torch.autograd.grad(y, x, c)
    assert torch.equal(first, second)
    assert torch.equal(x, before[0]) and torch.equal(c, before[1])
    assert (x._version, c._version) == before[2:]
    assert first.dtype == dtype and first.shape == x.shape


def test_one_tensor_as_gate_and_value_gets_both_gradients() -> None:
    x = randn(5, requires_grad=True)
    (ours,) = torch.autograd.grad(G.gated_unit(x, x).sum(), x)
    (plain,) = torch.autograd.grad((x * x * torch.sigmoid(x)).sum(), x)
    assert_same(ours, plain)


@pytest.mark.parametrize("which", [c for n in (1, 2, 3) for c in itertools.combinations(range(3), n)])
def test_any_subset_of_the_inputs_may_need_gradients(which: tuple[int, ...]) -> None:
    inputs = [randn(4), randn(4), randn(1)]
    for place in which:
        inputs[place].requires_grad_()
    wanted = [inputs[place] for place in which]
    g, v, b = inputs
    ours = torch.autograd.grad(G.gated_unit(g, v, beta=b).sum(), wanted)
    assert_same(ours, torch.autograd.grad((g * torch.sigmoid(b * g) * v).sum(), wanted))


@pytest.mark.parametrize("name", ALL_UNITS)
def test_strides_do_not_matter(name: str) -> None:
    fn = ALL_UNITS[name]
    base = randn(8, 6, 4)
    views = [base.transpose(0, 2), base[::2, :, ::2], base[:1, :1].expand(5, 3, 4), base.flip(0), base.permute(1, 2, 0)]
    for view in views:
        # Not to the bit: torch computes what it cannot load as a vector with another exponential.
        assert_same(fn(view), fn(view.contiguous()))
        leaf, dense = view.detach().requires_grad_(), view.detach().contiguous().requires_grad_()
        assert_same(torch.autograd.grad(fn(leaf).sum(), leaf), torch.autograd.grad(fn(dense).sum(), dense))


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), ()])
def test_empty_and_0d_arrays(shape: tuple[int, ...]) -> None:
    x = randn(*shape, requires_grad=True)
    beta = randn(requires_grad=True)
    y = G.swish(x, beta)
    assert y.shape == x.shape
    grads = torch.autograd.grad(y.sum(), [x, beta])
    assert grads[0].shape == x.shape and grads[1].shape == ()
    if shape:
        assert G.swiglu(x.new_zeros(*shape[:-1], 0)).shape == (*shape[:-1], 0)


def test_without_gradients_nothing_is_recorded() -> None:
    x = randn(4, requires_grad=True)
    with torch.no_grad():
        assert not G.swiglu(x).requires_grad
    with torch.inference_mode():
        assert G.swiglu(x).is_inference()
    assert not G.swiglu(x.detach()).requires_grad


@pytest.mark.parametrize("name", ALL_UNITS)
def test_the_input_alone_is_saved(name: str) -> None:
    x = randn(4, 8, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one) or one, lambda one: one):
        ALL_UNITS[name](x)
    assert {one.data_ptr() for one in saved} == {x.data_ptr()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_gradients_and_a_number_beta_are_rounded_once(dtype: torch.dtype) -> None:
    gate, value, c = (4 * randn(1000)).to(dtype), randn(1000).to(dtype), randn(1000).to(dtype)
    beta = 1.1  # not a number of either dtype
    _, pull = G.vjp(G.gated_unit, gate, value, beta)
    results = pull(c)
    leaves_ = [
        gate.double().requires_grad_(),
        value.double().requires_grad_(),
        torch.tensor(beta, dtype=torch.float64).requires_grad_(),
    ]
    g, v, b = leaves_
    exact = torch.autograd.grad((g * torch.sigmoid(b * g) * v), leaves_, c.double())
    for ours, truth in zip(results[:2], exact[:2], strict=True):
        # float32's error is beneath a hundredth of a 16-bit unit: wrong roundings can only be those of near ties.
        assert (ours != truth.to(dtype)).float().mean() < 0.01
        torch.testing.assert_close(ours.double(), truth, rtol=1.01 * torch.finfo(dtype).eps / 2, atol=1e-7)
    assert results[2].shape == () and results[2].dtype == dtype
    torch.testing.assert_close(results[2].double(), exact[2], rtol=1.01 * torch.finfo(dtype).eps / 2, atol=1e-4)


def test_a_view_with_its_sign_in_a_flag_is_a_tensor_like_any_other() -> None:
    flagged = torch.complex(torch.ones(4), torch.tensor([0.5, -2.0, 1.0, -0.25])).conj().imag
    assert flagged.is_neg()
    plain = flagged.resolve_neg().clone()
    for fn, arguments in ((G.silu, {}), (G.relu, {}), (G.swiglu, {}), (G.bilinear, {})):
        value, pullback = G.vjp(fn, flagged, **arguments)
        expected, expected_pullback = G.vjp(fn, plain, **arguments)
        assert torch.equal(value, expected)
        cotangent = flagged[: value.numel()]
        assert torch.equal(pullback(cotangent)[0], expected_pullback(plain[: value.numel()])[0])


# vjp and jvp


def test_vjp_and_jvp_of_every_function_agree() -> None:
    x, w, w2 = randn(2, 4), randn(4, 6), randn(6, 3)
    cases: dict[Callable[..., Tensor], tuple[Any, ...]] = {
        **dict.fromkeys((G.sigmoid, G.silu, G.gelu, G.relu, *ALL_UNITS.values()), (x,)),
        G.swish: (x, 1.5),
        G.swiglu: (x, 1.5),
        G.gated_unit: (x, randn(2, 4), randn(4)),
        G.glu_linear: (x, w, randn(4, 6), None, randn(6)),
        G.swiglu_linear: (x, w, randn(4, 6), randn(6), None, 0.7),
        G.gated_linear: (x, w, randn(4, 6), None, None, randn(6)),
        G.gated_ffn: (x, w, randn(4, 6), w2, None, randn(6), None, 0.7),
    }
    assert len(cases) == 16
    for fn, primals in cases.items():
        value, pull = G.vjp(fn, *primals)
        c = randn(*value.shape)
        cotangents = pull(c)
        tangents = [None if one is None else randn(*one.shape) if isinstance(one, Tensor) else 0.25 for one in primals]
        value_again, tangent = G.jvp(fn, primals, tangents)
        assert torch.equal(value, value_again)
        total = 0.0
        for primal, cotangent, direction in zip(primals, cotangents, tangents, strict=True):
            if primal is None:
                assert cotangent is None
                continue
            assert cotangent.shape == (primal.shape if isinstance(primal, Tensor) else ())
            assert cotangent.dtype == torch.float64
            total = total + (cotangent * direction).sum()
        assert_same((c * tangent).sum(), total)
        assert_same(pull(c), cotangents)


def test_vjp_takes_constants_by_keyword_and_ignored_betas() -> None:
    x, v = randn(4), randn(4)
    assert_same(G.vjp(G.swish, x, beta=2.0)[1](v), torch.func.vjp(lambda x: x * torch.sigmoid(2 * x), x)[1](v))
    assert G.vjp(G.gated_unit, x, v, 2.0, activation="gelu")[1](v)[2].item() == 0
    assert G.vjp(G.gated_unit, x, v, randn(4), activation="relu")[1](v)[2].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: G.vjp(torch.sin, x), TypeError, "vjp: fn must be a function of this backend"),
        (lambda x: G.vjp(G.silu, x, x), TypeError, r"vjp: silu takes 1 primal \(x\), got 2"),
        (
            lambda x: G.vjp(G.swish, x, 1.0, beta=1.0),
            TypeError,
            "beta of swish must be a primal or a keyword, got both",
        ),
        (lambda x: G.vjp(G.swish, [1.0], 1.0), TypeError, "swish: x must be an array of this backend"),
        (lambda x: G.vjp(G.swish, x, True), TypeError, "swish: beta must be a Python number or an array"),
        (lambda x: G.vjp(G.swish, x, 10**400), ValueError, "swish: beta must fit in a float"),
        (lambda x: G.vjp(G.silu, x)[1](x.float()), TypeError, "the cotangent must have the dtype of the value"),
        (lambda x: G.vjp(G.silu, x)[1](x[:1]), ValueError, "the cotangent must have the shape of the value"),
        (lambda x: G.jvp(G.silu, (x,), (x[:1],)), ValueError, "the tangent of x must have the shape of x"),
        (lambda x: G.jvp(G.silu, x, (x,)), TypeError, "jvp: primals must be a tuple or a list"),
    ],
)
def test_vjp_and_jvp_refuse_what_does_not_fit(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(randn(3))
