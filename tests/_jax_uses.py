"""Columns of JAX's table of transforms: compilation, control flow, checkpoints, donation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from _jax_derivatives import BATCH, batched, truths
from _jax_rows import ROWS
from _jax_transforms import COSTLY, WIDE, column
from _jax_truth import Array, Exact, U, Variant, check, scaled
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import jaxpr_as_fun

GROUP = "Compilation and control flow"


def pulled(variant: Variant, fn: Callable[..., Array] | None = None) -> Callable[..., tuple[Array, ...]]:
    """The value and the gradient of the cotangent times it, in one function."""

    def run(*arrays: Array) -> tuple[Array, ...]:
        value, pull = jax.vjp(variant.fn if fn is None else fn, *arrays)
        return value, *pull(variant.weights.astype(value.dtype))

    return run


def agrees(variant: Variant, results: Any) -> None:
    """Value and gradient are exact."""
    check(list(results), variant.truth().value(), *variant.truth().gradient())


def both(variant: Variant, which: tuple[int, ...]) -> tuple[Exact, list[Exact]]:
    """The sum of the two examples of a batch, and the gradients one after the other."""
    first, second = truths(variant, which)
    value = tuple(a + b for a, b in zip(first.value(), second.value(), strict=True))
    gradients = [
        tuple(jnp.stack(pair) for pair in zip(a, b, strict=True))
        for a, b in zip(first.gradient(), second.gradient(), strict=True)
    ]
    return value, gradients  # type: ignore[return-value]


@column(GROUP, "jit", "value and gradient under `jit`, and ahead of time by `lower` and `compile`", usual=WIDE)
def jit(variant: Variant) -> None:
    compiled = jax.jit(pulled(variant))
    agrees(variant, compiled(*variant.arrays()))
    agrees(variant, compiled.lower(*variant.structs(jnp.float64)).compile()(*variant.arrays()))


def has_static(row: str) -> bool:
    """Whether the row's call has arguments that are no arrays."""
    return any(isinstance(one.fn, functools.partial) for one in ROWS[row])


@column(
    GROUP,
    "static_argnames",
    "`axis`, `layout`, `activation` and the like as static arguments of `jit`",
    rows=has_static,
    usual=("swiglu", "clamped_swiglu"),
)
def static_arguments(variant: Variant) -> None:
    assert isinstance(variant.fn, functools.partial)
    run = jax.jit(variant.fn.func, static_argnames=tuple(variant.fn.keywords))
    check(run(*variant.arrays(), **variant.fn.keywords), variant.truth().value())


@column(GROUP, "disable_jit", "value, gradient and tangent, one operation at a time", usual=())
def one_by_one(variant: Variant) -> None:
    with jax.disable_jit():
        agrees(variant, pulled(variant)(*variant.arrays()))
        check(jax.jvp(variant.fn, variant.arrays(), variant.arrays(U))[1], variant.truth().along(U))


@column(
    GROUP,
    "make_jaxpr",
    "the jaxpr of value and gradient, evaluated; `jax.closure_convert` of a function that closes over tracers",
    usual=COSTLY,
)
def jaxprs(variant: Variant) -> None:
    arrays = variant.arrays()
    made = jax.make_jaxpr(pulled(variant))(*arrays)
    agrees(variant, jax.jit(jaxpr_as_fun(made))(*arrays))

    def converted(first: Array, *rest: Array) -> Array:
        pure, lifted = jax.closure_convert(lambda x: variant.fn(x, *rest), first)
        return pure(first, *lifted)

    check(jax.grad(lambda *arrays: jnp.sum(variant.weights * converted(*arrays)), variant.every)(*arrays),
          *variant.truth().gradient())  # fmt: skip


@column(
    GROUP,
    "Partial",
    "`jax.tree_util.Partial` of the function as an argument of `jit`; the pullback as a result of `jit`, and its "
    "argument",
    usual=COSTLY,
)
def partials(variant: Variant) -> None:
    first, *rest = variant.arrays()
    check(jax.jit(lambda fn, *rest: fn(*rest))(jax.tree_util.Partial(variant.fn, first), *rest),
          variant.truth().value())  # fmt: skip
    value, pull = jax.jit(functools.partial(jax.vjp, variant.fn))(first, *rest)
    agrees(variant, (value, *jax.jit(lambda pull, c: pull(c))(pull, variant.weights)))


@column(
    GROUP,
    "scan",
    "a sum over examples by `lax.scan`, plain and with `jax.checkpoint` inside: value, gradient, tangent",
    first=True,
    usual=COSTLY,
)
def scan(variant: Variant) -> None:
    given, _ = batched(variant, variant.every, 0)
    value, gradients = both(variant, variant.every)
    start = jnp.zeros(variant.weights.shape)
    for fn in (variant.fn, jax.checkpoint(variant.fn)):

        def run(*given: Array, fn: Callable[..., Array] = fn) -> Array:
            return lax.scan(lambda carry, each: (carry + fn(*each), None), start, given)[0]

        check(jax.jit(pulled(variant, run))(*given), value, *gradients)
    along = [jnp.stack([one, one]) for one in variant.arrays(U)]
    first, second = (truth.along(U) for truth in truths(variant, variant.every))
    tangent = jax.jit(lambda *given: jax.jvp(run, given, tuple(along))[1])(*given)
    check(tangent, (first[0] + second[0], first[1] + second[1]))


@column(
    GROUP,
    "while_loop, fori_loop",
    "three times the function: value and tangent through `while_loop`, gradient through `fori_loop`",
    first=True,
    usual=COSTLY,
)
def loops(variant: Variant) -> None:
    arrays, truth = variant.arrays(), variant.truth()
    start = (0, jnp.zeros(variant.weights.shape))

    def thrice(*arrays: Array) -> Array:
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + variant.fn(*arrays)), start)[1]

    def counted(*arrays: Array) -> Array:
        return lax.fori_loop(0, 3, lambda _, carry: carry + variant.fn(*arrays), start[1])

    results = jax.jit(lambda *arrays: jax.jvp(thrice, arrays, variant.arrays(U)))(*arrays)
    check(results, scaled(truth.value(), 3), scaled(truth.along(U), 3))
    value, *found = jax.jit(pulled(variant, counted))(*arrays)
    check([value, *found], scaled(truth.value(), 3), *(scaled(one, 3) for one in truth.gradient()))


@column(
    GROUP,
    "cond, switch",
    "the function and a multiple of it as branches: value and gradient, the index traced; `switch` under `vmap`",
    first=True,
    usual=COSTLY,
)
def branches(variant: Variant) -> None:
    arrays, truth = variant.arrays(), variant.truth()

    def twice(*arrays: Array) -> Array:
        return -2 * variant.fn(*arrays)

    def by_cond(which: Array) -> tuple[Array, ...]:
        return pulled(variant, lambda *arrays: lax.cond(which == 0, variant.fn, twice, *arrays))(*arrays)

    def by_switch(which: Array) -> tuple[Array, ...]:
        return pulled(variant, lambda *arrays: lax.switch(which, [variant.fn, twice], *arrays))(*arrays)

    alone, at_once = jax.jit(by_cond), jax.jit(jax.vmap(by_switch))(jnp.arange(2))
    for which, factor in enumerate((1, -2)):
        exact = [scaled(one, factor) for one in (truth.value(), *truth.gradient())]
        check(list(alone(jnp.asarray(which))), *exact)
        check([one[which] for one in at_once], *exact)


@column(
    GROUP, "lax.map", "over examples, one at a time and with `batch_size`: value and gradient", first=True, usual=COSTLY
)
def mapped(variant: Variant) -> None:
    given, _ = batched(variant, variant.every, 0)
    _, gradients = both(variant, variant.every)
    for size in (None, len(BATCH)):

        def run(*given: Array, size: int | None = size) -> Array:
            return jnp.sum(lax.map(lambda each: variant.fn(*each), given, batch_size=size), 0)

        check(jax.jit(pulled(variant, run))(*given)[1:], *gradients)


_POLICIES = jax.checkpoint_policies


@column(
    GROUP,
    "checkpoint",
    "`jax.checkpoint` with no policy, `everything_saveable`, `nothing_saveable`, `dots_saveable` and "
    "`save_only_these_names`: value, gradient, second gradient",
    first=True,
    usual=("swish",),
)
def checkpoints(variant: Variant) -> None:
    arrays, truth = variant.arrays(), variant.truth()

    def fn(*arrays: Array) -> Array:
        return checkpoint_name(variant.fn(*(checkpoint_name(one, "argument") for one in arrays)), "result")

    policies = (
        None,
        _POLICIES.everything_saveable,
        _POLICIES.nothing_saveable,
        _POLICIES.dots_saveable,
        _POLICIES.save_only_these_names("argument"),
    )
    for policy in policies:
        agrees(variant, pulled(variant, jax.checkpoint(fn, policy=policy))(*arrays))
    kept = jax.checkpoint(fn, policy=policies[-1])
    slope = jax.grad(lambda *arrays: jnp.sum(variant.weights * kept(*arrays)), variant.every)
    check(jax.jvp(slope, arrays, variant.arrays(U))[1], *truth.gradient(U))


@column(
    GROUP,
    "closed over",
    "tracers of all arguments closed over, within `jit`, `checkpoint`, `vmap`, `scan`, `cond` and `jvp`: gradient",
    first=True,
    usual=COSTLY,
)
def closures(variant: Variant) -> None:
    fn = variant.fn

    def closed(*arrays: Array) -> Array:
        def call() -> Array:
            return fn(*arrays)

        first, *rest = arrays
        return (
            jax.jit(call)()
            + jax.checkpoint(call)()
            + jax.vmap(lambda _: call())(jnp.arange(2))[1]
            + lax.scan(lambda carry, _: (carry + call(), None), jnp.zeros_like(call()), None, length=2)[0]
            + lax.cond(jnp.sum(first) < jnp.inf, call, call)
            + jax.jvp(lambda x: fn(x, *rest), (first,), (jnp.zeros_like(first),))[0]
        )

    exact = [scaled(one, 7) for one in (variant.truth().value(), *variant.truth().gradient())]
    check(list(jax.jit(pulled(variant, closed))(*variant.arrays())), *exact)


@column(
    GROUP,
    "donated buffers",
    "a step along the gradient under `jit(donate_argnums=...)`: the results, and that the arguments are gone",
    first=True,
    usual=COSTLY,
)
def donated(variant: Variant) -> None:
    def step(*arrays: Array) -> tuple[Array, ...]:
        _, *found = pulled(variant)(*arrays)
        return tuple(one - slope / 4 for one, slope in zip(arrays, found, strict=True))

    arrays = variant.arrays()
    results = jax.jit(step, donate_argnums=variant.every)(*arrays)
    assert all(one.is_deleted() for one in arrays)
    exact = zip(variant.numbers(), variant.truth().gradient(), strict=True)
    check(results, *((one - slope / 4, abs(one) + reach / 4) for one, (slope, reach) in exact))
