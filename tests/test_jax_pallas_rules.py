"""When the fused projections are used, and what they keep and compose with."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from _jax import assert_same, kept, weights  # noqa: E402
from _jax_pallas import pallas_calls  # noqa: E402

import gated.jax_impl as G  # noqa: E402
from gated.jax_impl.kernels import Blocks, fused_projections  # noqa: E402


def kernels(function: Callable[..., Any], *arguments: Any) -> int:
    """How many kernels there are in what the function is traced to."""
    return str(jax.make_jaxpr(function)(*arguments)).count("pallas_call[")


def linear(x: Any, W: Any, V: Any) -> Any:
    return G.gated_linear(x, W, V, activation="sigmoid")


def three() -> tuple[Any, Any, Any]:
    """x, W and V of small integers: their products are exact, summed in any order."""
    each = weights()
    x, W, V = (jnp.clip(jnp.round(each[name]), -1, 1) for name in ("x", "W", "V"))
    return x, W, V


# Two results of the contract's 5 ulp each, from the same gate and value.
TWO_UNITS = 10


# When


def test_kernels_are_used_inside_of_the_context_alone() -> None:
    arrays = three()
    traces = 0

    @jax.jit
    def function(x: Any, W: Any, V: Any) -> Any:
        nonlocal traces
        traces += 1
        return linear(x, W, V)

    plain = function(*arrays)
    assert (traces, kernels(function, *arrays)) == (1, 0)
    with fused_projections(interpret="tpu"):
        assert kernels(function, *arrays) == 1, "the trace of another context is no use"
        assert_same(function(*arrays), plain, TWO_UNITS)
        large = [jax.ShapeDtypeStruct((64, 64), "float32")] * 3
        for gpu in (Blocks(16, 32, 64), Blocks(32, 16, 16)):
            with fused_projections(interpret="gpu", gpu=gpu):
                (kernel,) = pallas_calls(jax.make_jaxpr(function)(*large).jaxpr)
            *_, result = kernel.params["jaxpr"].invars
            assert result.aval.shape == gpu[:2], "nor is that of other tiles"
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(kernels(linear, *arrays)))
        thread.start()
        thread.join()
        assert seen == [0], "another thread has a context of its own"
    before = traces
    np.testing.assert_array_equal(function(*arrays), plain)
    assert traces == before and kernels(linear, *arrays) == 0
    with pytest.raises(ZeroDivisionError), fused_projections(interpret="tpu"):
        raise ZeroDivisionError
    assert kernels(linear, *arrays) == 0


def test_every_projected_form_uses_them() -> None:
    each = weights()
    x, W, V, W2, b, c, b2 = (each[name] for name in ("x", "W", "V", "W2", "b", "c", "b2"))
    with fused_projections(interpret="gpu"):
        assert kernels(G.glu_linear, x, W, V, b, c) == 1
        assert kernels(G.swiglu_linear, x, W, V, b, c, 0.5) == 1
        assert kernels(G.gated_linear, x, W, V) == 1
        assert kernels(G.gated_ffn, x, W, V, W2, b, c, b2) == 1
        assert kernels(lambda *a: G.vjp(G.gated_ffn, *a)[1](jnp.ones((5, 6))), x, W, V, W2) == 2
        # A W of a wrong shape is refused as ever.
        with pytest.raises(ValueError, match="gated_linear: V must have shape"):
            G.gated_linear(x, W, W2)


def test_plain_operations_serve_where_there_is_no_kernel() -> None:
    arrays = three()
    with fused_projections():  # on the CPU
        value = jax.jit(linear)(*arrays)
    assert_same(value, linear(*arrays), TWO_UNITS)
    with fused_projections(interpret="tpu"):
        assert kernels(linear, *(each.astype(jnp.float16) for each in arrays)) == 0, "a TPU has no float16"
        assert kernels(linear, jnp.zeros((0, 4)), *arrays[1:]) == 0
        assert linear(jnp.zeros((5, 0)), jnp.zeros((0, 8)), jnp.zeros((0, 8))).shape == (5, 8)
    with jax.enable_x64(True), fused_projections(interpret="gpu"):
        assert kernels(linear, *(each.astype(jnp.float64) for each in arrays)) == 0
        assert kernels(linear, *arrays) == 1
        value = linear(*arrays)
    assert value.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"interpret": "cpu"}, ValueError, 'interpret must be "tpu" or "gpu", got \'cpu\''),
        ({"tpu": (256, 256, 512)}, TypeError, "tpu must be a Blocks, got tuple"),
        ({"tpu": Blocks(256, 100, 512)}, ValueError, "columns of tpu must be a positive multiple of 128, got 100"),
        ({"gpu": Blocks(48, 64, 32)}, ValueError, "rows of gpu must be a power of two, a positive multiple of 16"),
        ({"gpu": Blocks(32, 64, 0)}, ValueError, "depth of gpu must be .* got 0"),
        # 2 ((1024^2 + 2 * 1024^2 + 2 * 1024) * 2 + 1024^2 * 2) + 2 * 1024^2 * 4, and 2 (512^2 + 2 * 512 * 64) * 2.
        (
            {"tpu": Blocks(1024, 1024, 1024)},
            ValueError,
            r"tpu must need at most 16777216 bytes .* needs 25174016 in 16",
        ),
        ({"gpu": Blocks(512, 64, 512)}, ValueError, r"gpu must need at most 232448 bytes .* needs 1310720 in 16 bits"),
    ],
)
def test_bad_arguments_are_refused_with_their_names(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"fused_projections: {text}"):
        fused_projections(**arguments)


# What they keep


def test_the_operands_alone_are_kept_and_in_a_block_the_product() -> None:
    each = weights("bfloat16")
    x, W, V, W2 = (each[name] for name in ("x", "W", "V", "W2"))
    operands = [((4, 8), "bfloat16"), ((4, 8), "bfloat16"), ((5, 4), "bfloat16")]
    with fused_projections(interpret="tpu"):
        assert kept(linear, x, W, V) == operands
        block = [*operands, ((5, 8), "bfloat16"), ((8, 6), "bfloat16")]
        assert kept(lambda *a: G.gated_ffn(*a), x, W, V, W2) == sorted(block)


# What they compose with


def total(x: Any, W: Any, V: Any) -> Any:
    """Of integers an integer."""
    return (G.gated_linear(x, W, V, activation="relu") ** 2).sum()


def batched(function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
    return lambda *arrays: jax.vmap(function, axes)(*arrays).sum()


X, WV = (0, None, None), (None, 0, 0)
# Each with the number of kernels that its trace has: forward, pullback, and forward again where it is computed again.
TRANSFORMED: dict[str, tuple[int, Callable[..., Any]]] = {
    "grad": (2, jax.grad(total, (0, 1, 2))),
    "grad of V alone": (2, jax.grad(total, 2)),
    "jvp": (1, lambda *a: jax.jvp(total, a, a)),
    "linearize": (1, lambda *a: jax.linearize(total, *a)[1](*a)),
    "checkpoint": (3, jax.grad(jax.checkpoint(total), (0, 1))),
    "scan": (2, jax.grad(lambda x, W, V: jax.lax.scan(lambda s, r: (s + total(r[None], W, V), None), 0.0, x)[0], 1)),
    "grad of vmap over x": (2, jax.grad(batched(total, X), (0, 1))),
    "vmap of grad over x": (2, jax.vmap(jax.grad(total), X)),
    "grad of vmap over W and V": (1, jax.grad(batched(total, WV), (0, 1))),
    "reverse over reverse": (3, lambda x, W, V: jax.grad(lambda x: (jax.grad(total)(x, W, V) ** 2).sum())(x)),
    "forward over reverse": (2, lambda x, W, V: jax.jvp(lambda x: jax.grad(total)(x, W, V), (x,), (x,))[1]),
    "reverse over forward": (2, lambda x, W, V: jax.grad(lambda x: jax.jvp(total, (x, W, V), (x, W, V))[1])(x)),
    "third": (3, lambda x, W, V: jax.grad(lambda x: (jax.jacfwd(jax.grad(total))(x[:1], W, V) ** 2).sum())(x)),
}
SECOND = ("reverse over reverse", "forward over reverse", "reverse over forward")


def operands_of(name: str) -> tuple[Any, ...]:
    x, W, V = three()
    if "over x" in name:
        return jnp.stack([x, 2 * x]), W, V
    if "over W" in name:
        return x, jnp.stack([W, V]), jnp.stack([V, W])
    return x, W, V


@pytest.mark.parametrize("name", TRANSFORMED)
def test_kernels_are_in_the_traces_of_transformations(name: str) -> None:
    count, function = TRANSFORMED[name]
    with fused_projections(interpret="tpu"):
        assert kernels(function, *operands_of(name)) == count


@pytest.mark.parametrize("name", ["grad", "jvp", "grad of vmap over x", "grad of vmap over W and V", *SECOND])
def test_transformations_under_the_rules_of_the_kernels_are_those_of_plain_operations(name: str) -> None:
    _, function = TRANSFORMED[name]
    operands = operands_of(name)
    # In this context the CPU has plain operations under the kernels' rules; the kernels' numbers are tested elsewhere.
    with fused_projections():
        made = jax.jit(function)(*operands)
    plain = jax.jit(function)
    # A polynomial with positive coefficients, where no gate is negative: what it is at the magnitudes bounds all sums.
    bounds = plain(*map(jnp.abs, operands))
    for one, two, bound in zip(*map(jax.tree.leaves, (made, plain(*operands), bounds)), strict=True):
        assert np.abs(bound).max() < 2**24, "integers of float32"
        np.testing.assert_array_equal(one, two)
        assert np.abs(two).max() >= 1


# On a mesh


def assert_plain(function: Callable[..., Any], *arrays: Any) -> None:
    """That the context changes nothing."""
    for interpret in ("gpu", "tpu"):
        with fused_projections(interpret=interpret):
            assert kernels(function, *arrays) == 0
    with fused_projections():
        assert kernels(function, *arrays) == 0
        made = function(*arrays)
    for one, two in zip(jax.tree.leaves(made), jax.tree.leaves(function(*arrays)), strict=True):
        assert_same(one, two)


def test_shard_map_gives_each_device_a_kernel_of_its_part() -> None:
    x, W, V = three()
    mesh = jax.make_mesh((1,), ("tp",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.P(None, "tp")
    parts = jax.shard_map(linear, mesh=mesh, in_specs=(jax.P(), split, split), out_specs=split, check_vma=False)
    with fused_projections(interpret="gpu"):
        assert kernels(jax.grad(lambda *a: parts(*a).sum(), (0, 1)), x, W, V) == 2
        value = jax.jit(parts)(x, W, V)
    assert_same(value, linear(x, W, V), TWO_UNITS)


@pytest.mark.parametrize("columns", [None, "tp"])
def test_shard_map_that_checks_what_varies_has_plain_operations(columns: str | None) -> None:
    x, W, V = three()
    mesh = jax.make_mesh((1,), ("tp",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.P(None, columns)
    parts = jax.shard_map(linear, mesh=mesh, in_specs=(jax.P(), split, split), out_specs=split, check_vma=True)
    assert_plain(jax.jit(jax.value_and_grad(lambda *a: parts(*a).sum(), (0, 1, 2))), x, W, V)


@pytest.mark.parametrize("set_mesh", [True, False])
def test_on_an_explicit_mesh_there_are_plain_operations(set_mesh: bool) -> None:
    x, W, V = three()
    mesh = jax.make_mesh((1,), ("tp",), axis_types=(jax.sharding.AxisType.Explicit,))
    # Without set_mesh the types of W and V alone tell of the mesh.
    W, V = (jax.device_put(each, jax.NamedSharding(mesh, jax.P(None, "tp"))) for each in (W, V))
    with jax.set_mesh(mesh) if set_mesh else contextlib.nullcontext():
        assert_plain(jax.jit(jax.value_and_grad(lambda *a: linear(*a).sum(), (1, 2))), x, W, V)
