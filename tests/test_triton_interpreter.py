"""The Triton kernels, interpreted on the CPU and held against the exact results. No GPU takes part."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", minversion="3.9")  # the first whose interpreter is known to round an fma once
pytest.importorskip("flint")

import _triton
from _triton import ACTIVATIONS, ELEMENTWISE, LIMITS, Grade, interpreted
from _triton_views import far_elements


def assert_within(grades: list[Grade], dtype: str) -> None:
    assert grades
    for one in grades:
        assert one.share <= 1, one
        assert one.summed or one.error <= LIMITS[dtype][one.gradient], one


@pytest.mark.parametrize("function", ELEMENTWISE)
@pytest.mark.parametrize(("dtype", "size"), [("float32", 2048), ("float16", 2048), ("float64", 384)])
def test_kernels_are_within_the_contract_without_its_allowance(function: str, dtype: str, size: int) -> None:
    assert_within(interpreted(_triton.grade, function, dtype, 1, size), dtype)


@pytest.mark.parametrize("layout", [None, "gate_last", "interleaved"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bfloat16_operands_give_correctly_rounded_results(activation: str, layout: str | None) -> None:
    assert_within(interpreted(_triton.grade_bfloat16, activation, layout, 2, 1024), "bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (1031,), (5003,), (3, 700)])
def test_the_gradient_of_a_shared_beta_is_the_sum_over_all_tiles(dtype: str, shape: tuple[int, ...]) -> None:
    grades = interpreted(_triton.grade_sum, dtype, shape)
    assert [one.quantity for one in grades if one.summed] == ["beta"]
    assert_within(grades, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("piece", ["exponential", "inverse"])
def test_exponential_and_reciprocal_are_within_one_ulp(piece: str, dtype: str) -> None:
    assert interpreted(_triton.piece_errors, piece, dtype) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_taken_apart_and_put_together_exactly(dtype: str) -> None:
    assert interpreted(_triton.taken_apart, dtype) == (True, True)


@pytest.mark.parametrize("beta", [1.702, 0.1, -1.3, 1e-3, 37.7])
def test_a_number_beta_keeps_the_value_that_float32_cannot_hold(beta: float) -> None:
    name = "test_a_number_beta_keeps_the_value_that_float32_cannot_hold"
    interpreted(_triton.run_test, "test_torch_accuracy", name, beta, None)


@pytest.mark.parametrize("alpha", [1.0, 1.702])
@pytest.mark.parametrize(("limit", "offset"), [(0.1, 0.1), (3.3, -0.1), (40.3, 0.7)])
def test_the_numbers_of_a_clamp_keep_the_values_that_float32_cannot_hold(
    limit: float, offset: float, alpha: float
) -> None:
    name = "test_the_numbers_of_a_clamp_keep_the_values_that_float32_cannot_hold"
    interpreted(_triton.run_test, "test_torch_accuracy", name, limit, offset, alpha, None)


def test_plain_tensors_are_served_and_transformed_ones_are_not() -> None:
    assert interpreted(_triton.dispatched) == (True, False)


def test_a_second_derivative_passes_through_the_kernels() -> None:
    result, exact = interpreted(_triton.second_derivatives)
    assert abs(result - exact) <= 8 * 2**-52


@pytest.mark.parametrize("layout", [None, "gate_last", "gate_first", "interleaved"])
@pytest.mark.parametrize("first", [2**31 - 2048, 2**31 + 4096])
def test_elements_beyond_two_to_the_31_are_found(layout: str | None, first: int) -> None:
    assert interpreted(far_elements, first, layout)
