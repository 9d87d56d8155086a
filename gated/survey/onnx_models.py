"""One-operator ONNX models, as an exporter would write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["MODELS", "write"]


class _Model(NamedTuple):
    operator: str
    opset: int
    inputs: tuple[str, ...] = ("x",)
    half: bool = False
    attributes: Mapping[str, Any] = {}


MODELS: Final[Mapping[str, _Model]] = {
    "sigmoid": _Model("Sigmoid", 13),
    "swish": _Model("Swish", 24),
    "swish-half": _Model("Swish", 24, half=True),
    "swish-beta": _Model("Swish", 24, attributes={"alpha": 1.5}),
    "gelu": _Model("Gelu", 20),
    "gelu-tanh": _Model("Gelu", 20, attributes={"approximate": "tanh"}),
    "swiglu": _Model("SwiGLU", 28, inputs=("gate", "value")),
}
"""By the name that the survey's entries call them."""


def write(name: str, folder: Path) -> Path:
    """Writes a model as ``folder/name.onnx``.

    Raises:
        LookupError: the installed onnx does not know the operator.
    """
    from onnx import TensorProto, checker, defs, helper, save

    model = MODELS[name]
    if not defs.has(model.operator) or model.opset > defs.onnx_opset_version():
        raise LookupError(f"onnx {model.operator}-{model.opset}: opset {defs.onnx_opset_version()} is the newest here")
    dtype = TensorProto.FLOAT16 if model.half else TensorProto.FLOAT
    shape = ["rows", "n"]
    graph = helper.make_graph(
        [helper.make_node(model.operator, list(model.inputs), ["y"], **model.attributes)],
        name,
        [helper.make_tensor_value_info(one, dtype, shape) for one in model.inputs],
        [helper.make_tensor_value_info("y", dtype, shape)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", model.opset)])
    proto.ir_version = helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    checker.check_model(proto)
    path = folder / f"{name}.onnx"
    save(proto, path)
    return path
