"""TensorFlow: functions as they are given, eager or ``tf.function``; gradients by ``tf.GradientTape``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf

from gated.conformance.adapters.base import AbsentError, Adapter, Array, Function, WrongTypeError, as_function, instance
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Request
from gated.conformance.grading.target import TargetError, one_line

__all__ = ["ADAPTERS", "TensorFlowAdapter"]


class TensorFlowAdapter(Adapter):
    """Tensors in; a tensor out."""

    framework = "tensorflow"
    packages = ("tensorflow", "tensorflow-cpu")
    gradient_source = "tf.GradientTape"
    # TensorFlow's threads flush subnormal numbers.
    flushes = True
    absent = ("no gradient defined", "not implemented", "gradient registry has no entry", "unsupported")

    def __init__(self, device: str | None) -> None:
        super().__init__()
        self.device = device or "cpu"
        try:
            with tf.device(self.device):
                tf.constant(0.0)
        except (RuntimeError, ValueError, tf.errors.OpError) as error:
            raise TargetError(f'--device: tensorflow cannot use "{device}": {one_line(error)}') from error

    def prepare(self, target: Any, claim: Claim) -> Function:
        if inspect.isclass(target):
            target = instance(target)
        if isinstance(target, tf.Module):
            self.kind = "module"
        return as_function(target)

    def settings(self, request: Request) -> AbstractContextManager[Any]:
        return tf.device(self.device)  # type: ignore[no-any-return]

    def put(self, array: Array, arrangement: str) -> Any:
        if arrangement != "plain":
            raise AbsentError(f"a TensorFlow tensor has no {arrangement} form")
        return tf.constant(np.array(array))

    def get(self, result: Any) -> Array:
        if not tf.is_tensor(result) or not hasattr(result, "numpy"):
            raise WrongTypeError(f"{type(result).__qualname__}, where tf.Tensor is expected")
        return np.array(result.numpy())

    def differentiate(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, backwards: int
    ) -> Iterator[Any]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(arguments)
            value = function(*arguments)
        yield value
        for _ in range(backwards):
            yield _cotangents(tape, value, arguments, cotangent)

    def double(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, directions: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        with tf.GradientTape() as outer:
            outer.watch([*arguments, cotangent])
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                value = function(*arguments)
            first = _cotangents(tape, value, arguments, cotangent)
        live = [(one, along) for one, along in zip(first, directions, strict=True) if one is not None]
        outputs, along = map(list, zip(*live, strict=True)) if live else ([], [])
        second = outer.gradient(outputs, [*arguments, cotangent], output_gradients=along) if live else ()
        if all(one is None for one in second):
            raise AbsentError("the cotangents have no graph: they cannot be differentiated again")
        return value, second

    def forward(self, function: Function, arguments: Sequence[Any], directions: Sequence[Any]) -> tuple[Any, Any]:
        with tf.autodiff.ForwardAccumulator(list(arguments), list(directions)) as accumulator:
            value = function(*arguments)
        return value, accumulator.jvp(value)


def _cotangents(tape: Any, value: Any, arguments: Sequence[Any], cotangent: Any) -> Sequence[Any]:
    return tape.gradient(value, list(arguments), output_gradients=cotangent)  # type: ignore[no-any-return]


ADAPTERS = {"tensorflow": TensorFlowAdapter}
