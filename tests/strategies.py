"""What the property tests draw from: arrays of bit patterns, the public functions, the backends behind one face.

Hypothesis has no bfloat16 and refuses subnormal floats where a library has switched on flush-to-zero, so every array is
drawn as unsigned integers and viewed in its dtype: nan, infinities, signed zeros and subnormals come up by themselves.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gated.conformance.backends import is_installed
from gated.conformance.error import Format
from gated.contract import ARRAY_PARAMETERS, DTYPES

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
# On CI the examples are the same on every run: main is red or green for a reason.
settings.register_profile("gated-ci", derandomize=True, print_blob=True, **_COMMON)
settings.register_profile("gated", print_blob=True, **_COMMON)
settings.load_profile("gated-ci" if os.environ.get("CI") else "gated")


# Arrays


Words = NDArray[np.uint64]


def _words(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[NDArray[np.uint8], Words]]:
    """A byte and a word of 64 bits for each element of a shape, drawn at once: one by one they take milliseconds."""
    count = math.prod(shape)

    def view(drawn: bytes) -> tuple[NDArray[np.uint8], Words]:
        rows = np.frombuffer(drawn, np.uint8).reshape(count, 9)
        words = np.ascontiguousarray(rows[:, 1:]).view("<u8")
        return rows[:, 0].reshape(shape), words.reshape(shape)

    return st.binary(min_size=9 * count, max_size=9 * count).map(view)


@dataclass(frozen=True)
class Patterns:
    """Bit patterns of a dtype, of kinds that are drawn equally often; a kind makes a pattern of a random word."""

    form: Format
    kinds: tuple[Callable[[Words], NDArray[Any]], ...]

    def arrays(self, shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
        """Arrays of a shape, their bits viewed as numbers."""

        def numbers(drawn: tuple[NDArray[np.uint8], Words]) -> Array:
            kind, words = drawn
            kind = kind % len(self.kinds)
            bits = np.zeros(shape, self.form.bits)
            for index, make in enumerate(self.kinds):
                bits[kind == index] = make(words[kind == index])
            return bits.view(self.form.dtype)

        return _words(shape).map(numbers)

    def one(self) -> st.SearchStrategy[int]:
        """One pattern, as a number."""
        return self.arrays(()).map(lambda x: int(x.view(self.form.bits)))


def specials(form: Format) -> list[int]:
    """Bit patterns of zeros, ends of the ranges, infinities, nan and landmarks, in both signs."""
    positive = [
        0.0,
        form.smallest_subnormal,
        form.smallest_normal,
        0.5,
        1.0,
        1.2784645,
        7.0,
        form.largest,
        np.inf,
        np.nan,
    ]
    values = np.array([*positive, *(-one for one in positive)]).astype(form.dtype)
    return [int(one) for one in values.view(form.bits)]


def _chosen(form: Format, patterns: Sequence[int]) -> Callable[[Words], NDArray[Any]]:
    """One of the patterns."""
    table = np.array(patterns, form.bits)
    return lambda words: table[(words % len(table)).astype(np.intp)]


def _signed(form: Format, words: Words, magnitudes: Words) -> NDArray[Any]:
    """The magnitudes with the sign that the last bit of each word says."""
    return (magnitudes | (words & np.uint64(1)) << np.uint64(8 * form.bits.itemsize - 1)).astype(form.bits)


def _below(form: Format, end: int) -> Callable[[Words], NDArray[Any]]:
    """A pattern below ``end``, with either sign."""
    return lambda words: _signed(form, words, (words >> np.uint64(1)) % np.uint64(end))


def _tiny(form: Format) -> Callable[[Words], NDArray[Any]]:
    """A subnormal number of any binade, or a zero, with either sign."""
    end = np.uint64(1 << (form.precision - 1))

    def make(words: Words) -> NDArray[Any]:
        return _signed(
            form, words, ((words >> np.uint64(1)) % end) >> (words >> np.uint64(58)) % np.uint64(form.precision)
        )

    return make


def _ordinary(form: Format, reach: float) -> Callable[[Words], NDArray[Any]]:
    """A number of magnitude up to ``reach``, in steps; one in 16 is 0, a single step or the end."""
    steps = 2**20
    edges = np.array([0, 1, -1, steps, -steps])

    def make(words: Words) -> NDArray[Any]:
        k = (words % np.uint64(2 * steps + 1)).astype(np.int64) - steps
        k = np.where(words >> np.uint64(60) == 0, edges[(words % np.uint64(len(edges))).astype(np.intp)], k)
        return (k * reach / steps).astype(form.dtype).view(form.bits)

    return make


def any_bits(form: Format) -> Patterns:
    """Every bit pattern, the ordinary and the special ones often."""
    deep = 2.2 * math.log(2) * (form.highest + form.precision)
    every = _below(form, 1 << (8 * form.bits.itemsize - 1))
    special = _chosen(form, specials(form))
    usual = _ordinary(form, 8.0)
    return Patterns(form, (usual, every, _ordinary(form, deep), special, _tiny(form), usual))


def finite_bits(form: Format) -> Patterns:
    """Every bit pattern of a finite number."""
    end = int(np.array(np.inf).astype(form.dtype).view(form.bits))
    usual = _ordinary(form, 8.0)
    return Patterns(form, (usual, _below(form, end), _ordinary(form, 100.0), _tiny(form), usual))


def moderate_bits(form: Format, reach: float = 8.0) -> Patterns:
    """Numbers of magnitude up to ``reach``."""
    return Patterns(form, (_ordinary(form, reach),))


def graded_bits(form: Format) -> Patterns:
    """Cotangents of the magnitudes at which gradients are graded: 2^-16 to 2^16, in float16 2^-10 to 2^10."""
    reach = 10 if form.name == "float16" else 16

    def make(words: Words) -> NDArray[Any]:
        fractions = (words & np.uint64(0xFFFF)).astype(np.float64) / 2**16
        exponents = (words >> np.uint64(16)) % np.uint64(2 * reach)
        values = np.ldexp(1 + fractions, exponents.astype(np.intp) - reach)
        return np.where(words >> np.uint64(63) != 0, -values, values).astype(form.dtype).view(form.bits)

    return Patterns(form, (make,))


def halves(form: Format, shape: tuple[int, ...], reach: int) -> st.SearchStrategy[Array]:
    """Arrays of the numbers k / 2 with |k| <= reach."""
    count = np.uint64(2 * reach + 1)
    return _words(shape).map(lambda drawn: (((drawn[1] % count).astype(np.float64) - reach) / 2).astype(form.dtype))


def arrays(form: Format, shape: tuple[int, ...], patterns: Patterns) -> st.SearchStrategy[Array]:
    """Arrays of a shape whose elements are the bit patterns drawn."""
    assert patterns.form is form
    return patterns.arrays(shape)


SHAPES = ((), (0,), (1,), (6,), (3, 0), (1, 4), (5, 1), (3, 4), (2, 1, 3), (2, 3, 2), (4, 6))


@st.composite
def strided(draw: st.DrawFn, x: Array) -> Array:
    """``x`` again, as a view with other strides: stepped over, reversed, or transposed in memory."""
    kind = draw(st.sampled_from(("contiguous", "stepped", "reversed", "transposed")))
    if x.ndim == 0 or kind == "contiguous":
        return x
    if kind == "transposed":
        return np.ascontiguousarray(x.T).T
    if kind == "reversed":
        return np.ascontiguousarray(np.flip(x))[(slice(None, None, -1),) * x.ndim]
    spaced = np.zeros(tuple(2 * size for size in x.shape), x.dtype)
    view = spaced[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


BETAS = (1.0, 0.5, 1.702, -1.5, 0.0, -0.0, 10.0, 1e-3, 1e4, 1, -2)


def beta_arrays(form: Format, shape: tuple[int, ...], kind: str) -> st.SearchStrategy[Any]:
    """A number, or an array: 0-d, one a channel, one a token, one an element."""
    if kind == "number":
        return st.sampled_from(BETAS)
    usual = [int(one) for one in np.array(BETAS).astype(form.dtype).view(form.bits)]
    elements = Patterns(form, (_chosen(form, usual), _ordinary(form, 4.0)))
    shapes = {"0-d": (), "channel": shape[-1:], "token": (*shape[:-1], 1) if shape else (), "element": shape}
    return arrays(form, shapes[kind], elements)


# Backends


class Backend:
    """A backend that takes and gives NumPy arrays, bit for bit."""

    flushes = False

    def __init__(self, name: str, module: str) -> None:
        self.name = name
        self.G = importlib.import_module(module)

    def __repr__(self) -> str:
        return self.name

    def give(self, x: Any) -> Any:
        """A NumPy array as one of the backend, with its strides where the framework can; anything else as it is."""
        return x

    def take(self, x: Any) -> Any:
        """An array of the backend as a NumPy array; anything else as it is."""
        return x

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """What a call runs under."""
        return contextlib.nullcontext()

    def call(self, function: str, *arguments: Any, **keywords: Any) -> Array:
        """The value of a public function."""
        with self.scope():
            given = [self.give(one) for one in arguments]
            return self.take(getattr(self.G, function)(*given, **self._given(keywords)))

    def vjp(
        self, function: str, primals: Sequence[Any], cotangent: Array, **static: Any
    ) -> tuple[Array, tuple[Any, ...]]:
        """The value and the cotangents of the primals, by gated's own vjp."""
        with self.scope():
            given = [self.give(one) for one in primals]
            value, pullback = self.G.vjp(getattr(self.G, function), *given, **self._given(static))
            return self.take(value), tuple(self.take(one) for one in pullback(self.give(cotangent)))

    def jvp(self, function: str, primals: Sequence[Any], tangents: Sequence[Any], **static: Any) -> tuple[Array, Array]:
        """The value and its tangent, by gated's own jvp."""
        with self.scope():
            given, moved = ([self.give(one) for one in each] for each in (primals, tangents))
            value, tangent = self.G.jvp(getattr(self.G, function), given, moved, **self._given(static))
            return self.take(value), self.take(tangent)

    def autodiff(
        self, function: str, primals: Sequence[Array], cotangent: Array, **static: Any
    ) -> tuple[Array, tuple[Array, ...]]:
        """The value and the cotangents of the primals, by the framework's own differentiation."""
        raise NotImplementedError

    def _given(self, keywords: dict[str, Any]) -> dict[str, Any]:
        return {name: self.give(one) for name, one in keywords.items()}


class TorchBackend(Backend):
    """:mod:`gated.torch_impl`, eager, on the CPU."""

    def give(self, x: Any) -> Any:
        from gated.conformance.backends.torch import to_torch

        if not isinstance(x, np.ndarray):
            return x
        # torch has no negative strides and takes no bfloat16 from NumPy: the strides are made again on the tensor.
        flat = to_torch(np.ascontiguousarray(x).reshape(x.shape))
        if x.flags.c_contiguous or x.size == 0:
            return flat
        if x.flags.f_contiguous:
            axes = tuple(reversed(range(x.ndim)))
            return flat.permute(axes).contiguous().permute(axes)
        spaced = flat.new_zeros(tuple(2 * size for size in x.shape))
        view = spaced[(slice(None, None, 2),) * x.ndim]
        view.copy_(flat)
        return view

    def take(self, x: Any) -> Any:
        from gated.conformance.backends.torch import from_torch

        return from_torch(x)

    def autodiff(
        self, function: str, primals: Sequence[Array], cotangent: Array, **static: Any
    ) -> tuple[Array, tuple[Array, ...]]:
        import torch

        given = [self.give(one).requires_grad_() for one in primals]
        arguments = dict(zip(ARRAY_PARAMETERS[function], given, strict=False))
        value = getattr(self.G, function)(**arguments, **self._given(static))
        cotangents = torch.autograd.grad(value, given, self.give(cotangent), materialize_grads=True)
        return self.take(value), tuple(self.take(one) for one in cotangents)


class JaxBackend(Backend):
    """:mod:`gated.jax_impl` on the CPU, with float64 switched on around each call."""

    flushes = True

    def give(self, x: Any) -> Any:
        from gated.conformance.backends.jax import to_jax

        return to_jax(x)

    def take(self, x: Any) -> Any:
        from gated.conformance.backends.jax import from_jax

        return from_jax(x)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        import jax

        return jax.enable_x64(True)

    def traced(self, function: str, primals: Sequence[Any], cotangent: Array, **static: Any) -> tuple[Any, Any]:
        """What vjp gives, in shapes and dtypes alone: nothing is compiled."""
        import jax

        def call(primals: Sequence[Any], cotangent: Any) -> Any:
            value, pullback = self.G.vjp(getattr(self.G, function), *primals, **static)
            return value, pullback(cotangent)

        with self.scope():
            return jax.eval_shape(call, [self.give(one) for one in primals], self.give(cotangent))

    def autodiff(
        self, function: str, primals: Sequence[Array], cotangent: Array, **static: Any
    ) -> tuple[Array, tuple[Array, ...]]:
        import jax

        with self.scope():
            keywords = self._given(static)

            def call(*arrays: Any) -> Any:
                arguments = dict(zip(ARRAY_PARAMETERS[function], arrays, strict=False))
                return getattr(self.G, function)(**arguments, **keywords)

            value, pullback = jax.vjp(call, *(self.give(one) for one in primals))
            return self.take(value), tuple(self.take(one) for one in pullback(self.give(cotangent)))


_KINDS = {
    "numpy": (Backend, "gated.numpy_ref"),
    "torch": (TorchBackend, "gated.torch_impl"),
    "jax": (JaxBackend, "gated.jax_impl"),
}


def backend(name: str) -> Backend:
    """The backend ``name``; the test is skipped where its framework is not installed."""
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    kind, module = _KINDS[name]
    return kind(name, module)


every_backend = pytest.mark.parametrize("backend_name", ["numpy", "torch", "jax"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


# The public elementwise functions, as activation(gate) * value


@dataclass(frozen=True)
class Spec:
    """A public elementwise function with the keywords that choose its activation."""

    function: str
    activation: str
    keywords: tuple[tuple[str, Any], ...] = ()

    @property
    def kind(self) -> str:
        """``"unary"``, ``"packed"`` or ``"pair"``."""
        if self.function == "gated_unit":
            return "pair"
        return "unary" if self.function in ("sigmoid", "swish", "silu", "gelu", "relu") else "packed"

    @property
    def has_beta(self) -> bool:
        """Whether the function takes a beta that matters."""
        return self.activation == "swish" and "beta" in ARRAY_PARAMETERS[self.function]

    def __str__(self) -> str:
        return "-".join([self.function, *(str(value) for _, value in self.keywords)])


SPECS = (
    Spec("sigmoid", "sigmoid"),
    Spec("swish", "swish"),
    Spec("silu", "swish"),
    Spec("gelu", "gelu", (("approximate", "none"),)),
    Spec("gelu", "gelu_tanh", (("approximate", "tanh"),)),
    Spec("relu", "relu"),
    Spec("glu", "sigmoid"),
    Spec("bilinear", "identity"),
    Spec("reglu", "relu"),
    Spec("geglu", "gelu", (("approximate", "none"),)),
    Spec("geglu", "gelu_tanh", (("approximate", "tanh"),)),
    Spec("swiglu", "swish"),
    Spec("clamped_swiglu", "swish"),
    *(
        Spec("gated_unit", activation, (("activation", activation),))
        for activation in ("identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish")
    ),
)


def pack(gate: Array, value: Array, axis: int, layout: str) -> Array:
    """The packed array of a gate and a value."""
    if layout == "interleaved":
        axis %= gate.ndim
        both = np.stack([gate, value], axis=axis + 1)
        return both.reshape(*gate.shape[:axis], 2 * gate.shape[axis], *gate.shape[axis + 1 :])
    return np.concatenate((gate, value) if layout == "gate_first" else (value, gate), axis=axis)


def unpack(x: Array, axis: int, layout: str) -> tuple[Array, Array]:
    """The gate and the value of a packed array."""
    indices = np.arange(x.shape[axis])
    n = len(indices) // 2
    gates = {"gate_first": indices < n, "gate_last": indices >= n, "interleaved": indices % 2 == 0}[layout]
    return np.compress(gates, x, axis=axis), np.compress(~gates, x, axis=axis)


# Tables of special values

# One shape for every table and every array that JAX is given, so that it compiles a function once a dtype.
ELEMENTS = 48


def padded(column: Sequence[float], form: Format, *, fill: float = 1.0) -> Array:
    """A column of a table as an array of ``ELEMENTS`` numbers of a dtype."""
    assert len(column) <= ELEMENTS
    with np.errstate(over="ignore"):
        return np.array([*column, *[fill] * (ELEMENTS - len(column))]).astype(form.dtype)


def tried(name: str, check: Callable[[Any], None], examples: int) -> None:
    """Runs a property: ``examples`` arrays of a few dozen elements, half of them for JAX."""
    run = settings(max_examples=examples // 2 if name == "jax" else examples)(given(st.data())(check))
    if os.environ.get("CI"):
        # By the text of the function alone, every case of a test would have the same examples.
        run = seed(zlib.crc32(os.environ["PYTEST_CURRENT_TEST"].encode()))(run)
    run()
