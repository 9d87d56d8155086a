"""The same model as a Flax NNX stack: 30 layers in arrays with a leading axis, run by one scan."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gated.interop import convert
from gated.jax_impl.nnx import GatedFFN

__all__ = ["Decoder", "from_torch", "greedy"]

Array = jax.Array


class Attention(nnx.Module):
    """Causal attention with rotary positions, several heads of queries to one of keys and values."""

    def __init__(self, config: Any, frequencies: tuple[float, ...], *, rngs: nnx.Rngs) -> None:
        self.heads, self.shared = config.num_attention_heads, config.num_key_value_heads
        self.size = config.hidden_size // self.heads
        self.frequencies = frequencies

        def linear(inside: int, outside: int) -> nnx.Linear:
            return nnx.Linear(inside, outside, use_bias=False, rngs=rngs)

        self.q_proj = linear(config.hidden_size, self.heads * self.size)
        self.k_proj = linear(config.hidden_size, self.shared * self.size)
        self.v_proj = linear(config.hidden_size, self.shared * self.size)
        self.o_proj = linear(self.heads * self.size, config.hidden_size)

    def __call__(self, x: Array) -> Array:
        """(length, features) to the same."""
        length = len(x)
        q = self._turned(self.q_proj(x).reshape(length, self.heads, self.size))
        k = self._turned(self.k_proj(x).reshape(length, self.shared, self.size))
        v = self.v_proj(x).reshape(length, self.shared, self.size)
        attended = jax.nn.dot_product_attention(q[None], k[None], v[None], is_causal=True)
        return self.o_proj(attended.reshape(length, -1))

    def _turned(self, x: Array) -> Array:
        """Each pair of features turned by its frequency times the position (J. Su et al., arXiv:2104.09864)."""
        angles = jnp.arange(len(x), dtype=jnp.float32)[:, None, None] * jnp.asarray(self.frequencies, jnp.float32)
        first, second = jnp.split(x, 2, -1)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


class Layer(nnx.Module):
    """A decoder layer: attention and the gated feed-forward block, each after a norm and beside a residual."""

    def __init__(self, config: Any, frequencies: tuple[float, ...], *, rngs: nnx.Rngs) -> None:
        def norm() -> nnx.RMSNorm:
            return nnx.RMSNorm(config.hidden_size, epsilon=config.rms_norm_eps, rngs=rngs)

        self.input_layernorm, self.post_attention_layernorm = norm(), norm()
        self.self_attn = Attention(config, frequencies, rngs=rngs)
        self.mlp = GatedFFN(config.hidden_size, config.intermediate_size, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(length, features) to the same."""
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nnx.Module):
    """Embedding, the stack of layers, a norm, and the embedding again for the logits.

    Args:
        config: of transformers' model.
        frequencies: of the rotary positions, an angle a position, for each pair of a head's features.
    """

    def __init__(self, config: Any, frequencies: tuple[float, ...], *, rngs: nnx.Rngs) -> None:
        self.embed_tokens = nnx.Embed(config.vocab_size, config.hidden_size, rngs=rngs)

        @nnx.split_rngs(splits=config.num_hidden_layers)
        @nnx.vmap
        def stacked(rngs: nnx.Rngs) -> Layer:
            return Layer(config, frequencies, rngs=rngs)

        self.layers = stacked(rngs)
        self.norm = nnx.RMSNorm(config.hidden_size, epsilon=config.rms_norm_eps, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        """(length,) to (length, vocabulary)."""

        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(layer: Layer, x: Array) -> Array:
            return layer(x)

        return self.embed_tokens.attend(self.norm(run(self.layers, self.embed_tokens(tokens))))


def from_torch(model: Any) -> Decoder:
    """The decoder with the weights of transformers' model, the feed-forward blocks' by ``gated.interop.convert``."""
    state = {key: weight.numpy() for key, weight in model.state_dict().items()}
    layers = [_layer(state, f"model.layers.{number}.") for number in range(model.config.num_hidden_layers)]
    arrays = {
        "embed_tokens.embedding": state["model.embed_tokens.weight"],
        "norm.scale": state["model.norm.weight"],
    } | {f"layers.{key}": np.stack([layer[key] for layer in layers]) for key in layers[0]}
    # Taken over and not computed again: an ulp of a frequency is many of the angle at a late position.
    frequencies = tuple(model.model.rotary_emb.inv_freq.tolist())
    decoder = nnx.eval_shape(lambda: Decoder(model.config, frequencies, rngs=nnx.Rngs(0)))
    nnx.update(decoder, nnx.State(_nested({key: jnp.asarray(array) for key, array in arrays.items()})))
    return decoder


def _layer(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    attention = [f"self_attn.{letter}_proj" for letter in "qkvo"]
    norms = ["input_layernorm", "post_attention_layernorm"]
    return {
        **{f"{name}.kernel": state[f"{prefix}{name}.weight"].T for name in attention},
        **{f"{name}.scale": state[f"{prefix}{name}.weight"] for name in norms},
        **convert(state, "llama", "gated-flax-nnx", prefix=f"{prefix}mlp.", target_prefix="mlp."),
    }


def _nested(arrays: dict[str, Any]) -> Any:
    return nnx.traversals.unflatten_mapping({tuple(key.split(".")): array for key, array in arrays.items()})


def greedy(decoder: Decoder, tokens: list[int], count: int, end: int) -> list[int]:
    """The ``count`` likeliest next tokens, one after the other, or fewer where ``end`` is among them.

    Each is computed from the whole text: there is no cache of keys and values.
    """
    graph, state = nnx.split(decoder)
    padded = jnp.zeros(len(tokens) + count, jnp.int32).at[: len(tokens)].set(jnp.asarray(tokens))
    found: list[int] = []
    for place in range(len(tokens), len(tokens) + count):
        padded = _next(graph, state, padded, place)
        found.append(int(padded[place]))
        if found[-1] == end:
            break
    return found


@partial(jax.jit, static_argnums=0)
def _next(graph: Any, state: Any, tokens: Array, place: int) -> Array:
    """The tokens with the likeliest at ``place``. Those behind it are not seen: attention is causal."""
    logits = nnx.merge(graph, state)(tokens)
    return tokens.at[place].set(logits[place - 1].argmax())
