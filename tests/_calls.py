"""What the tests share: the design's signatures, a valid call of every function, and each backend's own arrays."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import ml_dtypes
import numpy as np

from gated.contract import BACKENDS

DESIGN = """
def sigmoid(x): ...
def swish(x, beta=1.0): ...
def silu(x): ...
def gelu(x, *, approximate="none"): ...
def relu(x): ...

def glu(x, *, axis=-1, layout="gate_last"): ...
def bilinear(x, *, axis=-1, layout="gate_last"): ...
def reglu(x, *, axis=-1, layout="gate_last"): ...
def geglu(x, *, approximate="none", axis=-1, layout="gate_last"): ...
def swiglu(x, beta=1.0, *, axis=-1, layout="gate_last"): ...
def clamped_swiglu(x, *, alpha=1.702, limit=7.0, offset=1.0, axis=-1, layout="gate_last"): ...
def gated_unit(gate, value, *, activation="swish", beta=1.0): ...

def glu_linear(x, W, V, b=None, c=None): ...
def swiglu_linear(x, W, V, b=None, c=None, beta=1.0): ...
def gated_linear(x, W, V, b=None, c=None, *, activation="swish", beta=1.0): ...
def gated_ffn(x, W, V, W2, b=None, c=None, b2=None, *, activation="swish", beta=1.0): ...
"""
"""Section 3 of the design, typed in."""

DERIVATIVES = """
def vjp(fn, *primals, **static): ...
def jvp(fn, primals, tangents, **static): ...
"""


def signatures(text: str) -> dict[str, inspect.Signature]:
    """The signatures of the functions defined in ``text``, by name."""
    functions: dict[str, Any] = {}
    exec(text, {}, functions)
    return {name: inspect.signature(function) for name, function in functions.items()}


SIGNATURES = signatures(DESIGN)


class Array(NamedTuple):
    """An array that a backend builds for itself, by :meth:`Native.array`."""

    shape: tuple[int, ...]
    dtype: str = "float32"


_PROJECTED = {"x": (2, 4), "W": (4, 3), "V": (4, 3), "b": (3,), "c": (3,)}

# Along every axis another size, so that an axis taken for another shows.
ARRAYS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    **{name: {"x": (2, 6)} for name in ("sigmoid", "silu", "gelu", "relu", "glu", "bilinear", "reglu", "geglu")},
    "clamped_swiglu": {"x": (2, 6)},
    "swish": {"x": (2, 6), "beta": (6,)},
    "swiglu": {"x": (2, 6), "beta": (3,)},
    "gated_unit": {"gate": (2, 3), "value": (2, 3), "beta": (3,)},
    "glu_linear": _PROJECTED,
    "swiglu_linear": {**_PROJECTED, "beta": (3,)},
    "gated_linear": {**_PROJECTED, "beta": (3,)},
    "gated_ffn": {"x": (2, 4), "W": (4, 3), "V": (4, 3), "W2": (3, 5), "b": (3,), "c": (3,), "b2": (5,), "beta": (3,)},
}
"""A valid call of every function: the shape of every array that it takes, in the order of its signature."""


def call(function: str, dtype: str = "float32") -> dict[str, Any]:
    """The arguments of a valid call, arrays as :class:`Array`."""
    return {name: Array(shape, dtype) for name, shape in ARRAYS[function].items()}


def _ramp(spec: Array) -> np.ndarray[Any, Any]:
    """Numbers of both signs that every dtype, float8 too, holds exactly."""
    values = np.arange(np.prod(spec.shape, dtype=int)) % 7 / 4 - 0.75
    name = spec.dtype
    return values.reshape(spec.shape).astype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)


class Native:
    """A backend, and how the tests build its arrays and look into them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module: ModuleType = importlib.import_module(BACKENDS[name].module)

    def __getitem__(self, function: str) -> Callable[..., Any]:
        """A public function by its name."""
        return getattr(self.module, function)  # type: ignore[no-any-return]

    def array(self, spec: Array) -> Any:
        """An array of this backend."""
        raise NotImplementedError

    def bits(self, array: Any) -> bytes:
        """What the array holds."""
        raise NotImplementedError

    def dtype(self, array: Any) -> str:
        """The name of its dtype."""
        return str(array.dtype)

    def session(self) -> AbstractContextManager[Any]:
        """Entered around a test: float64 exists in it."""
        return nullcontext()

    def idle(self) -> AbstractContextManager[Any]:
        """Within it, arithmetic is an error."""
        raise NotImplementedError

    def built(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """``arguments`` with every :class:`Array` built."""
        return {name: self.array(one) if isinstance(one, Array) else one for name, one in arguments.items()}

    def is_array(self, value: object) -> bool:
        """Whether ``value`` is an array of this backend."""
        return isinstance(value, type(self.array(Array((1,)))))


class NumpyNative(Native):
    def array(self, spec: Array) -> Any:
        return _ramp(spec)

    def bits(self, array: Any) -> bytes:
        return array.tobytes()  # type: ignore[no-any-return]

    @contextmanager
    def idle(self) -> Iterator[None]:
        # NumPy has no hook below its functions: those through which the reference does all its arithmetic stand in.
        helpers = ("gated.numpy_ref._arrays", "gated.numpy_ref._wide")
        honest = [
            (module, each, value)
            for name, module in list(sys.modules.items())
            if name.startswith("gated.numpy_ref.")
            for each, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ in helpers
        ]
        try:
            for module, each, _ in honest:
                setattr(module, each, _refuse)
            yield
        finally:
            for module, each, value in honest:
                setattr(module, each, value)


class TorchNative(Native):
    def array(self, spec: Array) -> Any:
        import torch

        return torch.from_numpy(_ramp(Array(spec.shape, "float64"))).to(getattr(torch, spec.dtype))

    def bits(self, array: Any) -> bytes:
        return bytes(array.detach().contiguous().untyped_storage().tolist())

    def dtype(self, array: Any) -> str:
        return str(array.dtype).removeprefix("torch.")

    def idle(self) -> AbstractContextManager[Any]:
        from torch.utils._python_dispatch import TorchDispatchMode

        class Refuse(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                _refuse(func)

        return Refuse()


class JaxNative(Native):
    def array(self, spec: Array) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(_ramp(spec))

    def bits(self, array: Any) -> bytes:
        return np.asarray(array).tobytes()

    def session(self) -> AbstractContextManager[Any]:
        import jax

        return jax.enable_x64(True)

    @contextmanager
    def idle(self) -> Iterator[None]:
        import jax
        from jax.extend.core import Primitive

        # A compiled function that is called again binds no primitive.
        with jax.disable_jit(), mock.patch.object(Primitive, "bind", _refuse):
            yield


def _refuse(*arguments: Any, **keywords: Any) -> Any:
    raise AssertionError(f"arithmetic before the checks: {arguments[:1]}")


NATIVES: Mapping[str, type[Native]] = {"numpy": NumpyNative, "torch": TorchNative, "jax": JaxNative}
INSTALLED = tuple(name for name in NATIVES if importlib.util.find_spec(BACKENDS[name].requires) is not None)
"""The backends whose frameworks are installed."""
