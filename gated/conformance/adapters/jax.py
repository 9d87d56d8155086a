"""JAX: functions, Flax NNX and Linen modules; an operation at a time, and jitted."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

from gated.conformance.adapters._flax import function_of, is_module
from gated.conformance.adapters.base import AbsentError, Adapter, Array, Function, WrongTypeError, as_function, instance
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Request
from gated.conformance.grading.target import TargetError, one_line

__all__ = ["ADAPTERS", "JaxAdapter", "JitJaxAdapter"]


class JaxAdapter(Adapter):
    """The function as it is given, differentiated by ``jax.vjp`` and ``jax.jvp``."""

    framework = "jax"
    packages = ("jax", "jaxlib", "flax")
    gradient_source = "jax.vjp"
    # XLA flushes subnormal results on the CPU, too.
    flushes = True
    absent = (
        "forward-mode",
        "forward mode",
        "not implemented",
        "not supported",
        "does not support",
        "differentiation rule for",
    )

    def __init__(self, device: str | None) -> None:
        super().__init__()
        try:
            self._device = jax.devices(device)[0]
        except RuntimeError as error:
            raise TargetError(f'--device: jax cannot use "{device}": {one_line(error)}') from error
        self.device = self._device.platform

    def prepare(self, target: Any, claim: Claim) -> Function:
        if is_module(target):
            self.kind = "module"
            return function_of(target, claim, self.sizes)
        return as_function(instance(target) if inspect.isclass(target) else target)

    def settings(self, request: Request) -> AbstractContextManager[Any]:
        # float64 is switched on for arguments of that width alone: it changes what Python numbers become beside others.
        stack = contextlib.ExitStack()
        if any(one.dtype.itemsize == 8 for one in request.arguments):
            stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.default_device(self._device))
        return stack

    def put(self, array: Array, arrangement: str) -> Any:
        if arrangement != "plain":
            raise AbsentError(f"a JAX array has no {arrangement} form")
        # A copy first: JAX reads the memory later, or keeps it as its own.
        return jax.device_put(np.array(array), self._device)

    def get(self, result: Any) -> Array:
        if not isinstance(result, jax.Array):
            raise WrongTypeError(f"{type(result).__qualname__}, where jax.Array is expected")
        return np.array(result)

    def differentiate(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, backwards: int
    ) -> Iterator[Any]:
        value, pullback = jax.vjp(function, *arguments)
        yield value
        for _ in range(backwards):
            yield pullback(cotangent)

    def double(self, function: Function, arguments: Sequence[Any], cotangent: Any, directions: Sequence[Any]) -> Any:
        return _double(function, tuple(arguments), cotangent, tuple(directions))

    def forward(self, function: Function, arguments: Sequence[Any], directions: Sequence[Any]) -> Any:
        return jax.jvp(function, tuple(arguments), tuple(directions))


def _double(function: Function, arguments: Any, cotangent: Any, directions: Any) -> Any:
    def cotangents(cotangent: Any, *arguments: Any) -> Any:
        value, pullback = jax.vjp(function, *arguments)
        return pullback(cotangent), value

    _, pullback, value = jax.vjp(cotangents, cotangent, *arguments, has_aux=True)
    of_cotangent, *of_arguments = pullback(directions)
    return value, (*of_arguments, of_cotangent)


class JitJaxAdapter(JaxAdapter):
    """Each call jitted whole, as a training step is: the value and its cotangents are one program."""

    framework = "jax-jit"

    def for_dtype(self, dtype: np.dtype[Any]) -> Function:
        return _jitted(super().for_dtype(dtype))

    def differentiate(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, backwards: int
    ) -> Iterator[Any]:
        if backwards == 1:
            value, cotangents = _value_and_cotangents(function)(cotangent, *arguments)
            yield value
            yield cotangents
            return
        # In one program two passes would be one: here the forward pass is a program, and each backward pass.
        value, pullback = _forward_pass(function)(*arguments)
        yield value
        for _ in range(backwards):
            yield _backward_pass(pullback, cotangent)

    def double(self, function: Function, arguments: Sequence[Any], cotangent: Any, directions: Sequence[Any]) -> Any:
        return _jitted(functools.partial(_double, function))(tuple(arguments), cotangent, tuple(directions))

    def forward(self, function: Function, arguments: Sequence[Any], directions: Sequence[Any]) -> Any:
        return jax.jit(functools.partial(jax.jvp, function))(tuple(arguments), tuple(directions))


# A jitted function remembers what it has compiled as long as it lives.
@functools.lru_cache(64)
def _jitted(function: Function) -> Function:
    return jax.jit(function)


@functools.lru_cache(64)
def _value_and_cotangents(function: Function) -> Function:
    def run(cotangent: Any, *arguments: Any) -> Any:
        value, pullback = jax.vjp(function, *arguments)
        return value, pullback(cotangent)

    return jax.jit(run)


@functools.lru_cache(64)
def _forward_pass(function: Function) -> Function:
    return jax.jit(functools.partial(jax.vjp, function))


_backward_pass = jax.jit(lambda pullback, cotangent: pullback(cotangent))


ADAPTERS = {"jax": JaxAdapter, "jax-jit": JitJaxAdapter}
