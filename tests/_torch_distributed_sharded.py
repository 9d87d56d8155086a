"""Checks in several processes: FSDP2, with and without tensor parallelism, and distributed checkpoints."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from _torch import Tensor, assert_same, randn
from _torch_distributed import World, check, full
from _torch_distributed_modules import (
    D_IN,
    D_OUT,
    ROWS,
    Model,
    assert_within_bounds,
    every_ffn,
    parallel,
)
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import parallelize_module

from gated.torch_impl.nn import GatedFFN
from gated.torch_impl.tensor_parallel import replicate_betas, tensor_parallel_plan

OPTIONS = {"bias": True, "learn_beta": True, "beta": 1.5}


def sharded(model: nn.Module, mesh: DeviceMesh, **options: Any) -> FSDPModule:
    """The model, each of its layers and the whole sharded over a data-parallel mesh."""
    betas = replicate_betas(model, mesh)
    for layer in getattr(model, "layers", ()):
        fully_shard(layer, mesh=mesh, ignored_params=betas, **options)
    return fully_shard(model, mesh=mesh, ignored_params=betas, **options)


def in_two_ways(world: World, model: nn.Module) -> Iterator[tuple[str, FSDPModule, DeviceMesh]]:
    """Copies of a model over four processes: sharded by FSDP2 alone, and tensor-parallel within it. The mesh is that of
    the data."""
    mesh = world.mesh(world.size, 1)["dp"]
    yield "fsdp", sharded(copy.deepcopy(model), mesh), mesh
    mesh = world.mesh(2, world.size // 2)
    both = parallelize_module(copy.deepcopy(model), mesh["tp"], tensor_parallel_plan("layers.*.mlp"))
    yield "tp-and-fsdp", sharded(both, mesh["dp"]), mesh["dp"]


def part(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """This process's part of a batch."""
    return x.chunk(mesh.size())[mesh.get_local_rank()]


@check(4)
def a_block_under_fsdp_is_within_the_bounds_of_the_definition(world: World) -> None:
    for dtype in ("float32", "float64"):
        for ffn in every_ffn(getattr(torch, dtype), 16):
            whole, c = randn(8, D_IN).to(ffn.gate_proj.weight), randn(8, D_OUT).to(ffn.gate_proj.weight)
            mesh = world.mesh()
            mine = sharded(copy.deepcopy(ffn), mesh)
            x = part(whole, mesh).clone().requires_grad_()
            y = mine(x)
            y.backward(part(c, mesh))
            results = {name: full(p.grad) for name, p in mine.named_parameters()}
            # The gradients of the parameters are means over the processes; a division by 4 is exact.
            results = {name: world.size * one for name, one in results.items()}
            for name, one in (("value", y), ("x", x.grad)):
                results[name] = torch.cat(gather(world, one.detach()))
            assert_within_bounds(ffn, whole, c, results, dtype)


def gather(world: World, x: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(x) for _ in range(world.size)]
    torch.distributed.all_gather(parts, x.contiguous())
    return parts


@check(4)
def a_training_step_of_a_sharded_model_is_that_of_one_process(world: World) -> None:
    for recompute in ("product", "all"):
        alone = Model(recompute=recompute, **OPTIONS)
        for way, model, mesh in in_two_ways(world, alone):
            reference = copy.deepcopy(alone)
            optimizers = [torch.optim.AdamW(one.parameters(), lr=0.1) for one in (model, reference)]
            for _ in range(2):
                x = randn(8, D_IN)
                y, y_alone = model(part(x, mesh)), reference(x)
                assert_same(y, part(y_alone, mesh))
                y.square().mean().backward()
                y_alone.square().mean().backward()
                for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
                    assert ours.grad is not None, (way, name)
                    assert_same(full(ours.grad), theirs.grad)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            # AdamW divides by the root of the squared gradient: an error of the gradient is magnified by its inverse.
            for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
                torch.testing.assert_close(full(ours.detach()), theirs.detach(), rtol=1e-8, atol=1e-9)


@check(4)
def gradients_of_betas_may_be_accumulated(world: World) -> None:
    alone = Model(**OPTIONS)
    for _, model, mesh in in_two_ways(world, alone):
        reference = copy.deepcopy(alone)
        for last in (False, True):
            x = randn(8, D_IN)
            model.set_requires_gradient_sync(last)
            model(part(x, mesh)).square().mean().backward()
            reference(x).square().mean().backward()
        for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            assert_same(full(ours.grad), theirs.grad)


@check(4)
def models_may_be_made_on_the_meta_device(world: World) -> None:
    with torch.device("meta"):
        nowhere = Model(**OPTIONS)
    reference, x = Model(**OPTIONS), randn(8, D_IN)
    for way, model, mesh in in_two_ways(world, nowhere):
        model.to_empty(device="cpu")
        for layer in model.layers:
            layer.mlp.reset_parameters()
            assert full(layer.mlp.beta) == 1.5 and full(layer.mlp.gate_proj.weight).std() > 0, way
        set_model_state_dict(model, reference.state_dict(), options=StateDictOptions(full_state_dict=True))
        reference.zero_grad()
        model(part(x, mesh)).square().mean().backward()
        reference(x).square().mean().backward()
        for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            assert_same(full(ours.grad), theirs.grad)


@check(4)
def mixed_precision_computes_in_bfloat16_and_keeps_float32(world: World) -> None:
    ffn = GatedFFN(D_IN, 16, D_OUT, learn_beta=True, beta=1.5)
    half = copy.deepcopy(ffn).to(torch.bfloat16)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    mine = sharded(copy.deepcopy(ffn), world.mesh(), mp_policy=policy)
    x = randn(ROWS, D_IN).to(torch.bfloat16)
    y = mine(x.float())
    # The same on each process: what one process has in bfloat16, and the mean of equal gradients.
    assert y.dtype == torch.bfloat16 and torch.equal(y, half(x))
    y.float().sum().backward()
    half(x).float().sum().backward()
    for ours, theirs in zip(mine.parameters(), half.parameters(), strict=True):
        assert ours.dtype == full(ours.grad).dtype == torch.float32
        assert torch.equal(full(ours.grad), theirs.grad.float())


@check(4)
def torch_says_that_a_learned_beta_is_not_for_fsdp_alone(world: World) -> None:
    with pytest.raises(ValueError, match=r"fully_shard doesn't support scalar parameters\. Change beta"):
        fully_shard(GatedFFN(4, 4, learn_beta=True), mesh=world.mesh())
    assert replicate_betas(Model(), world.mesh()) == set()


# Checkpoints


@check(4)
def checkpoints_of_sharded_models_load_in_one_process_and_back(world: World) -> None:
    """What it leaves in the folder is loaded in a process of its own by tests/test_torch_distributed.py."""
    alone = Model(**OPTIONS)
    with torch.no_grad():
        for layer in alone.layers:
            layer.mlp.beta.fill_(0.75)
    expected = alone.state_dict()
    if world.rank == 0:
        torch.save(expected, world.folder / "expected.pt")
        dcp.save(expected, checkpoint_id=world.folder / "checkpoint-alone", no_dist=True)
    torch.distributed.barrier()
    tensor_parallel = parallelize_module(copy.deepcopy(alone), world.mesh(), tensor_parallel_plan("layers.*.mlp"))
    for way, model, _ in itertools.chain([("tp", tensor_parallel, None)], in_two_ways(world, alone)):
        state = get_model_state_dict(model)
        assert sorted(state) == sorted(expected)
        dcp.save(state, checkpoint_id=world.folder / f"checkpoint-{way}")
        with torch.no_grad():
            for one in state.values():
                (one.to_local() if isinstance(one, DTensor) else one).fill_(-1.0)
        dcp.load(state, checkpoint_id=world.folder / "checkpoint-alone")
        set_model_state_dict(model, state)
        whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        assert all(torch.equal(whole[name], one) for name, one in expected.items()) or world.rank != 0, way


@check(2)
def a_checkpoint_of_two_processes_is_one_of_any_number(world: World) -> None:
    """Saved by two in tensor parallelism, loaded by two in FSDP2."""
    ffn = GatedFFN(D_IN, 16, dtype=torch.float64, **OPTIONS)
    dcp.save(parallel(ffn, world.mesh()).state_dict(), checkpoint_id=world.folder / "checkpoint")
    other = sharded(GatedFFN(D_IN, 16, dtype=torch.float64, bias=True, learn_beta=True), world.mesh())
    state = other.state_dict()
    dcp.load(state, checkpoint_id=world.folder / "checkpoint")
    other.load_state_dict(state)
    for name, one in ffn.state_dict().items():
        assert torch.equal(full(other.state_dict()[name]), one), name
