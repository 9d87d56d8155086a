"""A GatedFFN over several processes gives what it gives in one, and learns what it learns in one.

torchrun --nproc-per-node 2 examples/torch_tensor_parallel.py
"""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module

from gated.torch_impl.nn import GatedFFN
from gated.torch_impl.tensor_parallel import tensor_parallel_plan


def train(ffn: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> list[float]:
    """The loss before each step."""
    optimizer = torch.optim.SGD(ffn.parameters(), lr=1.0)
    losses = []
    for _ in range(20):
        loss = (ffn(x) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def main() -> None:
    """Trains a block in each process, and a copy of it over all of them."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("tp",))

    torch.manual_seed(0)  # the same block and data everywhere
    ffn = GatedFFN(64, 256, learn_beta=True, dtype=torch.float64)
    x, target = torch.randn(2, 32, 64, dtype=torch.float64)
    sharded = parallelize_module(copy.deepcopy(ffn), mesh, tensor_parallel_plan())

    alone, together = train(ffn, x, target), train(sharded, x, target)
    difference = max(abs(a - b) / a for a, b in zip(alone, together, strict=True))
    assert difference < 1e-12, difference
    if dist.get_rank() == 0:
        columns = sharded.gate_proj.weight.to_local().shape[0]
        print(f"{size} processes, {columns} of 256 hidden columns each")
        print(f"loss {alone[0]:.4f} to {alone[-1]:.4f}; the largest relative difference is {difference:.1e}")


if __name__ == "__main__":
    main()
    dist.destroy_process_group()
