"""The rows of the table of transforms: every public function and module as functions of tensors, with exact results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from _torch_jets import Jet, Jets, activation, constants
from _torch_truth import Tensor, Variant

import gated.torch_impl as G
from gated.conformance.quantities import unpack
from gated.contract import ACTIVATIONS, ARRAY_PARAMETERS, LAYOUTS
from gated.torch_impl import nn as gated_nn

# The exact forms


def _exact_unit(name: str, gate: Jets, value: Jets | None, beta: Jets | float = 1.0) -> Jets:
    beta = constants(np.array(beta)) if isinstance(beta, float) else beta
    others = [np.broadcast_to(beta, gate.shape), *([] if value is None else [value])]
    return _elementwise(lambda g, b, v=None: _product(activation(name, g, b), v), gate, *others)


def _product(a: Jet, b: Jet | None) -> Jet:
    return a if b is None else a * b


def _elementwise(code: Callable[..., Jet], *arrays: Jets) -> Jets:
    result = np.empty(arrays[0].shape, object)
    for index in np.ndindex(result.shape):
        result[index] = code(*(one[index] for one in arrays))
    return result


def _exact_packed(name: str, layout: str, axis: int = -1) -> Callable[..., Jets]:
    return lambda x, beta=1.0: _exact_unit(name, *unpack(x, layout, axis), beta)


def _exact_clamped(alpha: float, limit: float, offset: float, layout: str) -> Callable[..., Jets]:
    def clamped(g: Jet, v: Jet) -> Jet:
        g = Jet.of(limit) if g.parts[0] > limit else g
        v = Jet.of(limit) if v.parts[0] > limit else Jet.of(-limit) if v.parts[0] < -limit else v
        return activation("swish", g, Jet.of(alpha)) * (v + Jet.of(offset))

    return lambda x: _elementwise(clamped, *unpack(x, layout))


def _project(x: Jets, weight: Jets, bias: Jets | None) -> Jets:
    result = x @ weight
    return result if bias is None else result + bias


def _exact_projected(name: str) -> Callable[..., Jets]:
    def exact(x: Jets, W: Jets, V: Jets, b: Any = None, c: Any = None, beta: Any = 1.0, W2: Any = None, b2: Any = None):
        h = _exact_unit(name, _project(x, W, b), _project(x, V, c), beta)
        return h if W2 is None else _project(h, W2, b2)

    return exact


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
                _exact_packed(name, layout, axis),
                ("pn" if axis == 0 else "np",),
            )
        )
    return variants


def _with_beta() -> list[Variant]:
    return [
        Variant(
            f"swiglu-beta-{layout}",
            functools.partial(lambda x, beta, layout: G.swiglu(x, beta, layout=layout), layout=layout),
            _exact_packed("swish", layout),
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
            _exact_clamped(**numbers, layout=layout),
            ("np",),
        )
        for layout in ("interleaved", "gate_last")
    ]


def _pairs() -> list[Variant]:
    variants = [
        Variant(
            "gated_unit-swish",
            lambda g, v, beta: G.gated_unit(g, v, beta=beta),
            lambda g, v, beta: _exact_unit("swish", g, v, beta),
            ("nh", "nh", "h"),
        )
    ]
    for name in ACTIVATIONS[:-1]:
        variants.append(
            Variant(
                f"gated_unit-{name}",
                functools.partial(G.gated_unit, activation=name),
                functools.partial(_exact_unit, name),
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
        lambda x, W, V, W2, b, c, b2, beta=1.0: _exact_projected(name)(x, W, V, b, c, beta, W2, b2),
        ("nd", "dh", "dh", "ho", "h", "h", "o", *beta),
    )


def _linear(name: str) -> Variant:
    beta = ("h",) if name == "swish" else ()
    return Variant(
        f"gated_linear-{name}",
        lambda x, W, V, b, c, beta=1.0: G.gated_linear(x, W, V, b, c, activation=name, beta=beta),
        _exact_projected(name),
        (*_BIASED, *beta),
    )


def _module(name: str, module: torch.nn.Module, exact: Callable[..., Jets], *shapes: str) -> Variant:
    """A module as a function of its input and its parameters."""
    names = [each for each, _ in module.named_parameters()]

    def fn(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    return Variant(name, fn, exact, shapes, fixed="dho" if module.state_dict() else "")


def _exact_ffn_module(x: Jets, beta: Jets, gate: Jets, b: Jets, up: Jets, c: Jets, down: Jets, b2: Jets) -> Jets:
    return _exact_projected("swish")(x, gate.T, up.T, b, c, beta, down.T, b2)


def _ffn_module(recompute: str) -> Variant:
    module = gated_nn.GatedFFN(4, 3, 5, learn_beta=True, bias=True, recompute=recompute, dtype=torch.float64)
    shapes = ("nd", "", "hd", "h", "hd", "h", "oh", "o")
    name = "nn.GatedFFN" if recompute == "product" else f"nn.GatedFFN-{recompute}"
    return _module(name, module, _exact_ffn_module, *shapes)


def _pullback(x: Tensor, beta: Tensor, cotangent: Tensor) -> Tensor:
    _, pull = G.vjp(G.swiglu, x, beta)
    return torch.cat([one.flatten() for one in pull(cotangent)])


_EXTRA = 5
"""A direction that no truth takes: the one that ``vjp`` and ``jvp`` differentiate along."""


def _exact_pullback(x: Jets, beta: Jets, cotangent: Jets) -> Jets:
    results = []
    for moved in (x, beta):
        for index in np.ndindex(moved.shape):
            seeded = moved.copy()
            seeded[index] = seeded[index].along(_EXTRA, 1.0)
            arguments = (seeded, beta) if moved is x else (x, seeded)
            slopes = _exact_packed("swish", "gate_last")(*arguments)
            terms = [c * y.without(_EXTRA) for c, y in zip(cotangent.flat, slopes.flat, strict=True)]
            results.append(functools.reduce(lambda a, b: a + b, terms))
    return np.array(results, object)


def _pushforward(x: Tensor, beta: Tensor, t: Tensor, beta_t: Tensor) -> Tensor:
    return G.jvp(G.swiglu, (x, beta), (t, beta_t))[1]


def _exact_pushforward(x: Jets, beta: Jets, t: Jets, beta_t: Jets) -> Jets:
    extra = Jet.of(0.0).along(_EXTRA, 1.0)
    moved = [
        _elementwise(lambda one, slope: one + extra * slope, *pair) for pair in ((x, t), (beta, beta_t))
    ]  # fmt: skip
    return _elementwise(lambda y: y.without(_EXTRA), _exact_packed("swish", "gate_last")(*moved))


def _unary(function: str, name: str, **keywords: Any) -> Variant:
    fn = functools.partial(getattr(G, function), **keywords)
    return Variant(f"{function}-{name}", fn, lambda x: _exact_unit(name, x, None), ("nh",))


ROWS: Mapping[str, Sequence[Variant]] = {
    "sigmoid": [_unary("sigmoid", "sigmoid")],
    "swish": [
        Variant(f"swish-beta-{shape}", G.swish, lambda x, beta: _exact_unit("swish", x, None, beta), ("nh", shape))
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
    "glu_linear": [Variant("glu_linear", G.glu_linear, _exact_projected("sigmoid"), _BIASED)],
    "swiglu_linear": [Variant("swiglu_linear", G.swiglu_linear, _exact_projected("swish"), (*_BIASED, "h"))],
    "gated_linear": [_linear("swish"), _linear("gelu_tanh")],
    "gated_ffn": [_ffn("swish"), _ffn("gelu")],
    "vjp": [Variant("vjp", _pullback, _exact_pullback, ("np", "h", "nh"))],
    "jvp": [Variant("jvp", _pushforward, _exact_pushforward, ("np", "h", "np", "h"))],
    "nn.Swish": [
        _module(
            "nn.Swish",
            gated_nn.Swish(learn_beta=True, dtype=torch.float64),
            lambda x, beta: _exact_unit("swish", x, None, beta),
            "nh",
            "",
        )
    ],
    "nn.GLU": [_module("nn.GLU", gated_nn.GLU(), _exact_packed("sigmoid", "gate_last"), "np")],
    "nn.SwiGLU": [
        _module(
            "nn.SwiGLU",
            gated_nn.SwiGLU(learn_beta=True, layout="interleaved", dtype=torch.float64),
            _exact_packed("swish", "interleaved"),
            "np",
            "",
        )
    ],
    "nn.GatedLinear": [
        _module(
            "nn.GatedLinear",
            gated_nn.GatedLinear(4, 3, activation="gelu", bias=True, dtype=torch.float64),
            lambda x, gate, b, up, c: _exact_projected("gelu")(x, gate.T, up.T, b, c),
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
