"""The gated forms on distributed tensors (``torch.distributed.tensor.DTensor``).

They are elementwise: each process computes with its own part, and no part is sent. Where the parts do not fit they are
redistributed first: a sum that is pending (``Partial``) is added up, since A is not linear; a packed array whose parts
do not hold whole pairs is gathered; beta goes where the gate is.

The Functions of :mod:`gated.torch_impl._autograd` take distributed tensors as they take others, and hand them to this
module in the place of their arithmetic. (Left to plain operations the result would be wrong without an error: torch
2.13 takes the operator ``>>`` of a DTensor for one that writes its operand, since its name ends in an underscore.)
Forward AD is not for them: torch has no dual DTensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor, all_reduce
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from ._arrays import Factor, compute_dtype
from ._forms import IN_BETA, IN_VALUE, IN_X, Form
from ._plain import TypedFunction

__all__ = [
    "aligned",
    "derivative",
    "distributed",
    "evaluate",
    "pullback",
    "pushforward",
    "redistributed",
    "replicated_beside",
]

Placements: TypeAlias = tuple[Placement, ...]


# Between a process's part and the whole


def _part(x: DTensor) -> Tensor:
    """This process's part of ``x``, once it has arrived."""
    local = x.to_local()
    return local.wait() if isinstance(local, AsyncCollectiveTensor) else local


def _whole(part: Tensor, mesh: DeviceMesh, placements: Placements, shape: Sequence[int]) -> DTensor:
    """The tensor of ``shape`` that has this ``part`` here."""
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        part.contiguous(), mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
    )


def _settled(placements: Placements) -> Placements:
    """The placements without a pending sum. A cotangent of what is pending has them: it is the same for each term."""
    return tuple(Replicate() if one.is_partial() else one for one in placements)


class _Distributed(TypedFunction):
    """The DTensor of a process's part. That of torch cannot be differentiated twice where its cotangent is pending."""

    @staticmethod
    def forward(part: Tensor, mesh: DeviceMesh, placements: Placements, shape: Sequence[int] | None) -> DTensor:
        if shape is None:
            return DTensor.from_local(part, mesh, placements, run_check=False)
        return _whole(part, mesh, placements, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: DTensor) -> None:
        _, ctx.mesh, ctx.placements, _ = inputs
        ctx.shape = tuple(output.shape)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor | None, ...]:
        return _Part.apply(redistributed(cotangents[0], _settled(ctx.placements))), None, None, None


class _Part(TypedFunction):
    """This process's part of a DTensor without pending sums."""

    @staticmethod
    def forward(x: DTensor) -> Tensor:
        part = _part(x)
        return part.view_as(part)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        (x,) = inputs
        ctx.of_whole = x.device_mesh, x.placements, tuple(x.shape)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _Distributed.apply(cotangents[0], *ctx.of_whole)


class _Redistributed(TypedFunction):
    """A DTensor in other placements."""

    @staticmethod
    def forward(x: DTensor, placements: Placements) -> DTensor:
        return x.redistribute(placements=placements)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: DTensor) -> None:
        x, ctx.placements = inputs
        ctx.back = _settled(x.placements)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor | None, ...]:
        return redistributed(cotangents[0], ctx.back), None


def redistributed(x: DTensor, placements: Placements) -> DTensor:
    """``x`` in these placements; itself where it is."""
    if x.placements == placements:
        return x
    result: DTensor = _Redistributed.apply(x, placements)
    return result


def distributed(part: Tensor, mesh: DeviceMesh, placements: Sequence[Placement]) -> DTensor:
    """The DTensor of a process's ``part``, all parts being of one size; differentiable, any number of times."""
    result: DTensor = _Distributed.apply(part, mesh, tuple(placements), None)
    return result


class _WithMeanGradient(TypedFunction):
    """x, whose cotangent becomes the mean over the processes of a mesh."""

    @staticmethod
    def forward(x: Tensor, mesh: DeviceMesh) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.mesh = inputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor | None, ...]:
        (c,) = cotangents
        mean = _part(c) if isinstance(c, DTensor) else c
        for group in ctx.mesh.get_all_groups():
            mean = all_reduce(mean, "sum", group)
        mean = mean / ctx.mesh.size()
        return _whole(mean, c.device_mesh, c.placements, c.shape) if isinstance(c, DTensor) else mean, None


def with_mean_gradient(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """``x``, whose gradient is the mean of those on the processes of a mesh, of which each has its own data."""
    result: Tensor = _WithMeanGradient.apply(x, mesh)
    return result


def replicated_beside(x: DTensor, one: Tensor) -> DTensor:
    """The DTensor that is ``one`` on every process of the mesh of ``x``."""
    return distributed(one, x.device_mesh, (Replicate(),) * x.device_mesh.ndim)


# Where the operands of a form must be


def _dim(placement: Placement) -> int | None:
    """The dimension that is sharded; None where none is. torch has a second, private kind of shards."""
    dim: int | None = getattr(placement, "dim", None)
    return dim


def _holds_pairs(form: Form, x: DTensor, mesh_dim: int) -> bool:
    """Whether the shards along a mesh dimension hold whole pairs of gate and value, in the order of the whole."""
    placement = x.placements[mesh_dim]
    if form.axis is None or _dim(placement) != form.axis:
        return True
    if form.layout != "interleaved" or type(placement) is not Shard:
        return False
    parts = 1
    for size, other in zip(x.device_mesh.shape, x.placements, strict=True):
        parts *= size if _dim(other) == form.axis else 1
    return x.shape[form.axis] % (2 * parts) == 0


def _placements(form: Form, x: DTensor, value: DTensor | None) -> Placements:
    """Where gate and value are computed with: where ``x`` is, or else where the value is, if that can be."""

    def of(mesh_dim: int) -> Placement:
        placement = x.placements[mesh_dim]
        if _dim(placement) is not None:
            return placement if _holds_pairs(form, x, mesh_dim) else Replicate()
        there = None if value is None else value.placements[mesh_dim]
        return there if type(there) is Shard else Replicate()

    return tuple(of(mesh_dim) for mesh_dim in range(x.device_mesh.ndim))


def _beta_placements(placements: Placements, rank: int, beta: Tensor) -> Placements:
    """Where beta is computed with beside a gate of this rank: replicated where it is broadcast, else as the gate is."""

    def of(placement: Any) -> Placement:
        dim = _dim(placement)
        of_beta = None if dim is None else dim - (rank - beta.dim())
        if of_beta is None or of_beta < 0 or beta.shape[of_beta] == 1:
            return Replicate()
        if type(placement) is Shard:
            return Shard(of_beta)
        kind: Any = type(placement)
        strided: Placement = kind(of_beta, split_factor=placement.split_factor)
        return strided

    return tuple(of(placement) for placement in placements)


def _check(x: Tensor, value: Tensor | None, beta: Factor) -> None:
    """Refuses what cannot be aligned.

    Raises:
        TypeError: one tensor is distributed and another is not.
        ValueError: the meshes differ.
    """
    assert isinstance(x, DTensor)
    for name, one in (("value", value), ("beta", beta)):
        if not isinstance(one, Tensor):
            continue
        if not isinstance(one, DTensor):
            raise TypeError(f"{name} must be a DTensor, as the gate is, got a plain tensor")
        if one.device_mesh != x.device_mesh:
            raise ValueError(f"{name} must be on the mesh of the gate, {x.device_mesh}, got {one.device_mesh}")


def aligned(form: Form, x: DTensor, value: DTensor | None, beta: Factor) -> tuple[DTensor, DTensor | None, Factor]:
    """The operands where they are computed with; differentiable.

    A tensor beta that is no DTensor counts as replicated: its gradient is the sum over all parts.
    """
    if isinstance(beta, Tensor) and not isinstance(beta, DTensor):
        beta = replicated_beside(x, beta)
    _check(x, value, beta)
    placements = _placements(form, x, value)
    if isinstance(beta, DTensor):
        beta = redistributed(beta, _beta_placements(placements, x.dim(), beta))
    return redistributed(x, placements), None if value is None else redistributed(value, placements), beta


# The arithmetic


class _Parts:
    """The parts of a form's operands, and the way back to the whole."""

    def __init__(self, form: Form, x: DTensor, value: DTensor | None, beta: Factor) -> None:
        _check(x, value, beta)
        self.mesh = x.device_mesh
        self.placements = _placements(form, x, value)
        self.beta_placements = (
            _beta_placements(self.placements, x.dim(), beta) if isinstance(beta, Tensor) else self.placements
        )
        self.gate_shape = list(x.shape)
        if form.axis is not None:
            self.gate_shape[form.axis] //= 2
        self.x, self.value = self.of_gate(x), self.of_gate(value)
        self.beta: Any = self.of_beta(beta) if isinstance(beta, Tensor) else beta

    def of_gate(self, one: Any) -> Any:
        """The part of an operand that lies as the gate does."""
        return None if one is None else _part(redistributed(one, self.placements))

    def of_beta(self, one: Any) -> Any:
        """The part of an operand that lies as beta does."""
        return None if one is None else _part(redistributed(one, self.beta_placements))

    def whole(self, part: Tensor, shape: Sequence[int] | None = None) -> DTensor:
        """The whole of what lies as the gate does; without a shape, of the gate's."""
        return _whole(part, self.mesh, self.placements, self.gate_shape if shape is None else shape)

    @property
    def reduces_beta(self) -> bool:
        """Whether the gradient of beta is a sum over processes."""
        return any(
            a.is_replicate() and not b.is_replicate()
            for a, b in zip(self.beta_placements, self.placements, strict=True)
        )

    def whole_of_beta(self, part: Tensor, beta: DTensor) -> Tensor:
        """The gradient of beta, summed over the processes that have a part of the gate and the same part of beta."""
        pending = tuple(
            Partial() if a.is_replicate() and not b.is_replicate() else a
            for a, b in zip(self.beta_placements, self.placements, strict=True)
        )
        whole = _whole(part, self.mesh, pending, beta.shape)
        return whole.redistribute(placements=self.beta_placements).to(beta.dtype)


def evaluate(code: Callable[..., Tensor], form: Form, x: DTensor, value: DTensor | None, beta: Factor) -> DTensor:
    """P, by ``code`` on the parts"""
    parts = _Parts(form, x, value, beta)
    return parts.whole(code(form, parts.x, parts.value, parts.beta))


def pullback(
    code: Callable[..., Sequence[Tensor]],
    form: Form,
    wanted: str,
    cotangent: DTensor,
    x: DTensor,
    value: DTensor | None,
    beta: Factor,
) -> tuple[Tensor, ...]:
    """c grad P, by ``code`` on the parts, for those of x, value and beta that are ``wanted``"""
    parts = _Parts(form, x, value, beta)
    part_of_beta = parts.beta
    if IN_BETA in wanted and parts.reduces_beta:
        part_of_beta = part_of_beta.to(compute_dtype(x.dtype))  # terms of a sum are not to be rounded to 16 bits
    gradients = code(form, wanted, parts.of_gate(cotangent), parts.x, parts.value, part_of_beta)
    found = dict(zip(wanted, gradients, strict=True))
    results: dict[str, Tensor] = {}
    if IN_X in wanted:
        results[IN_X] = parts.whole(found[IN_X], x.shape)
    if IN_VALUE in wanted:
        results[IN_VALUE] = parts.whole(found[IN_VALUE])
    if IN_BETA in wanted:
        assert isinstance(beta, DTensor)
        results[IN_BETA] = parts.whole_of_beta(found[IN_BETA], beta)
    return tuple(results[name] for name in wanted)


def pushforward(
    code: Callable[..., Tensor],
    form: Form,
    tangents: Sequence[Tensor | None],
    x: DTensor,
    value: DTensor | None,
    beta: Factor,
) -> DTensor:
    """grad P . t, by ``code`` on the parts"""
    parts = _Parts(form, x, value, beta)
    in_x, in_value, in_beta = tangents
    moved = parts.of_gate(in_x), parts.of_gate(in_value), parts.of_beta(in_beta)
    return parts.whole(code(form, moved, parts.x, parts.value, parts.beta))


def derivative(
    code: Callable[..., Tensor], activation: str, order: int, beta_order: int, x: DTensor, beta: Factor
) -> DTensor:
    """A derivative of A(x; beta), by ``code`` on the parts; x and a tensor beta of one shape"""
    parts = _Parts(Form(activation), x, None, beta)
    return parts.whole(code(activation, order, beta_order, parts.x, parts.beta))
