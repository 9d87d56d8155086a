"""Every function and module of the PyTorch backend through every transform: the cells of docs/torch-transforms.md."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("flint")

import _torch_transforms as transforms  # noqa: E402
from _torch_contract import Through  # noqa: E402

import gated.torch_impl as G  # noqa: E402 - G as the design has it
from gated.conformance import inputs  # noqa: E402
from gated.conformance.cases import cases  # noqa: E402
from gated.conformance.elements import Elements, Packing, random_cotangents  # noqa: E402
from gated.conformance.error import FORMATS  # noqa: E402
from gated.conformance.quantities import Case, pack  # noqa: E402
from gated.conformance.runner import Row, measure  # noqa: E402
from gated.contract import ACTIVATIONS, DTYPES  # noqa: E402
from gated.torch_impl import nn  # noqa: E402

Tensor = torch.Tensor
TABLE = transforms.load()


SLOW = ("dynamic shapes", "training", "func.grad inside compile", "func.linearize")
"""The columns that compile or trace, of which every run tests some rows, and ``-m transforms`` all."""
ROWS = ("swiglu", "nn.GatedFFN")
CELLS = [
    pytest.param(row, column, marks=[pytest.mark.transforms] if column in SLOW and row not in ROWS else [])
    for row, column in TABLE.cells()
]


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_cell(row: str, column: str) -> None:
    for variant in TABLE.variants(row, column):
        TABLE.columns[column].test(variant)


def test_the_page_is_what_the_tests_give() -> None:
    # Each cell is the outcome of its test, which stands above, and none of which may be skipped or expected to fail.
    assert TABLE.page.read_text() == TABLE.text(dict.fromkeys(TABLE.cells(), "yes"))
    assert "**no**" not in TABLE.page.read_text()


def test_the_page_has_a_row_for_each_public_name_in_each_table() -> None:
    import gated.torch_impl as G

    names = {*G.__all__, *(f"nn.{name}" for name in nn.__all__)}
    for table in TABLE.page.read_text().split("\n## ")[1 : len(TABLE.groups) + 1]:
        assert names <= set(re.findall(r"^\| `([\w.]+)", table, flags=re.MULTILINE))


# Compiled, whose derivative it is, and how accurate


def pulled(fn: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """The value and the pullback, in one function."""

    def run(c: Tensor, *primals: Tensor) -> tuple[Tensor, ...]:
        value, pull = torch.func.vjp(fn, *primals)
        return value, *pull(c)

    return run


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.inductor)])
def test_func_grad_inside_compile_is_this_backends_derivative_and_not_autodiffs(backend: str) -> None:
    # Where torch's formulas give another number: at infinity, in the tail, and at the kink.
    x = torch.tensor([-torch.inf, -100.0, 0.0, torch.inf])

    def ours(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.func.grad(lambda x, fn=fn: fn(x).sum())(x) for fn in (G.silu, G.gelu, G.relu))

    def autodiff(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: (x * torch.sigmoid(x)).sum())(x)

    torch._dynamo.reset()
    silu, gelu, relu = torch.compile(ours, fullgraph=True, backend=backend)(x)
    assert autodiff(x)[[0, 3]].isnan().all() and silu[[0, 2, 3]].tolist() == [0.0, 0.5, 1.0]
    # silu'(-100) = -99 e^-100 (1 + e^-100 ...): a subnormal number, of spacing 2^-149.
    assert abs(silu[1].item() + 99 * math.exp(-100)) <= 8 * 2.0**-149
    assert gelu.tolist() == [0.0, 0.0, 0.5, 1.0] and relu.tolist() == [0.0, 0.0, 0.0, 1.0]


ALL = [(dtype, activation) for dtype in DTYPES for activation in ACTIVATIONS]
QUICK = ("float32", "swish")
"""The one that Inductor compiles in every run; the others take it two minutes (``pytest -m inductor``)."""


def inductor_is_within(fn: Callable[..., Tensor], case: Case, dtype: str) -> None:
    """Value and pullback of a call, compiled by Inductor, are within the contract."""

    def by_inductor(fn: Callable[..., Tensor], primals: Sequence[Tensor], c: Tensor, case: Case) -> Any:
        torch._dynamo.reset()
        value, *cotangents = torch.compile(pulled(fn), fullgraph=True)(c, *primals)
        return value, cotangents

    row = Row(case.function, dtype, "torch")
    measure(Through(by_inductor, fn, case), case, dtype, row)
    assert row.verdict == "within", row.worst


@pytest.mark.parametrize(
    ("dtype", "activation"),
    [one if one == QUICK else pytest.param(*one, marks=pytest.mark.inductor) for one in ALL],
)
def test_what_inductor_compiles_is_within_the_contract(dtype: str, activation: str) -> None:
    (case,) = (one for one in cases("gated_unit", dtype, size=1024) if one.label == activation)

    def unit(gate: Tensor, value: Tensor, *beta: Tensor) -> Tensor:
        return G.gated_unit(gate, value, activation=activation, **dict(zip(("beta",), beta, strict=False)))

    inductor_is_within(unit, case, dtype)


def with_a_number_beta(dtype: str) -> Case:
    """swiglu with beta = 1.7, a number, interleaved along an axis that is not the last: no built-in case has both."""
    form, rng, packing = FORMATS[dtype], np.random.default_rng(17), Packing("interleaved", 0)
    gate, value = (one[: len(one) // 2 * 2].reshape(-1, 2) for one in inputs.pairs(form, rng, 1024))
    elements = Elements(form, "swish", gate, value, 1.7, random_cotangents(form, rng, gate.shape))
    static = {"beta": 1.7, "layout": packing.layout, "axis": packing.axis}
    return elements.case(
        "swiglu", "beta = 1.7", (pack(gate, value, packing.layout, packing.axis),), static, ("packed",), packing
    )


PACKED = (
    ("swiglu", "beta = 1.7"),
    ("swiglu", "beta by element"),
    ("clamped_swiglu", "gate_first"),
    ("geglu", "gelu_tanh, gate_last"),
)
"""Units of one packed array: functions and cases."""


@pytest.mark.inductor
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("function", "label"), PACKED)
def test_what_inductor_compiles_of_a_packed_unit_is_within_the_contract(function: str, label: str, dtype: str) -> None:
    found = [with_a_number_beta(dtype), *cases(function, dtype, size=1024)]
    (case,) = (one for one in found if (one.function, one.label) == (function, label))

    def unit(x: Tensor, *beta: Tensor) -> Tensor:
        return getattr(G, function)(x, *beta, **case.static)

    inductor_is_within(unit, case, dtype)


# What a table does not say


def test_a_number_beta_may_change_between_calls_of_a_compiled_function() -> None:
    torch._dynamo.reset()
    run = torch.compile(lambda x, beta: G.swiglu(x, beta), fullgraph=True, backend="aot_eager")
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).view(2, 6)
    for beta in (1.5, 2.5, 3, -2, 1, 0.0):
        # 5 + 4 cond ulp of either, and cond, at most |beta x|, is below 8.
        torch.testing.assert_close(run(x, beta), G.swiglu(x, beta), rtol=2.0**-45, atol=0)


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_a_module_that_records_is_exported_strictly(recompute: str) -> None:
    ffn = nn.GatedFFN(4, 3, recompute=recompute)
    x = torch.randn(2, 4)
    torch.testing.assert_close(torch.export.export(ffn, (x,), strict=True).module()(x), ffn(x))


@pytest.mark.parametrize("recompute", ["product", "all"])
def test_a_recomputed_part_has_the_tensors_and_the_masks_of_its_first_run(recompute: str) -> None:
    ffn = nn.GatedFFN(4, 3, recompute=recompute, dtype=torch.float64)
    ffn.up_proj = torch.nn.Sequential(torch.nn.Dropout(0.5), ffn.up_proj)
    lent = {name: torch.randn_like(one, requires_grad=True) for name, one in ffn.named_parameters()}
    x = torch.randn(5, 4, dtype=torch.float64)
    direction = {name: torch.randn_like(one) for name, one in lent.items()}
    seed = torch.get_rng_state()

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        torch.set_rng_state(seed)
        return torch.func.functional_call(ffn, parameters, (x,)).sum()

    (gradients, ours) = torch.autograd.grad(loss(lent), list(lent.values())), 0.0
    for one, along in zip(gradients, direction.values(), strict=True):
        ours = ours + (one * along).sum()
    torch.testing.assert_close(ours, torch.func.jvp(loss, (lent,), (direction,))[1])


def test_tensors_that_are_lent_to_a_module_serve_as_its_beta() -> None:
    module = nn.Swish(learn_beta=True)
    x = torch.randn(5, dtype=torch.bfloat16)
    y = torch.func.functional_call(module, {"beta": torch.tensor(1.5)}, (x,))
    assert torch.equal(y, G.swish(x, 1.5))
