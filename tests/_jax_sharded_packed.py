"""Checks over eight devices: what a packed projection sends, by its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _jax_sharded import check, compiled
from _jax_sharded_blocks import HIDDEN, arguments, cotangent, expected, mesh, placed, within
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

import gated.jax_impl as G
from gated.jax_impl.sharding import repack


def _given() -> dict[str, NDArray[Any]]:
    every = arguments()
    return {name: every[name] for name in ("x", "W", "V", "W2", "beta")}


def _there_and_back(f: Callable[..., Any], weights: Any, spec: P) -> tuple[dict[str, Any], Any]:
    """The value and the gradients of the block ``f``, whose packed weights are sharded, and what is sent."""
    given, on = _given(), mesh(1, 8)
    at = placed((given["x"], weights, given["W2"], given["beta"]), on, (P(), spec, P("tp", None), P()))
    dy = jax.device_put(cotangent(), NamedSharding(on, P()))

    def both(primals: Any, dy: Any) -> Any:
        value, pullback = jax.vjp(f, *primals)
        return value, pullback(dy)

    ends = (dy.sharding, tuple(one.sharding for one in at))
    run, what = compiled(both, at, dy, out_shardings=ends)
    value, (x, packed, W2, beta) = run(at, dy)
    return {"value": value, "x": x, "packed": packed, "W2": W2, "beta": beta}, what


def _halves(packed: Any, layout: str) -> dict[str, Any]:
    """The gradients of W and V from that of a packed array."""
    whole = repack(jnp.asarray(np.asarray(packed)), layout, "gate_first")
    return {"W": whole[..., :HIDDEN], "V": whole[..., HIDDEN:]}


@check("devices")
def repacked_weights_are_sharded_without_a_permutation_and_contiguous_ones_are_not(_: Path) -> None:
    given = _given()
    contiguous = jnp.concatenate([given["W"], given["V"]], axis=1)
    true = expected(given, cotangent())
    for layout in ("gate_first", "interleaved"):
        weights = repack(contiguous, "gate_first", layout)

        def block(x: Any, packed: Any, W2: Any, beta: Any, layout: str = layout) -> Any:
            hidden = G.swiglu(jnp.matmul(x, packed, precision="highest"), beta, layout=layout)
            return jnp.matmul(hidden, W2, precision="highest")

        results, what = _there_and_back(block, weights, P(None, "tp"))
        within(
            {name: one for name, one in results.items() if name != "packed"} | _halves(results["packed"], layout), true
        )
        if layout == "interleaved":
            assert set(what) == {"all-reduce"}, what
            assert len(what["all-reduce"]) == 3, what  # value, x, beta
        else:
            assert "collective-permute" in what, what


@check("devices")
def stacked_weights_are_sharded_without_a_permutation(_: Path) -> None:
    given = _given()
    stacked = jnp.stack([given["W"], given["V"]], axis=1)

    def block(x: Any, stacked: Any, W2: Any, beta: Any) -> Any:
        pair = jnp.einsum("bld,dcf->blcf", x, stacked, precision="highest")
        hidden = G.swiglu(pair, beta, axis=-2, layout="gate_first")
        return jnp.einsum("blcf,fo->blo", hidden, W2, precision="highest")

    results, what = _there_and_back(block, stacked, P(None, None, "tp"))
    packed = np.asarray(results.pop("packed"))
    within(results | {"W": jnp.asarray(packed[:, 0]), "V": jnp.asarray(packed[:, 1])}, expected(given, cotangent()))
    assert set(what) == {"all-reduce"}, what
    assert len(what["all-reduce"]) == 3, what  # value, x, beta


@check("devices")
def what_an_explicit_mesh_shards_is_repacked_before(_: Path) -> None:
    on = mesh(2, 4, AxisType.Explicit)
    with jax.set_mesh(on):
        x = jax.device_put(jnp.ones((4, 16)), NamedSharding(on, P("data", "tp")))
        for source, target in (("gate_first", "interleaved"), ("interleaved", "gate_last")):
            for f in (repack, jax.jit(repack, static_argnums=(1, 2))):
                with pytest.raises(ValueError, match=r"repack: x must be whole along axis 1, .*before it is sharded"):
                    f(x, source, target)
        rows = jax.device_put(jnp.arange(64.0).reshape(4, 16), NamedSharding(on, P("data", None)))
        again = repack(rows, "gate_first", "interleaved")
        assert jax.typeof(again).sharding.spec == P("data", None)
    np.testing.assert_array_equal(again[:, ::2], rows[:, :8])
