"""ONNX's Swish-24 in ONNX Runtime, beside x / (1 + exp(-x)) in float64."""

import numpy as np
import onnx
import onnxruntime

x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])
y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])
graph = onnx.helper.make_graph([onnx.helper.make_node("Swish", ["x"], ["y"])], "swish", [x], [y])
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 24)], ir_version=11)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

inputs = np.float32([-16.5, -17.0, -17.7, -18.0, -30.0])
exact = inputs.astype(np.float64) / (1 + np.exp(-inputs.astype(np.float64)))
for one, computed, right in zip(inputs, session.run(None, {"x": inputs})[0], exact, strict=True):
    print(f"Swish({one:g}) = {computed:.4g}, exact {right:.4g}")
