"""What only tensors can be wrong in: device, storage, torch's own dtypes. The contract's errors, before arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from _bad_calls import DTYPES  # noqa: E402
from _calls import ARRAYS, NATIVES, call  # noqa: E402
from _torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it
from gated.torch_impl import nn as gated_nn  # noqa: E402

BACKEND = NATIVES["torch"]("torch")
ARGUMENTS = [(function, name) for function, shapes in ARRAYS.items() for name in shapes]


def quietly(make: Callable[..., Tensor], *arguments: Any, **keywords: Any) -> Tensor:
    """A tensor of a kind that torch warns of: a prototype, or deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*arguments, **keywords)


def nested(x: Tensor, layout: torch.layout) -> Tensor:
    return quietly(torch.nested.nested_tensor, [x, x], layout=layout)


# What an argument is made of, and what the error says of it.
STRIDED = "must be a strided tensor, got "
UNFIT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "coo": (Tensor.to_sparse_coo, f"{STRIDED}layout torch.sparse_coo"),
    "csr": (lambda x: quietly(torch.atleast_2d(x).to_sparse_csr), f"{STRIDED}layout torch.sparse_csr"),
    "mkldnn": (lambda x: x.to_mkldnn(), f"{STRIDED}layout torch._mkldnn"),
    "nested": (lambda x: nested(x, torch.strided), f"{STRIDED}a nested tensor"),
    "jagged": (lambda x: nested(torch.atleast_2d(x), torch.jagged), f"{STRIDED}a nested tensor"),
    "qint8": (
        lambda x: quietly(torch.quantize_per_tensor, x, 0.1, 0, torch.qint8),
        f"must have dtype {DTYPES}, got qint8",
    ),
    "quint8": (
        lambda x: quietly(
            torch.quantize_per_channel, x, torch.ones(len(x)), torch.zeros(len(x)), axis=0, dtype=torch.quint8
        ),
        f"must have dtype {DTYPES}, got quint8",
    ),
    **{
        str(dtype).removeprefix("torch."): (
            lambda x, dtype=dtype: x.to(dtype),
            f"must have dtype {DTYPES}, got {str(dtype).removeprefix('torch.')}",
        )
        for dtype in (torch.complex128, torch.float8_e5m2, torch.float8_e8m0fnu, torch.int32, torch.uint8)
    },
}


class Idle(TorchDispatchMode):
    """Refuses every operation; a jagged tensor asks for its layout through the dispatcher."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.namespace == "prim", f"arithmetic before the checks: {func}"
        return func(*args, **(kwargs or {}))


def refused(fn: Callable[[], object]) -> str:
    """The text of the TypeError that ``fn`` raises before any arithmetic."""
    with Idle(), pytest.raises(TypeError) as caught:
        fn()
    assert caught.value.__cause__ is None and (caught.value.__context__ is None or caught.value.__suppress_context__)
    return str(caught.value)


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_a_tensor_that_cannot_be_computed_with_is_refused(function: str, name: str, kind: str) -> None:
    make, text = UNFIT[kind]
    arguments = BACKEND.built(call(function))
    arguments[name] = make(arguments[name])
    assert refused(lambda: BACKEND[function](**arguments)) == f"{function}: {name} {text}"


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_tensors_on_different_devices_are_refused(function: str, name: str) -> None:
    first, *others = ARRAYS[function]
    arguments = BACKEND.built(call(function))
    arguments[name] = arguments[name].to("meta")
    if not others:
        assert BACKEND[function](**arguments).device.type == "meta"
        return
    wrong, expected, came = (others[0], "meta", "cpu") if name == first else (name, "cpu", "meta")
    text = f"{function}: {wrong} must be on the device of {first}, {expected}, got {came}"
    assert refused(lambda: BACKEND[function](**arguments)) == text
    for order in (lambda: G.vjp(BACKEND[function], *arguments.values()), lambda: jvp(function, arguments)):
        with pytest.raises(TypeError) as caught:
            order()
        assert str(caught.value) == text


def jvp(function: str, arguments: dict[str, Tensor]) -> object:
    return G.jvp(BACKEND[function], tuple(arguments.values()), tuple(arguments.values()))


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_a_beta_on_another_device_is_refused_whatever_its_size(shape: tuple[int, ...]) -> None:
    """torch itself takes a 0-d tensor of the CPU beside tensors of any device."""
    x, beta = torch.ones(2, 3, device="meta"), torch.ones(shape)
    assert refused(lambda: G.swish(x, beta)) == "swish: beta must be on the device of x, meta, got cpu"


def test_the_devices_of_fake_tensors_count_as_their_own() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        gate, value = torch.empty(2, 3), torch.empty(2, 3, device="meta")
        with pytest.raises(TypeError, match=r"^gated_unit: value must be on the device of gate, cpu, got meta$"):
            G.gated_unit(gate, value)
        assert G.gated_unit(gate, gate).device.type == "cpu"


@pytest.mark.parametrize("kind", UNFIT)
def test_vjp_and_jvp_refuse_such_primals_in_the_function_s_words(kind: str) -> None:
    make, text = UNFIT[kind]
    x = make(torch.ones(2, 4))
    for call_ in (lambda: G.vjp(G.swish, x), lambda: G.jvp(G.swish, (x,), (x,))):
        with pytest.raises(TypeError) as caught:
            call_()
        # jvp sees the primal beside its tangent first.
        assert str(caught.value) in (f"swish: x {text}", f"jvp: the tangent of x {text}", f"jvp: x {text}")


@pytest.mark.parametrize("kind", UNFIT)
def test_such_cotangents_and_tangents_are_refused(kind: str) -> None:
    make, text = UNFIT[kind]
    x = torch.ones(2, 4)
    one = make(torch.ones(2, 4))
    pullback = G.vjp(G.swish, x)[1]
    assert refused(lambda: pullback(one)) == f"vjp: the cotangent {text}"
    assert refused(lambda: G.jvp(G.swish, (x,), (one,))) == f"jvp: the tangent of x {text}"


def test_a_cotangent_and_a_tangent_on_another_device_are_refused() -> None:
    x, elsewhere = torch.ones(2, 4), torch.ones(2, 4, device="meta")
    pullback = G.vjp(G.swish, x)[1]
    assert refused(lambda: pullback(elsewhere)) == (
        "vjp: the cotangent must be on the device of the value, cpu, got meta"
    )
    assert refused(lambda: G.jvp(G.swish, (x,), (elsewhere,))) == (
        "jvp: the tangent of x must be on the device of x, cpu, got meta"
    )


def test_an_integer_beta_is_refused_and_cannot_require_a_gradient() -> None:
    x, beta = torch.ones(3), torch.tensor(2)
    with pytest.raises(RuntimeError, match="floating point"):
        beta.requires_grad_()
    for one in (beta, torch.nn.Parameter(beta, requires_grad=False)):
        assert refused(lambda one=one: G.swish(x, one)) == f"swish: beta must have dtype {DTYPES}, got int64"


# Modules: what a projection can take is torch.nn.Linear's business; what a unit can take is the contract's.

MODULES: dict[str, tuple[Callable[[], torch.nn.Module], str]] = {
    "Swish": (gated_nn.Swish, "swish"),
    "Swish with beta": (lambda: gated_nn.Swish(learn_beta=True), "swish"),
    "GLU": (gated_nn.GLU, "glu"),
    "SwiGLU": (gated_nn.SwiGLU, "swiglu"),
    "SwiGLU with beta": (lambda: gated_nn.SwiGLU(learn_beta=True), "swiglu"),
    "GatedLinear": (lambda: gated_nn.GatedLinear(4, 2), "GatedLinear"),
    "GatedFFN": (lambda: gated_nn.GatedFFN(4, 2, learn_beta=True), "GatedFFN"),
    "GatedFFN all": (lambda: gated_nn.GatedFFN(4, 2, recompute="all"), "GatedFFN"),
}


def bad_inputs() -> Iterator[tuple[str, Any, str]]:
    any_array = f"must be an array of this backend with dtype {DTYPES}, got "
    yield "list", [[1.0] * 4], f"{any_array}list"
    yield "None", None, f"{any_array}NoneType"
    yield "nested", nested(torch.ones(2, 4), torch.strided), f"{STRIDED}a nested tensor"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_cannot_take(name: str) -> None:
    make, speaker = MODULES[name]
    module = make()
    for _, x, text in bad_inputs():
        assert refused(lambda x=x: module(x)) == f"{speaker}: x {text}"


@pytest.mark.parametrize("make", [gated_nn.GatedLinear, gated_nn.GatedFFN])
def test_the_unit_of_a_module_refuses_what_its_projections_let_through(make: Callable[..., torch.nn.Module]) -> None:
    with pytest.raises(TypeError, match=f"^gated_unit: gate must have dtype {DTYPES}, got complex64$"):
        make(4, 2, dtype=torch.complex64)(torch.ones(2, 4, dtype=torch.complex64))


def test_a_learned_beta_on_another_device_than_the_input_is_refused() -> None:
    module, x = gated_nn.SwiGLU(learn_beta=True, device="meta"), torch.ones(2, 4)
    assert refused(lambda: module(x)) == "swiglu: beta must be on the device of x, cpu, got meta"
