"""Parameters saved and restored, by Orbax and msgpack, in NNX, in Linen, and from one to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
ocp = pytest.importorskip("orbax.checkpoint")

import flax.serialization  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from _jax import assert_same  # noqa: E402
from flax import nnx  # noqa: E402

from gated.jax_impl import linen  # noqa: E402
from gated.jax_impl import nnx as gated_nnx  # noqa: E402

SETTINGS = {"beta": 0.7, "learn_beta": True, "bias": True, "param_dtype": jnp.bfloat16}


def new(seed: int = 0) -> Any:
    return gated_nnx.GatedFFN(4, 8, 6, **SETTINGS, bias_init=jax.nn.initializers.normal(1.0), rngs=nnx.Rngs(seed))


def test_orbax_restores_every_bit_without_making_parameters_first(tmp_path: Path) -> None:
    x = jnp.asarray(np.linspace(-2, 2, 20).reshape(5, 4), jnp.bfloat16)
    module = new()
    result = module(x)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "nnx", nnx.state(module))
        checkpointer.save(tmp_path / "pure", nnx.to_pure_dict(nnx.state(module)))
        checkpointer.wait_until_finished()
        graph, abstract = nnx.split(nnx.eval_shape(lambda: new(1)))
        restored = nnx.merge(graph, checkpointer.restore(tmp_path / "nnx", abstract))
        # Linen has the same names: it reads what NNX wrote.
        other = linen.GatedFFN(4, 8, 6, **SETTINGS)
        blank = jax.eval_shape(other.init, jax.random.key(1), x)["params"]
        parameters = checkpointer.restore(tmp_path / "pure", blank)
    assert jax.tree.map(lambda leaf: leaf.dtype, parameters) == jax.tree.map(lambda leaf: leaf.dtype, blank)
    assert_same(restored(x), result)
    assert_same(other.apply({"params": parameters}, x), result)
    # And NNX what Linen wrote.
    twin = new(2)
    as_bytes = flax.serialization.msgpack_serialize(parameters)
    nnx.update(twin, flax.serialization.msgpack_restore(as_bytes))
    jax.tree.map(assert_same, nnx.to_pure_dict(nnx.state(twin)), nnx.to_pure_dict(nnx.state(module)))
