"""What XLA makes of the units on the CPU: a loop for every result, from the arguments alone, and no copy beside it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import gated.jax_impl as G  # noqa: E402

ROWS, WIDTH = 8, 256
INSTRUCTION = re.compile(r"^ *(?:ROOT )?%?(\S+) = (?:\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:,|$)")


def entry(f: Callable[..., Any], *arguments: Any) -> list[tuple[str, str, list[str]]]:
    """Name, operation and operands of what the compiled function runs, without its parameters and free casts."""
    text = jax.jit(f).lower(*arguments).compile().as_text()
    lines = text[text.index("\nENTRY") :].splitlines()[2:]
    found = [match for line in lines if (match := INSTRUCTION.match(line))]
    assert found
    run = [(name, operation, re.findall(r"%([\w.-]+)", operands)) for name, operation, operands in map(_groups, found)]
    return [one for one in run if one[1] not in ("parameter", "bitcast", "tuple", "get-tuple-element")]


def _groups(match: re.Match[str]) -> tuple[str, str, str]:
    name, operation, operands = match.groups()
    return name, operation, operands


def assert_one_loop_each(results: int, f: Callable[..., Any], *arguments: Any) -> None:
    """As many fusions as results, none of which reads another, and nothing else."""
    run = entry(f, *arguments)
    assert [operation for _, operation, _ in run] == ["fusion"] * results, run
    names = {name for name, _, _ in run}
    assert all(names.isdisjoint(operands) for _, _, operands in run), run


def forward_and_backward(f: Callable[..., Any]) -> Callable[..., Any]:
    """The value, and the cotangents of all arguments."""

    def both(cotangent: Any, *arguments: Any) -> Any:
        value, pullback = jax.vjp(f, *arguments)
        return value, pullback(cotangent)

    return both


def array(columns: int, dtype: str) -> Any:
    return jax.ShapeDtypeStruct((ROWS, columns), jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("activation", ["swish", "sigmoid"])
def test_a_pair_is_one_loop_for_each_of_its_three_results(activation: str, dtype: str) -> None:
    unit = functools.partial(G.gated_unit, activation=activation)
    half = array(WIDTH, dtype)
    assert_one_loop_each(1, unit, half, half)
    assert_one_loop_each(3, forward_and_backward(unit), half, half, half)


@pytest.mark.parametrize("layout", ["gate_first", "gate_last", "interleaved"])
@pytest.mark.parametrize(("unit", "dtype"), [(G.swiglu, "float32"), (G.swiglu, "bfloat16"), (G.glu, "float32")])
def test_a_packed_unit_is_one_loop_forward_and_one_backward(unit: Any, dtype: str, layout: str) -> None:
    """The halves of the cotangent are joined inside its loop."""
    unit = functools.partial(unit, layout=layout)
    assert_one_loop_each(2, forward_and_backward(unit), array(WIDTH, dtype), array(2 * WIDTH, dtype))
