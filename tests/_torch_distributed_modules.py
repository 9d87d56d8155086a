"""Checks in several processes: the modules under tensor parallelism."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from _torch import Tensor, assert_same, randn
from _torch_distributed import Collectives, World, check, full, placed
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import gated.numpy_ref as reference
from gated.conformance.carried import projection_bounds
from gated.torch_impl.nn import GatedFFN, GatedLinear, SwiGLU
from gated.torch_impl.tensor_parallel import repack, tensor_parallel_plan

ROWS, D_IN, D_OUT = 6, 8, 5


def parallel(module: nn.Module, mesh: DeviceMesh, **options: Any) -> Any:
    """A copy of the module, sharded over the mesh."""
    return parallelize_module(copy.deepcopy(module), mesh, module.tensor_parallel_plan(**options))


def every_ffn(dtype: torch.dtype, hidden: int) -> Iterator[GatedFFN]:
    for recompute, bias, (activation, learn_beta) in itertools.product(
        ("product", "all"), (False, True), (("swish", True), ("swish", False), ("gelu", False))
    ):
        yield GatedFFN(
            D_IN,
            hidden,
            D_OUT,
            activation=activation,
            beta=1.5,
            learn_beta=learn_beta,
            bias=bias,
            recompute=recompute,
            dtype=dtype,
        )


NAMES = {
    "W": "gate_proj.weight",
    "V": "up_proj.weight",
    "W2": "down_proj.weight",
    "b": "gate_proj.bias",
    "c": "up_proj.bias",
    "b2": "down_proj.bias",
}


def wide(x: Tensor) -> Any:
    return x.detach().to(torch.float64).numpy()


def assert_within_bounds(ffn: GatedFFN, x: Tensor, c: Tensor, results: dict[str, Tensor], dtype: str) -> None:
    """A result of the block, and its gradients, within the rounding bounds of the definition, for any order of sums.

    Args:
        results: the output as ``"value"``, the gradient of x as ``"x"``, the others by the parameter's name.
    """
    own = {name: wide(one) for name, one in ffn.named_parameters()}
    arguments: dict[str, Any] = {"x": wide(x)}
    for letter, name in NAMES.items():
        arguments[letter] = own[name].T if name in own else None
    beta = own.get("beta", np.asarray(ffn.initial_beta))
    order = ("x", "W", "V", "W2", "b", "c", "b2")
    value, pull = reference.vjp(
        reference.gated_ffn, *(arguments[letter] for letter in order), beta, activation=ffn.activation
    )
    exact = {"value": value, **dict(zip([*order, "beta"], pull(wide(c)), strict=True))}
    bounds = [
        projection_bounds(backend, kind, arguments, wide(c), activation=ffn.activation, beta=beta)
        for backend, kind in (("torch", dtype), ("numpy", "float64"))
    ]
    for letter in ("value", "x", *(letter for letter, name in {**NAMES, "beta": "beta"}.items() if name in own)):
        name = {**NAMES, "beta": "beta"}.get(letter, letter)
        result = wide(results[name])
        result = result.T if letter in NAMES else result
        bound = bounds[0][letter] + bounds[1][letter]
        distance = np.abs(result - exact[letter])
        assert result.shape == exact[letter].shape, name
        assert np.all(distance <= bound), f"{name} is off by {np.max(distance / bound)} of its bound"


def run(module: Any, x: Tensor, c: Tensor) -> dict[str, Tensor]:
    """The output and all gradients, whole."""
    x = x.detach().requires_grad_()
    y = module(x)
    y.backward(c)
    assert x.grad is not None
    return {"value": full(y), "x": full(x.grad), **{name: full(p.grad) for name, p in module.named_parameters()}}


@check(2, 4)
def a_sharded_ffn_is_within_the_bounds_of_the_definition(world: World) -> None:
    for dtype in ("float32", "float64"):
        for ffn in every_ffn(getattr(torch, dtype), 16):
            x, c = randn(ROWS, D_IN).to(ffn.gate_proj.weight), randn(ROWS, D_OUT).to(ffn.gate_proj.weight)
            assert_within_bounds(ffn, x, c, run(ffn, x, c), dtype)
            assert_within_bounds(ffn, x, c, run(parallel(ffn, world.mesh()), x, c), dtype)


@check(2, 4)
def the_forward_pass_has_one_all_reduce_and_the_backward_pass_one_and_beta_s(world: World) -> None:
    for ffn in every_ffn(torch.float32, 16):
        sharded = parallel(ffn, world.mesh())
        x = torch.randn(ROWS, D_IN, requires_grad=True)
        with Collectives() as sent:
            y = sharded(x)
            assert sent.take() == {"all_reduce": 1}
            y.sum().backward()
            assert sent.take() == {"all_reduce": 2 if isinstance(ffn.beta, nn.Parameter) else 1}
            sharded(x.detach()).sum().backward()  # the first layer of a model
            assert sent.take() == {"all_reduce": 2 if isinstance(ffn.beta, nn.Parameter) else 1}


@check(2, 4)
def a_hidden_size_that_the_mesh_does_not_divide_is_right(world: World) -> None:
    for hidden in (7, 6, 3, 1):  # shards of unequal sizes, and empty ones
        for ffn in every_ffn(torch.float64, hidden):
            x, c = randn(ROWS, D_IN), randn(ROWS, D_OUT)
            assert_within_bounds(ffn, x, c, run(parallel(ffn, world.mesh()), x, c), "float64")


@check(2)
def the_shards_are_columns_columns_and_rows(world: World) -> None:
    sharded = parallel(GatedFFN(D_IN, 16, D_OUT, bias=True, learn_beta=True), world.mesh())
    assert {name: p.placements[0] for name, p in sharded.named_parameters()} == {
        "beta": Replicate(),
        "gate_proj.weight": Shard(0),
        "gate_proj.bias": Shard(0),
        "up_proj.weight": Shard(0),
        "up_proj.bias": Shard(0),
        "down_proj.weight": Shard(1),
        "down_proj.bias": Replicate(),
    }
    frozen = GatedFFN(D_IN, 16, learn_beta=True).requires_grad_(False)
    assert not any(p.requires_grad for p in parallel(frozen, world.mesh()).parameters())


@check(2, 4)
def sequence_parallelism_gathers_and_scatters(world: World) -> None:
    mesh = world.mesh()
    for ffn in every_ffn(torch.float64, 16):
        sharded = parallel(ffn, mesh, sequence_dim=1)
        x, c = randn(3, 2 * world.size, D_IN), randn(3, 2 * world.size, D_OUT)
        part = x.chunk(world.size, 1)[world.rank].requires_grad_()
        with Collectives() as sent:
            y = sharded(part)
            assert sent.take() == {"all_gather_into_tensor": 1, "reduce_scatter_tensor": 1}
            y.backward(c.chunk(world.size, 1)[world.rank])
            counts = sent.take()
            assert counts.pop("all_reduce", 0) == isinstance(ffn.beta, nn.Parameter)
            assert counts == {"all_gather_into_tensor": 1, "reduce_scatter_tensor": 1}
        results = {name: full(p.grad) for name, p in sharded.named_parameters()}
        for name, one in (("value", y), ("x", part.grad)):
            whole = DTensor.from_local(one.detach(), mesh, [Shard(1)], run_check=False)
            results[name] = full(whole).flatten(0, 1)
        assert_within_bounds(ffn, x.flatten(0, 1), c.flatten(0, 1), results, "float64")


@check(2)
def x_may_be_distributed_or_given_by_name_and_the_output_stay_distributed(world: World) -> None:
    mesh = world.mesh()
    ffn = GatedFFN(D_IN, 7, D_OUT, bias=True, learn_beta=True, dtype=torch.float64)
    x, c = randn(5, D_IN), randn(5, D_OUT)
    alone = run(ffn, x, c)
    ffn.zero_grad()
    for place in (Replicate(), Shard(0), Shard(1)):
        sharded = parallel(ffn, mesh, use_local_output=False)
        whole = placed(x, mesh, (place,)).requires_grad_()
        y = sharded(x=whole)
        assert isinstance(y, DTensor) and y.placements == (Replicate(),)
        y.backward(placed(c, mesh, (Replicate(),)))
        assert whole.grad is not None
        assert_same([full(y), full(whole.grad)], [alone["value"], alone["x"]])
        assert_same([full(p.grad) for p in sharded.parameters()], [alone[n] for n, _ in ffn.named_parameters()])


@check(2)
def a_gated_linear_is_sharded_by_columns(world: World) -> None:
    mesh = world.mesh()
    linear = GatedLinear(D_IN, 6, bias=True, learn_beta=True, dtype=torch.float64)
    x = randn(4, D_IN)
    part = parallel(linear, mesh)(x)
    assert type(part) is not DTensor and part.shape == (4, 3)
    assert_same(part, linear(x).chunk(2, -1)[world.rank])
    whole = parallel(linear, mesh, use_local_output=False)(x)
    assert whole.placements == (Shard(1),)
    # Before a projection by rows it is the first half of a block.
    block = nn.Sequential(linear, nn.Linear(6, D_OUT, dtype=torch.float64))
    plan = tensor_parallel_plan("0", down_proj=False) | {"1": RowwiseParallel()}
    sharded = parallelize_module(copy.deepcopy(block), mesh, plan)
    c = randn(4, D_OUT)
    ours, alone = run(sharded, x, c), run(block, x, c)
    for name, one in alone.items():
        assert_same(ours[name], one)


class Layer(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(D_IN, dtype=torch.float64)
        self.mlp = GatedFFN(D_IN, 16, dtype=torch.float64, **options)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Model(nn.Module):
    """A model of several blocks, as they are found in transformers."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(**options) for _ in range(2))
        self.head = nn.Linear(D_IN, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@check(2)
def a_plan_with_a_prefix_shards_every_block_of_a_model(world: World) -> None:
    for recompute in ("product", "all"):
        model = Model(bias=True, learn_beta=True, beta=1.5, recompute=recompute)
        sharded = parallelize_module(copy.deepcopy(model), world.mesh(), tensor_parallel_plan("layers.*.mlp"))
        x, c = randn(4, D_IN), randn(4, 3)
        ours, alone = run(sharded, x, c), run(model, x, c)
        for name, one in alone.items():
            assert_same(ours[name], one)
        with Collectives() as sent:
            sharded(x)
        assert sent.take() == {"all_reduce": 2}


@check(2)
def a_sharded_ffn_keeps_two_parts_of_hidden_size_or_none(world: World) -> None:
    for recompute, kept in (("product", 2), ("all", 0)):
        sharded = parallel(GatedFFN(4, 22, learn_beta=True, recompute=recompute), world.mesh())
        hidden = set()

        def pack(one: Tensor, hidden: set[int] = hidden) -> Tensor:
            part = one.to_local() if isinstance(one, DTensor) else one
            if part.shape == (7, 11):
                hidden.add(part.data_ptr())
            return one

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
            y = sharded(torch.randn(7, 4, requires_grad=True))
        assert len(hidden) == kept, (recompute, len(hidden))
        del y


@check(2)
def second_derivatives_of_a_sharded_ffn_are_those_of_one_process(world: World) -> None:
    for recompute in ("product", "all"):
        ffn = GatedFFN(D_IN, 16, D_OUT, learn_beta=True, bias=True, recompute=recompute, dtype=torch.float64)
        x, c = randn(4, D_IN), randn(4, D_OUT)

        def penalty(module: nn.Module, x: Tensor, c: Tensor = c) -> list[Tensor]:
            wanted = [x, *module.parameters()]
            first = torch.autograd.grad(module(x), wanted, c, create_graph=True)
            loss = sum(full(one).square().sum() for one in first)
            return [full(one) for one in torch.autograd.grad(loss, wanted, allow_unused=True) if one is not None]

        alone = penalty(ffn, x.clone().requires_grad_())
        assert_same(penalty(parallel(ffn, world.mesh()), x.clone().requires_grad_()), alone)


@check(2)
def a_sharded_ffn_compiles_as_one_graph(world: World) -> None:
    ffn = GatedFFN(D_IN, 16, D_OUT, learn_beta=True, bias=True, dtype=torch.float64)
    sharded = parallel(ffn, world.mesh(), sequence_dim=0)
    x = randn(4, D_IN)
    y = torch.compile(sharded, backend="aot_eager", fullgraph=True)(x.chunk(2)[world.rank])
    y.sum().backward()
    alone = ffn(x)
    alone.sum().backward()
    assert_same(y, alone.chunk(2)[world.rank])
    assert_same([full(p.grad) for p in sharded.parameters()], [p.grad for p in ffn.parameters()])


@check(2)
def a_repacked_projection_is_sharded_into_pairs(world: World) -> None:
    mesh = world.mesh()
    for layout, use_local_output in itertools.product(("gate_first", "gate_last"), (True, False)):
        # A plain beta beside DTensors has its whole gradient; beside their parts, which hide that, it is a number.
        unit = {"learn_beta": not use_local_output, "dtype": torch.float64}
        packed, down = nn.Linear(D_IN, 16, dtype=torch.float64), nn.Linear(8, D_OUT, dtype=torch.float64)
        alone = nn.Sequential(packed, SwiGLU(1.5, layout=layout, **unit), down)
        ours = nn.Sequential(copy.deepcopy(packed), SwiGLU(1.5, layout="interleaved", **unit), copy.deepcopy(down))
        with torch.no_grad():
            for parameter in ours[0].parameters():
                parameter.copy_(repack(parameter, layout, "interleaved"))
        plan = {"0": ColwiseParallel(use_local_output=use_local_output), "2": RowwiseParallel()}
        sharded = parallelize_module(ours, mesh, plan)
        x, c = randn(4, D_IN), randn(4, D_OUT)
        with Collectives() as sent:
            sharded(x)
        assert sent.take() == {"all_reduce": 1}
        results = run(sharded, x, c)
        for name in ("0.weight", "0.bias"):
            results[name] = repack(results[name], "interleaved", layout)
        for name, one in run(alone, x, c).items():
            assert_same(results[name], one)


@check(4)
def a_plan_is_refused_where_it_does_not_fit(world: World) -> None:
    mesh = world.mesh()
    hint = "; that of a GatedLinear has down_proj=False"
    for module, options, text in (
        (nn.Linear(4, 4), {}, "this plan is for a GatedFFN, got Linear"),
        (GatedLinear(4, 4), {}, f"this plan is for a GatedFFN, got GatedLinear{hint}"),
        (GatedFFN(4, 4), {"down_proj": False}, "this plan is for a GatedLinear, got GatedFFN"),
    ):
        with pytest.raises(TypeError, match=f"^tensor_parallel_plan: {text}$"):
            parallelize_module(module, mesh, tensor_parallel_plan(**options))
        assert not any(isinstance(p, DTensor) for p in module.parameters())
    with pytest.raises(ValueError, match=r"tensor_parallel_plan: the mesh must have one dimension, .*, got 2"):
        parallel(GatedFFN(4, 4), world.mesh(2, 2))
