"""The fused projection as a function of JAX: which kernel runs where, and the rules of every transformation.

Its value is a kernel's. Its tangent is a primitive that is linear in the tangents of the operands: evaluated, it is
plain operations; transposed, it is the pullback, whose kernel computes the gate and the value again, so that the
operands alone are kept. The pullback's own derivatives are plain operations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gated.jax_impl._arrays import Array, Factor
from gated.jax_impl._gated import unit
from gated.jax_impl.kernels import _mosaic, _triton
from gated.jax_impl.kernels._blocks import Blocks, Choice
from gated.jax_impl.kernels._context import choice as in_force
from gated.jax_impl.kernels._context import may_be_kernels
from gated.jax_impl.kernels._tile import Call, product, pullback
from gated.jax_impl.projections import _linear

__all__ = ["linear"]


class _Operands(NamedTuple):
    x: Array
    W: Array
    V: Array
    b: Array | None
    c: Array | None
    beta: Factor | None


class _Setting(NamedTuple):
    """What is fixed when a call is traced."""

    choice: Choice
    activation: str


def linear(
    choice: Choice,
    activation: str,
    x: Array,
    W: Array,
    V: Array,
    b: Array | None,
    c: Array | None,
    beta: Factor | None,
) -> Array:
    """activation(x W + b) * (x V + c), for operands that were checked; of the shape (..., d_hidden)."""
    operands = _Operands(x, W, V, b, c, beta if activation == "swish" else None)
    sized = all(type(size) is int and size for size in (*x.shape, *W.shape))  # neither empty nor symbolic
    if not (sized and may_be_kernels(*jax.tree.leaves(operands))):
        with in_force(None):
            return _linear(activation, *operands)
    return _fused(_Setting(choice, activation), operands)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _fused(setting: _Setting, operands: _Operands) -> Array:
    activation = setting.activation

    def by(sweep: Callable[..., Any], blocks: Blocks, operands: _Operands) -> Array:
        with jax.enable_x64(False):  # no address on a TPU has 64 bits, nor must a loop's index
            rows = product(sweep, activation, _call(operands), blocks, setting.choice.interpret is not None)
        return rows.reshape(_gate_shape(operands))

    result: Array = _by_platform(setting.choice, by, functools.partial(_plain, activation), operands)
    return result


@functools.partial(_fused.defjvp, symbolic_zeros=True)
def _fused_jvp(setting: _Setting, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (operands,), (directions,) = primals, tangents
    out = _fused(setting, operands)
    leaves, tree = jax.tree.flatten(operands)
    along = jax.tree.leaves(directions, is_leaf=lambda each: isinstance(each, SymbolicZero))
    if operands.beta is not None and operands.beta.rest is not None:
        along = along[:-1]  # the rest of a number is a constant
    moving = tuple(i for i, each in enumerate(along) if not isinstance(each, SymbolicZero))
    if not moving:
        return out, jnp.zeros_like(out)
    parameters = {"setting": setting, "tree": tree, "moving": moving}
    return out, _tangent_p.bind(*leaves, *(along[i] for i in moving), **parameters)  # type: ignore[no-untyped-call]


def _by_platform(choice: Choice, by: Callable[..., Any], plain: Callable[..., Any], *operands: Any) -> Any:
    """The kernel of the platform that the computation is lowered for, or plain operations."""
    on_tpu: Callable[..., Any] = functools.partial(by, _mosaic.sweep, choice.tpu)
    on_gpu: Callable[..., Any] = functools.partial(by, _triton.sweep, choice.gpu)
    if operands[0].x.dtype == jnp.float16:
        on_tpu = plain  # Mosaic cannot load float16
    if choice.interpret is not None:
        return {"tpu": on_tpu, "gpu": on_gpu}[choice.interpret](*operands)
    return lax.platform_dependent(*operands, tpu=on_tpu, cuda=on_gpu, rocm=on_gpu, default=plain)


def _call(operands: _Operands) -> Call:
    """The operands as matrices."""
    x, W, V, b, c, beta = operands
    gate = _gate_shape(operands)

    def row(bias: Array | None) -> Array | None:
        return None if bias is None else bias.reshape(1, -1)

    def by_rows(part: Array) -> Array:
        part = part.reshape((1,) * (len(gate) - part.ndim) + part.shape)
        if any(size != 1 for size in part.shape[:-1]):
            part = jnp.broadcast_to(part, (*gate[:-1], part.shape[-1]))
        return part.reshape(-1, part.shape[-1])

    return Call(x.reshape(-1, x.shape[-1]), W, V, row(b), row(c), jax.tree.map(by_rows, beta))


def _gate_shape(operands: _Operands) -> tuple[int, ...]:
    return (*operands.x.shape[:-1], operands.W.shape[1])


# Plain operations


def _plain(activation: str, operands: _Operands) -> Array:
    x, W, V, b, c, beta = operands
    return unit(activation, _affine(x, W, b), _affine(x, V, c), beta).astype(x.dtype)


def _affine(x: Array, W: Array, b: Array | None) -> Array:
    y = _product(x, W)
    return y if b is None else y + jnp.expand_dims(b.astype(y.dtype), range(y.ndim - 1))


def _product(x: Array, W: Array) -> Array:
    """x @ W in float32."""
    return jnp.matmul(x, W, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def _moved(activation: str, leaves: Sequence[Any], tree: Any, moving: Sequence[int]) -> Callable[..., Array]:
    """The plain projection as a function of the operands that move."""

    def function(*moved: Array) -> Array:
        given = dict(zip(moving, moved, strict=True))
        return _plain(activation, jax.tree.unflatten(tree, [given.get(i, leaf) for i, leaf in enumerate(leaves)]))

    return function


# The tangent, a primitive that is linear in its last len(moving) operands


def _tangent(*arguments: Array, setting: _Setting, tree: Any, moving: tuple[int, ...]) -> Array:
    leaves, directions = arguments[: tree.num_leaves], arguments[tree.num_leaves :]
    function = _moved(setting.activation, leaves, tree, moving)
    tangent: Array = jax.jvp(function, [leaves[i] for i in moving], list(directions))[1]
    return tangent


def _tangent_type(*arguments: Any, setting: _Setting, tree: Any, moving: tuple[int, ...]) -> Any:
    x, W = arguments[:2]
    return x.update(shape=(*x.shape[:-1], W.shape[1]), weak_type=False)


def _tangent_jvp(primals: Sequence[Any], tangents: Sequence[Any], **parameters: Any) -> tuple[Array, Array]:
    moved = [i for i, each in enumerate(tangents) if not isinstance(each, ad.Zero)]

    def function(*each: Array) -> Array:
        given = dict(zip(moved, each, strict=True))
        return _tangent(*(given.get(i, primal) for i, primal in enumerate(primals)), **parameters)

    return jax.jvp(function, [primals[i] for i in moved], [tangents[i] for i in moved])


def _tangent_transposed(
    cotangent: Any, *arguments: Any, setting: _Setting, tree: Any, moving: tuple[int, ...]
) -> list[Any]:
    leaves, directions = arguments[: tree.num_leaves], arguments[tree.num_leaves :]
    constant: list[Any] = [None] * len(leaves)
    if isinstance(cotangent, ad.Zero):
        return [*constant, *(ad.Zero(each.aval) for each in directions)]
    return [*constant, *_pullback(setting, moving, jax.tree.unflatten(tree, leaves), cotangent)]


def _tangent_batched(
    arguments: Sequence[Any], axes: Sequence[Any], *, setting: _Setting, tree: Any, moving: tuple[int, ...]
) -> tuple[Array, int]:
    parameters = {"setting": setting, "tree": tree, "moving": moving}
    leaf_of = (*range(tree.num_leaves), *moving)
    if any(leaf and axis is not None for leaf, axis in zip(leaf_of, axes, strict=True)):
        return jax.vmap(functools.partial(_tangent, **parameters), tuple(axes))(*arguments), 0
    # Of x alone, the batch is more rows.
    size = next(each.shape[axis] for each, axis in zip(arguments, axes, strict=True) if axis is not None)
    rows = [
        each if leaf else jnp.broadcast_to(each, (size, *each.shape)) if axis is None else jnp.moveaxis(each, axis, 0)
        for leaf, each, axis in zip(leaf_of, arguments, axes, strict=True)
    ]
    return _tangent_p.bind(*rows, **parameters), 0  # type: ignore[no-untyped-call]


_tangent_p = Primitive("gated_projection_tangent")
_tangent_p.def_impl(jax.jit(_tangent, static_argnames=("setting", "tree", "moving")))  # type: ignore[no-untyped-call]
_tangent_p.def_abstract_eval(_tangent_type)  # type: ignore[no-untyped-call]
mlir.register_lowering(_tangent_p, mlir.lower_fun(_tangent, multiple_results=False))
ad.primitive_jvps[_tangent_p] = _tangent_jvp
ad.primitive_transposes[_tangent_p] = _tangent_transposed
batching.primitive_batchers[_tangent_p] = _tangent_batched


# The pullback


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _pullback(setting: _Setting, moving: tuple[int, ...], operands: _Operands, cotangent: Array) -> tuple[Array, ...]:
    """The cotangents of the operands that move."""

    def by(sweep: Callable[..., Any], blocks: Blocks, operands: _Operands, cotangent: Array) -> tuple[Array, ...]:
        call = _call(operands)
        with_beta = _position("beta", operands) in moving
        interpret = setting.choice.interpret is not None
        with jax.enable_x64(False):  # as above
            rows = cotangent.reshape(call.sizes[:2])
            of_gate, of_value, *of_beta = pullback(sweep, setting.activation, call, rows, with_beta, blocks, interpret)
        return _through_products(operands, moving, of_gate, of_value, *of_beta)

    plain = functools.partial(_plain_pullback, setting.activation, moving)
    result: tuple[Array, ...] = _by_platform(setting.choice, by, plain, operands, cotangent)
    return result


@_pullback.defjvp
def _pullback_jvp(
    setting: _Setting, moving: tuple[int, ...], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    plain = functools.partial(_plain_pullback, setting.activation, moving)
    return _pullback(setting, moving, *primals), jax.jvp(plain, primals, tangents)[1]


def _plain_pullback(
    activation: str, moving: tuple[int, ...], operands: _Operands, cotangent: Array
) -> tuple[Array, ...]:
    leaves, tree = jax.tree.flatten(operands)
    _, pull = jax.vjp(_moved(activation, leaves, tree, moving), *(leaves[i] for i in moving))
    result: tuple[Array, ...] = pull(cotangent)
    return result


def _position(name: str, operands: _Operands) -> int:
    """Where the leaf ``name`` is among the leaves of the operands, or -1."""
    before = operands[: operands._fields.index(name)]
    return -1 if getattr(operands, name) is None else len(jax.tree.leaves(before))


def _through_products(
    operands: _Operands, moving: tuple[int, ...], of_gate: Array, of_value: Array, of_beta: Array | None = None
) -> tuple[Array, ...]:
    """From the cotangents of the gate and the value, rows in float32, to those of the operands."""
    x, W, V, _, _, beta = operands
    by_rows = x.reshape(-1, x.shape[-1])

    def beta_cotangent() -> Array:
        assert beta is not None and of_beta is not None
        shape = beta.rounded.shape
        whole = of_beta.reshape(_gate_shape(operands))
        lead = whole.ndim - len(shape)
        summed = (*range(lead), *(lead + i for i, size in enumerate(shape) if size == 1))
        return whole.sum(summed).reshape(shape).astype(beta.rounded.dtype)

    made: dict[str, Callable[[], Array]] = {
        "x": lambda: (_product(of_gate, W.T) + _product(of_value, V.T)).reshape(x.shape).astype(x.dtype),
        "W": lambda: _product(by_rows.T, of_gate).astype(W.dtype),
        "V": lambda: _product(by_rows.T, of_value).astype(V.dtype),
        "b": lambda: of_gate.sum(0).astype(x.dtype),
        "c": lambda: of_value.sum(0).astype(x.dtype),
        "beta": beta_cotangent,
    }
    at = {_position(name, operands): name for name in operands._fields}
    return tuple(made[at[i]]() for i in moving)
