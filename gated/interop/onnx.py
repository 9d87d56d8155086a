"""ONNX models of the torch modules and functions, in operators that runtimes have.

``torch.onnx.export`` of a model of :mod:`gated.torch_impl` stops at an operation on the bits of a number, which ONNX
has not. :func:`export` is that function, with each gated form as one operation of torch, which :class:`_Writer` writes
in ONNX.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from gated.torch_impl import _autograd
from gated.torch_impl._forms import Form

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

__all__ = ["SWIGLU_OPSET", "SWISH_OPSET", "export", "runtime_has"]

SWISH_OPSET: Final = 24
"""The first opset with ``Swish``."""

SWIGLU_OPSET: Final = 28
"""The first opset with ``SwiGLU``."""

_PLAIN_OPSET: Final = 20
"""The first opset with ``Gelu``, which torch's exporter writes too."""


def export(
    model: nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    *,
    opset: int | None = None,
    fused: bool | None = None,
    **options: Any,
) -> ONNXProgram:
    """An ONNX model of a torch module or function that has gated activations in it.

    Args:
        model: a module, such as :class:`gated.torch_impl.nn.GatedFFN` or one with such modules inside, or a function,
            such as :func:`gated.torch_impl.swiglu`, with static arguments by ``functools.partial``.
        args: the tensors to trace it with.
        opset: of the model; None: the newest of 28, 24 and 20 whose ``SwiGLU`` or ``Swish`` the installed onnxruntime
            has, and 20 where there is no onnxruntime or ``fused`` is False.
        fused: whether swish is written as ``Swish`` (from opset 24 on) or ``SwiGLU`` (from 28 on), and gelu as
            ``Gelu``, whose accuracy is that of the runtime; False: as x / (1 + Exp(-beta x)). None: where the opset has
            them.
        options: of ``torch.onnx.export``, such as ``dynamic_shapes`` and ``input_names``.

    Returns:
        torch's ``ONNXProgram``: ``.save(path)`` writes it, ``.model_proto`` is the model. 16-bit inputs are computed in
        float32 and rounded once. At infinities the formulas are IEEE's, and a swish of -inf is nan.

    Raises:
        ModuleNotFoundError: onnxscript is not installed.
        TypeError: ``model`` is neither a module nor a function.
        ValueError: ``opset`` is no int from 20 on, or below 24 where ``fused`` is True.
    """
    if not callable(model):
        raise TypeError(f"export: model must be a torch.nn.Module or a function, got {type(model).__name__}")
    if opset is not None and (type(opset) is not int or opset < _PLAIN_OPSET):
        raise ValueError(f"export: opset must be None or an int of at least {_PLAIN_OPSET}, got {opset!r}")
    if fused and opset is not None and opset < SWISH_OPSET:
        raise ValueError(f"export: opset must be at least {SWISH_OPSET} where fused is True, got {opset}")
    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("export: onnxscript must be installed: pip install onnx onnxscript") from error
    chosen = _newest(fused) if opset is None else opset
    writer = _Writer(min(chosen, SWISH_OPSET), fused is not False)
    module = model if isinstance(model, nn.Module) else _Called(model)
    if module is not model and "dynamic_shapes" in options:
        options["dynamic_shapes"] = (tuple(options["dynamic_shapes"]),)  # those of *args
    with _as_operators(), torch.no_grad():
        program = torch.onnx.export(
            module,
            args,
            dynamo=True,
            opset_version=min(chosen, SWISH_OPSET),
            custom_translation_table={torch.ops.gated.unit.default: writer.function()},
            **({"verbose": False} | options),
        )
    assert program is not None
    if chosen > SWISH_OPSET:
        _raise_opset(program, chosen)
    _raise_format(program)
    return program


class _Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


# The forms as one operation of torch


@torch.library.custom_op("gated::unit", mutates_args=())
def _unit(
    x: Tensor,
    value: Tensor | None,
    beta: Tensor | None,
    number: float,
    activation: str,
    axis: int,
    layout: str,
    limit: float,
    offset: float,
) -> Tensor:
    """A :class:`Form` of a gate and a value. ``beta`` or else ``number``; an axis of -1 and a limit of inf are none."""
    form = Form(activation, None if axis < 0 else axis, layout, None if limit == math.inf else limit, offset)
    return _EVALUATE(form, x, value, number if beta is None else beta).clone()


@_unit.register_fake
def _(
    x: Tensor,
    value: Tensor | None,
    beta: Tensor | None,
    number: float,
    activation: str,
    axis: int,
    layout: str,
    limit: float,
    offset: float,
) -> Tensor:
    return torch.empty_like(Form(activation, None if axis < 0 else axis, layout).split(x, value)[0])


_EVALUATE: Final = _autograd._evaluate


def _as_operation(form: Form, x: Tensor, value: Tensor | None, beta: float | Tensor | None) -> Tensor:
    tensor = beta if isinstance(beta, Tensor) else None
    number = 1.0 if beta is None or tensor is not None else float(beta)
    axis = -1 if form.axis is None else form.axis
    limit = math.inf if form.limit is None else form.limit
    result: Tensor = torch.ops.gated.unit(
        x, value, tensor, number, form.activation, axis, form.layout, limit, float(form.offset)
    )
    return result


@contextlib.contextmanager
def _as_operators() -> Iterator[None]:
    """Every form that is evaluated inside is one operation, and not the many that it is computed by."""
    _autograd._evaluate = _as_operation
    try:
        yield
    finally:
        _autograd._evaluate = _EVALUATE


# The operation in ONNX


class _Writer:
    """Writes the nodes.

    ======================  ===========================================================================
    swish, beta a number    ``Swish``, or with the value ``SwiGLU``; plain: g / (1 + Exp(-beta g))
    sigmoid                 ``Sigmoid``; plain: 1 / (1 + Exp(-g))
    gelu                    ``Gelu``; plain: g (1 + Erf(g / sqrt 2)) / 2
    gelu_tanh               ``Gelu(approximate="tanh")``; plain: g / (1 + Exp(-w)), w as in ``gelu``
    relu, identity          ``Relu``; nothing
    ======================  ===========================================================================
    """

    def __init__(self, opset: int, fused: bool) -> None:
        from onnxscript.values import Opset

        self.op, self.fused, self.swish = Opset("", opset), fused, fused and opset >= SWISH_OPSET

    def function(self) -> Callable[..., Any]:
        """:meth:`unit` as the exporter takes it."""

        def unit(
            x: Any,
            value: Any,
            beta: Any,
            number: float,
            activation: str,
            axis: int,
            layout: str,
            limit: float,
            offset: float,
        ) -> Any:
            return self.unit(x, value, beta, number, activation, axis, layout, limit, offset)

        return unit

    def unit(
        self,
        x: Any,
        value: Any,
        beta: Any,
        number: float,
        activation: str,
        axis: int,
        layout: str,
        limit: float,
        offset: float,
    ) -> Any:
        """The nodes of the operation."""
        op, dtype = self.op, x.dtype
        gate, value = (x, value) if axis < 0 else self._split(x, axis, layout)
        work = 1 if dtype.bitwidth < 32 else int(dtype)  # 1: float32
        gate, value, beta = (
            one if one is None or int(dtype) == work else op.Cast(one, to=work) for one in (gate, value, beta)
        )
        # The attributes of ONNX are float32.
        narrow = beta is None and (work == 1 or float(torch.tensor(number, dtype=torch.float32)) == number)
        constant = functools.partial(self._constant, work)
        if limit != math.inf:
            gate = op.Min(gate, constant(limit))
            value = op.Clip(value, constant(-limit), constant(limit))
            value = op.Add(value, constant(offset)) if offset else value
        scale = beta if beta is not None else constant(number)
        result = self._activation(gate, activation, scale, number if narrow else None, constant)
        result = result if value is None else op.Mul(result, value)
        return result if int(dtype) == work else op.Cast(result, to=int(dtype))

    def _split(self, x: Any, axis: int, layout: str) -> tuple[Any, Any]:
        op = self.op
        if layout != "interleaved":
            first, last = op.Split(x, axis=axis, num_outputs=2)
            return (first, last) if layout == "gate_first" else (last, first)

        def every_second(start: int) -> Any:
            places = ([start], [2**63 - 1], [axis], [2])
            return op.Slice(x, *(op.Constant(value_ints=place) for place in places))

        return every_second(0), every_second(1)

    def _activation(self, g: Any, activation: str, scale: Any, alpha: float | None, constant: Any) -> Any:
        op = self.op

        def logistic(numerator: Any, z: Any) -> Any:
            return op.Div(numerator, op.Add(op.Exp(op.Neg(z)), constant(1.0)))

        match activation:
            case "identity":
                return g
            case "relu":
                return op.Relu(g)
            case "sigmoid":
                return op.Sigmoid(g) if self.fused else logistic(constant(1.0), g)
            case "swish":
                if self.swish and alpha is not None:
                    return op.Swish(g, alpha=alpha)
                return logistic(g, op.Mul(g, scale))
            case "gelu" if not self.fused:
                both = op.Add(op.Erf(op.Mul(g, constant(math.sqrt(0.5)))), constant(1.0))
                return op.Mul(op.Mul(g, constant(0.5)), both)
            case "gelu_tanh" if not self.fused:
                # 2 sqrt(2 / pi) (g + 0.044715 g^3), which is tanh's argument twice
                cubic = op.Add(g, op.Mul(op.Mul(op.Mul(g, g), g), constant(0.044715)))
                return logistic(g, op.Mul(cubic, constant(2 * math.sqrt(2 / math.pi))))
        return op.Gelu(g, approximate="tanh" if activation == "gelu_tanh" else "none")

    def _constant(self, dtype: int, number: float) -> Any:
        import numpy as np
        from onnxscript import ir

        array = np.array(number, np.float64 if dtype == int(ir.DataType.DOUBLE) else np.float32)
        return self.op.Constant(value=ir.tensor(array))


# Opsets and what runtimes have


def _newest(fused: bool | None) -> int:
    """The opset that is chosen where none is asked for."""
    if fused is False:
        return _PLAIN_OPSET
    if runtime_has("SwiGLU", SWIGLU_OPSET):
        return SWIGLU_OPSET
    return SWISH_OPSET if fused or runtime_has("Swish", SWISH_OPSET) else _PLAIN_OPSET


@functools.cache
def runtime_has(operator: str, opset: int) -> bool:
    """Whether the installed onnxruntime runs a model of the one operator, ``Swish`` or ``SwiGLU``, in float32.

    False where there is no onnxruntime.
    """
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ModuleNotFoundError:
        return False
    names = ["a", "b"] if operator == "SwiGLU" else ["a"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in (*names, "y")]
    graph = helper.make_graph([helper.make_node(operator, names, ["y"])], "one", values[:-1], values[-1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # of several kinds, and the same news
        return False
    return True


def _raise_opset(program: ONNXProgram, opset: int) -> None:
    """Converts the model to an opset that torch's exporter does not know, with ``SwiGLU`` where that has it."""
    from onnx import version_converter
    from onnxscript import ir

    written = program.model_proto
    pairs = _swish_and_product(written) if opset >= SWIGLU_OPSET else {}
    model = version_converter.convert_version(written, opset)
    nodes = {node.output[0]: node for node in model.graph.node}
    for activated, product in pairs.items():
        swish, times = nodes[activated], nodes[product]
        (value,) = (one for one in times.input if one != activated)
        times.op_type = "SwiGLU"
        times.input[:] = [swish.input[0], value]
        times.attribute.extend(swish.attribute)
        model.graph.node.remove(swish)
    program.model = ir.from_proto(model)


def _raise_format(program: ONNXProgram) -> None:
    """The version of the file format that the opset asks for: torch writes that of its own newest."""
    from onnx import helper

    imports = [helper.make_opsetid(domain, version) for domain, version in program.model.opset_imports.items()]
    needed = helper.find_min_ir_version_for(imports, ignore_unknown=True)
    program.model.ir_version = max(program.model.ir_version, needed)


def _swish_and_product(model: Any) -> dict[str, str]:
    """The results of each ``Swish`` and of the ``Mul`` that the same gated form has it for: their shapes are one."""

    def origin(node: Any) -> str | None:
        return next((one.value for one in node.metadata_props if one.key == "pkg.torch.onnx.fx_node"), None)

    products = [node for node in model.graph.node if node.op_type == "Mul" and origin(node) is not None]
    return {
        node.output[0]: product.output[0]
        for node in model.graph.node
        if node.op_type == "Swish"
        for product in products
        if node.output[0] in product.input and origin(node) == origin(product)
    }
