r"""The modules over several devices: a plan for ``torch.distributed.tensor.parallel.parallelize_module``, a layout for
packed projections, and learned betas beside ``torch.distributed.fsdp.fully_shard``.

Under tensor parallelism the projections of gate and value are sharded by columns and the projection down by rows: each
device computes with a part of the hidden size, and the output is the sum of what they have,

.. math:: y = \sum_i (A(x W_i + b_i) \odot (x V_i + c_i)) \, W_{2,i} + b_2.

That sum is the one all-reduce of the forward pass. The backward pass has one for the gradient of x, and one of a single
number for that of a learned beta.

Source: M. Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism",
arXiv:1909.08053, section 3.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

from gated import contract

from ._arrays import checks
from ._dtensor import distributed, redistributed, with_mean_gradient
from ._forms import Form
from ._learned import BetaModule
from .nn import GatedFFN, GatedLinear

__all__ = ["repack", "replicate_betas", "tensor_parallel_plan"]


# Tensor parallelism


class _WholeModule(ParallelStyle):
    """What the styles of the children leave over: x comes to all devices once, and they share a learned beta.

    Gate and value stay distributed until the projection down: the gradient of beta is summed over the devices, and the
    hidden size need not be a multiple of their number.
    """

    def __init__(self, kind: type[GatedLinear], x_layout: Placement, use_local_output: bool) -> None:
        super().__init__()
        self.kind, self.x_layout, self.use_local_output = kind, x_layout, use_local_output

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, GatedLinear) or isinstance(module, GatedFFN) != (self.kind is GatedFFN):
            hint = "; that of a GatedLinear has down_proj=False" if type(module) is GatedLinear else ""
            raise TypeError(
                f"tensor_parallel_plan: this plan is for a {self.kind.__name__}, got {type(module).__qualname__}{hint}"
            )
        if device_mesh.ndim != 1:
            raise ValueError(
                "tensor_parallel_plan: the mesh must have one dimension, as "
                f'mesh["tp"] of a larger one has, got {device_mesh.ndim}'
            )
        if isinstance(module.beta, nn.Parameter):
            whole = distribute_tensor(module.beta, device_mesh, [Replicate()], src_data_rank=self.src_data_rank)
            module.beta = nn.Parameter(whole, requires_grad=module.beta.requires_grad)

        def prepare(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
            if args:
                return (self._to_all(args[0], device_mesh), *args[1:]), kwargs
            return args, {name: self._to_all(one, device_mesh) for name, one in kwargs.items()}

        module.register_forward_pre_hook(prepare, with_kwargs=True)
        if self.kind is GatedLinear and self.use_local_output:
            module.register_forward_hook(lambda _, args, y: y.to_local())
        return module

    def _to_all(self, x: Any, mesh: DeviceMesh) -> Any:
        """``x`` whole on all devices; its gradient comes from all of them."""
        if not isinstance(x, Tensor):
            return x
        whole = x if isinstance(x, DTensor) else distributed(x, mesh, (self.x_layout,))
        return redistributed(whole, (Replicate(),))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind.__name__}, x_layout={self.x_layout})"


def tensor_parallel_plan(
    prefix: str = "", *, down_proj: bool = True, sequence_dim: int | None = None, use_local_output: bool = True
) -> dict[str, ParallelStyle]:
    """The plan by which ``parallelize_module`` shards a GatedFFN: ``gate_proj`` and ``up_proj`` by columns,
    ``down_proj`` by rows.

    ``parallelize_module(ffn, mesh, tensor_parallel_plan())`` shards one module. For those within a model, ``prefix`` is
    their path, in which ``*`` stands for any name: the plan of the model contains
    ``tensor_parallel_plan("layers.*.mlp")``. Each entry is a style of its own and may be exchanged.

    The output is that of one device, up to the order of the sum, and so are the gradients. The hidden size is best a
    multiple of the number of devices; any other is right, too.

    Args:
        prefix: the path of the module; "" for the module that is parallelized itself.
        down_proj: False for a GatedLinear, which has no projection down. Its output is sharded along the last axis.
        sequence_dim: None where each device has all of x and gets all of the output. A dimension along which x is
            sharded and the output shall be (sequence parallelism): an all-gather and a reduce-scatter in the place of
            the all-reduce. A plain tensor is taken for one of equal shards.
        use_local_output: whether the output is a plain tensor, this device's part; otherwise a DTensor.

    Returns:
        Styles by path, for ``torch.distributed.tensor.parallel.parallelize_module``, which raises TypeError for a
        module of another kind, and ValueError for a mesh of more than one dimension.

    Raises:
        RuntimeError: torch is older than 2.9.
    """
    # A TorchVersion compares as versions do. Older ones ignore the style for the module itself (pytorch#157182).
    if torch.__version__ < "2.9":
        raise RuntimeError(f"tensor_parallel_plan: torch 2.9 or newer is needed, got {torch.__version__}")
    whole: Placement = Replicate() if sequence_dim is None else Shard(sequence_dim)
    kind = GatedFFN if down_proj else GatedLinear
    styles: dict[str, ParallelStyle] = {
        "": _WholeModule(kind, whole, use_local_output),
        "gate_proj": ColwiseParallel(use_local_output=False),
        "up_proj": ColwiseParallel(use_local_output=False),
    }
    if down_proj:
        styles["down_proj"] = RowwiseParallel(output_layouts=whole, use_local_output=use_local_output)
    return {".".join(filter(None, (prefix, name))): style for name, style in styles.items()}


def repack(x: Tensor, source: str, target: str, *, axis: int = 0) -> Tensor:
    """A packed array, as of the weights of a packed projection, in another layout.

    Contiguous shards of an ``"interleaved"`` array hold whole pairs of gate and value, for any number of shards that
    divides the number of pairs. Those of the other layouts do not: the first of two shards is all gate, or all value.
    So a packed ``torch.nn.Linear`` whose weight and bias are repacked to ``"interleaved"`` may be sharded by columns,
    with a unit of that layout behind it.

    Args:
        x: of an even size along ``axis``; float16, bfloat16, float32 or float64.
        source: the layout of ``x``: ``"gate_last"``, ``"gate_first"`` or ``"interleaved"``. A wrong layout is
            silent: it swaps gate and value, or mixes them, and no shape tells.
        target: the layout of the result.
        axis: the axis that holds gate and value; 0 for the weight and the bias of a ``torch.nn.Linear``.

    Returns:
        A new tensor of the shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is no tensor or of another dtype, or ``axis`` is no integer.
        ValueError: ``x`` is 0-d or of an odd size along ``axis``, ``axis`` is out of range, or a layout is
            unknown.
    """
    position = checks.packed("repack", x, axis=axis, layout="gate_last")
    for name, layout in (("source", source), ("target", target)):
        contract.check_choice("repack", name, layout, contract.LAYOUTS)
    gate, value = Form("identity", position, source).split(x, None)
    assert value is not None
    return Form("identity", position, target).join(gate, value)


# Data parallelism


def replicate_betas(model: nn.Module, mesh: DeviceMesh) -> set[nn.Parameter]:
    """Keeps the learned betas of a model whole on every device of a data-parallel mesh, with the mean of the gradients.

    ``torch.distributed.fsdp.fully_shard`` shards no 0-d parameter. It is to ignore these:
    ``fully_shard(model, mesh=mesh, ignored_params=replicate_betas(model, mesh))``; where layers are sharded one by one,
    all calls take the same set. The mean is taken in each backward pass; gradients may be accumulated.

    Args:
        model: a module with any number of the modules of :mod:`gated.torch_impl.nn` in it, already parallelized where
            it is to be.
        mesh: the mesh that ``fully_shard`` gets.

    Returns:
        The parameters.
    """
    betas = set()
    for module in model.modules():
        if isinstance(module, BetaModule) and isinstance(module.beta, nn.Parameter):
            module.share_beta = functools.partial(with_mean_gradient, mesh=mesh)
            betas.add(module.beta)
    return betas
