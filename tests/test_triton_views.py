"""How the kernels find their elements: views, tables, tiles; and nothing depends on how an array lies in memory."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("triton", minversion="3.9")  # the first whose interpreter is known to round an fma once

from _triton import interpreted, run_test  # noqa: E402
from _triton_views import Spec, flagged_zeros_agree, views_agree  # noqa: E402

from gated.torch_impl._forms import Form  # noqa: E402
from gated.torch_impl.kernels._launches import TILE_BYTES, _passes  # noqa: E402
from gated.torch_impl.kernels._tables import table  # noqa: E402


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(0, 4)) for _ in range(rank))
    if rank < 3 and draw(st.booleans()):  # one axis is long: it takes more than one tile, or ends in the middle of one
        axis = draw(st.integers(0, rank - 1))
        shape = (*shape[:axis], draw(st.sampled_from([1, 7, 16, 512, 1023, 1024, 1025, 2064])), *shape[axis + 1 :])
    packed_axis = draw(st.none() | st.integers(0, rank - 1))
    layout = draw(st.sampled_from(["gate_last", "gate_first", "interleaved"]))
    activation = draw(st.sampled_from(["swish", "swish", "sigmoid", "identity"]))
    clamped = activation == "swish" and draw(st.booleans())
    form = Form(activation, packed_axis, layout, limit=1.5 if clamped else None, offset=0.5 if clamped else 0.0)
    orders = tuple(draw(st.permutations(range(rank)).map(tuple)) for _ in range(3))
    steps = tuple(tuple(draw(st.sampled_from([1, 1, 1, 2, 0])) for _ in range(rank)) for _ in range(3))
    beta = draw(st.just(1.0) | st.just(-0.7) | st.tuples(*[st.booleans()] * rank)) if activation == "swish" else 1.0
    flagged = "".join(name for name in "xvcb" if draw(st.integers(0, 3)) == 0)
    return Spec(form, shape, orders, steps, beta, draw(st.integers(0, 2**31)), flagged)


NO_TABLE = Spec(
    Form("swish"),
    (2, 3, 4),
    orders=((0, 1, 2), (0, 1, 2), (0, 2, 1)),
    steps=((1, 1, 1), (2, 1, 2), (1, 1, 1)),
    beta=(False, True, False),
    seed=0,
)
"""Three axes that no two strides span, and a beta for each index of the middle one."""


@settings(max_examples=50, deadline=None)
@given(specs())
@example(NO_TABLE)
@example(NO_TABLE._replace(form=Form("swish", 1, "interleaved", limit=1.5, offset=0.5), seed=1))
def test_views_give_the_bits_of_contiguous_arrays_and_are_not_written(spec: Spec) -> None:
    interpreted(views_agree, spec)


PAIR = NO_TABLE._replace(orders=((0, 1, 2),) * 3, steps=((1, 1, 1),) * 3, beta=(False, False, True))
"""Of tables, flagged or not: no copy is made that would resolve a flag by the way."""
FLAGGED = {
    "x": PAIR._replace(flagged="x"),
    "packed": PAIR._replace(form=Form("swish", 2, "interleaved"), flagged="x"),
    "value": PAIR._replace(flagged="v"),
    "cotangent": PAIR._replace(flagged="c"),
    "one beta": PAIR._replace(flagged="b", beta=(False, False, False)),
    "beta of a channel": PAIR._replace(flagged="b"),
    "beta of an element": PAIR._replace(flagged="b", beta=(True, True, True)),
    "all": PAIR._replace(flagged="xvcb"),
}


@pytest.mark.parametrize("operand", FLAGGED)
def test_a_sign_in_a_flag_is_seen(operand: str) -> None:
    interpreted(views_agree, FLAGGED[operand])


def test_zeros_that_are_no_more_than_a_flag_are_seen() -> None:
    interpreted(flagged_zeros_agree)


def test_public_functions_see_a_sign_in_a_flag() -> None:
    interpreted(run_test, "test_torch_calls", "test_a_view_with_its_sign_in_a_flag_is_a_tensor_like_any_other")


@st.composite
def views(draw: st.DrawFn) -> list[torch.Tensor]:
    """Tensors of one shape whose elements are their own offsets."""
    rank = draw(st.integers(0, 4))
    shape = [draw(st.integers(1, 5)) for _ in range(rank)]
    tensors = []
    for _ in range(draw(st.integers(1, 3))):
        order = draw(st.permutations(range(rank)))
        stored = [shape[axis] + draw(st.integers(0, 2)) for axis in order]
        whole = torch.arange(torch.Size(stored).numel()).reshape(stored)
        x = whole.permute([order.index(axis) for axis in range(rank)])[tuple(slice(size) for size in shape)]
        tensors.append(x[..., :1].expand(shape) if rank and draw(st.booleans()) else x)
    return tensors


@settings(max_examples=300, deadline=None)
@given(views())
def test_a_table_has_each_element_once_and_the_same_place_in_each_tensor(tensors: list[torch.Tensor]) -> None:
    shape = table(tensors)
    if shape is None:
        return
    assert shape.rows * shape.columns == tensors[0].numel()
    rows, columns = torch.arange(shape.rows)[:, None], torch.arange(shape.columns)
    found = [(rows * down + columns * along).flatten().tolist() for down, along in shape.strides]
    expected = [(x - x.storage_offset()).flatten().tolist() for x in tensors]
    assert sorted(zip(*found, strict=True)) == sorted(zip(*expected, strict=True))


@pytest.mark.parametrize("layout", ["gate_last", "gate_first", "interleaved"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_contiguous_arrays_and_their_halves_are_tables(layout: str, axis: int) -> None:
    shape = [4, 6, 8]
    x = torch.empty([2 * size if i == axis else size for i, size in enumerate(shape)])
    gate, value = Form("swish", axis, layout).split(x, None)
    assert value is not None
    assert table([gate, value, torch.empty(shape), torch.empty(()).expand(shape)]) is not None
    pair = table([torch.empty(shape), torch.empty(shape)])
    assert pair is not None and (pair.rows, pair.columns, pair.strides) == (1, 192, ((0, 1), (0, 1)))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 70), st.integers(1, 5000), st.sampled_from([2, 4, 8]))
def test_passes_cover_a_table_once(rows: int, columns: int, itemsize: int) -> None:
    seen = torch.zeros(rows, columns, dtype=torch.int8)
    for one in _passes(rows, columns, itemsize):
        down, across = one.tile
        assert down * across * itemsize == TILE_BYTES
        for program in range(one.programs):
            row, column = program // one.across * down, one.first_column + program % one.across * across
            assert row < rows and column < one.columns
            whole = seen[row : row + down, column : min(column + across, one.columns)]
            assert not one.whole or whole.shape == one.tile
            whole += 1
    assert bool((seen == 1).all())


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("columns", [2**31 - 1, 2**31, 2**31 + 17, 2**38 + 5])
def test_passes_over_long_rows_follow_on_each_other(columns: int, itemsize: int) -> None:
    passes = list(_passes(1, columns, itemsize))
    assert passes[0].first_column == 0 and passes[-1].columns == columns
    assert all(one.columns == after.first_column for one, after in itertools.pairwise(passes))
    for one in passes:
        assert 0 <= one.across * one.tile[1] - (one.columns - one.first_column) < one.tile[1]
        assert one.programs < 2**31  # a grid's limit
    # All but the end is without masks, or has masks that no vector of 16 elements crosses.
    assert all(one.whole or one.columns % 16 == 0 for one in passes[:-1])
