"""Checks in several processes: the functions on DTensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _torch import ALL_UNITS, LAYOUTS, Tensor, assert_same, randn
from _torch_distributed import Collectives, World, check, full, placed
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

import gated.torch_impl as G

UNARY = {
    "sigmoid": G.sigmoid,
    "swish": lambda x: G.swish(x, 1.7),
    "silu": G.silu,
    "gelu": G.gelu,
    "gelu tanh": lambda x: G.gelu(x, approximate="tanh"),
    "relu": G.relu,
}
PLACEMENTS: tuple[tuple[Placement, ...], ...] = ((Shard(0),), (Shard(1),), (Replicate(),), (Partial(),))


def same_bits(a: Tensor, b: Tensor) -> None:
    assert torch.equal(a, b), f"{a} is not {b}"


@check(2)
def elementwise_functions_keep_the_placement_and_send_nothing(world: World) -> None:
    x = randn(5, 6)  # 5 rows: the shards differ in size
    for placement in PLACEMENTS:
        for function in UNARY.values():
            whole = placed(x, world.mesh(), placement)
            with Collectives() as sent:
                function(whole)
            y = function(whole)
            if placement[0].is_partial():
                assert y.placements == (Replicate(),) and sent.take() == {"all_reduce": 1}
                same_bits(y.to_local(), function(x))
            else:
                assert y.placements == placement and not sent.take()
                same_bits(y.to_local(), function(whole.to_local()))
            assert y.shape == x.shape and y.stride() == x.stride()
            assert_same(full(y), function(x))


@check(2, 4)
def a_packed_array_is_gathered_unless_its_shards_hold_pairs(world: World) -> None:
    mesh = world.mesh()
    for size, pairs in ((4 * world.size, True), (4 * world.size - 2, False), (2, False)):
        x = randn(3, size)
        for function in ALL_UNITS.values():
            for layout in LAYOUTS:
                whole = placed(x, mesh, (Shard(1),))
                with Collectives() as sent:
                    function(whole, layout=layout)
                y = function(whole, layout=layout)
                keeps = pairs and layout == "interleaved"
                assert y.placements == ((Shard(1),) if keeps else (Replicate(),)), (size, layout)
                counts = sent.take()
                assert not counts if keeps else set(counts) == {"all_gather_into_tensor"}, (size, layout, counts)
                if keeps:
                    same_bits(y.to_local(), function(whole.to_local(), layout=layout))
                assert_same(full(y), function(x, layout=layout))
                by_row = function(placed(x, mesh, (Shard(0),)), layout=layout)
                assert by_row.placements == (Shard(0),)
                assert_same(full(by_row), function(x, layout=layout))


def orders(call: Any, inputs: list[Tensor], cotangent: Tensor) -> list[list[Tensor]]:
    """The value, the gradients, and their second and third derivatives along all."""
    with_cotangent = [*inputs, cotangent]
    y = call(*inputs)
    first = torch.autograd.grad(y, inputs, cotangent, create_graph=True)
    second = torch.autograd.grad(
        sum(full(one).square().sum() for one in first), with_cotangent, create_graph=True, allow_unused=True
    )
    third = torch.autograd.grad(
        sum(full(one).sin().sum() for one in second if one is not None), with_cotangent, allow_unused=True
    )
    return [[y], *([one for one in order if one is not None] for order in (first, second, third))]


def leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def where(x: Tensor) -> tuple[Placement, ...] | None:
    """The placements of a gradient of ``x``: its own, replicated where a sum is pending; None for a plain tensor."""
    if not isinstance(x, DTensor):
        return None
    return tuple(Replicate() if one.is_partial() else one for one in x.placements)


@check(2)
def three_orders_of_gradients_are_those_of_one_process(world: World) -> None:
    mesh = world.mesh()
    gate, value, cotangent = randn(4, 6), randn(4, 6), randn(4, 6)
    betas: dict[str, tuple[Tensor, list[Placement]]] = {
        "0-d": (randn(), [Replicate()]),
        "a channel": (randn(6), [Replicate(), Shard(0)]),
        "a row": (randn(4, 1), []),
        "an element": (randn(4, 6), [Shard(1), Partial()]),
    }
    for places in (
        ((Shard(0),), (Shard(0),)),
        ((Shard(1),), (Shard(0),)),
        ((Replicate(),), (Partial(),)),
        ((Partial(),), (Shard(1),)),
    ):
        for beta, beta_places in betas.values():

            def unit(gate: Tensor, value: Tensor, beta: Tensor) -> Tensor:
                return G.gated_unit(gate, value, beta=beta)

            one = orders(unit, [leaf(gate), leaf(value), leaf(beta)], leaf(cotangent))
            pair = [leaf(placed(x, mesh, place)) for x, place in zip((gate, value), places, strict=True)]
            for place in (None, *beta_places):
                of_beta = leaf(beta if place is None else placed(beta, mesh, (place,)))
                # A pending cotangent is right, too.
                c = leaf(placed(cotangent, mesh, (Replicate() if place is None else Partial(),)))
                ours = orders(unit, [*pair, of_beta], c)
                # Sums of up to 24 terms in another order, and sums of their squares.
                for order, (a, b) in enumerate(zip(ours, one, strict=True)):
                    assert_same([full(x) for x in a], b)
                    assert order != 1 or [where(x) for x in a] == [where(x) for x in (*pair, of_beta)]


@check(2)
def gradients_of_packed_arrays_are_those_of_one_process(world: World) -> None:
    mesh = world.mesh()
    x, cotangent, beta = randn(4, 8), randn(4, 4), randn()
    for layout in LAYOUTS:

        def unit(x: Tensor, beta: Tensor, layout: str = layout) -> Tensor:
            return G.swiglu(x, beta, layout=layout)

        one = orders(unit, [leaf(x), leaf(beta)], leaf(cotangent))
        for placement in PLACEMENTS:
            c = leaf(placed(cotangent, mesh, (Replicate(),)))
            ours = orders(unit, [leaf(placed(x, mesh, placement)), leaf(beta)], c)
            for a, b in zip(ours, one, strict=True):
                assert_same([full(x) for x in a], b)


@check(2)
def a_16_bit_beta_has_its_gradient_summed_wide_and_rounded_once(world: World) -> None:
    mesh = world.mesh()
    # With beta = 0 the derivative in beta is gate^2 / 4: 2 + 2^-8 here and -2 there. bfloat16 keeps 2 of the former.
    gate = torch.tensor([2.0, 2.0, 2**-3, 2.0, 2.0, 0.0], dtype=torch.bfloat16)
    cotangent = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 0.0], dtype=torch.bfloat16)
    for beta in (torch.zeros((), dtype=torch.bfloat16), placed(gate.new_zeros(()), mesh, (Replicate(),))):
        b = leaf(beta)
        y = G.swish(placed(gate, mesh, (Shard(0),)), b)
        (gradient,) = torch.autograd.grad(y, b, placed(cotangent, mesh, (Shard(0),)))
        assert gradient.dtype == torch.bfloat16 and full(gradient).item() == 2**-8


@check(4)
def placements_on_two_mesh_dimensions(world: World) -> None:
    mesh = world.mesh(2, 2)
    gate, value, cotangent, beta = randn(4, 8), randn(4, 8), randn(4, 8), randn(8)
    S, R, P = Shard, Replicate(), Partial()

    def unit(gate: Tensor, value: Tensor, beta: Tensor) -> Tensor:
        return G.gated_unit(gate, value, beta=beta)

    one = orders(unit, [leaf(gate), leaf(value), leaf(beta)], leaf(cotangent))[:2]
    for of_gate, of_value in (
        ((S(0), S(1)), (S(0), S(1))),
        ((S(1), S(1)), (R, R)),
        ((S(0), P), (S(0), S(1))),
        ((P, S(1)), (S(0), R)),
        ((R, S(0)), (S(1), S(0))),
    ):
        pair = [leaf(placed(gate, mesh, of_gate)), leaf(placed(value, mesh, of_value))]
        for of_beta in (leaf(beta), leaf(placed(beta, mesh, (R, S(0))))):
            y = unit(*pair, of_beta)
            first = torch.autograd.grad(y, [*pair, of_beta], placed(cotangent, mesh, (R, R)))
            for a, b in zip([[y], first], one, strict=True):
                assert_same([full(x) for x in a], b)
    packed = randn(2, 16)
    for layout in LAYOUTS:
        for places in ((S(1), S(1)), (S(0), S(1)), (S(1), P)):
            y = G.swiglu(placed(packed, mesh, places), layout=layout)
            assert_same(full(y), G.swiglu(packed, layout=layout))


@check(4)
def shards_may_be_empty(world: World) -> None:
    x = randn(2, 6)
    whole = leaf(placed(x, world.mesh(), (Shard(0),)))  # two of the four have a row
    beta = leaf(randn())
    y = G.swish(whole, beta)
    assert_same(full(y), G.swish(x, beta))
    ours = torch.autograd.grad(full(y).square().sum(), [whole, beta])
    alone = [leaf(x), leaf(beta)]
    assert_same([full(g) for g in ours], torch.autograd.grad(G.swish(*alone).square().sum(), alone))


@check(2)
def transforms_of_torch_func_and_the_compiler_take_them(world: World) -> None:
    mesh = world.mesh()
    x, v = randn(4, 6), randn(4, 6)

    def loss(x: Tensor) -> Tensor:
        return G.swish(x, 1.5).square().sum()

    def slope_loss(x: Tensor) -> Tensor:
        return torch.func.grad(loss)(x).square().sum()

    for placement in PLACEMENTS:
        whole = placed(x, mesh, placement)
        assert_same(full(torch.func.grad(loss)(whole)), torch.func.grad(loss)(x))
        assert_same(full(torch.func.grad(slope_loss)(whole)), torch.func.grad(slope_loss)(x))
        assert_same(full(torch.vmap(G.swish)(whole)), G.swish(x))
        by_value = [
            torch.func.grad(lambda v, x=x: G.gated_unit(x, v).square().sum())(v)
            for x, v in ((whole, placed(v, mesh, placement)), (x, v))
        ]
        assert_same(full(by_value[0]), by_value[1])
        (y, pull), (y_alone, pull_alone) = G.vjp(G.swish, whole, 1.5), G.vjp(G.swish, x, 1.5)
        assert_same([full(y), *map(full, pull(y))], [y_alone, *pull_alone(y_alone)])

    compiled = torch.compile(lambda x, v: G.gated_unit(x, v), fullgraph=True, backend="aot_eager")
    pair = [leaf(placed(one, mesh, (Shard(1),))) for one in (x, v)]
    alone = [leaf(x), leaf(v)]
    y, y_alone = compiled(*pair), G.gated_unit(*alone)
    assert_same(full(y), y_alone)
    ours = torch.autograd.grad(y, pair, placed(x, mesh, (Shard(1),)))
    assert_same([full(g) for g in ours], torch.autograd.grad(y_alone, alone, x))


@check(2)
def projected_functions_take_sharded_weights(world: World) -> None:
    mesh = world.mesh()
    x, W, V, W2, b2 = randn(3, 4), randn(4, 8), randn(4, 8), randn(8, 5), randn(5)
    alone = [leaf(one) for one in (x, W, V, W2, b2)]
    y_alone = G.gated_ffn(*alone[:4], b2=alone[4])
    places: tuple[Placement, ...] = (Replicate(), Shard(1), Shard(1), Shard(0), Replicate())
    ours = [leaf(placed(one, mesh, (place,))) for one, place in zip(alone, places, strict=True)]
    y = full(G.gated_ffn(*ours[:4], b2=ours[4]))
    assert_same(y, y_alone)
    gradients = torch.autograd.grad(y.square().sum(), ours)
    assert_same([full(g) for g in gradients], torch.autograd.grad(y_alone.square().sum(), alone))


@check(2)
def what_is_still_on_its_way_is_awaited(world: World) -> None:
    row = parallelize_module(torch.nn.Linear(4, 6, dtype=torch.float64), world.mesh(), RowwiseParallel())
    x = randn(3, 2, requires_grad=True)
    y = row(x)
    assert type(y) is not Tensor  # a result of a collective that nobody has waited for
    again = leaf(row(x).clone())
    assert_same(G.swish(y), G.swish(again))
    (ours,) = torch.autograd.grad(G.swish(y).sum(), y)
    assert_same(ours, torch.autograd.grad(G.swish(again).sum(), again)[0])


@check(2)
def mixtures_are_refused_in_the_words_of_the_contract(world: World) -> None:
    mesh = world.mesh()
    x, whole = randn(4, 4), placed(randn(4, 4), mesh, (Shard(0),))
    with pytest.raises(TypeError, match="gated_unit: value must be a DTensor, as gate is, got a plain tensor"):
        G.gated_unit(whole, x)
    with pytest.raises(TypeError, match="gated_unit: value must be a plain tensor, as gate is, got a DTensor"):
        G.gated_unit(x, whole)
    with pytest.raises(TypeError, match="swish: beta must be a plain tensor, as x is, got a DTensor"):
        G.swish(x, whole)
    with pytest.raises(TypeError, match="gated_linear: W must be a DTensor, as x is, got a plain tensor"):
        G.gated_linear(whole, x, x)
    with pytest.raises(TypeError, match="gated_unit: value must be a DTensor, as gate is, got a plain tensor"):
        torch.func.grad(lambda gate: G.gated_unit(gate, x).sum())(whole)
    with pytest.raises(TypeError, match="beta must be a DTensor, as the gate is, got a plain tensor"):
        torch.func.grad(lambda x, beta: G.swish(x, beta).sum())(whole, randn())
    if world.size == 4:
        other = world.mesh(2, 2)["tp"]
        with pytest.raises(ValueError, match=r"gated_unit: value must be on the mesh of gate, .*, got "):
            G.gated_unit(whole, placed(x, other, (Shard(0),)))
    with pytest.raises(NotImplementedError):  # torch 2.13 has no dual DTensor
        torch.func.jvp(G.swish, (whole,), (whole,))
    assert isinstance(whole, DTensor)
