"""The rows of JAX's table of transforms: public functions and modules as functions of arrays, with exact results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import _exact_forms as exact
import jax
import jax.numpy as jnp
from _jax_truth import Array, Variant
from _jets import Jets
from flax import nnx

import gated.jax_impl as G
from gated.contract import ACTIVATIONS, ARRAY_PARAMETERS, LAYOUTS
from gated.jax_impl import linen as gated_linen
from gated.jax_impl import nnx as gated_nnx

__all__ = ["ROWS"]

# What is no array is a keyword of a ``functools.partial``, for a test of static arguments to find.


def _unary(function: str, name: str, **keywords: Any) -> Variant:
    fn = functools.partial(getattr(G, function), **keywords) if keywords else getattr(G, function)
    return Variant(f"{function}-{name}", fn, lambda x: exact.unit(name, x, None), ("nh",))


def _pack_of(function: str, name: str) -> list[Variant]:
    """A unit of one packed array in the three layouts, one of them along the first axis."""
    keywords = {"approximate": "tanh"} if name == "gelu_tanh" else {}
    variants = []
    for layout in LAYOUTS:
        axis = 0 if layout == "gate_first" else -1
        fn = functools.partial(getattr(G, function), layout=layout, axis=axis, **keywords)
        shape = "pn" if axis == 0 else "np"
        variants.append(Variant(f"{function}-{name}-{layout}", fn, exact.packed(name, layout, axis), (shape,)))
    return variants


def _with_beta() -> list[Variant]:
    return [
        Variant(
            f"swiglu-beta-{layout}",
            functools.partial(G.swiglu, layout=layout),
            exact.packed("swish", layout),
            ("np", shape),
        )
        for layout, shape in zip(LAYOUTS, ("h", "nh", ""), strict=True)
    ]


def _clamped() -> list[Variant]:
    numbers = {"alpha": 1.702, "limit": 0.9, "offset": 1.0}
    return [
        Variant(
            f"clamped_swiglu-{layout}",
            functools.partial(G.clamped_swiglu, layout=layout, **numbers),
            exact.clamped(**numbers, layout=layout),
            ("np",),
        )
        for layout in ("interleaved", "gate_last")
    ]


def _call_pair(gate: Array, value: Array, beta: Any = 1.0, *, activation: str) -> Array:
    return G.gated_unit(gate, value, activation=activation, beta=beta)


def _pair(name: str) -> Variant:
    beta = ("h",) if name == "swish" else ()
    fn = functools.partial(_call_pair, activation=name)
    return Variant(f"gated_unit-{name}", fn, functools.partial(exact.unit, name), ("nh", "nh", *beta))


_BIASED = ("nd", "dh", "dh", "h", "h")


def _call_linear(x: Array, W: Array, V: Array, b: Array, c: Array, beta: Any = 1.0, *, activation: str) -> Array:
    return G.gated_linear(x, W, V, b, c, activation=activation, beta=beta)


def _linear(name: str) -> Variant:
    beta = ("h",) if name == "swish" else ()
    fn = functools.partial(_call_linear, activation=name)
    return Variant(f"gated_linear-{name}", fn, exact.projected(name), (*_BIASED, *beta))


def _call_ffn(
    x: Array, W: Array, V: Array, W2: Array, b: Array, c: Array, b2: Array, beta: Any = 1.0, *, activation: str
) -> Array:
    return G.gated_ffn(x, W, V, W2, b, c, b2, activation=activation, beta=beta)


def _ffn(name: str) -> Variant:
    beta = ("h",) if name == "swish" else ()
    return Variant(
        f"gated_ffn-{name}",
        functools.partial(_call_ffn, activation=name),
        lambda x, W, V, W2, b, c, b2, beta=1.0: exact.projected(name)(x, W, V, b, c, beta, W2, b2),
        ("nd", "dh", "dh", "ho", "h", "h", "o", *beta),
    )


def _pullback(x: Array, beta: Array, cotangent: Array) -> Array:
    _, pull = G.vjp(G.swiglu, x, beta)
    return jnp.concatenate([one.ravel() for one in pull(cotangent)])  # type: ignore[union-attr]


def _pushforward(x: Array, beta: Array, t: Array, beta_t: Array) -> Array:
    return G.jvp(G.swiglu, (x, beta), (t, beta_t))[1]


# Modules: functions of the input and of the parameters, in the alphabetical order of their names

_Exact = Callable[..., Jets]


def _of_nnx(module: nnx.Module) -> Callable[..., Array]:
    graph, state = nnx.split(module)
    tree = jax.tree.structure(state)

    def fn(x: Array, *parameters: Array) -> Array:
        result: Array = nnx.merge(graph, jax.tree.unflatten(tree, parameters))(x)
        return result

    return fn


def _of_linen(module: Any, features: int) -> Callable[..., Array]:
    made = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((2, features), jnp.float64))
    tree = jax.tree.structure(made)
    return lambda x, *parameters: module.apply(jax.tree.unflatten(tree, parameters), x)


def _of_both(name: str, sizes: tuple[int, ...], truth: _Exact, *shapes: str, **keywords: Any) -> dict[str, Variant]:
    """The module of a name in both libraries."""
    kind = name.split("(")[0]
    made = {"param_dtype": jnp.float64} if shapes[1:] else {}
    with jax.enable_x64(True):
        rngs = {"rngs": nnx.Rngs(0)} if sizes else {}
        of_nnx = _of_nnx(getattr(gated_nnx, kind)(*sizes, **keywords, **made, **rngs))
        of_linen = _of_linen(getattr(gated_linen, kind)(*sizes, **keywords, **made), sizes[0] if sizes else 6)
    fixed = "dho" if sizes else ""
    return {
        f"{library}.{name}": Variant(f"{library}.{name}", fn, truth, shapes, fixed=fixed)
        for library, fn in (("nnx", of_nnx), ("linen", of_linen))
    }


def _exact_ffn(x: Jets, beta: Jets, b2: Jets, W2: Jets, b: Jets, W: Jets, c: Jets, V: Jets) -> Jets:
    return exact.projected("swish")(x, W, V, b, c, beta, W2, b2)


_FFN = ("nd", "", "o", "ho", "h", "dh", "h", "dh")
_LEARNT = {"bias": True, "learn_beta": True}

_MODULES: Mapping[str, Variant] = {
    **_of_both("Swish", (), lambda x, beta: exact.unit("swish", x, None, beta), "nh", "", learn_beta=True),
    **_of_both("GLU", (), exact.packed("sigmoid", "gate_last"), "np"),
    **_of_both(
        "SwiGLU", (), exact.packed("swish", "interleaved"), "np", "", learn_beta=True, layout="interleaved"
    ),
    **_of_both(
        "GatedLinear",
        (4, 3),
        lambda x, b, W, c, V: exact.projected("gelu")(x, W, V, b, c),
        *("nd", "h", "dh", "h", "dh"),
        activation="gelu",
        bias=True,
    ),
    **_of_both("GatedFFN", (4, 3, 5), _exact_ffn, *_FFN, **_LEARNT),
    **_of_both('GatedFFN(recompute="all")', (4, 3, 5), _exact_ffn, *_FFN, **_LEARNT, recompute="all"),
}  # fmt: skip

ROWS: Mapping[str, Sequence[Variant]] = {
    "sigmoid": [_unary("sigmoid", "sigmoid")],
    "swish": [
        Variant(f"swish-beta-{shape}", G.swish, lambda x, beta: exact.unit("swish", x, None, beta), ("nh", shape))
        for shape in ("h", "nh", "")
    ],
    "silu": [_unary("silu", "swish")],
    "gelu": [_unary("gelu", "gelu", approximate="none"), _unary("gelu", "gelu_tanh", approximate="tanh")],
    "relu": [_unary("relu", "relu")],
    "glu": _pack_of("glu", "sigmoid"),
    "bilinear": _pack_of("bilinear", "identity"),
    "reglu": _pack_of("reglu", "relu"),
    "geglu": [*_pack_of("geglu", "gelu"), *_pack_of("geglu", "gelu_tanh")],
    "swiglu": _with_beta(),
    "clamped_swiglu": _clamped(),
    "gated_unit": [_pair(name) for name in reversed(ACTIVATIONS)],
    "glu_linear": [Variant("glu_linear", G.glu_linear, exact.projected("sigmoid"), _BIASED)],
    "swiglu_linear": [Variant("swiglu_linear", G.swiglu_linear, exact.projected("swish"), (*_BIASED, "h"))],
    "gated_linear": [_linear("swish"), _linear("gelu_tanh")],
    "gated_ffn": [_ffn("swish"), _ffn("gelu")],
    "vjp": [Variant("vjp", _pullback, exact.pullback, ("np", "h", "nh"))],
    "jvp": [Variant("jvp", _pushforward, exact.pushforward, ("np", "h", "np", "h"))],
    **{name: [one] for name, one in _MODULES.items()},
}
"""The rows and their variants, the first of which stands for the row where a test is slow."""

assert set(ROWS) >= {*ARRAY_PARAMETERS, "vjp", "jvp"}
