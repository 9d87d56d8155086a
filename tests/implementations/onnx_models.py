"""Wrong and sound ONNX models, built node by node: `save(name, folder)` writes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, helper

_FLOAT32, _FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


def _model(nodes, inputs, *, dtype=_FLOAT32, constants=(), opset=20):
    """A model whose inputs are given as name -> rank."""
    graph = helper.make_graph(
        nodes,
        "target",
        [
            helper.make_tensor_value_info(name, dtype, [f"{name}{i}" for i in range(rank)])
            for name, rank in inputs.items()
        ],
        [helper.make_tensor_value_info("y", dtype, [None, None])],
        [
            helper.make_tensor(name, dtype, [], [value])
            if not isinstance(value, list)
            else helper.make_tensor(name, TensorProto.INT64, [len(value)], value)
            for name, value in dict(constants).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


_node = helper.make_node


def _halves(first: str, second: str):
    return _node("Split", ["x"], [first, second], axis=-1, num_outputs=2)


def _interleaved():
    """The even indices as gate, the odd as value: slices of step 2."""
    return [
        _node("Slice", ["x", "zero", "end", "last", "two"], ["gate"]),
        _node("Slice", ["x", "one", "end", "last", "two"], ["value"]),
    ]


_STEPS: Final = {"zero": [0], "one": [1], "end": [2**31], "last": [-1], "two": [2]}


def _silu(of: str, result: str):
    return [_node("Sigmoid", [of], [f"{of}_s"]), _node("Mul", [of, f"{of}_s"], [result])]


def swish_scaled():
    """beta x into both factors."""
    return _model([_node("Mul", ["x", "beta"], ["z"]), *_silu("z", "y")], {"x": 2}, constants={"beta": 1.5})


def gelu_tanh():
    return _model([_node("Gelu", ["x"], ["y"], approximate="tanh")], {"x": 2})


def gelu_erf():
    return _model([_node("Gelu", ["x"], ["y"])], {"x": 2})


def gelu_quick():
    """The exporter's pattern for CLIP."""
    nodes = [_node("Mul", ["x", "a"], ["z"]), _node("Sigmoid", ["z"], ["s"]), _node("Mul", ["x", "s"], ["y"])]
    return _model(nodes, {"x": 2}, constants={"a": 1.702})


def silu_exp():
    """Div(Exp(x), 1 + Exp(x)): inf / inf."""
    nodes = [_node("Exp", ["x"], ["e"]), _node("Add", ["e", "one"], ["d"]), _node("Div", ["e", "d"], ["s"])]
    return _model([*nodes, _node("Mul", ["x", "s"], ["y"])], {"x": 2}, constants={"one": 1.0})


def swiglu_first():
    return _model([_halves("gate", "value"), *_silu("gate", "a"), _node("Mul", ["a", "value"], ["y"])], {"x": 2})


def swiglu_last():
    return _model([_halves("value", "gate"), *_silu("gate", "a"), _node("Mul", ["a", "value"], ["y"])], {"x": 2})


def swiglu_last_half():
    """Every node rounds to float16."""
    nodes = [_halves("value", "gate"), *_silu("gate", "a"), _node("Mul", ["a", "value"], ["y"])]
    return _model(nodes, {"x": 2}, dtype=_FLOAT16)


def _clamped(split, constants, *, gate_low: str, offset: bool = True):
    nodes = [
        *split,
        _node("Clip", ["gate", gate_low, "limit"], ["g"]),
        _node("Clip", ["value", "minus_limit", "limit"], ["v"]),
        _node("Mul", ["g", "alpha"], ["z"]),
        _node("Sigmoid", ["z"], ["s"]),
        _node("Mul", ["g", "s"], ["a"]),
        _node("Add", ["v", "offset"], ["w"]),
        _node("Mul", ["a", "w"], ["y"]),
    ]
    numbers = {"limit": 7.0, "minus_limit": -7.0, "alpha": 1.702, "offset": float(offset)}
    return _model(nodes, {"x": 2}, constants={**numbers, **constants})


def clamped_both():
    return _clamped(_interleaved(), _STEPS, gate_low="minus_limit")


def clamped_halves():
    return _clamped([_halves("gate", "value")], {}, gate_low="")


def clamped_no_offset():
    return _clamped(_interleaved(), _STEPS, gate_low="", offset=False)


def clamped():
    return _clamped(_interleaved(), _STEPS, gate_low="")


def _linear(gate: str, value: str):
    return [_node("MatMul", ["x", gate], ["gate"]), _node("MatMul", ["x", value], ["value"]), *_silu("gate", "a")]


def linear_swapped():
    return _model([*_linear("V", "W"), _node("Mul", ["a", "value"], ["y"])], {"x": 2, "W": 2, "V": 2})


def linear():
    return _model([*_linear("W", "V"), _node("Mul", ["a", "value"], ["y"])], {"x": 2, "W": 2, "V": 2})


def linear_no_bias():
    """b reaches an Identity that nothing reads."""
    nodes = [
        _node("MatMul", ["x", "W"], ["gate"]),
        _node("Identity", ["b"], ["unused"]),
        _node("MatMul", ["x", "V"], ["up"]),
        _node("Add", ["up", "c"], ["value"]),
        *_silu("gate", "a"),
        _node("Mul", ["a", "value"], ["y"]),
    ]
    return _model(nodes, {"x": 2, "W": 2, "V": 2, "b": 1, "c": 1})


def swish_24():
    """The operator itself."""
    return _model([_node("Swish", ["x"], ["y"])], {"x": 2}, opset=24)


_MODELS: Final[dict[str, Callable[[], onnx.ModelProto]]] = {
    function.__name__: function
    for function in (
        swish_scaled, gelu_tanh, gelu_erf, gelu_quick, silu_exp, swiglu_first, swiglu_last, swiglu_last_half,
        clamped_both, clamped_halves, clamped_no_offset, clamped, linear_swapped, linear, linear_no_bias, swish_24,
    )
}  # fmt: skip


def save(name: str, folder: Path) -> Path:
    """Writes the model as ``folder/name.onnx``."""
    model = _MODELS[name]()
    onnx.checker.check_model(model)
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path
