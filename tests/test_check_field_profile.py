"""The field profile: sound plain implementations are within it, unsound ones are not, and it is no wider than that."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance import inputs
from gated.conformance.carried import projection_bounds
from gated.conformance.elements import Elements
from gated.conformance.error import FORMATS, Format
from gated.conformance.grading.plain import field_bound
from gated.conformance.grading.projections import field_projection_bound
from gated.conformance.grading.running_error import LIBRARY, Arithmetic, Number

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from gated.conformance.backends.torch import from_torch, to_torch  # noqa: E402

Array = NDArray[Any]
Float64 = NDArray[np.float64]

ROOT: Final = math.sqrt(2 / math.pi)

TORCH: Final[Mapping[str, tuple[str, Callable[..., Any]]]] = {
    "torch.sigmoid": ("sigmoid", torch.sigmoid),
    "F.silu": ("swish", F.silu),
    "x * torch.sigmoid(x)": ("swish", lambda x: x * torch.sigmoid(x)),
    "F.gelu": ("gelu", F.gelu),
    "x * 0.5 * (1 + torch.erf(...))": ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
    "F.gelu tanh": ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
    "0.5 * x * (1 + torch.tanh(...))": (
        "gelu_tanh",
        lambda x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * x**3))),
    ),
    "F.relu": ("relu", F.relu),
}


def numbers(form: Format, size: int = 30_000) -> Array:
    """All of a 16-bit format, else a sample of every binade, thresholds and random bits."""
    if form.bits.itemsize == 2:
        return inputs.all_patterns(form)
    return inputs.line(form, np.random.default_rng(0), size)


def wide(x: Array) -> Float64:
    with np.errstate(invalid="ignore"):
        return np.asarray(x).astype(np.float64)


def outside(
    form: Format, activation: str, partial: str, results: Array, gate: Array, value: Any, beta: Any, cotangent: Any
) -> NDArray[np.intp]:
    """Where results are farther from the exact ones than the bound; at nan only nan is right."""
    g, c = wide(gate), np.broadcast_to(wide(cotangent), gate.shape)
    v, b = np.broadcast_to(wide(value), g.shape), np.broadcast_to(wide(beta), g.shape)
    with np.errstate(all="ignore"):
        bound = field_bound(form, activation, partial, g, v, b, c)
        elements = Elements(FORMATS["float64"], activation, g, v, np.array(b), c) if form.precision == 53 else None
        if elements is not None:
            of_value = "output" if np.all(c == 1) else "value"
            exact = elements._quantity("", {"value": of_value, "x": "gate", "beta": "beta"}[partial]).high
        elif partial == "value":
            exact = reference.gated_unit(g, v * c, activation=activation, beta=b)
        else:
            _, pullback = reference.vjp(reference.gated_unit, g, v, np.array(b), activation=activation)
            exact = pullback(np.array(c))[0 if partial == "x" else 2]
        error = np.abs(wide(results) - exact)
        inside = (error <= bound) | np.isinf(bound) | (np.isnan(exact) & np.isnan(wide(results)))
    return np.flatnonzero(~inside)


def assert_inside(form: Format, activation: str, partial: str, results: Array, *operands: Any) -> None:
    if partial == "x":
        # A gradient at nan is what the frameworks' masks make of it.
        there = ~np.isnan(wide(operands[0]))
        results, operands = results[there], tuple(np.broadcast_to(one, there.shape)[there] for one in operands)
    bad = outside(form, activation, partial, results, *operands)
    assert bad.size == 0, [
        (i, [np.broadcast_to(wide(one), results.shape)[i] for one in operands], wide(results)[i]) for i in bad[:3]
    ]


# The arithmetic


STEPS: Final[Mapping[str, Callable[..., Any]]] = {
    "add": operator.add,
    "multiply": operator.mul,
    "subtract": operator.sub,
    "divide": operator.truediv,
}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((*STEPS, "exp", "tanh", "sigmoid")), st.floats(-8, 8, width=16)), max_size=6),
    st.floats(-8, 8, width=16),
    st.sampled_from(("float16", "float32")),
)
def test_numpy_arithmetic_of_a_chain_of_operations_is_within_the_interval(
    chain: list[tuple[str, float]], start: float, dtype: str
) -> None:
    """Both ends hold: of the same operations, each rounded by NumPy to the format, and of float64's."""
    form = FORMATS[dtype]
    m = Arithmetic(form)
    number, computed, exact = m.number(start), form.dtype.type(start), np.float64(start)
    with np.errstate(all="ignore"):
        for name, operand in chain:
            if name in STEPS:
                step = STEPS[name]
                number, computed = step(number, operand), step(computed, form.dtype.type(operand))
                exact = step(exact, np.float64(operand))
            elif name == "sigmoid":
                number = m.sigmoid(number)
                one = form.dtype.type(1)
                computed, exact = one / (one + np.exp(-computed)), 1 / (1 + np.exp(-exact))
            else:
                function = getattr(np, name)
                number, computed, exact = getattr(m, name)(number), function(computed), function(exact)
                if name == "tanh" and number.low == number.high:
                    # Where tanh is within a roundoff's square of 1 it is taken for 1.
                    assert abs(exact - number.low) <= m.argument**2
                    exact = np.float64(number.low)
    if np.isnan(exact) or np.isnan(float(computed)):
        return
    assert number.low <= float(computed) <= number.high
    # float64 has its own errors, 2^-29 of those of the format.
    width = number.high - number.low if np.isfinite(number.low) and np.isfinite(number.high) else 0.0
    slack = 2.0**-20 * width
    assert number.low - slack <= exact <= number.high + slack


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_a_product_in_any_order_is_within_the_interval(form: Format) -> None:
    rng = np.random.default_rng(1)
    m = Arithmetic(form)
    factors = [inputs.line(form, rng, 4000)[:3500] for _ in range(3)]
    factors = [np.where(np.isfinite(wide(one)), one, np.ones(1, form.dtype)).astype(form.dtype) for one in factors]
    number = m.product(*(m.number(wide(one)) for one in factors))
    with np.errstate(all="ignore"):
        for i, j, k in ((0, 1, 2), (1, 2, 0), (0, 2, 1)):
            computed = wide((factors[i] * factors[j]).astype(form.dtype) * factors[k])
            assert np.all(
                (number.low <= computed) & (computed <= number.high) | np.isnan(computed) & np.isinf(number.high)
            )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["exp", "tanh", "erf"])
def test_libraries_are_within_the_stated_error(name: str, dtype: str) -> None:
    """NumPy's and PyTorch's functions on this machine; in float32 the error of erf is absolute."""
    form = FORMATS[dtype]
    t = np.random.default_rng(2).uniform(-30, 30, 100_000).astype(form.dtype)
    m = Arithmetic(form)
    number = getattr(m, name)(m.number(wide(t)))
    computed = [from_torch(getattr(torch, name)(to_torch(t)))]
    computed += [getattr(np, name)(t)] if hasattr(np, name) else []
    for one in computed:
        assert np.all((number.low <= wide(one)) & (wide(one) <= number.high))


# What is within


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
@pytest.mark.parametrize("name", TORCH)
def test_plain_torch_is_within(name: str, form: Format) -> None:
    activation, function = TORCH[name]
    x = numbers(form, 3000 if form.precision == 53 else 30_000)
    cotangent = inputs.cotangents(form, np.random.default_rng(3), x.size)
    given_x = to_torch(x).requires_grad_()
    value = function(given_x)
    (gradient,) = torch.autograd.grad(value, given_x, to_torch(cotangent))
    assert_inside(form, activation, "value", from_torch(value.detach()), x, 1.0, 1.0, 1.0)
    assert_inside(form, activation, "x", from_torch(gradient), x, 1.0, 1.0, cotangent)


@pytest.mark.parametrize(("dtype", "least"), [("float16", -11), ("bfloat16", -88), ("float32", -88), ("float64", -709)])
def test_the_sigmoid_written_out_is_within_until_its_exponential_overflows(dtype: str, least: float) -> None:
    """Where it does, the value is 0 and within, and the gradient nan and not."""
    form = FORMATS[dtype]
    x = numbers(form, 3000)
    x = x[wide(x) > least]
    cotangent = inputs.cotangents(form, np.random.default_rng(8), x.size)
    given_x = to_torch(x).requires_grad_()
    value = 1 / (1 + torch.exp(-given_x))
    (gradient,) = torch.autograd.grad(value, given_x, to_torch(cotangent))
    assert_inside(form, "sigmoid", "value", from_torch(value.detach()), x, 1.0, 1.0, 1.0)
    assert_inside(form, "sigmoid", "x", from_torch(gradient), x, 1.0, 1.0, cotangent)


JAX: Final = {
    "sigmoid": ("sigmoid", lambda nn: nn.sigmoid),
    "silu": ("swish", lambda nn: nn.silu),
    "gelu": ("gelu", lambda nn: lambda x: nn.gelu(x, approximate=False)),
    "gelu_tanh": ("gelu_tanh", lambda nn: nn.gelu),
    "relu": ("relu", lambda nn: nn.relu),
}


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
@pytest.mark.parametrize("name", JAX)
def test_jax_nn_is_within(name: str, form: Format) -> None:
    jax = pytest.importorskip("jax")
    from gated.conformance.backends.jax import from_jax, to_jax

    activation, function = JAX[name]
    x = numbers(form, 3000 if form.precision == 53 else 30_000)
    cotangent = inputs.cotangents(form, np.random.default_rng(3), x.size)
    with jax.enable_x64():
        value, pullback = jax.vjp(jax.jit(function(jax.nn)), to_jax(x))
        (gradient,) = pullback(to_jax(cotangent))
        value, gradient = from_jax(value), from_jax(gradient)
    assert_inside(form, activation, "value", value, x, 1.0, 1.0, 1.0)
    assert_inside(form, activation, "x", gradient, x, 1.0, 1.0, cotangent)


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
@pytest.mark.parametrize("activation", ["sigmoid", "swish", "gelu", "relu", "identity"])
def test_plain_units_are_within(activation: str, form: Format) -> None:
    """F.glu's parts: activation(gate) * value, with the gradients of both."""
    functions: Mapping[str, Callable[..., Any]] = {
        "sigmoid": torch.sigmoid,
        "swish": F.silu,
        "gelu": F.gelu,
        "relu": F.relu,
        "identity": lambda x: x,
    }
    rng = np.random.default_rng(4)
    gate, value = inputs.pairs(form, rng, 2000 if form.precision == 53 else 20_000)
    cotangent = inputs.cotangents(form, rng, gate.size)
    g, v = to_torch(gate).requires_grad_(), to_torch(value).requires_grad_()
    result = F.glu(torch.stack([v, g]), 0)[0] if activation == "sigmoid" else functions[activation](g) * v
    in_gate, in_value = torch.autograd.grad(result, [g, v], to_torch(cotangent))
    assert_inside(form, activation, "value", from_torch(result.detach()), gate, value, 1.0, 1.0)
    finite = np.isfinite(wide(gate)) & np.isfinite(wide(value))
    gate, value, cotangent = gate[finite], value[finite], cotangent[finite]
    assert_inside(form, activation, "x", from_torch(in_gate)[finite], gate, value, 1.0, cotangent)
    assert_inside(form, activation, "value", from_torch(in_value)[finite], gate, 1.0, 1.0, cotangent)


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_a_learnt_beta_is_within(form: Format) -> None:
    rng = np.random.default_rng(5)
    x = inputs.line(form, rng, 2000 if form.precision == 53 else 20_000)
    x = x[np.isfinite(wide(x))]
    beta, cotangent = inputs.betas(form, rng, x.size), inputs.cotangents(form, rng, x.size)
    t, b = to_torch(x).requires_grad_(), to_torch(beta).requires_grad_()
    value = t * torch.sigmoid(b * t)
    in_x, in_beta = torch.autograd.grad(value, [t, b], to_torch(cotangent))
    assert_inside(form, "swish", "value", from_torch(value.detach()), x, 1.0, beta, 1.0)
    assert_inside(form, "swish", "x", from_torch(in_x), x, 1.0, beta, cotangent)
    assert_inside(form, "swish", "beta", from_torch(in_beta), x, 1.0, beta, cotangent)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_plain_numpy_is_within(dtype: str) -> None:
    form = FORMATS[dtype]
    x = numbers(form, 3000 if form.precision == 53 else 30_000)
    one = form.dtype.type(1)
    with np.errstate(all="ignore"):
        sigmoid = one / (one + np.exp(-x))
        assert_inside(form, "sigmoid", "value", sigmoid, x, 1.0, 1.0, 1.0)
        assert_inside(form, "swish", "value", x / (one + np.exp(-x)), x, 1.0, 1.0, 1.0)
        assert_inside(form, "sigmoid", "x", sigmoid * (one - sigmoid), x, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("activation", ["swish", "sigmoid", "gelu", "gelu_tanh", "relu", "identity"])
def test_plain_projections_are_within(activation: str, dtype: str) -> None:
    form, rng = FORMATS[dtype], np.random.default_rng(6)
    functions: Mapping[str, Callable[..., Any]] = {
        "sigmoid": torch.sigmoid,
        "swish": F.silu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
        "identity": lambda x: x,
    }
    shapes = {"x": (12, 24), "W": (24, 40), "V": (24, 40), "W2": (40, 16), "b": (40,), "c": (40,), "b2": (16,)}
    arrays = {
        name: (rng.standard_normal(shape) / (1 if name == "x" else math.sqrt(shape[0]))).astype(form.dtype)
        for name, shape in shapes.items()
    }
    cotangent = rng.standard_normal((12, 16)).astype(form.dtype)
    t = {name: to_torch(array).requires_grad_() for name, array in arrays.items()}
    hidden = functions[activation](t["x"] @ t["W"] + t["b"]) * (t["x"] @ t["V"] + t["c"])
    value = hidden @ t["W2"] + t["b2"]
    gradients = torch.autograd.grad(value, list(t.values()), to_torch(cotangent))
    exact_arrays = {name: wide(array) for name, array in arrays.items()}
    exact, pullback = reference.vjp(reference.gated_ffn, *exact_arrays.values(), activation=activation)
    bounds = field_projection_bound(dtype, exact_arrays, wide(cotangent), activation=activation, beta=np.ones(()))
    results = [("value", value.detach(), exact), *zip(arrays, gradients, pullback(wide(cotangent)), strict=True)]
    for name, computed, true in results:
        assert np.all(np.abs(wide(from_torch(computed)) - true) <= bounds[name]), name
    # Nor is it much wider than the contract's, whose products are the same.
    contract = projection_bounds(
        "torch", dtype, dict(exact_arrays), wide(cotangent), activation=activation, beta=np.ones(())
    )
    assert all(np.median(bounds[name] / contract[name]) < 3 for name in arrays)


# What is not


def test_a_sigmoid_with_an_absolute_error_is_outside() -> None:
    """ONNX Runtime 1.32's Swish at -17.7: -2.6e-6 where -3.7e-7 is right."""
    form = FORMATS["float32"]
    x = np.array([-17.7], np.float32)
    assert outside(form, "swish", "value", np.array([-2.6e-6], np.float32), x, 1.0, 1.0, 1.0).size == 1
    assert outside(form, "swish", "value", (x / (1 + np.exp(-x))), x, 1.0, 1.0, 1.0).size == 0
    tail = np.linspace(-30, -10, 1001).astype(np.float32)
    by_tanh = (0.5 + 0.5 * np.tanh(0.5 * tail)).astype(np.float32)
    assert outside(form, "sigmoid", "value", by_tanh, tail, 1.0, 1.0, 1.0).size > 900


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_gelu_for_the_other_is_outside(dtype: str) -> None:
    form = FORMATS[dtype]
    x = np.concatenate([np.linspace(-3, -0.5, 1001), np.linspace(0.5, 3, 1001)]).astype(form.dtype)
    for is_one, was_asked in (("gelu", "gelu_tanh"), ("gelu_tanh", "gelu")):
        other = reference.gelu(x, approximate="tanh" if is_one == "gelu_tanh" else "none")
        assert outside(form, was_asked, "value", other, x, 1.0, 1.0, 1.0).size > 0.95 * x.size


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("activation", ["swish", "sigmoid", "gelu", "gelu_tanh", "relu", "identity"])
def test_swapped_halves_are_outside_in_every_dtype(activation: str, dtype: str) -> None:
    form, rng = FORMATS[dtype], np.random.default_rng(7)
    gate, value = rng.uniform(0.5, 2, 2000), rng.uniform(-8, -4, 2000)
    gate, value = gate.astype(form.dtype), value.astype(form.dtype)
    swapped = reference.gated_unit(value, gate, activation=activation)
    count = outside(form, activation, "value", swapped, gate, value, 1.0, 1.0).size
    assert count == (0 if activation == "identity" else gate.size)


def test_nan_beyond_the_overflow_of_the_exponential_is_outside() -> None:
    """The derivative of x / (1 + e^-x) by automatic differentiation is inf / inf there; 0 is within."""
    form, x = FORMATS["float32"], np.array([-100.0, -90.0], np.float32)
    assert outside(form, "swish", "x", np.full(2, np.nan, np.float32), x, 1.0, 1.0, 1.0).size == 2
    assert outside(form, "swish", "x", np.zeros(2, np.float32), x, 1.0, 1.0, 1.0).size == 0
    assert outside(form, "swish", "value", np.zeros(2, np.float32), x, 1.0, 1.0, 1.0).size == 0


# How wide it is


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_swish_is_as_wide_as_its_roundings(form: Format) -> None:
    """e^-x: the library's error and |x| u'; one rounding each of 1 + E, 1 / D and x s, and of a 16-bit E."""
    x = wide(np.linspace(-9, -0.1, 4001).astype(form.dtype))
    bound = field_bound(form, "swish", "value", x, 1.0, 1.0, 1.0)
    compute = FORMATS["float64" if form.name == "float64" else "float32"]
    own = 2 if form.name == "float64" else 1
    relative = own * 4 * form.unit_roundoff + (LIBRARY + np.abs(x)) * compute.unit_roundoff
    if form.name == "float64":
        # The reference's own error, 4 ulp, and 8 spacings for it.
        relative += 24 * form.unit_roundoff
    subnormal = form.smallest_subnormal * (4 + np.exp(-x) * np.abs(x)) if form.name == "float16" else 0.0
    exact = np.abs(wide(reference.swish(x)))
    assert np.all(bound <= 1.05 * relative * exact + subnormal)
    # And no less than one rounding: an implementation that rounds x * s alone needs as much.
    assert np.all(bound >= form.unit_roundoff * exact * 0.99)


def test_what_is_not_judged() -> None:
    form = FORMATS["float32"]
    assert np.isinf(field_bound(form, "swish", "value", np.inf, 1.0, 1.0, 1.0))
    assert np.isinf(field_bound(form, "swish", "value", 1.0, np.inf, 1.0, 1.0))
    assert field_bound(form, "swish", "value", np.nan, 1.0, 1.0, 1.0) == 0
    # x^2 overflows in the derivative of the tanh form, and F.gelu's is nan there.
    assert np.isinf(field_bound(form, "gelu_tanh", "x", 1e20, 1.0, 1.0, 1.0))
    assert np.isfinite(field_bound(form, "gelu_tanh", "x", 1e12, 1.0, 1.0, 1.0))
    # The product of the cotangent and the gate overflows, which one order of x * sigmoid(x) multiplies first.
    assert np.isinf(field_bound(form, "swish", "x", 1e36, 1.0, 1.0, 65536.0))


def test_a_number_knows_its_reach() -> None:
    m = Arithmetic(FORMATS["float32"])
    number = m.number(np.array([-2.0]), 0.5)
    assert isinstance(number, Number)
    assert number.low[0] == pytest.approx(-2.5) and number.reach[0] == pytest.approx(2.5)
    assert number.least[0] == pytest.approx(1.5) and number.error[0] == pytest.approx(0.5)
    narrow = Arithmetic(FORMATS["float16"])
    overflown = narrow.number(300.0) * 300.0
    # A wider arithmetic has 90,000 there.
    assert np.isinf(overflown.high) and overflown.low < 90_000 and np.isinf(overflown.error)
    assert np.isfinite((narrow.number(200.0) * 300.0).high)
