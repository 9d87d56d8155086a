"""What JAX keeps for the backward pass beside the arguments: gated, and the plain code of the field.

    python benchmarks/jax_saved.py

Nothing is computed: jax.vjp is traced with abstract arrays, of the sizes of a block of Llama 3 8B.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
from flax import nnx
from jax._src.ad_checkpoint import saved_residuals

import gated.jax_impl as G
from gated.jax_impl import linen
from gated.jax_impl import nnx as gated_nnx

TOKENS, WIDTH, HIDDEN = 2048, 4096, 14336


def saved(f: Callable[..., Any], *arguments: Any) -> list[jax.core.ShapedArray]:
    """What is kept beside the arguments, but for single numbers."""
    return [aval for aval, source in saved_residuals(f, *arguments) if aval.shape and "argument" not in source]


def array(*shape: int, dtype: str) -> jax.ShapeDtypeStruct:
    """An abstract array."""
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def plain_ffn(x: Any, W: Any, V: Any, W2: Any) -> Any:
    """Llama's block in jnp."""
    return (jax.nn.silu(x @ W) * (x @ V)) @ W2


class PlainNNX(nnx.Module):
    """As NNX models write Llama's block."""

    def __init__(self, dtype: str, rngs: nnx.Rngs) -> None:
        settings = {"use_bias": False, "dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.gate_proj, self.up_proj = (nnx.Linear(WIDTH, HIDDEN, **settings) for _ in range(2))
        self.down_proj = nnx.Linear(HIDDEN, WIDTH, **settings)

    def __call__(self, x: Any) -> Any:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


def modules(dtype: str) -> Iterator[tuple[str, Callable[..., Any], Any]]:
    """The modules, as functions of their parameters and x."""
    settings = {"dtype": dtype, "param_dtype": dtype}
    makers = {"three nnx.Linear and jax.nn.silu": lambda: PlainNNX(dtype, nnx.Rngs(0))}
    for recompute in ("product", "all"):
        makers[f'nnx.GatedFFN(recompute="{recompute}")'] = lambda recompute=recompute: gated_nnx.GatedFFN(
            WIDTH, HIDDEN, recompute=recompute, **settings, rngs=nnx.Rngs(0)
        )
    for name, make in makers.items():
        graph, state = nnx.split(nnx.eval_shape(make))
        yield name, lambda state, x, graph=graph: nnx.merge(graph, state)(x), state
    for recompute in ("product", "all"):
        module: flax.linen.Module = linen.GatedFFN(WIDTH, HIDDEN, recompute=recompute, **settings)
        parameters = jax.eval_shape(module.init, jax.random.key(0), array(TOKENS, WIDTH, dtype=dtype))
        yield f'linen.GatedFFN(recompute="{recompute}")', module.apply, parameters


def main() -> None:
    """A table for each dtype."""
    for dtype in ("bfloat16", "float32"):
        x, pair = array(TOKENS, WIDTH, dtype=dtype), [array(TOKENS, HIDDEN, dtype=dtype)] * 2
        packed, beta = array(TOKENS, 2 * HIDDEN, dtype=dtype), array(dtype=dtype)
        weights = [array(WIDTH, HIDDEN, dtype=dtype)] * 2 + [array(HIDDEN, WIDTH, dtype=dtype)]
        rows: list[tuple[str, list[jax.core.ShapedArray]]] = [
            ("jax.nn.silu(gate) * value", saved(lambda g, v: jax.nn.silu(g) * v, *pair)),
            (
                "gate * jax.nn.sigmoid(beta * gate) * value",
                saved(lambda g, v, b: g * jax.nn.sigmoid(b * g) * v, *pair, beta),
            ),
            ("gated_unit(gate, value, beta=beta)", saved(lambda g, v, b: G.gated_unit(g, v, beta=b), *pair, beta)),
            ("jax.nn.glu(x)", saved(jax.nn.glu, packed)),
            ("glu(x)", saved(G.glu, packed)),
            ("(jax.nn.silu(x @ W) * (x @ V)) @ W2", saved(plain_ffn, x, *weights)),
            ("gated_ffn(x, W, V, W2)", saved(G.gated_ffn, x, *weights)),
        ]
        rows += [(name, saved(f, parameters, x)) for name, f, parameters in modules(dtype)]
        print(f"\n{dtype}, {TOKENS} tokens, {WIDTH} x {HIDDEN}: kept beside the arguments\n")
        for name, arrays in rows:
            size = sum(one.size * one.dtype.itemsize for one in arrays)
            counts = Counter(one.str_short(short_dtypes=True) for one in arrays)
            print(f"{name:45} {size / 2**20:6.0f} MiB  {', '.join(f'{n} x {shape}' for shape, n in counts.items())}")


if __name__ == "__main__":
    main()
