"""The rows of the table of transforms: every public function and module as functions of tensors, with exact results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import _exact_forms as exact
import torch
from _jets import Jets
from _torch_truth import Tensor, Variant

import gated.torch_impl as G
from gated.contract import ACTIVATIONS, ARRAY_PARAMETERS, LAYOUTS
from gated.torch_impl import nn as gated_nn

# The rows


def _pack_of(function: str, name: str) -> list[Variant]:
    """A unit of one packed array in the three layouts, one of them along the first axis."""
    fn = getattr(G, function)
    keywords = {"approximate": "tanh"} if name == "gelu_tanh" else {}
    variants = []
    for layout in LAYOUTS:
        axis = 0 if layout == "gate_first" else -1
        variants.append(
            Variant(
                f"{function}-{name}-{layout}",
                functools.partial(fn, layout=layout, axis=axis, **keywords),
                exact.packed(name, layout, axis),
                ("pn" if axis == 0 else "np",),
            )
        )
    return variants


def _with_beta() -> list[Variant]:
    return [
        Variant(
            f"swiglu-beta-{layout}",
            functools.partial(lambda x, beta, layout: G.swiglu(x, beta, layout=layout), layout=layout),
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


def _pairs() -> list[Variant]:
    variants = [
        Variant(
            "gated_unit-swish",
            lambda g, v, beta: G.gated_unit(g, v, beta=beta),
            lambda g, v, beta: exact.unit("swish", g, v, beta),
            ("nh", "nh", "h"),
        )
    ]
    for name in ACTIVATIONS[:-1]:
        variants.append(
            Variant(
                f"gated_unit-{name}",
                functools.partial(G.gated_unit, activation=name),
                functools.partial(exact.unit, name),
                ("nh", "nh"),
            )
        )
    return variants


_BIASED = ("nd", "dh", "dh", "h", "h")


def _ffn(name: str) -> Variant:
    beta = ("h",) if name == "swish" else ()
    return Variant(
        f"gated_ffn-{name}",
        lambda x, W, V, W2, b, c, b2, beta=1.0: G.gated_ffn(x, W, V, W2, b, c, b2, activation=name, beta=beta),
        lambda x, W, V, W2, b, c, b2, beta=1.0: exact.projected(name)(x, W, V, b, c, beta, W2, b2),
        ("nd", "dh", "dh", "ho", "h", "h", "o", *beta),
    )


def _linear(name: str) -> Variant:
    beta = ("h",) if name == "swish" else ()
    return Variant(
        f"gated_linear-{name}",
        lambda x, W, V, b, c, beta=1.0: G.gated_linear(x, W, V, b, c, activation=name, beta=beta),
        exact.projected(name),
        (*_BIASED, *beta),
    )


def _module(name: str, module: torch.nn.Module, truth: Callable[..., Jets], *shapes: str) -> Variant:
    """A module as a function of its input and its parameters."""
    names = [each for each, _ in module.named_parameters()]

    def fn(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    return Variant(name, fn, truth, shapes, fixed="dho" if module.state_dict() else "")


def _exact_ffn_module(x: Jets, beta: Jets, gate: Jets, b: Jets, up: Jets, c: Jets, down: Jets, b2: Jets) -> Jets:
    return exact.projected("swish")(x, gate.T, up.T, b, c, beta, down.T, b2)


def _ffn_module(recompute: str) -> Variant:
    module = gated_nn.GatedFFN(4, 3, 5, learn_beta=True, bias=True, recompute=recompute, dtype=torch.float64)
    shapes = ("nd", "", "hd", "h", "hd", "h", "oh", "o")
    name = "nn.GatedFFN" if recompute == "product" else f"nn.GatedFFN-{recompute}"
    return _module(name, module, _exact_ffn_module, *shapes)


def _pullback(x: Tensor, beta: Tensor, cotangent: Tensor) -> Tensor:
    _, pull = G.vjp(G.swiglu, x, beta)
    return torch.cat([one.flatten() for one in pull(cotangent)])


def _pushforward(x: Tensor, beta: Tensor, t: Tensor, beta_t: Tensor) -> Tensor:
    return G.jvp(G.swiglu, (x, beta), (t, beta_t))[1]


def _unary(function: str, name: str, **keywords: Any) -> Variant:
    fn = functools.partial(getattr(G, function), **keywords)
    return Variant(f"{function}-{name}", fn, lambda x: exact.unit(name, x, None), ("nh",))


ROWS: Mapping[str, Sequence[Variant]] = {
    "sigmoid": [_unary("sigmoid", "sigmoid")],
    "swish": [
        Variant(f"swish-beta-{shape}", G.swish, lambda x, beta: exact.unit("swish", x, None, beta), ("nh", shape))
        for shape in ("h", "nh", "")
    ],
    "silu": [_unary("silu", "swish")],
    "gelu": [_unary("gelu", "gelu"), _unary("gelu", "gelu_tanh", approximate="tanh")],
    "relu": [_unary("relu", "relu")],
    "glu": _pack_of("glu", "sigmoid"),
    "bilinear": _pack_of("bilinear", "identity"),
    "reglu": _pack_of("reglu", "relu"),
    "geglu": [*_pack_of("geglu", "gelu"), *_pack_of("geglu", "gelu_tanh")],
    "swiglu": _with_beta(),
    "clamped_swiglu": _clamped(),
    "gated_unit": _pairs(),
    "glu_linear": [Variant("glu_linear", G.glu_linear, exact.projected("sigmoid"), _BIASED)],
    "swiglu_linear": [Variant("swiglu_linear", G.swiglu_linear, exact.projected("swish"), (*_BIASED, "h"))],
    "gated_linear": [_linear("swish"), _linear("gelu_tanh")],
    "gated_ffn": [_ffn("swish"), _ffn("gelu")],
    "vjp": [Variant("vjp", _pullback, exact.pullback, ("np", "h", "nh"))],
    "jvp": [Variant("jvp", _pushforward, exact.pushforward, ("np", "h", "np", "h"))],
    "nn.Swish": [
        _module(
            "nn.Swish",
            gated_nn.Swish(learn_beta=True, dtype=torch.float64),
            lambda x, beta: exact.unit("swish", x, None, beta),
            "nh",
            "",
        )
    ],
    "nn.GLU": [_module("nn.GLU", gated_nn.GLU(), exact.packed("sigmoid", "gate_last"), "np")],
    "nn.SwiGLU": [
        _module(
            "nn.SwiGLU",
            gated_nn.SwiGLU(learn_beta=True, layout="interleaved", dtype=torch.float64),
            exact.packed("swish", "interleaved"),
            "np",
            "",
        )
    ],
    "nn.GatedLinear": [
        _module(
            "nn.GatedLinear",
            gated_nn.GatedLinear(4, 3, activation="gelu", bias=True, dtype=torch.float64),
            lambda x, gate, b, up, c: exact.projected("gelu")(x, gate.T, up.T, b, c),
            "nd",
            "hd",
            "h",
            "hd",
            "h",
        )
    ],
    "nn.GatedFFN": [_ffn_module("product")],
    'nn.GatedFFN(recompute="all")': [_ffn_module("all")],
}
"""The rows and their variants, the first of which stands for the row where a test is slow."""

assert set(ROWS) >= {*ARRAY_PARAMETERS, "vjp", "jvp"}
