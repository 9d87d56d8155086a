"""``gated.interop.onnx``: exported modules and functions, run by ONNX Runtime and by the reference of onnx."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gated.jax_impl
import gated.numpy_ref
import gated.torch_impl as G
from gated.conformance.carried import projection_bounds
from gated.interop import identify
from gated.torch_impl.nn import GatedFFN

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from gated.interop.onnx import export as exported  # noqa: E402 - it asks for them
from gated.interop.onnx import runtime_has  # noqa: E402

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)) * 4
W, V, W2 = X[:4].T.contiguous(), X[2:].T.contiguous(), X[:4].contiguous()


def clamped_product(x: torch.Tensor) -> torch.Tensor:
    gate, value = x.chunk(2, -1)
    return gate.clamp(max=7) * (value.clamp(-7, 7) + 1)


# The elementwise functions, each with what its logistic or error function is multiplied by.
ELEMENTWISE: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...], Callable[..., Any]]] = {
    "sigmoid": (G.sigmoid, (X,), torch.ones_like),
    "silu": (G.silu, (X,), torch.abs),
    "swish": (functools.partial(G.swish, beta=1.5), (X,), torch.abs),
    "swish, beta an array": (G.swish, (X, torch.linspace(-2, 2, 8)), lambda x, beta: x),
    "gelu": (G.gelu, (X,), torch.abs),
    "gelu_tanh": (functools.partial(G.gelu, approximate="tanh"), (X,), torch.abs),
    "relu": (G.relu, (X,), torch.zeros_like),
    "glu": (G.glu, (X,), lambda x: x.chunk(2, -1)[0]),
    "bilinear": (functools.partial(G.bilinear, axis=0), (X,), lambda x: x[:3] * 0),
    "reglu": (functools.partial(G.reglu, layout="interleaved"), (X,), lambda x: x[:, ::2] * 0),
    "geglu": (functools.partial(G.geglu, layout="gate_first"), (X,), G.bilinear),
    "swiglu": (functools.partial(G.swiglu, layout="interleaved", axis=0), (X,), lambda x: x[::2] * x[1::2]),
    "clamped_swiglu": (functools.partial(G.clamped_swiglu, layout="gate_first"), (4 * X,), clamped_product),
    "gated_unit": (functools.partial(G.gated_unit, activation="gelu"), (X, X.flip(0)), torch.mul),
}

PROJECTED: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...], str]] = {
    "glu_linear": (G.glu_linear, (X / 8, W, V), "sigmoid"),
    "swiglu_linear": (G.swiglu_linear, (X / 8, W, V), "swish"),
    "gated_linear": (functools.partial(G.gated_linear, activation="gelu"), (X / 8, W, V), "gelu"),
    "gated_ffn": (functools.partial(G.gated_ffn, activation="gelu_tanh"), (X / 8, W, V, W2), "gelu_tanh"),
}


class Together(torch.nn.Module):
    """All of the functions in one model, since an export takes a second; inputs in the order of the tables."""

    def forward(self, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        left = list(args)
        results = []
        for function, given, _ in (*ELEMENTWISE.values(), *PROJECTED.values()):
            results.append(function(*left[: len(given)]))
            del left[: len(given)]
        return tuple(results)


def export(*args: Any, **options: Any) -> Any:
    """Without the warnings that torch's exporter gives of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = exported(*args, **options)
    onnx.checker.check_model(program.model_proto)
    return program


def operators(program: Any) -> list[str]:
    return [node.op_type for node in program.model_proto.graph.node]


def run(program: Any, *args: Any) -> np.ndarray:
    result: np.ndarray = run_all(program, *args)[0]
    return result


def run_all(program: Any, *args: Any) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {one.name: np.asarray(arg) for one, arg in zip(session.get_inputs(), args, strict=True)}
    results: list[np.ndarray] = session.run(None, given)
    return results


@functools.cache
def runtime_error() -> float:
    """What the runtime's logistic and error functions are off by, absolutely: ``Swish`` and ``Gelu`` are made of them.

    Measured, since ONNX promises no accuracy: on 20,000 numbers of float32.
    """
    x = np.linspace(-30, 30, 20000, dtype=np.float32)
    wide = x.astype(np.float64)
    phi = run(export(G.gelu, (torch.from_numpy(x),)), x) / wide - gated.numpy_ref.gelu(wide) / wide
    sigmoid = run(export(G.sigmoid, (torch.from_numpy(x),)), x) - gated.numpy_ref.sigmoid(wide)
    return float(max(np.abs(sigmoid).max(), np.abs(phi).max()))


U = 2.0**-24


@pytest.mark.parametrize("fused", [True, False])
def test_every_function_has_its_values_in_the_runtime(fused: bool) -> None:
    tables = (*ELEMENTWISE.values(), *PROJECTED.values())
    args = tuple(arg for _, given, _ in tables for arg in given)
    program = export(Together(), args, fused=fused)
    results = dict(zip((*ELEMENTWISE, *PROJECTED), run_all(program, *args), strict=True))
    for name, (function, given, reach) in ELEMENTWISE.items():
        wide = [arg.double() for arg in given]
        exact, size = function(*wide).numpy(), reach(*wide).abs().numpy()
        # Some roundings of the result, and one of the exponential's argument, which is below 64 here.
        bound = (8 + 64) * U * np.abs(exact) + 2.0**-126
        # An erf is the runtime's in both; a logistic function is where it is an operator.
        if fused or "gelu" in name or "geglu" in name or name == "gated_unit":
            bound = bound + runtime_error() * size
        assert np.all(np.abs(results[name] - exact) <= bound), name
    for name, (function, given, activation) in PROJECTED.items():
        arrays = dict(zip(("x", "W", "V", "W2"), (arg.double().numpy() for arg in given), strict=False))
        exact = function(*(arg.double() for arg in given)).numpy()
        assert np.all(np.abs(results[name] - exact) <= block_bound(arrays, exact, activation, 1.0)), name


def block_bound(arrays: dict[str, np.ndarray], like: np.ndarray, activation: str, beta: float) -> np.ndarray:
    """The bound of the backends, and what the runtime's activation adds to it."""
    bound = projection_bounds(
        "torch", "float32", arrays, np.zeros_like(like), activation=activation, beta=np.asarray(beta)
    )["value"]
    gate = arrays["x"] @ arrays["W"] + arrays.get("b", 0.0)
    value = arrays["x"] @ arrays["V"] + arrays.get("c", 0.0)
    size = np.abs(value if activation == "sigmoid" else gate * value)
    result: np.ndarray = bound + (size @ np.abs(arrays["W2"]) if "W2" in arrays else size) * runtime_error()
    return result


def test_swish_is_one_operator_where_the_runtime_has_it() -> None:
    assert runtime_has("Swish", 24)
    assert operators(export(G.silu, (X,))) == ["Swish"]
    assert operators(export(G.swish, (X, torch.tensor(1.5)))) == ["Mul", "Neg", "Exp", "Add", "Div"]
    assert operators(export(GatedFFN(8, 6).eval(), (X,))) == ["Gemm", "Gemm", "Swish", "Mul", "Gemm"]


def test_a_function_may_have_sizes_that_vary() -> None:
    rows, half = torch.export.Dim("rows"), torch.export.Dim("half")
    program = export(G.swiglu, (X,), dynamic_shapes=({0: rows, 1: 2 * half},))
    np.testing.assert_allclose(run(program, X[:5, :6]), G.swiglu(X[:5, :6]), rtol=1e-5, atol=1e-6)


def test_nothing_that_the_runtime_lacks_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gated.interop.onnx.runtime_has", lambda operator, opset: False)
    program = export(G.silu, (X,))
    assert operators(program) == ["Neg", "Exp", "Add", "Div"]
    assert program.model_proto.opset_import[0].version == 20


def test_swiglu_is_one_operator_from_opset_28_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No runtime has it yet but the reference of onnx."""
    from onnx.reference import ReferenceEvaluator

    monkeypatch.setattr("gated.interop.onnx.runtime_has", lambda operator, opset: True)
    for model, wanted in (
        (functools.partial(G.swiglu, beta=1.5), ["Split", "SwiGLU"]),
        (G.clamped_swiglu, ["Split", "Min", "Clip", "Add", "SwiGLU"]),
        (GatedFFN(8, 6, bias=True).eval(), ["Gemm", "Gemm", "SwiGLU", "Gemm"]),
    ):
        program = export(model, (X,))
        assert operators(program) == wanted
        assert program.model_proto.opset_import[0].version == 28
        evaluator = ReferenceEvaluator(program.model_proto)
        (found,) = evaluator.run(None, {evaluator.input_names[0]: X.numpy()})
        np.testing.assert_allclose(found, model(X).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_product_with_a_swish_that_is_no_gated_form_stays_a_product() -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return G.silu(x) * x[:1]

    assert "SwiGLU" not in operators(export(Scaled(), (X,), opset=28))


def test_a_beta_that_the_attribute_cannot_hold_is_not_rounded_to_it() -> None:
    x = X.double()
    function = functools.partial(G.swish, beta=1.1)
    assert "Swish" in operators(export(function, (X,)))
    program = export(function, (x,))
    assert "Swish" not in operators(program)
    np.testing.assert_allclose(run(program, x), function(x), rtol=1e-14, atol=0)


def test_16_bit_numbers_are_computed_in_float32_and_rounded_once() -> None:
    x = X.half()
    program = export(G.swiglu, (x,), fused=False)
    assert operators(program).count("Cast") == 3
    np.testing.assert_array_equal(run(program, x), G.swiglu(x).numpy())


@pytest.mark.parametrize(
    ("activation", "beta", "fused"),
    [
        ("swish", 1.0, None),
        ("swish", 1.5, False),
        ("sigmoid", 1.0, None),
        ("relu", 1.0, None),
        ("gelu", 1.0, None),
        ("gelu_tanh", 1.0, False),
        ("identity", 1.0, None),
    ],
)
def test_a_block_is_within_the_bound_and_is_identified(activation: str, beta: float, fused: bool | None) -> None:
    torch.manual_seed(1)
    block = GatedFFN(16, 24, bias=activation in ("gelu", "swish"), activation=activation, beta=beta).eval()
    rows, steps = torch.export.Dim("rows"), torch.export.Dim("steps")
    program = export(block, (torch.randn(2, 9, 16),), fused=fused, dynamic_shapes=({0: rows, 1: steps},))
    x = 3 * torch.randn(3, 5, 16)
    y = run(program, x)

    state = {one.name: onnx.numpy_helper.to_array(one) for one in program.model_proto.graph.initializer}
    found = identify({name: array for name, array in state.items() if array.ndim}, x.numpy(), y)
    assert found.verdict == "match"
    assert (found[0].activation, found[0].beta) == (activation, beta)

    arrays = {name: one for name, one in found[0].reference._asdict().items() if one is not None}
    arrays = {"x": x.flatten(0, 1).numpy()} | arrays
    wide = {name: np.asarray(one, np.float64) for name, one in arrays.items()}
    options: dict[str, Any] = {"activation": activation, "beta": beta}
    exact = gated.numpy_ref.gated_ffn(**wide, **options)
    results = {
        "runtime": y.reshape(15, 16),
        "numpy": gated.numpy_ref.gated_ffn(**arrays, **options),
        "torch": G.gated_ffn(**{name: torch.tensor(one) for name, one in arrays.items()}, **options).numpy(),
        "jax": np.asarray(
            gated.jax_impl.gated_ffn(**{name: jnp.asarray(one) for name, one in arrays.items()}, **options)
        ),
    }
    bound = block_bound(wide, exact, activation, beta)
    for name, result in results.items():
        assert np.all(np.abs(result - exact) <= bound), name


def test_the_model_computes_as_before_afterwards() -> None:
    block = GatedFFN(8, 6).eval()

    def computed() -> list[torch.Tensor]:
        result = block(X)
        return [result, *torch.autograd.grad(result.sum(), list(block.parameters()))]

    before = computed()
    export(block, (X,))
    assert all(torch.equal(one, other) for one, other in zip(before, computed(), strict=True))


def test_what_an_export_raises_leaves_no_trace() -> None:
    class Unknown(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return G.silu(x.view(torch.int32).to(torch.float32))

    with pytest.raises(Exception, match="view"):
        export(Unknown(), (X,))
    graph = torch.export.export(GatedFFN(8, 6), (X,)).graph
    assert not [node for node in graph.nodes if "gated" in str(node.target)]


def test_bad_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"export: model must be a torch.nn.Module or a function, got int"):
        exported(3, (X,))
    for opset in (19, 24.0, True):
        with pytest.raises(ValueError, match="export: opset must be None or an int of at least 20, got"):
            exported(G.silu, (X,), opset=opset)
    with pytest.raises(ValueError, match="export: opset must be at least 24 where fused is True, got 20"):
        exported(G.silu, (X,), opset=20, fused=True)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match="export: onnxscript must be installed: pip install onnx onnxscript"):
        exported(G.silu, (X,))
