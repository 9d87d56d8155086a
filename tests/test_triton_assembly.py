"""The code that the Triton kernels compile to, read. No GPU takes part, and none has run it yet."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", minversion="3.9")  # whose code the page shows
pytest.importorskip("flint")

import _triton
from _triton import interpreted
from _triton_assembly import DTYPES, TARGETS, Code, Kernel, compile_launch, compiled, launches
from _triton_figures import ACTIVATIONS, PAGE, TABLES, VERSION, code_row

from gated.torch_impl.kernels._launches import OPTIONS, TILE_BYTES

BOTH_WAYS = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])


def assert_wide_and_without_spills(code: Code) -> None:
    assert code.spills == 0
    for kind, widths in code.widths.items():
        assert set(widths) == {16}, (kind, widths)


def assert_moves_least(kernel: Kernel, target: str) -> None:
    """Each array of the call is read or written once: 3 n of a pair forward, 5 n backward.

    No branch has a condition, so that every thread executes every instruction: what its loads and stores move, times
    the threads, is what a tile of elements takes.
    """
    code = compiled(kernel, target)
    assert_wide_and_without_spills(code)
    assert not re.search(r"\bbra\b|\bs_cbranch", code.assembly)
    assert code.bytes == kernel.arrays * DTYPES[kernel.dtype].itemsize


@BOTH_WAYS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_pair_moves_3n_forward_and_5n_backward_in_16_bytes(target: str, dtype: str, backward: bool) -> None:
    assert_moves_least(Kernel("swish", "pair", backward, dtype), target)


@BOTH_WAYS
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("target", "layout"), [("sm_90", "interleaved"), ("gfx942", "interleaved"), ("sm_80", "gate_last")]
)
def test_a_packed_array_moves_as_much_as_a_pair(target: str, layout: str, dtype: str, backward: bool) -> None:
    assert_moves_least(Kernel("swish", layout, backward, dtype), target)


@pytest.mark.parametrize("activation", ["identity", "relu", "sigmoid", "gelu_tanh", "gelu"])
@pytest.mark.parametrize("target", ["sm_80", "gfx942"])
def test_every_activation_moves_the_least_and_spills_nothing(target: str, activation: str) -> None:
    assert_moves_least(Kernel(activation, "pair", True, "bfloat16"), target)


@pytest.mark.parametrize("target", ["sm_100", "gfx942"])
def test_an_activation_alone_moves_2n_forward_and_3n_backward(target: str) -> None:
    for backward in (False, True):
        assert_moves_least(Kernel("gelu", "x", backward, "float32"), target)


VARIANTS = {
    "number": Kernel("swish", "pair", True, "bfloat16", beta="number"),
    "number, float64": Kernel("swish", "pair", False, "float64", beta="number"),
    "scalar": Kernel("swish", "gate_first", True, "float32", beta="scalar"),
    "channel": Kernel("swish", "gate_last", True, "bfloat16", beta="channel"),
    "element": Kernel("swish", "interleaved", True, "float64", beta="element"),
    "clamped": Kernel("swish", "interleaved", True, "bfloat16", beta="number", clamped=True),
    "clamped, float64": Kernel("swish", "gate_last", False, "float64", beta="number", clamped=True),
    "small rows": Kernel("sigmoid", "gate_first", True, "float16", size=16 * 24),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_kernels_with_beta_and_clamps_compile_without_spills(target: str, variant: str) -> None:
    kernel = VARIANTS[variant]
    code = compiled(kernel, target)
    assert code.spills == 0
    if kernel.beta in ("one", "number") and kernel.size == 1 << 16:
        assert_moves_least(kernel, target)


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_sizes_that_no_tile_divides_stay_wide_but_for_their_end(target: str) -> None:
    # 16 divides the first: its masks cut through no vector. The second has an end of its own.
    (masked,) = launches(Kernel("swish", "pair", False, "bfloat16", size=3 * 2048 + 16))
    assert not masked.constants["WHOLE"]
    assert_wide_and_without_spills(compile_launch(masked, target))
    body, end = launches(Kernel("swish", "pair", False, "bfloat16", size=3 * 2048 + 17))
    assert body.constants["WHOLE"] and end.arguments["first_column"] == 3 * 2048
    assert_wide_and_without_spills(compile_launch(body, target))


@pytest.mark.parametrize("layout", ["pair", "interleaved"])
def test_every_offset_has_64_bits(layout: str) -> None:
    (launch,) = launches(Kernel("swish", layout, True, "bfloat16"))
    far = {"columns": 2**31 + 2048, "across": 2**20 + 1}
    for one in (launch, launch._replace(arguments={**launch.arguments, **far})):
        ttir = compile_launch(one, "sm_90").ttir
        offsets = re.findall(r"tt\.addptr .* (\S+) loc", ttir)
        assert len(offsets) >= 5
        assert all(re.fullmatch(r"i64|tensor<[\dx]+xi64>", one) for one in offsets), offsets
        # Nor is an offset a product of fewer bits that was widened.
        products = re.findall(r"arith\.(?:muli|shli) .* : (\S+) loc", ttir)
        assert not [one for one in products if one == "i32"], products


@BOTH_WAYS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_product_is_fused_with_a_sum_but_where_the_kernels_say_so(dtype: str, backward: bool) -> None:
    code = compiled(Kernel("gelu_tanh", "pair", backward, dtype), "sm_80")
    elements = TILE_BYTES // DTYPES[dtype].itemsize // (32 * OPTIONS["num_warps"])
    said = len(re.findall(r"\bmath\.fma\b", code.ttir)) * elements
    assert 0 < len(re.findall(r"\b[FD]FMA\b", code.machine)) <= said


def test_the_tables_of_the_page_are_what_is_measured() -> None:
    page = PAGE.read_text()
    assert [one for one in TABLES if f"<!-- table: {one} -->" in page] == list(TABLES)
    rows = re.findall(rf"^\| (?:{'|'.join(ACTIVATIONS)}) \| .*\n", page, re.MULTILINE)
    assert len(rows) == len(ACTIVATIONS) * 2 * len(DTYPES)
    assert all(cell.split(" / ")[2] == "0" for one in rows for cell in one.split(" | ")[3:])
    if VERSION not in page:
        pytest.skip("docs/kernels.md was written with another version of Triton")
    for dtype in DTYPES:
        for backward in (False, True):
            assert code_row("swish", backward, dtype) in rows
    silu = [one for one in interpreted(_triton.grade, "silu", "float16", 0, 1 << 16) if not one.summed]
    shown = " | ".join(
        f"{max(one.error for one in silu if one.gradient == gradient):.4f}" for gradient in (False, True)
    )
    assert f"| `silu` | {shown} |" in page
