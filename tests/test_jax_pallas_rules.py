"""When the fused projections are used, and what they keep and compose with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from _jax import kept, weights  # noqa: E402

import gated.jax_impl as G  # noqa: E402
from gated.jax_impl.kernels import Blocks, fused_projections  # noqa: E402


def kernels(function: Callable[..., Any], *arguments: Any) -> int:
    """How many kernels there are in what the function is traced to."""
    return str(jax.make_jaxpr(function)(*arguments)).count("pallas_call[")


def linear(x: Any, W: Any, V: Any) -> Any:
    return G.gated_linear(x, W, V, activation="sigmoid")


def three() -> tuple[Any, Any, Any]:
    each = weights()
    return each["x"], each["W"], each["V"]


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
        np.testing.assert_allclose(function(*arrays), plain, rtol=1e-5)
        with fused_projections(interpret="gpu", gpu=Blocks(16, 16, 16)):
            assert "16" in str(jax.make_jaxpr(function)(*arrays))
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
        np.testing.assert_allclose(jax.jit(linear)(*arrays), linear(*arrays), rtol=1e-6)
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
    return jnp.sin(linear(x, W, V)).sum()


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
    expected = jax.jit(function)(*operands)
    for one, two in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
        assert np.abs(two).max() > 1e-3


def test_shard_map_gives_each_device_a_kernel_of_its_part() -> None:
    x, W, V = three()
    mesh = jax.make_mesh((1,), ("tp",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.P(None, "tp")
    # Under check_vma=True JAX wants each kernel to say over which axes its results vary.
    parts = jax.shard_map(linear, mesh=mesh, in_specs=(jax.P(), split, split), out_specs=split, check_vma=False)
    with fused_projections(interpret="gpu"):
        assert kernels(jax.grad(lambda *a: parts(*a).sum(), (0, 1)), x, W, V) == 2
        np.testing.assert_allclose(jax.jit(parts)(x, W, V), linear(x, W, V), rtol=1e-5)
