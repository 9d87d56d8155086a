"""Identification is right on every block of the table and on scrambled ones, and says none or ambiguous where it is."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import strategies  # noqa: F401 - registers the profile of Hypothesis
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch
from _identify_variants import (
    FOREIGN,
    LETTERS,
    ROWS,
    SIZES,
    UNITS,
    VARIANTS,
    Params,
    Unit,
    clamped,
    forward,
    packed,
    params,
    separate,
)
from _interop_blocks import BLOCKS, Block, Sample

from gated.contract import ACTIVATIONS
from gated.interop import FAMILIES, InteropError, Reference, identify, to_reference
from gated.interop.identification import Match, Matches


def rows(rng: np.random.Generator, d: int, scale: float = 4.0, count: int = ROWS, dtype: str = "float32") -> Any:
    """Such that gates reach beyond 7, where clamps are, and lie where the two forms of gelu differ."""
    return torch.from_numpy(rng.standard_normal((count, d)) * scale).to(getattr(torch, dtype))


def plain(value: Any) -> np.ndarray[Any, Any]:
    """As NumPy's float64, which holds all dtypes here."""
    return np.asarray(value.to(torch.float64) if isinstance(value, torch.Tensor) else value, np.float64)


def assert_arrays(reference: Reference, wanted: Params) -> None:
    for letter, got in zip(LETTERS, reference, strict=True):
        assert (got is None) == (letter not in wanted), letter
        assert got is None or np.array_equal(plain(got), plain(wanted[letter])), letter


# The families


@functools.cache
def sample(block: Block) -> Sample:
    return block.sample()


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{block.family}-{block.name}" for block in BLOCKS])
def test_it_names_every_block_of_the_table(block: Block) -> None:
    taken, family = sample(block), FAMILIES[block.family]
    outputs = taken.output if family.experts else taken.output[np.newaxis]
    params = to_reference(taken.state, family, prefix=block.prefix, experts=block.experts)
    # gpt-oss's experts are unlike the others in that not all of them reach its clamp here: see below.
    told = [identify(taken.state, taken.x, output, experts=block.experts) for output in outputs]
    assert any(found.verdict == "match" for found in told)
    for expert, found in enumerate(told):
        assert found.verdict == "match" or (family.clamp is not None and found.verdict == "ambiguous")
        best = found[0]
        assert block.family in best.families and best.family == best.families[0] and best.prefix == block.prefix
        assert best.activation == (block.activation or family.activation)
        assert (best.packing, best.layout, best.transposed) == (family.packing, family.layout, family.transposed)
        assert best.clamp == family.clamp and best.beta == (family.clamp.alpha if family.clamp else 1)
        wanted = (
            params._asdict()
            if not family.experts
            else {k: v[expert] for k, v in params._asdict().items() if v is not None}
        )
        assert_arrays(best.reference, {letter: value for letter, value in wanted.items() if value is not None})


# Scrambled ones


def test_there_are_thirty_variants_and_ten_foreign_functions() -> None:
    assert len(VARIANTS) >= 30 and len(FOREIGN) >= 10


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_right_on_a_scrambled_block(name: str) -> None:
    variant = VARIANTS[name]
    rng = np.random.default_rng(11)
    given = params(rng, variant.sizes, variant.dtype, variant.biases)
    x = rows(rng, variant.sizes[0], dtype=variant.dtype)
    found = identify(variant.store(given), x, forward(given, x, variant.unit))
    assert found.verdict == "match", [(one.function, one.error) for one in found]
    best = found[0]
    assert best.activation == variant.activation and best.beta == pytest.approx(variant.beta, rel=1e-12)
    assert (None if best.clamp is None else dataclasses.astuple(best.clamp)) == variant.clamp
    for attribute, wanted in variant.expected.items():
        assert getattr(best, attribute) == wanted, attribute
    if variant.activation == "identity" and not np.array_equal(plain(best.reference.W), plain(given["W"])):
        # In a bilinear unit the two are one another's equals.
        W, V, W2, b, c, b2 = best.reference
        best = dataclasses.replace(best, reference=Reference(V, W, W2, c, b, b2))
    assert_arrays(best.reference, given)
    assert best.error <= 1 < found[1].error and best.margin == found[1].error - best.error


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("stored", [separate, packed], ids=["separate", "packed"])
def test_it_says_none_of_a_foreign_function(name: str, stored: Any) -> None:
    rng = np.random.default_rng(5)
    given = params(rng, SIZES, "float32")
    x = rows(rng, SIZES[0])
    found = identify(stored(given), x, FOREIGN[name](given, x))
    assert found.verdict == "none" and len(found) > 0 and found.separation is None
    assert all(one.error > 1 for one in found)


def test_two_matrices_are_no_gated_block() -> None:
    rng = np.random.default_rng(5)
    given = params(rng, SIZES, "float32")
    x = rows(rng, SIZES[0])
    state = {"fc1.weight": given["W"].T, "fc2.weight": given["W2"].T}
    found = identify(state, x, torch.relu(x @ given["W"]) @ given["W2"])
    assert found.verdict == "none"


def test_a_unit_without_a_down_projection_is_found() -> None:
    rng = np.random.default_rng(6)
    given = {letter: value for letter, value in params(rng, SIZES, "float32").items() if letter != "W2"}
    x = rows(rng, SIZES[0])
    found = identify({"weights": torch.stack([given["W"], given["V"]], 1)}, x, forward(given, x, UNITS["swish"]))
    assert found.verdict == "match" and found[0].family == "tokamax" and found[0].down_transposed is None
    assert_arrays(found[0].reference, given)


# What the family says


def test_a_family_is_named_only_where_its_keys_give_these_arrays() -> None:
    rng = np.random.default_rng(7)
    given, x = params(rng, SIZES, "float32"), rows(rng, SIZES[0])
    y = forward(given, x, UNITS["swish"])
    right = identify(separate(given, "gate_proj.weight up_proj.weight down_proj.weight"), x, y)[0]
    wrong = identify(separate(given, "up_proj.weight gate_proj.weight down_proj.weight"), x, y)[0]
    assert right.family == "llama" and "gated" in right.families and right.prefix == ""
    assert wrong.families == () and wrong.prefix is None and "stored as llama" in wrong.family
    assert wrong.arrays == {"W": "up_proj.weight.T", "V": "gate_proj.weight.T", "W2": "down_proj.weight.T"}


def test_a_packed_family_is_named_only_with_its_own_order() -> None:
    rng = np.random.default_rng(7)
    given, x = params(rng, SIZES, "float32"), rows(rng, SIZES[0])
    y = forward(given, x, UNITS["swish"])
    for how, gate_last, named in (("halves", False, True), ("halves", True, False), ("interleaved", False, False)):
        state = packed(given, how, gate_last=gate_last)
        best = identify({"m.gate_up_proj.weight": state["p"], "m.down_proj.weight": state["q"]}, x, y)[0]
        assert ("phi3" in best.families) == named and (best.prefix == "m.") == named
        assert_arrays(best.reference, given)


def test_the_activation_chooses_among_families_of_the_same_keys() -> None:
    rng = np.random.default_rng(7)
    given, x = params(rng, SIZES, "float32"), rows(rng, SIZES[0])
    state = separate(given, "gate_proj.weight up_proj.weight down_proj.weight")
    for activation, family in (("swish", "llama"), ("gelu_tanh", "gemma"), ("relu", "gated")):
        best = identify(state, x, forward(given, x, UNITS[activation]))[0]
        assert best.family == family and {"llama", "gemma", "gated"} <= set(best.families)


def test_the_arrays_of_two_experts_are_no_block() -> None:
    rng = np.random.default_rng(9)
    one, other = params(rng, SIZES, "float32"), params(rng, SIZES, "float32")
    state = {
        "gate_up_proj": torch.stack([torch.cat([each["W"], each["V"]], 1) for each in (one, other)]),
        "down_proj": torch.stack([each["W2"] for each in (one, other)]),
    }
    x = rows(rng, SIZES[0])
    assert identify(state, x, forward(other, x, UNITS["swish"]))[0].expert == 1
    assert identify(state, x, forward({**one, "W2": other["W2"]}, x, UNITS["swish"])).verdict == "none"


def test_an_expert_is_named_by_its_own_keys() -> None:
    """The others may not even be there: each has keys of its own, and none of theirs is read."""
    rng = np.random.default_rng(22)
    experts = {number: params(rng, SIZES, "float32") for number in (1, 10)}
    state = {"gate.weight": torch.randn(11, SIZES[0])}
    for number, expert in experts.items():
        state |= separate(expert, " ".join(f"moe.experts.{number}.w{part}.weight" for part in (1, 3, 2)))
    x = rows(rng, SIZES[0])
    for expert in experts.values():
        best = identify(state, x, forward(expert, x, UNITS["swish"]))[0]
        assert best.family == "mixtral" and best.prefix == "moe.experts."
        assert_arrays(best.reference, expert)
    crossed = {**experts[1], "W2": experts[10]["W2"]}
    best = identify(state, x, forward(crossed, x, UNITS["swish"]))[0]
    assert "mixtral" not in best.families and best.arrays["W2"] == "moe.experts.10.w2.weight.T"


@pytest.mark.parametrize("wrong", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_give_nothing(wrong: float) -> None:
    rng = np.random.default_rng(23)
    given, x = params(rng, SIZES, "float32"), rows(rng, SIZES[0])
    y = forward(given, x, UNITS["swish"])
    assert identify(separate(given) | {"other": torch.full((18, 12), wrong)}, x, y).verdict == "match"
    given["W"][2, 3] = wrong
    assert identify(separate(given), x, y).verdict == "none"


@pytest.mark.parametrize("name", VARIANTS)
def test_the_expressions_give_the_arrays(name: str) -> None:
    variant = VARIANTS[name]
    rng = np.random.default_rng(12)
    given = params(rng, variant.sizes, variant.dtype, variant.biases)
    x = rows(rng, variant.sizes[0], dtype=variant.dtype)
    state = variant.store(given)
    best = identify(state, x, forward(given, x, variant.unit))[0]
    flat = (
        {f"params.{key}.value": value["value"] for key, value in state["params"].items()}
        if "params" in state
        else state
    )
    for letter, text in best.arrays.items():
        key = max((key for key in flat if text.startswith(key)), key=len)
        read = eval("array" + text.removeprefix(key), {"array": plain(flat[key])})
        assert np.array_equal(read, plain(getattr(best.reference, letter))), text


def test_a_prefix_chooses_the_layer() -> None:
    rng = np.random.default_rng(8)
    layers = [params(rng, SIZES, "float32") for _ in range(2)]
    keys = "{0}gate_proj.weight {0}up_proj.weight {0}down_proj.weight"
    state = {
        key: value
        for number, layer in enumerate(layers)
        for key, value in separate(layer, keys.format(f"layers.{number}.mlp.")).items()
    }
    x = rows(rng, SIZES[0])
    y = forward(layers[1], x, UNITS["swish"])
    for prefix in ("layers.1.mlp.", "layers.1", ""):
        found = identify(state, x, y, prefix=prefix)
        assert found.verdict == "match" and found[0].family == "llama" and found[0].prefix == "layers.1.mlp."
    assert identify(state, x, y, prefix="layers.0.").verdict == "none"


# The bound


@given(
    # Sizes that differ leave few ways to read the arrays; those that do not are above.
    sizes=st.lists(st.integers(1, 40), min_size=3, max_size=3, unique=True).map(tuple),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    activation=st.sampled_from(ACTIVATIONS),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-3, 1.0, 8.0]),
)
def test_rounding_alone_stays_within_the_bound(
    sizes: tuple[int, int, int], dtype: str, activation: str, seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    given = params(rng, sizes, dtype, "b c b2")
    x = rows(rng, sizes[0], scale, 5, dtype)
    found = identify(separate(given), x, forward(given, x, UNITS[activation]))
    # A small layer may have other ways besides; the right one is among those within the bound.
    assert found.verdict != "none"


@pytest.mark.parametrize(("dtype", "roundoff"), [("float32", 2.0**-24), ("float64", 2.0**-53), ("bfloat16", 2.0**-8)])
def test_the_bound_is_no_wider_than_a_few_hundred_roundings(dtype: str, roundoff: float) -> None:
    rng = np.random.default_rng(13)
    given = params(rng, (64, 96, 32), dtype)
    x = rows(rng, 64, 0.5, dtype=dtype)
    y = forward(given, x, UNITS["swish"])
    off = y + 400 * roundoff * y.abs().max() * torch.ones_like(y)
    assert identify(separate(given), x, y).verdict == "match"
    assert identify(separate(given), x, off).verdict == "none"


def test_an_error_that_is_all_over_is_seen_where_no_output_shows_it() -> None:
    """What one row of 30 may be off, all of them may not be."""
    rng = np.random.default_rng(20)
    given, x = params(rng, (12, 18, 1), "float32"), rows(rng, 12, count=30)
    state, y = separate(given), forward(given, x, UNITS["swish"]).numpy()
    off = y.copy()
    for row in range(30):
        one, step, error = y.copy(), 2.0**-26 * np.abs(y).max(), 0.0
        while error < 0.4:
            step *= 2
            one[row] = y[row] + step
            found = identify(state, x, one)
            error = found[0].error
        assert found.verdict == "match"
        off[row] = one[row]
    assert identify(state, x, off).verdict == "none"
    # Rows that are there again have the same roundings again: they count once.
    again = torch.cat([x[:1]] * 30)
    found = identify(state, again, np.concatenate([off[:1]] * 30))
    assert found.verdict == "match" and found[0].function == "swish"


def test_the_bound_stays_near_where_the_gates_are_huge() -> None:
    """There the curvature of an activation says nothing of it any more, and its slope does."""
    rng = np.random.default_rng(24)
    given, x = params(rng, SIZES, "float32"), rows(rng, SIZES[0], 1e14)
    y = forward(given, x, UNITS["swish"])
    within = [one for one in identify(separate(given), x, y) if one.error <= 1]
    assert "swish" in [one.activation for one in within]
    assert identify(separate(given), x, 1.01 * y).verdict == "none"


@pytest.mark.parametrize(("sizes", "count"), [((200, 517, 70), 40), ((6, 9, 5), 1100)])
def test_sizes_that_take_several_blocks(sizes: tuple[int, int, int], count: int) -> None:
    rng = np.random.default_rng(21)
    given, x = params(rng, sizes, "float64", "b"), rows(rng, sizes[0], 0.5, count, "float64")
    y = forward(given, x, UNITS["gelu"])
    found = identify(separate(given), x, y)
    assert found.verdict == "match" and found[0].activation == "gelu"
    assert_arrays(found[0].reference, given)
    y[-1, -1] *= 1 + 1e-10
    assert identify(separate(given), x, y).verdict == "none"


def test_an_output_of_a_coarser_dtype_is_held_to_that() -> None:
    rng = np.random.default_rng(14)
    given, x = params(rng, SIZES, "float32"), rows(rng, SIZES[0])
    y = forward(given, x, UNITS["swish"]).to(torch.bfloat16)
    assert identify(separate(given), x, y).dtype == "bfloat16"
    assert identify(separate(given), x, y).verdict == "match"
    # Computed in float32 and rounded once at the end.
    assert identify(separate(given), x, y, dtype="float32").verdict == "match"
    computed = identify(separate(given), x, y.to(torch.float32))
    assert computed.dtype == "float32" and computed.verdict == "none"
    assert identify(separate(given), x, y.to(torch.float32), dtype="bfloat16").verdict == "match"


# What one input cannot tell

UNTOLD = {
    "gates that reach no clamp": (clamped(1.702, 7.0, 1.0), 0.5, "swish", {1.702}),
    "gates near 0 in the two gelus": (UNITS["gelu"], 1e-3, "gelu", {1.0}),
    "and the other": (UNITS["gelu_tanh"], 1e-3, "gelu_tanh", {1.0}),
    "nothing but zeros": (UNITS["swish"], 0.0, "swish", {1.0}),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_it_proposes_an_input_that_tells_and_it_does(name: str) -> None:
    unit, scale, activation, betas = UNTOLD[name]
    rng = np.random.default_rng(15)
    given = params(rng, SIZES, "float32")
    x = rows(rng, SIZES[0], scale)
    found = identify(separate(given), x, forward(given, x, unit))
    assert found.verdict == "ambiguous" and sum(one.error <= 1 for one in found) > 1
    for _ in range(4):
        assert found.separation is not None and found.separation.complete
        x = torch.cat([x, torch.from_numpy(found.separation.x)])
        found = identify(separate(given), x, forward(given, x, unit))
        if found.verdict == "match":
            break
    assert found.verdict == "match" and found[0].activation == activation and found[0].beta in betas
    assert_arrays(found[0].reference, given)


def resolved(found: Matches, given: Params, unit: Unit) -> Match:
    """The one of the ambiguous matches that gives the output of the proposed rows, by our own reference."""
    assert found.separation is not None
    x = torch.from_numpy(found.separation.x)
    again = identify(separate(given), x, forward(given, x, unit))
    return again[0]


def test_a_bias_too_small_to_be_seen_is_seen_in_the_proposed_input() -> None:
    rng = np.random.default_rng(16)
    given = params(rng, SIZES, "float32", "b2")
    given["b2"] = given["b2"] * 1e-6
    x = rows(rng, SIZES[0])
    found = identify(separate(given), x, forward(given, x, UNITS["swish"]))
    assert found.verdict == "ambiguous" and found.separation is not None and found.separation.complete
    assert_arrays(resolved(found, given, UNITS["swish"]).reference, given)


def test_what_no_input_can_tell_is_one_match() -> None:
    """Equal functions are not two: a product that commutes, a bias of zeros, an array that is there twice."""
    rng = np.random.default_rng(17)
    given, x = params(rng, SIZES, "float32", "b c"), rows(rng, SIZES[0])
    assert identify(separate(given), x, forward(given, x, UNITS["identity"])).verdict == "match"
    zeros = {**given, "b": torch.zeros_like(given["b"]), "c": torch.zeros_like(given["c"])}
    found = identify(separate(zeros), x, forward(zeros, x, UNITS["swish"]))
    assert found.verdict == "match" and found[0].reference.b is None
    twice = separate(given) | {"ema.k0": given["W"].T.clone(), "ema.k2": given["W2"].T.clone()}
    assert identify(twice, x, forward(given, x, UNITS["gelu"])).verdict == "match"


# Bad input


def bad(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(18)
    given, x = params(rng, SIZES, "float32"), rows(rng, SIZES[0])
    return {"state": separate(given), "x": x, "y": forward(given, x, UNITS["swish"])} | changes


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"state": [1]}, "identify: state must be a mapping from keys to arrays, got builtins.list"),
        ({"state": {}}, "identify: state must have arrays of .* under the prefix '', got none"),
        ({"state": {"q": np.zeros((3, 4), np.int8)}}, "got none; there are 1 of other kinds, such as 'q'"),
        ({"prefix": "layers."}, "under the prefix 'layers.', got none"),
        ({"x": [[1.0]]}, "identify: x must be an array of NumPy, PyTorch or JAX, got builtins.list"),
        ({"x": np.zeros((ROWS, 12), np.int32)}, "identify: x must have dtype .*, got int32"),
        (
            {"y": np.ones((), np.float32)},
            r"identify: y must have shape \(..., features\), at least 1 feature, got \(\)",
        ),
        ({"x": np.ones((3, 0), np.float32)}, r"identify: x must have shape .*, at least 1 feature, got \(3, 0\)"),
        ({"state": {"k": torch.ones(3, 4, device="meta")}}, "identify: k must be a dense array .* the meta device"),
        ({"prefix": None}, "identify: prefix must be a string, got builtins.NoneType"),
        (
            {"y": np.zeros((3, 10), np.float32)},
            f"identify: x and y must have as many rows, at least 1, got {ROWS} and 3",
        ),
        ({"y": np.full((ROWS, 10), np.nan, np.float32)}, "identify: y must be finite, got infinities or nans"),
        ({"experts": 0}, "identify: experts must be None or an int of at least 1, got 0"),
        ({"dtype": "int8"}, "identify: dtype must be None or one of .*, got 'int8'"),
        ({"state": {f"k{n}": np.ones((12, 12), np.float32) * n for n in range(40)}}, "prefix names one block of it"),
    ],
)
def test_bad_input_is_refused_in_words(changes: dict[str, Any], text: str) -> None:
    arguments = bad(**changes)
    if len(arguments["state"]) == 40:
        arguments["y"] = np.ones((ROWS, 12), np.float32)
    with pytest.raises(InteropError, match=text):
        identify(**arguments)


def test_arrays_of_other_dtypes_are_passed_over_and_said_so() -> None:
    arguments = bad()
    arguments["state"] |= {"ids": np.arange(4), "q": np.zeros((12, 18), np.int8)}
    assert identify(**arguments).passed_over == ("ids", "q")
