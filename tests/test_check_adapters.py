"""Adapters: arrays go in and come out bit for bit, derivatives are the framework's own, faults are told."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _check import (
    BFLOAT16,
    PAIR,
    TARGETS,
    UNARY,
    Array,
    compiled,
    integers,
    loaded,
    needs,
    onnx_models,
    pair_of,
    same_bits,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SHAPES, any_bits

from gated.conformance.adapters import FRAMEWORKS, Adapter, is_installed, load
from gated.conformance.adapters._projections import NAMES
from gated.conformance.adapters.base import arranged
from gated.conformance.error import FORMATS
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import ARRANGEMENTS, Request
from gated.conformance.grading.target import Symbol, TargetError
from gated.conformance.grading.target import load as load_target
from gated.contract import DTYPES

# Those that differentiate; keras on the backend that is set.
DIFFERENTIATING = {
    "torch": "torch_targets.py:product",
    "jax": "jax_targets.py:product",
    "jax-jit": "jax_targets.py:product",
    "tensorflow": "tensorflow_targets.py:product",
    "keras": "keras_targets.py:product",
}
HOLDING = [name for name in FRAMEWORKS if FRAMEWORKS[name].module not in ("onnx", "c")]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("library"))


@pytest.fixture
def models(tmp_path: Path) -> Callable[..., Path]:
    return onnx_models(tmp_path)


# Bits


@st.composite
def patterns(draw: st.DrawFn) -> Array:
    """An array of bit patterns of a dtype: nan of every payload, infinities, signed zeros, subnormals."""
    form = FORMATS[draw(st.sampled_from(DTYPES))]
    return draw(any_bits(form).arrays(draw(st.sampled_from(SHAPES))))


@pytest.mark.parametrize("framework", HOLDING)
@settings(max_examples=30)
@given(array=patterns())
def test_bits_survive_the_way_there_and_back(framework: str, array: Array) -> None:
    adapter = loaded(framework, lambda x: x, UNARY)
    request = Request("value", (array,))
    with adapter.settings(request):
        assert same_bits(adapter.get(adapter.put(array, "plain")), array)
    reply = adapter.execute(request)
    # A compiler may quieten a nan, and flush what the adapter says that it flushes.
    if framework in ("torch-compiled", "jax-jit"):
        assert reply.value is not None and (reply.value.dtype, reply.value.shape) == (array.dtype, array.shape)
    else:
        assert same_bits(reply.value, array)
    assert reply.overwritten == ()


@settings(max_examples=50)
@given(array=patterns(), arrangement=st.sampled_from([one for one in ARRANGEMENTS if one != "same"]))
def test_an_arrangement_keeps_the_bits_and_has_the_strides(array: Array, arrangement: str) -> None:
    copy = arranged(array, arrangement)
    assert same_bits(np.array(copy, order="C"), array)
    assert not np.shares_memory(copy, array)
    if 1 in array.shape or array.size < 2:
        return  # strides along one element say nothing
    size = array.itemsize
    if arrangement == "plain":
        assert copy.flags.c_contiguous and copy.ctypes.data % 64 == 0
    if arrangement == "unaligned":
        assert copy.flags.c_contiguous and copy.ctypes.data % 64 == size
    if arrangement == "strided":
        assert copy.strides[-1] == 2 * size
    if arrangement == "reversed":
        assert copy.strides[-1] == -size
    if arrangement == "transposed" and array.ndim > 1:
        assert copy.strides[-2] == size and not copy.flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_lays_tensors_out_as_asked(dtype: str) -> None:
    adapter = loaded("torch", lambda x: x, UNARY)
    x = integers(dtype, (4, 6), 0)
    strides = {"plain": (6, 1), "strided": (12, 2), "transposed": (1, 4), "unaligned": (6, 1)}
    for arrangement, wanted in strides.items():
        tensor = adapter.put(x, arrangement)
        assert tensor.stride() == wanted, arrangement
        assert tensor.data_ptr() % 64 == (x.itemsize if arrangement == "unaligned" else 0), arrangement
        assert same_bits(adapter.get(tensor), x)
    reply = adapter.execute(Request("value", (x,), arrangement="reversed"))
    assert reply.failure is not None and reply.failure.kind == "absent"


@pytest.mark.parametrize("framework", HOLDING)
def test_the_target_gets_memory_of_its_own(framework: str) -> None:
    """An array of the request is the grader's: a target that writes to what it is handed does not change it."""
    adapter = loaded(framework, lambda x: x, UNARY)
    x = arranged(integers("float32", (512, 512), 0), "plain")
    before = x.copy()
    with adapter.settings(Request("value", (x,))):
        handed = adapter.put(x, "plain")
        x[...] = 0
        assert same_bits(adapter.get(handed), before)


# Derivatives: products of small integers, which are exact in every dtype and mode


def check_product(adapter: Adapter, dtype: str, *, modes: bool = True) -> None:
    gate, value, dy, d_gate, d_value = pair_of(dtype)
    reply = adapter.execute(Request("gradient", (gate, value), dy, backwards=2))
    assert reply.failure is None, reply.failure
    assert same_bits(reply.value, gate * value)
    assert len(reply.cotangents) == 2
    for of_gate, of_value in reply.cotangents:
        assert same_bits(of_gate, dy * value)
        assert same_bits(of_value, dy * gate)
    once = adapter.execute(Request("gradient", (gate, value), dy))
    assert same_bits(once.cotangents[0][0], dy * value)
    same = adapter.execute(Request("gradient", (gate, gate), dy, arrangement="same"))
    assert same_bits(same.value, gate * gate)
    assert [same_bits(one, dy * gate + dy * gate) for one in same.cotangents[0]] == [True, True]
    if not modes:
        return
    double = adapter.execute(Request("double", (gate, value), dy, (d_gate, d_value)))
    # <dy value, d_gate> + <dy gate, d_value>, differentiated in gate, value and dy.
    wanted = (dy * d_value, dy * d_gate, value * d_gate + gate * d_value)
    assert [same_bits(one, exact) for one, exact in zip(double.cotangents[0], wanted, strict=True)] == [True] * 3
    forward = adapter.execute(Request("forward", (gate, value), directions=(d_gate, d_value)))
    assert same_bits(forward.value, gate * value)
    assert same_bits(forward.cotangents[0][0], d_gate * value + gate * d_value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("framework", DIFFERENTIATING)
def test_every_mode_is_exact_where_the_function_is(framework: str, dtype: str) -> None:
    check_product(loaded(framework, DIFFERENTIATING[framework]), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_takes_its_gradient_from_a_second_target(dtype: str) -> None:
    gradient = load_target(str(TARGETS / "numpy_targets.py:product_gradient"))
    adapter = loaded("numpy", "numpy_targets.py:product", gradient=gradient, gradient_name="its own")
    assert adapter.facts("n").gradient_source == "its own"
    check_product(adapter, dtype, modes=False)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_second_target_goes_before_the_frameworks_gradient(framework: str) -> None:
    def gradient(gate: Any, value: Any, dy: Any) -> Any:
        return dy, dy + dy

    adapter = loaded(framework, DIFFERENTIATING[framework], gradient=gradient)
    gate, value, dy, *_ = pair_of()
    reply = adapter.execute(Request("gradient", (gate, value), dy))
    assert same_bits(reply.cotangents[0][0], dy) and same_bits(reply.cotangents[0][1], dy + dy)


def test_a_compiled_function_is_compiled_whole_and_differentiated() -> None:
    adapter = loaded("torch-compiled", "torch_targets.py:Scaled")
    gate, value, dy, d_gate, d_value = pair_of()
    reply = adapter.execute(Request("gradient", (gate, value), dy))
    assert same_bits(reply.value, 2 * gate * value)
    assert same_bits(reply.cotangents[0][0], 2 * dy * value)
    double = adapter.execute(Request("double", (gate, value), dy, (d_gate, d_value)))
    forward = adapter.execute(Request("forward", (gate, value), directions=(d_gate, d_value)))
    assert [one.failure and one.failure.kind for one in (double, forward)] == ["absent", "absent"]


def test_a_compiled_function_takes_more_shapes_than_torch_compiles_by_default() -> None:
    """torch refuses a function's ninth program, which is an error where the whole function must be compiled."""
    adapter = loaded("torch-compiled", lambda gate, value: gate * value)
    for n in range(2, 13):
        gate, value, *_ = pair_of(shape=(2, n))
        assert same_bits(adapter.execute(Request("value", (gate, value))).value, gate * value)


def test_two_backward_passes_come_from_one_forward_pass() -> None:
    adapter = loaded("torch", "torch_targets.py:product")
    forwards = load_target(str(TARGETS / "torch_targets.py:product")).__globals__["forwards"]
    gate, value, dy, *_ = pair_of()
    before = len(forwards)
    adapter.execute(Request("gradient", (gate, value), dy, backwards=3))
    assert len(forwards) == before + 1


# What there is not


def test_a_numpy_target_without_a_gradient_says_so_and_still_gives_its_value() -> None:
    adapter = loaded("numpy", "numpy_targets.py:product")
    gate, value, dy, d_gate, d_value = pair_of()
    assert not adapter.facts("n").gradients and "--gradient" in adapter.facts("n").gradient_source
    reply = adapter.execute(Request("gradient", (gate, value), dy))
    assert same_bits(reply.value, gate * value) and reply.cotangents == ()
    assert reply.failure is not None and reply.failure.kind == "absent"
    for request in (
        Request("double", (gate, value), dy, (d_gate, d_value)),
        Request("forward", (gate, value), directions=(d_gate, d_value)),
    ):
        failure = adapter.execute(request).failure
        assert failure is not None and failure.kind == "absent"


def test_a_function_without_a_second_derivative_or_a_forward_mode_lacks_them() -> None:
    adapter = loaded("torch", "torch_targets.py:Product")
    gate, value, dy, d_gate, d_value = pair_of()
    assert adapter.facts("n").kind == "autograd.Function"
    assert adapter.execute(Request("gradient", (gate, value), dy)).failure is None
    for task in ("double", "forward"):
        failure = adapter.execute(Request(task, (gate, value), dy, (d_gate, d_value))).failure
        assert failure is not None and failure.kind == "absent", failure


@pytest.mark.parametrize("framework", ["jax", "jax-jit"])
def test_a_custom_vjp_has_no_forward_mode(framework: str) -> None:
    adapter = loaded(framework, "jax_targets.py:reverse_only")
    gate, value, dy, d_gate, d_value = pair_of()
    failure = adapter.execute(Request("forward", (gate, value), directions=(d_gate, d_value))).failure
    assert failure is not None and failure.kind == "absent", failure
    assert adapter.execute(Request("double", (gate, value), dy, (d_gate, d_value))).failure is None


def test_an_error_of_another_kind_in_a_second_derivative_is_no_absence() -> None:
    def broken(gate: Any, value: Any) -> Any:
        raise RuntimeError("out of cheese")

    adapter = loaded("torch", broken)
    gate, value, dy, d_gate, d_value = pair_of()
    failure = adapter.execute(Request("double", (gate, value), dy, (d_gate, d_value))).failure
    assert failure is not None and (failure.kind, failure.text) == ("raised", "RuntimeError: out of cheese")


@pytest.mark.parametrize(
    ("framework", "target", "stops"),
    [
        ("torch", "torch_targets.py:stopped", [True, False]),
        ("torch", "torch_targets.py:all_stopped", [True, True]),
        ("tensorflow", "tensorflow_targets.py:stopped", [True, False]),
    ],
)
def test_a_gradient_that_stops_is_none(framework: str, target: str, stops: list[bool]) -> None:
    adapter = loaded(framework, target)
    gate, value, dy, *_ = pair_of()
    reply = adapter.execute(Request("gradient", (gate, value), dy))
    assert [one is None for one in reply.cotangents[0]] == stops


# What is overwritten


def test_a_forward_pass_that_writes_to_its_input_is_told() -> None:
    gate, value, *_ = pair_of()
    reply = loaded("numpy", "numpy_targets.py:overwrites").execute(Request("value", (gate, value)))
    assert reply.overwritten == ("gate in the forward pass",)
    assert same_bits(reply.value, gate * value)


def test_a_gradient_that_writes_to_the_input_and_the_cotangent_is_told() -> None:
    gradient = load_target(str(TARGETS / "numpy_targets.py:gradient_overwrites"))
    adapter = loaded("numpy", "numpy_targets.py:product", gradient=gradient)
    gate, value, dy, *_ = pair_of()
    reply = adapter.execute(Request("gradient", (gate, value), dy, backwards=2))
    assert reply.overwritten == ("value in the backward pass", "cotangent in the backward pass")
    # The second pass finds what the first one left.
    assert same_bits(reply.cotangents[0][0], dy * value)
    assert not np.any(reply.cotangents[1][0])


def test_a_backward_pass_in_place_is_told_and_its_second_pass_differs() -> None:
    adapter = loaded("torch", "torch_targets.py:InPlaceBackward")
    gate, value, dy, *_ = pair_of()
    reply = adapter.execute(Request("gradient", (gate, value), dy, backwards=2))
    assert set(reply.overwritten) == {"gate in the backward pass", "value in the backward pass"}
    assert same_bits(reply.cotangents[0][0], dy * value)
    assert not same_bits(reply.cotangents[1][0], dy * value)


def test_a_buffer_that_jax_gives_away_is_overwritten() -> None:
    gate, value, *_ = pair_of()
    reply = loaded("jax", "jax_targets.py:donates").execute(Request("value", (gate, value)))
    assert reply.overwritten == ("gate in the forward pass",)


# What is no result


@pytest.mark.parametrize(
    ("framework", "target", "claim", "kind", "text"),
    [
        ("numpy", "numpy_targets.py:gives_a_list", UNARY, "type", "list, where numpy.ndarray is expected"),
        (
            "numpy",
            "numpy_targets.py:gives_objects",
            UNARY,
            "type",
            "an array of object, where one of numbers is expected",
        ),
        ("numpy", "numpy_targets.py:raises", UNARY, "raised", "ValueError: not this"),
        ("torch", "torch_targets.py:gives_numpy", PAIR, "type", "ndarray, where torch.Tensor is expected"),
        ("jax", "jax_targets.py:gives_numpy", PAIR, "type", "ndarray, where jax.Array is expected"),
        ("tensorflow", "tensorflow_targets.py:gives_numpy", PAIR, "type", "ndarray, where tf.Tensor is expected"),
    ],
)
def test_what_is_no_array_is_named(framework: str, target: str, claim: Claim, kind: str, text: str) -> None:
    adapter = loaded(framework, target, claim)
    arrays = pair_of()[: len(claim.arguments)]
    failure = adapter.execute(Request("value", arrays)).failure
    assert failure is not None and (failure.kind, failure.text) == (kind, text)


def test_a_wrong_dtype_or_shape_comes_back_as_it_is() -> None:
    x = integers("float32", (3, 4), 0)
    wide = loaded("numpy", "numpy_targets.py:gives_float64", UNARY).execute(Request("value", (x,))).value
    assert wide is not None and wide.dtype == np.float64
    row = loaded("numpy", "numpy_targets.py:gives_one_row", UNARY).execute(Request("value", (x,))).value
    assert row is not None and row.shape == (1, 4)


def test_the_wrong_number_of_cotangents_is_named() -> None:
    adapter = loaded("numpy", "numpy_targets.py:product", gradient=lambda gate, value, dy: [dy])
    gate, value, dy, *_ = pair_of()
    reply = adapter.execute(Request("gradient", (gate, value), dy))
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.text) == ("type", "1 cotangents, where 2 are expected")


@pytest.mark.parametrize("raised", [SystemExit("enough"), MemoryError(), RecursionError("deep")])
def test_whatever_a_target_raises_is_its_failure(raised: BaseException) -> None:
    def target(x: Any) -> Any:
        raise raised

    failure = loaded("numpy", target, UNARY).execute(Request("value", (integers("float32", (2,), 0),))).failure
    assert failure is not None and failure.kind == "raised" and failure.text.startswith(type(raised).__name__)


def test_an_interrupt_is_the_callers() -> None:
    """In the child, which has no terminal, it is the target's: test_check_child.py."""

    def target(x: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loaded("numpy", target, UNARY).execute(Request("value", (integers("float32", (2,), 0),)))


def test_integers_are_handed_over_as_they_are() -> None:
    x = np.arange(6, dtype=np.int32)
    for framework in ("numpy", "torch", "jax", "tensorflow"):
        if is_installed(framework):
            assert same_bits(loaded(framework, lambda x: x, UNARY).execute(Request("value", (x,))).value, x), framework


def test_jax_computes_float32_outside_of_64_bit_mode() -> None:
    """In that mode a constant of the default dtype would be a float64, and promote the result."""
    adapter = loaded("jax", "jax_targets.py:plain_number")
    for dtype in ("float32", "float64"):
        gate, value, *_ = pair_of(dtype)
        assert same_bits(adapter.execute(Request("value", (gate, value))).value, gate * value)


# Modules


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("framework", "target"),
    [
        ("torch", "torch_targets.py:Scaled"),
        ("jax", "jax_targets.py:Scaled"),
        ("jax-jit", "jax_targets.py:Scaled"),
        ("jax", "jax_targets.py:LinenScaled"),
        ("jax-jit", "jax_targets.py:LinenScaled"),
    ],
)
def test_a_modules_own_parameters_have_the_dtype_of_its_inputs(framework: str, target: str, dtype: str) -> None:
    adapter = loaded(framework, target)
    gate, value, dy, *_ = pair_of(dtype)
    reply = adapter.execute(Request("gradient", (gate, value), dy))
    assert adapter.facts("n").kind == "module"
    assert same_bits(reply.value, 2 * gate * value)
    assert same_bits(reply.cotangents[0][1], 2 * dy * gate)


def projected(dtype: str, *, bias: bool) -> tuple[dict[str, Array], Array]:
    shapes = {"x": (4, 3), "W": (3, 5), "V": (3, 5), "W2": (5, 2)}
    shapes |= {"b": (5,), "c": (5,), "b2": (2,)} if bias else {}
    # Of ones and minus ones, so that the sums stay within the 8 bits of bfloat16.
    return {name: np.sign(integers(dtype, shape, seed)) for seed, (name, shape) in enumerate(shapes.items())}, np.sign(
        integers(dtype, (4, 2), 9)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("framework", "target", "bias"),
    [
        ("torch", "torch_targets.py:Bilinear", False),
        ("torch", "torch_targets.py:Biased", True),
        ("torch", "torch_targets.py:Nested", False),
        ("jax", "jax_targets.py:NnxBilinear", False),
        ("jax-jit", "jax_targets.py:NnxBilinear", False),
        ("jax", "jax_targets.py:LinenBilinear", True),
        ("jax-jit", "jax_targets.py:LinenBilinear", True),
    ],
)
def test_a_modules_weights_are_those_that_are_handed_over(framework: str, target: str, bias: bool, dtype: str) -> None:
    claim = Claim.of("gated_ffn", activation="identity", bias=bias)
    adapter = loaded(framework, target, claim)
    given, dy = projected(dtype, bias=bias)
    wide = {name: one.astype(np.float64) for name, one in given.items()}
    gate = wide["x"] @ wide["W"] + wide.get("b", 0)
    value = wide["x"] @ wide["V"] + wide.get("c", 0)
    y = (gate * value) @ wide["W2"] + wide.get("b2", 0)
    hidden = dy.astype(np.float64) @ wide["W2"].T
    reply = adapter.execute(Request("gradient", tuple(given[name] for name in claim.arguments), dy))
    assert reply.failure is None, reply.failure
    form = FORMATS[dtype].dtype
    assert same_bits(reply.value, y.astype(form))
    of = dict(zip(claim.arguments, reply.cotangents[0], strict=True))
    assert same_bits(of["W"], (wide["x"].T @ (hidden * value)).astype(form))
    assert same_bits(of["W2"], ((gate * value).T @ dy.astype(np.float64)).astype(form))
    if bias:
        assert same_bits(of["c"], (hidden * gate).sum(0).astype(form))


def test_the_sizes_of_a_modules_weights_are_told() -> None:
    sizes = {"W": (3, 5), "V": (3, 5), "W2": (5, 2)}
    claim = Claim.of("gated_ffn", activation="identity")
    assert loaded("torch", "torch_targets.py:Bilinear", claim).facts("n").sizes == sizes
    assert loaded("jax", "jax_targets.py:NnxBilinear", claim).facts("n").sizes == sizes
    with_bias = Claim.of("gated_ffn", activation="identity", bias=True)
    assert loaded("torch", "torch_targets.py:Biased", with_bias).facts("n").sizes["b2"] == (2,)


@pytest.mark.parametrize(
    ("target", "bias", "message"),
    [
        ("torch_targets.py:Biased", False, "Biased: gate_proj has a bias, and the claim is without --bias"),
        ("torch_targets.py:Bilinear", True, "Bilinear: gate_proj has no bias, and the claim is with --bias"),
        (
            "torch_targets.py:OtherNames",
            False,
            "OtherNames: gated_ffn needs linear layers named as one of: gate_proj, ",
        ),
    ],
)
def test_a_module_that_does_not_fit_the_claim_is_refused(target: str, bias: bool, message: str) -> None:
    with pytest.raises(TargetError) as error:
        loaded("torch", target, Claim.of("gated_ffn", bias=bias))
    assert message in str(error.value)


def test_a_class_that_needs_arguments_is_refused() -> None:
    with pytest.raises(TargetError, match=r"NeedsAnArgument\(\) raised TypeError.*name an instance"):
        loaded("torch", "torch_targets.py:NeedsAnArgument")
    with pytest.raises(TargetError, match="must be a function of arrays, got the class NotAFunction"):
        loaded("numpy", "numpy_targets.py:NotAFunction", UNARY)


def test_a_keras_layer_is_made_for_each_dtype_and_an_instance_has_its_own() -> None:
    adapter = loaded("keras", "keras_targets.py:Doubled", UNARY)
    for dtype in DTYPES:
        x = integers(dtype, (3, 4), 0)
        assert same_bits(adapter.execute(Request("value", (x,))).value, x + x)
    assert loaded("keras", "keras_targets.py:instance", UNARY).facts("n").dtypes == ("float16",)


# ONNX


@pytest.fixture(params=["onnxruntime", "onnx-reference"])
def evaluator(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return str(request.param)


MUL = [("Mul", ["gate", "value"], ["y"], {})]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_model_is_run_in_its_own_dtype(models: Callable[..., Path], evaluator: str, dtype: str) -> None:
    free = ["rows", "n"]
    model = models("pair.onnx", MUL, {"gate": free, "value": free}, {"y": free}, dtype)
    gradient = models(
        "gradient.onnx",
        [("Mul", ["dy", "value"], ["dgate"], {}), ("Mul", ["dy", "gate"], ["dvalue"], {})],
        {"gate": free, "value": free, "dy": free},
        {"dgate": free, "dvalue": free},
        dtype,
    )
    adapter = loaded(evaluator, model, PAIR, gradient=gradient)
    assert adapter.facts("n").dtypes == (dtype,) and adapter.facts("n").kind == "model"
    check_product(adapter, dtype, modes=False)
    for arrangement in ("strided", "reversed", "transposed", "unaligned"):
        gate, value, *_ = pair_of(dtype)
        reply = adapter.execute(Request("value", (gate, value), arrangement=arrangement))
        assert same_bits(reply.value, gate * value), arrangement
    other = pair_of("float32" if dtype != "float32" else "float64")[:2]
    failure = adapter.execute(Request("value", other)).failure
    assert failure is not None and failure.kind == "absent" and dtype in failure.text


def test_a_models_bfloat16_travels_as_bits(models: Callable[..., Path], evaluator: str) -> None:
    nodes = [
        ("Cast", ["x"], ["wide"], {"to": 1}),
        ("Add", ["wide", "wide"], ["twice"], {}),
        ("Cast", ["twice"], ["y"], {"to": 16}),
    ]
    model = models("cast.onnx", nodes, {"x": ["n", "m"]}, {"y": ["n", "m"]}, "bfloat16")
    x = integers("bfloat16", (3, 5), 0)
    value = loaded(evaluator, model, UNARY).execute(Request("value", (x,))).value
    assert same_bits(value, (2 * x.astype(np.float32)).astype(BFLOAT16))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3), (4, 6), (70,), (2, 3, 4)])
def test_an_elementwise_model_of_fixed_sizes_is_fed_in_blocks(
    models: Callable[..., Path], evaluator: str, shape: tuple[int, ...]
) -> None:
    model = models("fixed.onnx", MUL, {"gate": [2, 3], "value": [2, 3]}, {"y": [2, 3]})
    gate, value, *_ = pair_of(shape=shape)
    assert same_bits(loaded(evaluator, model).execute(Request("value", (gate, value))).value, gate * value)


@pytest.mark.parametrize("size", [[2, 3], [1, 1]])
def test_the_blocks_of_a_model_share_beta(models: Callable[..., Path], evaluator: str, size: list[int]) -> None:
    model = models("beta.onnx", [("Mul", ["x", "beta"], ["y"], {})], {"x": size, "beta": []}, {"y": size})
    adapter = loaded(evaluator, model, Claim.of("swish", beta="scalar"))
    x = integers("float32", (3, 5), 0)
    reply = adapter.execute(Request("value", (x, np.float32(3).reshape(()))))
    assert same_bits(reply.value, 3 * x), reply.failure
    for shape in ((0, 5), (0,)):
        reply = adapter.execute(Request("value", (np.zeros(shape, np.float32), np.float32(3).reshape(()))))
        assert reply.failure is not None and reply.failure.kind == "absent"


def test_a_packed_model_of_fixed_sizes_tells_them(models: Callable[..., Path], evaluator: str) -> None:
    nodes = [("Split", ["x"], ["v", "g"], {"axis": 1, "num_outputs": 2}), ("Mul", ["v", "g"], ["y"], {})]
    model = models("packed.onnx", nodes, {"x": [2, 6]}, {"y": [2, 3]})
    adapter = loaded(evaluator, model, Claim.of("bilinear"))
    assert adapter.facts("n").sizes == {"x": (2, 6)}
    x = integers("float32", (2, 6), 0)
    assert same_bits(adapter.execute(Request("value", (x,))).value, x[:, :3] * x[:, 3:])


def test_a_model_that_does_not_fit_is_refused(models: Callable[..., Path], evaluator: str, tmp_path: Path) -> None:
    model = models("pair.onnx", MUL, {"gate": ["n"], "value": ["n"]}, {"y": ["n"]})
    with pytest.raises(TargetError, match=r"must have 1 inputs for this claim, has 2 \(gate, value\)"):
        loaded(evaluator, model, UNARY)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(TargetError, match=r"text\.onnx: is no ONNX model"):
        loaded(evaluator, tmp_path / "text.onnx", UNARY)
    whole = models("integers.onnx", MUL, {"gate": ["n"], "value": ["n"]}, {"y": ["n"]}, "int32")
    with pytest.raises(TargetError, match="gate must be FLOAT16, BFLOAT16, FLOAT or DOUBLE, is INT32"):
        loaded(evaluator, whole)


# C


def test_the_forms_of_a_c_function(library: Path) -> None:
    def adapter(symbol: str, claim: Claim) -> Adapter:
        return loaded("c", Symbol(library, symbol), claim)

    x, other, dy, *_ = pair_of()
    twice = adapter("twice", UNARY)
    assert twice.facts("n").gradient_source == "the symbol twice_vjp"
    reply = twice.execute(Request("gradient", (x,), dy))
    assert same_bits(reply.value, 2 * x) and same_bits(reply.cotangents[0][0], 2 * dy)
    for dtype in ("float32", "float64"):
        check_product(adapter("product", PAIR), dtype, modes=False)
    assert adapter("product", PAIR).facts("n").dtypes == ("float32", "float64")
    packed = adapter("packed", Claim.of("bilinear"))
    both = np.concatenate([x, other], axis=-1)
    reply = packed.execute(Request("gradient", (both,), dy))
    assert same_bits(reply.value, x * other)
    assert same_bits(reply.cotangents[0][0], np.concatenate([dy * other, dy * x], axis=-1))


def test_a_c_function_takes_beta_by_value(library: Path) -> None:
    adapter = loaded("c", Symbol(library, "scaled"), Claim.of("swish", beta="scalar"))
    x, _, dy, *_ = pair_of()
    beta = np.float32(3).reshape(())
    reply = adapter.execute(Request("gradient", (x, beta), dy, backwards=2))
    assert same_bits(reply.value, 3 * x)
    for of_x, of_beta in reply.cotangents:
        assert same_bits(of_x, 3 * dy) and same_bits(of_beta, np.asarray(np.sum(dy * x)))


def test_the_gradient_of_beta_is_summed_over_the_rows_of_a_packed_c_function(library: Path) -> None:
    adapter = loaded("c", Symbol(library, "packed_scaled"), Claim.of("swiglu", beta="scalar"))
    value, gate, dy, *_ = pair_of()
    beta = np.float32(2).reshape(())
    reply = adapter.execute(Request("gradient", (np.concatenate([value, gate], axis=-1), beta), dy))
    assert same_bits(reply.value, 2 * value * gate)
    of_x, of_beta = reply.cotangents[0]
    assert same_bits(of_x, np.concatenate([2 * dy * gate, 2 * dy * value], axis=-1))
    assert same_bits(of_beta, np.asarray(np.sum(dy * value * gate)))


def test_a_projected_c_function_takes_row_major_matrices(library: Path) -> None:
    adapter = loaded("c", Symbol(library, "projected"), Claim.of("gated_linear", activation="identity"))
    x, W, V = (integers("float32", shape, seed) for seed, shape in enumerate([(2, 4, 3), (3, 5), (3, 5)]))
    assert same_bits(adapter.execute(Request("value", (x, W, V))).value, (x @ W) * (x @ V))


def test_16_bit_types_reach_c_as_their_bits(library: Path) -> None:
    adapter = loaded("c", Symbol(library, "copy"), UNARY)
    assert adapter.facts("n").dtypes == ("float16", "bfloat16")
    for dtype in ("float16", "bfloat16"):
        x = np.arange(2**16, dtype=np.uint16).view(FORMATS[dtype].dtype)
        assert same_bits(adapter.execute(Request("value", (x,))).value, x)
    failure = adapter.execute(Request("value", (integers("float32", (3,), 0),))).failure
    assert failure is not None and failure.kind == "absent" and "float32" in failure.text


def test_a_c_function_is_handed_unaligned_memory(library: Path) -> None:
    adapter = loaded("c", Symbol(library, "twice"), UNARY)
    x = integers("float32", (5, 7), 0)
    assert adapter.put(x, "unaligned").ctypes.data % 64 == 4
    assert same_bits(adapter.execute(Request("value", (x,), arrangement="unaligned")).value, 2 * x)


def test_faults_of_c_functions_show(library: Path) -> None:
    x = integers("float32", (5, 7), 0)

    def run(symbol: str) -> Any:
        return loaded("c", Symbol(library, symbol), UNARY).execute(Request("value", (x,)))

    past = run("past_the_end").failure
    assert past is not None and past.text == "OutOfBoundsError: it writes past the end of y"
    half = run("half_written").value
    assert half is not None and np.array_equal(np.isnan(half.ravel()), np.arange(35) >= 17)
    assert run("overwrites").overwritten == ("x in the forward pass",)


def test_a_library_that_does_not_fit_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no symbol nothing, nor any of nothing_f16, "):
        loaded("c", Symbol(library, "nothing"), UNARY)
    with pytest.raises(TargetError, match="beta must be a number or scalar, got --beta array"):
        loaded("c", Symbol(library, "scaled"), Claim.of("swish", beta="array"))
    with pytest.raises(TargetError, match="split along the last axis, got --axis 0"):
        loaded("c", Symbol(library, "packed"), Claim.of("bilinear", axis=0))
    (tmp_path / "empty.so").write_text("")
    with pytest.raises(TargetError, match=r"empty\.so: cannot be loaded: OSError"):
        loaded("c", Symbol(tmp_path / "empty.so", "f"), UNARY)
    with pytest.raises(TargetError, match=r"c: the target must be libx\.so:symbol, got function"):
        loaded("c", lambda x: x, UNARY)


# The registry


def test_every_framework_has_its_adapter() -> None:
    for name in FRAMEWORKS:
        if is_installed(name):
            adapter = load(name)
            assert isinstance(adapter, Adapter) and adapter.framework == name
            assert not inspect.isabstract(type(adapter))


def test_a_framework_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, framework in FRAMEWORKS.items():
        if not framework.packages:
            continue
        with pytest.raises(ModuleNotFoundError) as error:
            load(name)
        assert error.value.name == framework.packages[0]
        assert str(error.value) == (
            f"--framework {name} needs the package {framework.packages[0]}, which is not installed; install it with: "
            f"pip install {framework.install}"
        )


def test_unknown_frameworks_and_devices_are_refused() -> None:
    with pytest.raises(TargetError, match=r"--framework must be one of numpy, torch, .*, got 'mxnet'"):
        load("mxnet")
    for name in ("numpy", "onnx-reference", "c", "onnxruntime", "torch", "jax", "tensorflow"):
        if is_installed(name):
            with pytest.raises(TargetError, match="--device"):
                load(name, "abacus")


def test_a_callable_that_is_none_is_refused() -> None:
    for framework in ("torch", "jax", "tensorflow"):
        if is_installed(framework):
            with pytest.raises(TargetError, match="must be callable, got an instance of SimpleNamespace"):
                loaded(framework, types.SimpleNamespace())


# The page


def test_the_adapter_of_the_page_works() -> None:
    pytest.importorskip("tinygrad")
    page = (Path(__file__).parent.parent / "docs" / "adapters.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    module = types.ModuleType("gated.conformance.adapters.of_the_page")
    exec(compile(code, "docs/adapters.md", "exec"), module.__dict__)
    adapter = module.ADAPTERS["tinygrad"](None)
    adapter.load(lambda gate, value: gate * value, PAIR)
    for dtype in adapter.dtypes:
        check_product(adapter, dtype, modes=False)
    assert adapter.execute(Request("value", pair_of("bfloat16")[:2])).failure.kind == "absent"
    assert adapter.facts("n").versions.keys() == {"tinygrad"}


def test_the_page_has_every_adapter_and_every_family_of_names() -> None:
    page = (Path(__file__).parent.parent / "docs" / "adapters.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z][a-z-]+|c)` \|", page.partition("## ONNX")[0], flags=re.MULTILINE)
    assert sorted(listed) == sorted(FRAMEWORKS)
    assert all(", ".join(names) in page for names in NAMES)
    for name in FRAMEWORKS:
        if FRAMEWORKS[name].module not in ("keras", "onnx", "c") and is_installed(name):
            row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
            dtypes = load(name).dtypes
            assert ("all four" if dtypes == DTYPES else ", ".join(dtypes)) in row
