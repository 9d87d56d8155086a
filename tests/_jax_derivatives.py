"""Columns of JAX's table of transforms: every order and mode of differentiation, and batches."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flint
import jax
import jax.numpy as jnp
import numpy as np
from _jax_transforms import COSTLY, WIDE, column
from _jax_truth import Array, Exact, U, V, Variant, W, check, times
from _jets import PRECISION, constants, part
from jax.test_util import check_grads

from gated.conformance.calls import UNARY, UNITS

ORDERS, BATCHES = "Orders and modes", "Batches"


def total(exact: Exact, weights: Any) -> Exact:
    """The cotangent times what is exact."""
    return np.array(np.sum(exact[0] * weights)), np.array(np.sum(exact[1] * np.abs(weights)))


# Orders and modes


@column(ORDERS, "grad", "`jax.grad` in every argument, outside of any `jit`")
def gradient(variant: Variant) -> None:
    check(variant.gradient(*variant.arrays()), *variant.truth().gradient())


@column(ORDERS, "value_and_grad", "in every argument, under `jit`", usual=COSTLY)
def value_and_grad(variant: Variant) -> None:
    value, found = jax.jit(jax.value_and_grad(variant.scalar, variant.every))(*variant.arrays())
    check(value, total(variant.truth().value(), variant.weights))
    check(found, *variant.truth().gradient())


@column(ORDERS, "vjp", "value and pullback, which is called twice")
def vjp(variant: Variant) -> None:
    value, pull = jax.vjp(variant.fn, *variant.arrays())
    check(value, variant.truth().value())
    for _ in range(2):
        check(pull(variant.weights), *variant.truth().gradient())


@column(ORDERS, "jvp", "value and tangent along a direction")
def jvp(variant: Variant) -> None:
    results = jax.jvp(variant.fn, variant.arrays(), variant.arrays(U))
    check(results, variant.truth().value(), variant.truth().along(U))


@column(ORDERS, "linearize", "value and linear function, which is applied to two directions", usual=WIDE)
def linearize(variant: Variant) -> None:
    value, linear = jax.linearize(variant.fn, *variant.arrays())
    check(value, variant.truth().value())
    for seed in (U, V):
        check(linear(*variant.arrays(seed)), variant.truth().along(seed))


@column(
    ORDERS,
    "linear_transpose",
    "of the linear function of `linearize`, which is the pullback; and of the pullback, which is the tangent",
    usual=COSTLY,
)
def linear_transpose(variant: Variant) -> None:
    arrays = variant.arrays()
    value, linear = jax.linearize(variant.fn, *arrays)
    check(jax.linear_transpose(linear, *arrays)(variant.weights), *variant.truth().gradient())
    _, pull = jax.vjp(variant.fn, *arrays)
    (tangent,) = jax.linear_transpose(pull, value)(variant.arrays(U))
    check(tangent, variant.truth().along(U))


@column(ORDERS, "jacfwd, jacrev", "every element of the Jacobian", usual=COSTLY)
def jacobians(variant: Variant) -> None:
    for mode in (jax.jacfwd, jax.jacrev):
        check(mode(variant.fn, variant.every)(*variant.arrays()), *variant.truth().jacobian())


@column(
    ORDERS,
    "hessian",
    "`jacfwd` of `jacrev`, which is `jax.hessian`, and `jacrev` of `jacfwd`; each block times a direction",
    first=True,
    usual=(),
)
def hessian(variant: Variant) -> None:
    places, directions = variant.every, variant.arrays(U)
    for order in (jax.hessian, lambda fn, which: jax.jacrev(jax.jacfwd(fn, which), which)):
        blocks = order(variant.scalar, places)(*variant.arrays())
        check([_contracted(row, directions) for row in blocks], *variant.truth().gradient(U))


def _contracted(row: Sequence[Array], directions: Sequence[Array]) -> Array:
    return sum((jnp.tensordot(block, one, one.ndim) for block, one in zip(row, directions, strict=True)), jnp.zeros(()))


@column(
    ORDERS,
    "second order",
    "`jvp` of `grad`, `grad` of `jvp`, `grad` of `grad` and `jvp` of `jvp`, along a direction",
    usual=(),
)
def second_order(variant: Variant) -> None:
    arrays, truth = variant.arrays(), variant.truth().gradient(U)
    check(jax.jvp(variant.gradient, arrays, variant.arrays(U))[1], *truth)
    check(jax.grad(forward(variant.scalar, variant, U), variant.every)(*arrays), *truth)
    check(jax.grad(variant.slope, variant.every)(*arrays), *truth)
    check(forward(forward(variant.fn, variant, U), variant, U)(*arrays), variant.truth().along(U, U))


def forward(fn: Callable[..., Array], variant: Variant, seed: int) -> Callable[..., Array]:
    """The tangent along a direction."""
    return lambda *arrays: jax.jvp(fn, arrays, variant.arrays(seed))[1]


def reverse(fn: Callable[..., Array], variant: Variant, seed: int) -> Callable[..., Array]:
    """The gradient times a direction."""
    return lambda *arrays: times(jax.grad(fn, variant.every)(*arrays), variant.arrays(seed))


@column(
    ORDERS,
    "third order",
    "`grad` of `grad` of `grad`, and `jvp` of `grad` of `jvp`, along directions of their own",
    first=True,
    usual=("silu",),
)
def third_order(variant: Variant) -> None:
    arrays, truth = variant.arrays(), variant.truth().gradient(U, V)
    check(jax.grad(reverse(variant.slope, variant, V), variant.every)(*arrays), *truth)
    sandwich = forward(reverse(forward(variant.scalar, variant, U), variant, V), variant, W)
    check(sandwich(*arrays), total(variant.truth().along(U, V, W), variant.weights))


def elementwise(row: str) -> bool:
    return row in (*UNARY, *UNITS)


@column(
    ORDERS,
    "third order, mixed",
    "all eight nestings of reverse and forward mode along three directions, of activations and units",
    first=True,
    rows=elementwise,
    usual=(),
)
def third_order_mixed(variant: Variant) -> None:
    exact = total(variant.truth().along(U, V, W), variant.weights)
    for modes in itertools.product((reverse, forward), repeat=3):
        fn = variant.scalar
        for mode, seed in zip(modes, (U, V, W), strict=True):
            fn = mode(fn, variant, seed)
        check(fn(*variant.arrays()), exact)


STEP = 2.0**-13
LARGEST_NORMAL = 2.5
"""Of the normal numbers that ``check_grads`` draws for functions of a few numbers, always the same."""


@column(
    ORDERS,
    "check_grads",
    '`check_grads(order=3, modes=("fwd", "rev"))` along a line, a function of one number: see below',
    first=True,
    rows=lambda row: row in (*UNARY, "gated_unit"),
    usual=(),
)
def gradients_are_checked(variant: Variant) -> None:
    """A central difference is off by step^2 / 6 times a third derivative.

    The function of one number is divided by the largest reach of its first five derivatives, and its argument is a
    half: no factor in what follows exceeds 1. What is differenced are g, its derivative along a number, g g', and
    those two of them. The most terms has h h' with h = g g': 2 products of 4 factors, and 2 * 4^3 in the third
    derivative. Along normal numbers each is at most LARGEST_NORMAL^3.
    """
    point, line = variant.numbers(), variant.numbers(U)
    largest = max(_reaches(variant, point, line))

    def g(s: Array) -> Array:
        moved = [jnp.asarray(x) + (s - 0.5) * jnp.asarray(d) for x, d in zip(point, line, strict=True)]
        return variant.scalar(*moved) / largest

    tolerance = STEP**2 / 6 * 128 * LARGEST_NORMAL**3
    check_grads(jax.jit(g), (jnp.asarray(0.5),), 3, ("fwd", "rev"), atol=tolerance, rtol=0.0, eps=STEP)


def _reaches(variant: Variant, point: Sequence[Any], line: Sequence[Any]) -> list[float]:
    """The reaches of the first derivatives of the scalar along a line."""
    moved = []
    for x, d in zip(point, line, strict=True):
        one = constants(x)
        for index in np.ndindex(one.shape):
            for direction in range(5):
                one[index] = one[index].along(direction, float(d[index]))
        moved.append(one)
    with flint.ctx.workprec(PRECISION):
        jets = variant.exact(*moved)
    return [float(np.sum(np.abs(variant.weights) * part(jets, 2**order - 1)[1])) for order in range(6)]


# Batches


BATCH = (0, 4)
"""The seeds of the two examples of a batch."""


def batches(variant: Variant) -> list[tuple[int, ...]]:
    """Which arguments are batched: all, and each alone."""
    return [variant.every, *((place,) for place in variant.every if len(variant.every) > 1)]


def batched(variant: Variant, which: Sequence[int], dim: int) -> tuple[list[Array], tuple[int | None, ...]]:
    """The arguments with a batch at the places, along the first or the last axis; and ``in_axes``."""
    pairs = zip(*(variant.arrays(seed) for seed in BATCH), strict=True)
    given = [jnp.stack(pair, dim) if place in which else pair[0] for place, pair in enumerate(pairs)]
    return given, tuple(dim if place in which else None for place in variant.every)


def truths(variant: Variant, which: Sequence[int]) -> list[Any]:
    """The exact results of the two examples."""
    seeds = [[seed if place in which else BATCH[0] for place in variant.every] for seed in BATCH]
    return [variant.truth(*one) for one in seeds]


@column(
    BATCHES,
    "vmap",
    "over all arguments and over each alone (x, beta), `in_axes` 0, -1 and None, `out_axes` 0 and -1, and nested",
    usual=("swish", "gated_unit"),
)
def vmap(variant: Variant) -> None:
    for which in batches(variant):
        exact = [truth.value() for truth in truths(variant, which)]
        for dim in (0, -1):
            given, axes = batched(variant, which, dim)
            mapped = jax.vmap(variant.fn, axes, dim)(*given)
            check([mapped.take(example, dim) for example in (0, 1)], *exact)
    given, axes = batched(variant, variant.every, 0)
    exact = [truth.value() for truth in truths(variant, variant.every)]
    for rows in jax.vmap(jax.vmap(variant.fn, axes), 1, 1)(*(jnp.stack([one, one], 1) for one in given)).swapaxes(0, 1):
        check(list(rows), *exact)


@column(
    BATCHES,
    "vmap of grad",
    "the gradient, and its derivative along a direction, of each example",
    usual=("swish",),
)
def vmap_of_grad(variant: Variant) -> None:
    second = functools.partial(_along_u, variant)
    for which in batches(variant)[:3]:
        given, axes = batched(variant, which, 0)
        mapped = jax.vmap(second, axes)(*given)
        for example, truth in enumerate(truths(variant, which)):
            for one, exact in zip(mapped, (truth.gradient(), truth.gradient(U)), strict=True):
                check([result[example] for result in one], *exact)


def _along_u(variant: Variant, *arrays: Array) -> tuple[Sequence[Array], Sequence[Array]]:
    found: tuple[Sequence[Array], Sequence[Array]] = jax.jvp(variant.gradient, arrays, variant.arrays(U))
    return found


@column(BATCHES, "grad of vmap", "the gradient of a sum over a batch; of an argument without one, summed", usual=COSTLY)
def grad_of_vmap(variant: Variant) -> None:
    for which in batches(variant)[:3]:
        given, axes = batched(variant, which, 0)
        found = jax.grad(_batch_sum, range(2, 2 + len(given)))(variant, axes, *given)
        gradients = [truth.gradient() for truth in truths(variant, which)]
        for place, one in enumerate(found):
            first, second = (gradient[place] for gradient in gradients)
            if place in which:
                check(list(one), first, second)
            else:
                check(one, (first[0] + second[0], first[1] + second[1]))


def _batch_sum(variant: Variant, axes: tuple[int | None, ...], *given: Array) -> Array:
    return jnp.sum(jax.vmap(variant.fn, axes)(*given) * variant.weights)
