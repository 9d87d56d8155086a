"""Columns of JAX's table of transforms: dtypes, sizes, and the switches of ``jax.config``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _jax_rows import ROWS
from _jax_transforms import COSTLY, column
from _jax_truth import USUAL, Array, U, Variant, check
from _jax_uses import pulled
from _truth import Truth

from gated.contract import DTYPES

GROUP = "Numbers and settings"


def second(variant: Variant) -> Callable[..., tuple[Any, ...]]:
    """Value, tangent, the linear function's, gradient, its tangent and its gradient, as one function."""

    def gradient(*arrays: Array) -> tuple[Array, ...]:
        value, pull = jax.vjp(variant.fn, *arrays)
        found: tuple[Array, ...] = pull(jnp.ones_like(value))
        return found

    def slope(*arrays: Array) -> Array:
        return sum((jnp.sum(one.astype(jnp.float32)) for one in gradient(*arrays)), jnp.float32(0))

    def run(*arrays: Array) -> tuple[Any, ...]:
        values = (*jax.jvp(variant.fn, arrays, arrays), jax.linearize(variant.fn, *arrays)[1](*arrays))
        found = (*jax.jvp(gradient, arrays, arrays), jax.grad(slope, variant.every)(*arrays))
        return values, found

    return run


def alike(variant: Variant, results: tuple[Any, ...], shape: tuple[int, ...], arguments: Sequence[Any]) -> None:
    """The results of ``second`` have the shape of the value and the shapes and the dtype of the arguments."""
    values, found = results
    for one in values:
        assert (one.shape, one.dtype, one.weak_type) == (shape, arguments[0].dtype, False)
    for gradient in found:
        for one, argument in zip(gradient, arguments, strict=True):
            assert (one.shape, one.dtype) == (argument.shape, argument.dtype)
            assert one.weak_type == getattr(argument, "weak_type", False)


@column(
    GROUP,
    "eval_shape, dtypes",
    "value, tangent, gradient and both second derivatives without numbers, in float16, bfloat16 and float32, with x64 "
    "on and off, and in float64: the shapes and the dtype of the arguments, and no weak types",
    usual=("swish", "gated_unit"),
)
def dtypes(variant: Variant) -> None:
    for x64, dtype in itertools.product((True, False), DTYPES):
        if x64 or dtype != "float64":
            with jax.enable_x64(x64):
                arguments = variant.structs(dtype)
                alike(variant, jax.eval_shape(second(variant), *arguments), variant.weights.shape, arguments)


@column(
    GROUP,
    "x64 off",
    "float64 numbers given to `jit` are float32 in it, as JAX has it: value and gradient, within 256 unit roundoffs of "
    "float32 of the reach",
    usual=COSTLY,
)
def without_x64(variant: Variant) -> None:
    with jax.enable_x64(False):
        results = jax.jit(pulled(variant))(*variant.numbers())
    truth = Truth(variant, [one.astype(np.float32).astype(np.float64) for one in variant.numbers()])
    weights = variant.weights.astype(np.float32).astype(np.float64)
    jacobian = truth.jacobian()
    axes = (tuple(range(weights.ndim)),) * 2
    gradient = [(np.tensordot(weights, a, axes), np.tensordot(abs(weights), b, axes)) for a, b in jacobian]
    check(list(results), truth.value(), *gradient, dtype="float32")


@column(
    GROUP,
    "weak types",
    "weakly typed arguments behind a first one of bfloat16 give way to it, and have cotangents of their own dtype",
    rows=lambda row: "." not in row and any(one.shapes[1:] for one in ROWS[row]) and row not in ("vjp", "jvp"),
    usual=("swiglu",),
)
def weak_types(variant: Variant) -> None:
    first, *rest = variant.structs("bfloat16")
    weak = [jax.ShapeDtypeStruct(one.shape, jnp.float64, weak_type=True) for one in rest]
    alike(variant, jax.eval_shape(second(variant), first, *weak), variant.weights.shape, (first, *weak))


@column(
    GROUP,
    "0-size",
    "no rows, and no columns: value, tangent, gradient, both second derivatives, `vmap`",
    usual=("swiglu",),
)
def no_size(variant: Variant) -> None:
    for none in ({"n": 0}, {"p": 0, "h": 0}):
        arrays = variant.arrays(sizes={**USUAL, **none})
        shape = jax.eval_shape(variant.fn, *arrays).shape
        assert 0 in shape or "h" not in "".join(variant.shapes[:1])
        alike(variant, jax.jit(second(variant))(*arrays), shape, arrays)
        batch = [jnp.zeros((0, *one.shape)) for one in arrays]
        assert jax.vmap(variant.fn)(*batch).shape == (0, *shape)


@column(
    GROUP,
    "debug_nans, debug_infs",
    "value, gradient and second derivative of finite numbers under both switches",
    usual=COSTLY,
)
def no_nans(variant: Variant) -> None:
    with jax.debug_nans(True), jax.debug_infs(True):
        jax.block_until_ready(jax.jvp(pulled(variant), variant.arrays(), variant.arrays(U)))


@column(
    GROUP,
    "strict promotion",
    '`numpy_rank_promotion("raise")` and `numpy_dtype_promotion("strict")`: value, tangent, gradient and second '
    "derivatives, in bfloat16 and float64",
    usual=("gated_ffn",),
)
def strict(variant: Variant) -> None:
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        for dtype in ("bfloat16", "float64"):
            jax.eval_shape(second(variant), *variant.structs(dtype))


@column(
    GROUP,
    "checking_leaks",
    "`checking_leaks`: gradient under `jit`, of the functions",
    first=True,
    rows=lambda row: "." not in row,
    usual=(),
)
def leaks(variant: Variant) -> None:
    with jax.checking_leaks():
        check(jax.jit(variant.gradient)(*variant.arrays()), *variant.truth().gradient())
