"""ONNX models: ONNX Runtime, and the reference evaluator of the onnx package. Gradients by a second model.

The model's inputs are the arguments of the claim, by position; it has one output. Its element type is the dtype that
it is graded in. Where it declares sizes, an activation or a pair is cut into blocks of them; other models must be
handed those sizes.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from gated.conformance.adapters.base import AbsentError, Adapter, Array, Function, WrongTypeError, arranged
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.target import TargetError, one_line

__all__ = ["ADAPTERS", "OnnxRuntimeAdapter", "ReferenceAdapter"]

_TYPES: Final[dict[int, str]] = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
}
_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "rocm": "ROCMExecutionProvider"}

Shape = tuple[int | None, ...]


class _OnnxAdapter(Adapter):
    """What the two evaluators share: reading the model's inputs, and feeding declared sizes."""

    kind = "model"

    def prepare(self, target: Any, claim: Claim) -> Function:
        model = self._model(target, len(claim.arguments), 1)
        self.dtypes = (_dtype(target, model),)
        shapes = [_shape(one) for one in _inputs(model)]
        run = self._evaluator(Path(target), model)
        if claim.form in ("unary", "pair") and _is_static(shapes[0]) and set(shapes) <= {shapes[0], ()}:
            return _in_blocks(run, [tuple(size or 0 for size in shape) for shape in shapes])
        for name, shape in zip(claim.arguments, shapes, strict=True):
            if shape and _is_static(shape):
                self.sizes[name] = tuple(size or 0 for size in shape)
        return lambda *arrays: run(arrays)[0]

    def prepare_gradient(self, target: Any, claim: Claim) -> Function:
        count = len(claim.arguments)
        run = self._evaluator(Path(target), self._model(target, count + 1, count))
        return lambda *arrays: run(arrays)

    def _model(self, target: Any, inputs: int, outputs: int) -> onnx.ModelProto:
        if not isinstance(target, Path):
            raise TargetError(f"{self.framework}: the target must be a file model.onnx, got {type(target).__name__}")
        try:
            model = onnx.load(str(target))
            onnx.checker.check_model(model)
        except Exception as error:
            raise TargetError(f"{target}: is no ONNX model: {one_line(error)}") from error
        for what, found, wanted in (
            ("inputs", _inputs(model), inputs),
            ("outputs", model.graph.output, outputs),
        ):
            if len(found) != wanted:
                names = ", ".join(one.name for one in found) or "none"
                raise TargetError(f"{target}: must have {wanted} {what} for this claim, has {len(found)} ({names})")
        return model

    def _evaluator(self, path: Path, model: onnx.ModelProto) -> Any:
        """A function of a sequence of arrays that gives the list of outputs."""
        raise NotImplementedError

    def put(self, array: Array, arrangement: str) -> Array:
        if array.dtype.name != self.dtypes[0]:
            raise AbsentError(f"the model takes {self.dtypes[0]}, not {array.dtype.name}")
        return arranged(array, arrangement)

    def get(self, result: Any) -> Array:
        if not isinstance(result, np.ndarray):
            raise WrongTypeError(f"{type(result).__qualname__}, where a tensor is expected")
        return np.array(result, order="C")


class OnnxRuntimeAdapter(_OnnxAdapter):
    """ONNX Runtime, by the CPU's execution provider unless a device asks for another."""

    framework = "onnxruntime"
    packages = ("onnxruntime", "onnx")

    def __init__(self, device: str | None) -> None:
        super().__init__()
        import onnxruntime

        self._runtime: Any = onnxruntime
        self.device = device or "cpu"
        self._provider = _PROVIDERS.get(self.device, "")
        if self._provider not in onnxruntime.get_available_providers():
            has = [name for name, one in _PROVIDERS.items() if one in onnxruntime.get_available_providers()]
            raise TargetError(f'--device: this onnxruntime has {", ".join(has)}, not "{device}"')

    def _evaluator(self, path: Path, model: onnx.ModelProto) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = self._runtime.InferenceSession(str(path), options, providers=[self._provider])
        except Exception as error:
            raise TargetError(f"{path}: ONNX Runtime cannot run it: {one_line(error)}") from error
        names = [one.name for one in _inputs(model)]
        outputs = [one.name for one in model.graph.output]
        types = [one.type.tensor_type.elem_type for one in model.graph.output]

        def run(arrays: Sequence[Array]) -> list[Array]:
            if not any(one.dtype == ml_dtypes.bfloat16 for one in arrays) and onnx.TensorProto.BFLOAT16 not in types:
                return session.run(outputs, dict(zip(names, arrays, strict=True)))  # type: ignore[no-any-return]
            values = {name: self._value(one) for name, one in zip(names, arrays, strict=True)}
            return [_read(one) for one in session.run_with_ort_values(outputs, values)]

        return run

    def _value(self, array: Array) -> Any:
        # NumPy has no bfloat16 that ONNX Runtime knows: the bits travel as uint16.
        if array.dtype != ml_dtypes.bfloat16:
            return self._runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        bits = np.ascontiguousarray(array).view(np.uint16)
        return self._runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)


def _read(value: Any) -> Array:
    if value.element_type() != onnx.TensorProto.BFLOAT16:
        return value.numpy()  # type: ignore[no-any-return]
    shape = tuple(value.shape())
    raw = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape))
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(shape)


class ReferenceAdapter(_OnnxAdapter):
    """``onnx.reference.ReferenceEvaluator``: the operators' definitions in NumPy."""

    framework = "onnx-reference"
    packages = ("onnx", "numpy", "ml_dtypes")

    def __init__(self, device: str | None) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise TargetError(f'--device: onnx-reference has "cpu" only, got "{device}"')

    def _evaluator(self, path: Path, model: onnx.ModelProto) -> Any:
        try:
            evaluator = ReferenceEvaluator(model)
        except Exception as error:
            raise TargetError(f"{path}: onnx.reference cannot run it: {one_line(error)}") from error
        names = [one.name for one in _inputs(model)]
        return lambda arrays: evaluator.run(None, dict(zip(names, arrays, strict=True)))


# Sizes that a model declares


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that have no value of their own."""
    given = {one.name for one in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in given]


def _shape(value: onnx.ValueInfoProto) -> Shape:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return (None,)
    return tuple(one.dim_value if one.HasField("dim_value") else None for one in tensor.shape.dim)


def _is_static(shape: Shape) -> bool:
    return None not in shape


def _in_blocks(run: Any, shapes: Sequence[tuple[int, ...]]) -> Function:
    """An elementwise model of fixed sizes, as a function of arrays of any: cut into blocks, the last one filled up.

    Args:
        shapes: of the inputs; () for a beta that all blocks share.
    """
    size = math.prod(shapes[0])

    def call(*arrays: Array) -> Array:
        first = arrays[0]
        if not first.size or any(one.shape != first.shape for one, shape in zip(arrays, shapes, strict=True) if shape):
            raise AbsentError(f"the model has the fixed size {shapes[0]}: it takes no other shapes together")
        count = -(-first.size // size)
        # The filling repeats the first elements: numbers that the model is handed anyway.
        filled = [np.resize(one, (count, *shape)) for one, shape in zip(arrays, shapes, strict=True)]
        done = [run([one[i, ...] for one in filled])[0] for i in range(count)]
        if any(not isinstance(one, np.ndarray) or one.shape != shapes[0] for one in done):
            return np.asarray(done[0])
        return np.concatenate([one.ravel() for one in done])[: first.size].reshape(first.shape)

    return call


def _dtype(path: Path, model: onnx.ModelProto) -> str:
    first = _inputs(model)[0]
    number = first.type.tensor_type.elem_type
    if number not in _TYPES:
        name = onnx.TensorProto.DataType.Name(number)
        raise TargetError(f"{path}: the input {first.name} must be FLOAT16, BFLOAT16, FLOAT or DOUBLE, is {name}")
    return _TYPES[number]


ADAPTERS = {"onnxruntime": OnnxRuntimeAdapter, "onnx-reference": ReferenceAdapter}
