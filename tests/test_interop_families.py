"""Each family's row against its real block: our feed-forward block from its weights gives its output.

The bounds are those of running error analysis (:mod:`gated.conformance.carried`), for the block and for ours.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from _docs import run_blocks
from _interop_blocks import BLOCKS, RESTATED, Array, Block, Sample

from gated.conformance.backends import is_installed
from gated.conformance.bounds import elementwise_bound
from gated.conformance.carried import Carried, Rounding, _activation
from gated.contract import ACTIVATIONS
from gated.interop import FAMILIES, Family, Reference, to_reference
from gated.interop.arrays import stack

EACH = pytest.mark.parametrize("block", BLOCKS, ids=[f"{block.family}-{block.name}" for block in BLOCKS])
LETTERS = Reference._fields


@functools.cache
def sample(block: Block) -> Sample:
    return block.sample()


def numbers(params: Reference) -> dict[str, Array]:
    """The arrays that are there, in float64."""
    return {
        letter: np.asarray(value, np.float64)
        for letter, value in zip(LETTERS, params, strict=True)
        if value is not None
    }


def an_expert(given: dict[str, Array], family: Family) -> Iterator[dict[str, Array]]:
    if family.experts is None:
        yield given
        return
    for expert in range(len(given["W"])):
        yield {letter: value[expert] for letter, value in given.items()}


def carried(backend: str, given: dict[str, Array], x: Array, activation: str, family: Family) -> Carried:
    """The block's exact output (to float64) and how far the arithmetic of float32 may be off it.

    A clamp moves no error apart by more than it was, nor does the offset, which is one more rounding.
    """
    r = Rounding(backend, "float32")
    arrays = {letter: Carried(value, np.zeros(value.shape)) for letter, value in given.items()}
    rows = Carried(np.asarray(x, np.float64), np.zeros(x.shape))
    gate = r.product(rows, arrays["W"], arrays.get("b"))
    value = r.product(rows, arrays["V"], arrays.get("c"))
    beta = np.ones(gate.value.shape)
    if family.clamp is not None:
        limit = family.clamp.limit
        beta = beta * family.clamp.alpha
        gate = Carried(np.minimum(gate.value, limit), gate.error)
        clipped = np.clip(value.value, -limit, limit) + family.clamp.offset
        value = Carried(clipped, value.error + r.store * (np.abs(clipped) + value.error))
    ulps = elementwise_bound(
        backend, "float32", activation=activation, partial="value", gate=gate.value, beta=beta, gradient=False
    )
    hidden = r.times(_activation(activation, gate, beta)["value"], value, ulps)
    return r.product(hidden, arrays["W2"], arrays.get("b2")) if "W2" in arrays else hidden


def furthest(block: Block, family: Family, activation: str) -> float:
    """How far the block is off what the row says of it, in units of the bound; infinite where the row does not fit."""
    taken = sample(block)
    try:
        given = numbers(to_reference(taken.state, family, prefix=block.prefix, experts=block.experts))
        outputs = taken.output if family.experts else taken.output[np.newaxis]
        exact = [carried("torch", one, taken.x, activation, family) for one in an_expert(given, family)]
        return max(
            float(np.max(np.abs(output - one.value) / one.error)) for output, one in zip(outputs, exact, strict=True)
        )
    except ValueError:
        return np.inf


def activation_of(block: Block) -> str:
    return block.activation or FAMILIES[block.family].activation


@EACH
def test_the_row_gives_the_blocks_own_output(block: Block) -> None:
    family = FAMILIES[block.family]
    assert furthest(block, family, activation_of(block)) <= 1


def others(family: Family) -> Iterator[Family]:
    """The row with one thing wrong: the halves swapped, packed otherwise, an orientation turned."""
    if family.packing == "separate":
        swap = {"W": "V", "V": "W", "b": "c", "c": "b"}
        yield dataclasses.replace(family, parts={swap.get(part, part): key for part, key in family.parts.items()})
    elif family.layout == "interleaved":
        yield dataclasses.replace(family, up=family.up.replace("(f 2)", "(2 f)"))
    else:
        yield dataclasses.replace(family, gate=1 - family.gate)
        if family.packing == "packed":
            yield dataclasses.replace(family, gate=0, up=family.up.replace("(2 f)", "(f 2)"))
    if "(e f)" not in family.up:
        pattern = family.up.replace("(2 f)", "F").replace("(f 2)", "I")
        turned = pattern.translate(str.maketrans({"d": "f", "f": "d", "F": "d", "I": "d"}))
        restored = turned.replace("f", "(2 f)") if "F" in pattern else turned.replace("f", "(f 2)")
        yield dataclasses.replace(family, up=turned if family.packing != "packed" else restored)
    if "W2" in family.parts and "(e f)" not in family.down:
        yield dataclasses.replace(family, down=family.down.translate(str.maketrans("fo", "of")))


@EACH
def test_a_row_with_one_thing_wrong_does_not(block: Block) -> None:
    """So that the test above can fail: every neighbour of the row is out of the bound, or of the shapes."""
    family = FAMILIES[block.family]
    for other in others(family):
        assert furthest(block, other, activation_of(block)) > 1, other
    for activation in set(ACTIVATIONS) - {activation_of(block)}:
        assert furthest(block, family, activation) > 1, activation
    if family.clamp is not None:
        for wrong in ({"alpha": 1.0}, {"limit": 6.0}, {"offset": 0.0}):
            clamp = dataclasses.replace(family.clamp, **wrong)
            assert furthest(block, dataclasses.replace(family, clamp=clamp), "swish") > 1, wrong


def native(backend: str, array: Any) -> Any:
    """An array of a backend with the bits of another's."""
    plain = np.asarray(array)
    if backend == "numpy":
        return plain
    if backend == "torch":
        import torch

        return torch.from_numpy(plain.copy())
    import jax

    return jax.numpy.asarray(plain)


def ours(backend: str, given: dict[str, Any], x: Any, activation: str, family: Family) -> Any:
    """Our block in a backend; gpt-oss's from the clamped unit and the products."""
    G = importlib.import_module(
        {"numpy": "gated.numpy_ref", "torch": "gated.torch_impl", "jax": "gated.jax_impl"}[backend]
    )
    if "W2" not in given:
        return G.gated_linear(x, **given, activation=activation)
    if family.clamp is None:
        return G.gated_ffn(x, **given, activation=activation)
    gate, value = x @ given["W"] + given["b"], x @ given["V"] + given["c"]
    pair = stack([gate, value], 1).reshape(len(x), -1)
    hidden = G.clamped_swiglu(pair, **dataclasses.asdict(family.clamp), layout="gate_first")
    return hidden @ given["W2"] + given["b2"]


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
@EACH
def test_our_block_from_its_weights_gives_its_output(block: Block, backend: str) -> None:
    if not is_installed(backend):
        pytest.skip(f"{backend} is not installed")
    family, activation, taken = FAMILIES[block.family], activation_of(block), sample(block)
    params = to_reference(taken.state, family, prefix=block.prefix, experts=block.experts)
    given = {letter: value for letter, value in zip(LETTERS, params, strict=True) if value is not None}
    outputs = taken.output if family.experts else taken.output[np.newaxis]
    for one, output in zip(an_expert(given, family), outputs, strict=True):
        arrays = {letter: native(backend, value) for letter, value in one.items()}
        result = np.asarray(ours(backend, arrays, native(backend, taken.x), activation, family))
        exact = {letter: np.asarray(value, np.float64) for letter, value in one.items()}
        # The products of numpy_ref are rounded once, and those of the test around the clamped unit are not.
        arithmetic = "torch" if backend == "numpy" else backend
        bound = sum(carried(name, exact, taken.x, activation, family).error for name in (arithmetic, "torch"))
        assert np.all(np.abs(result - output) <= bound)


# The page

PAGE = Path(__file__).parent.parent / "docs" / "interop.md"
TABLE = re.compile(r"(<!-- families: .* -->\n)(.*)(<!-- /families -->)", flags=re.DOTALL)


def table() -> str:
    """The table of docs/interop.md."""
    lines = ["| family | keys | gate and value | gate | down | activation | models | source |", "|" + "---|" * 8]
    for family in FAMILIES.values():
        keys = ", ".join(f"{part} `{key}`" for part, key in family.parts.items())
        gate = {"separate": "W", "packed": family.layout, "stacked": f"index {family.gate}"}[family.packing]
        activation = family.activation + (" \\*" if family.configurable else "")
        if family.clamp is not None:
            activation += (
                f", clamped: alpha {family.clamp.alpha}, limit {family.clamp.limit}, offset {family.clamp.offset}"
            )
        down = f"`{family.down}`" if "W2" in family.parts else "none"
        tested = f" Tested with `{family.module}`." if family.module else ""
        source = f"{family.source}.{tested}".replace("*", "\\*")
        cells = (f"`{family.name}`", keys, f"`{family.up}`", gate, down, activation, family.models, source)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def test_the_page_has_the_table() -> None:
    found = TABLE.search(PAGE.read_text())
    assert found is not None and found[2] == table(), "run python tests/test_interop_families.py"
    counted = re.search(r"the layouts of (\d+) families", PAGE.read_text())
    assert counted is not None and int(counted[1]) == len(FAMILIES)


def test_the_code_of_the_page_runs() -> None:
    run_blocks(PAGE, at_least=3)


def test_every_family_has_a_block() -> None:
    assert {block.family for block in BLOCKS} == set(FAMILIES)


def test_a_row_names_the_module_it_is_tested_with() -> None:
    tested: dict[str, set[str]] = {}
    for block in BLOCKS:
        if block not in RESTATED:
            tested.setdefault(block.family, set()).add(block.name)
    named = {name: {family.module.rpartition(".")[2]} for name, family in FAMILIES.items() if family.module}
    assert named.keys() == tested.keys()
    for family, names in named.items():
        assert family.startswith("diffusers") or names <= tested[family], family


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda found: found[1] + table() + found[3], PAGE.read_text()))
