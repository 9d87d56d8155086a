"""The PyTorch backend under every mode of differentiation and its nestings."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from _torch import ACTIVATIONS, LAYOUTS, Tensor, assert_same, halves, leaves, plain_activation, randn  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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


@pytest.mark.parametrize("create_graph", [False, True])
def test_forward_mode_over_backward_by_dual_tensors_is_the_second_derivative(create_graph: bool) -> None:
    x, t = randn(5), randn(5)
    forward_ad = torch.autograd.forward_ad
    results = []
    for fn in (G.silu, lambda x: plain_activation("swish", x)):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone().requires_grad_(), t)
            (gradient,) = torch.autograd.grad(fn(dual).sum(), dual, create_graph=create_graph)
            results.append(forward_ad.unpack_dual(gradient).tangent)
    assert_same(*results)
