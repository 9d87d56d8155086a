"""What is special to the PyTorch backend: differentiation in every mode, aliasing, modules, memory, compilers.

Values here are compared in float64 with the formula in plain torch operations, to a few rounding errors of either;
exact accuracy is the business of the conformance tests.
"""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import gated.torch_impl as G  # noqa: E402 - G as the design has it
from gated.torch_impl import nn as gated_nn  # noqa: E402

Tensor = torch.Tensor
INF = math.inf
ACTIVATIONS = ("identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish")
LAYOUTS = ("gate_last", "gate_first", "interleaved")
# Both sides of a comparison are off by a few units in the last place of terms of size about 1 to 10.
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def randn(*shape: int, requires_grad: bool = False) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).requires_grad_(requires_grad)


def plain_activation(name: str, x: Tensor, beta: Any = 1.0) -> Tensor:
    """The formula, to be differentiated by torch itself. Good for ordinary numbers."""
    if name == "identity":
        return x
    if name == "sigmoid":
        return torch.sigmoid(x)
    if name == "relu":
        return x * (x > 0)
    if name == "gelu":
        return x * torch.erfc(-x / math.sqrt(2)) / 2
    if name == "gelu_tanh":
        return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return x * torch.sigmoid(beta * x)


def halves(x: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """Gate and value of a packed array, along its last axis."""
    if layout == "interleaved":
        return x[..., 0::2], x[..., 1::2]
    first, last = x.chunk(2, -1)
    return (first, last) if layout == "gate_first" else (last, first)


def leaves(tree: Any) -> list[Tensor]:
    return list(torch.utils._pytree.tree_leaves(tree))


def assert_same(ours: Any, plain: Any) -> None:
    for a, b in zip(leaves(ours), leaves(plain), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


# Every mode of differentiation


DIFFERENTIABLE: dict[str, tuple[Callable[..., Tensor], Callable[[], tuple[Tensor, ...]]]] = {
    **{
        f"gated_unit-{name}": (
            lambda g, v, name=name: G.gated_unit(g, v, activation=name),
            lambda: (randn(3, 2), randn(3, 2)),
        )
        for name in ACTIVATIONS
    },
    "gated_unit-beta-row": (lambda g, v, b: G.gated_unit(g, v, beta=b), lambda: (randn(3, 2), randn(3, 2), randn(2))),
    "gated_unit-beta-0d": (lambda g, v, b: G.gated_unit(g, v, beta=b), lambda: (randn(3, 2), randn(3, 2), randn())),
    **{
        f"swiglu-{layout}": (
            lambda x, b, layout=layout: G.swiglu(x, b, axis=0, layout=layout),
            lambda: (randn(4, 3), randn(2, 1)),
        )
        for layout in LAYOUTS
    },
    **{
        f"clamped_swiglu-{layout}": (
            lambda x, layout=layout: G.clamped_swiglu(x, limit=0.9, layout=layout),
            lambda: (randn(2, 6),),
        )
        for layout in LAYOUTS
    },
    "swish": (G.swish, lambda: (randn(3), randn(3))),
    "gelu": (G.gelu, lambda: (randn(3),)),
    "gated_ffn": (
        lambda x, W, V, W2, b, c, b2, beta: G.gated_ffn(x, W, V, W2, b, c, b2, beta=beta),
        lambda: (randn(2, 2), randn(2, 3), randn(2, 3), randn(3, 2), randn(3), randn(3), randn(2), randn(3)),
    ),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradcheck_in_reverse_and_forward_mode_and_at_second_order(name: str) -> None:
    fn, make = DIFFERENTIABLE[name]
    inputs = tuple(one.requires_grad_() for one in make())
    assert torch.autograd.gradcheck(fn, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(fn, inputs, check_fwd_over_rev=True, check_rev_over_rev=True)


MODES = ["".join(modes) for order in (1, 2, 3) for modes in itertools.product("rf", repeat=order)]


@pytest.mark.parametrize("modes", MODES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_nesting_of_jacrev_and_jacfwd_up_to_third_order_is_right(activation: str, modes: str) -> None:
    # "fff" and "rff" are silently zero where a jvp rule computes with plain operations (pytorch#197867).
    beta = activation == "swish"
    inputs = (randn(2), randn(2), randn(1)) if beta else (randn(2), randn(2))

    def ours(g: Tensor, v: Tensor, b: Any = 1.0) -> Tensor:
        return G.gated_unit(g, v, activation=activation, beta=b)

    def plain(g: Tensor, v: Tensor, b: Any = 1.0) -> Tensor:
        return plain_activation(activation, g, b) * v

    places = tuple(range(len(inputs)))
    results = []
    for fn in (ours, plain):
        for mode in modes:
            fn = (torch.func.jacrev if mode == "r" else torch.func.jacfwd)(fn, places)
        results.append(fn(*inputs))
    assert_same(*results)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_units_have_right_hessians_in_both_modes(layout: str) -> None:
    x, beta = randn(6), randn(1)

    def plain(x: Tensor, beta: Tensor) -> Tensor:
        gate, value = halves(x, layout)
        return plain_activation("swish", gate, beta) * value

    def ours(x: Tensor, beta: Tensor) -> Tensor:
        return G.swiglu(x, beta, layout=layout)

    for outer, inner in itertools.product((torch.func.jacfwd, torch.func.jacrev), repeat=2):
        assert_same(outer(inner(ours, (0, 1)), (0, 1))(x, beta), outer(inner(plain, (0, 1)), (0, 1))(x, beta))


@pytest.mark.parametrize("dims", [(0, None, None), (None, None, 0), (0, 1, None), (1, 0, 0), (None, 0, 0)])
def test_vmap_of_values_gradients_and_hessians_is_the_loop(dims: tuple[int | None, ...]) -> None:
    batch, shapes = 3, ((2,), (2,), (1,))
    inputs = []
    for shape, dim in zip(shapes, dims, strict=True):
        full = list(shape)
        if dim is not None:
            full.insert(dim, batch)
        inputs.append(randn(*full))

    def unit(g: Tensor, v: Tensor, b: Tensor) -> Tensor:
        return G.gated_unit(g, v, beta=b)

    def scalar(g: Tensor, v: Tensor, b: Tensor) -> Tensor:
        return unit(g, v, b).sin().sum()

    for fn in (unit, torch.func.grad(scalar, (0, 1, 2)), torch.func.hessian(scalar, (0, 1, 2))):
        mapped = leaves(torch.vmap(fn, in_dims=dims)(*inputs))
        rows = [
            leaves(fn(*(one if dim is None else one.select(dim, i) for one, dim in zip(inputs, dims, strict=True))))
            for i in range(batch)
        ]
        assert_same(mapped, [torch.stack(column) for column in zip(*rows, strict=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_vmap_keeps_the_packed_axis(layout: str, axis: int) -> None:
    def unit(x: Tensor) -> Tensor:
        return G.swiglu(x, axis=axis, layout=layout)

    for dim in (0, 1, 2):
        shape = [4, 6]
        shape.insert(dim, 3)
        x = randn(*shape)
        assert_same(torch.vmap(unit, in_dims=dim)(x), torch.stack([unit(one) for one in x.unbind(dim)]))


def test_forward_mode_by_dual_tensors_is_the_jvp() -> None:
    x, t = randn(5), randn(5)
    with torch.autograd.forward_ad.dual_level():
        dual = G.gelu(torch.autograd.forward_ad.make_dual(x, t))
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    assert_same(tangent, G.jvp(G.gelu, (x,), (t,))[1])


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


# What a call does to the caller's tensors


ALL_UNITS: dict[str, Callable[..., Tensor]] = {
    "glu": G.glu,
    "bilinear": G.bilinear,
    "reglu": G.reglu,
    "geglu": G.geglu,
    "swiglu": G.swiglu,
    "clamped_swiglu": G.clamped_swiglu,
}


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
        assert torch.equal(fn(view), fn(view.contiguous()))
        leaf, dense = view.detach().requires_grad_(), view.detach().contiguous().requires_grad_()
        assert torch.equal(torch.autograd.grad(fn(leaf).sum(), leaf)[0], torch.autograd.grad(fn(dense).sum(), dense)[0])


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


# Compilers


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


# Modules


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
