"""The calls of the JAX backend that are exported, and how an artifact is made and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import gated.jax_impl as G

__all__ = [
    "CALLS",
    "PLATFORMS",
    "Call",
    "arrays",
    "assert_same_bits",
    "forward",
    "pulled",
    "pushed",
    "read_back",
    "symbolic",
]

PLATFORMS: Final = ("cpu", "cuda", "tpu", "rocm")

_PROJECTIONS: Final = ((3, 4), (4, 5), (4, 5), (5,), (5,))
_LETTERS: Final = ("b, d", "d, h", "d, h", "h", "h")


class Call(NamedTuple):
    """A public function, the shapes of its primals, their symbolic shapes, and its other arguments."""

    function: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    letters: Sequence[str]
    static: Mapping[str, Any] = {}


CALLS: Final[Mapping[str, Call]] = {
    "sigmoid": Call(G.sigmoid, ((3, 8),), ("b, n",)),
    "swish": Call(G.swish, ((3, 8), (8,)), ("b, n", "n")),
    "silu": Call(G.silu, ((3, 8),), ("b, n",)),
    "gelu": Call(G.gelu, ((3, 8),), ("b, n",), {"approximate": "tanh"}),
    "relu": Call(G.relu, ((3, 8),), ("b, n",)),
    "glu": Call(G.glu, ((3, 8),), ("b, 2*n",)),
    "bilinear": Call(G.bilinear, ((3, 8),), ("b, 2*n",)),
    "reglu": Call(G.reglu, ((3, 8),), ("b, 2*n",), {"layout": "interleaved"}),
    "geglu": Call(G.geglu, ((3, 8),), ("b, 2*n",), {"axis": 1}),
    "swiglu": Call(G.swiglu, ((3, 8), ()), ("b, 2*n", ""), {"layout": "gate_first"}),
    "clamped_swiglu": Call(G.clamped_swiglu, ((3, 8),), ("b, 2*n",), {"limit": 1.5}),
    "gated_unit": Call(G.gated_unit, ((3, 4), (3, 4), (3, 1)), ("b, n", "b, n", "b, 1")),
    "glu_linear": Call(G.glu_linear, _PROJECTIONS, _LETTERS),
    "swiglu_linear": Call(G.swiglu_linear, (*_PROJECTIONS, ()), (*_LETTERS, "")),
    "gated_linear": Call(G.gated_linear, _PROJECTIONS, _LETTERS, {"activation": "gelu"}),
    "gated_ffn": Call(
        G.gated_ffn,
        (*_PROJECTIONS[:3], (5, 2), (5,), (5,), (2,)),
        (*_LETTERS[:3], "h, o", "h", "h", "o"),
        {"activation": "relu"},
    ),
}


def symbolic(letters: Sequence[str], dtype: str) -> list[Any]:
    """Arrays of symbolic sizes, equal where the letters are."""
    scope = export.SymbolicScope()
    return [jax.ShapeDtypeStruct(export.symbolic_shape(each, scope=scope), dtype) for each in letters]


def arrays(shapes: Sequence[tuple[int, ...]], dtype: str) -> list[Any]:
    random = np.random.default_rng(5)
    return [jnp.asarray(2 * random.standard_normal(shape), dtype) for shape in shapes]


def forward(call: Call) -> Callable[..., Any]:
    """The plain call."""
    if call.function is G.gated_unit:
        return lambda gate, value, beta: G.gated_unit(gate, value, beta=beta)
    return lambda *primals: call.function(*primals, **call.static)


def pulled(call: Call) -> Callable[..., Any]:
    """The value and its cotangents along itself, by the closure that vjp returns."""

    def function(*primals: Any) -> Any:
        value, pullback = G.vjp(call.function, *primals, **call.static)
        return value, pullback(value)

    return function


def pushed(call: Call) -> Callable[..., Any]:
    """The value and its tangent along the primals."""
    return lambda *primals: G.jvp(call.function, primals, primals, **call.static)


def read_back(
    function: Callable[..., Any], *arguments: Any, vjp_order: int = 0, platforms: Sequence[str] = PLATFORMS
) -> Any:
    """``function`` exported for all platforms in one artifact, as it comes back from its bytes."""
    artifact = export.export(jax.jit(function), platforms=platforms)(*arguments)
    return export.deserialize(artifact.serialize(vjp_order=vjp_order))


def assert_same_bits(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
