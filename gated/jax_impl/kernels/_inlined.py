"""A function as the operations that the kernel languages lower.

Mosaic lowers no ``custom_jvp`` with symbolic zeros, Triton no ``round``. In a kernel nothing is differentiated, so the
rules are left out and their functions written in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

from gated.jax_impl._arrays import Array

__all__ = ["inlined"]

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of arrays, without calls in it."""

    def written_out(*arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        closed, shapes = jax.make_jaxpr(lambda *each: function(*jax.tree.unflatten(tree, each)), return_shape=True)(
            *leaves
        )
        return jax.tree.unflatten(jax.tree.structure(shapes), _evaluate(closed.jaxpr, closed.consts, leaves))

    return written_out


def _evaluate(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        if name in _CALLS:
            inner = equation.params[_CALLS[name]]
            results = _evaluate(inner.jaxpr, inner.consts, operands)
        elif name == "round":
            results = [_round(*operands)]
        else:
            result = equation.primitive.bind(*operands, **equation.params)  # type: ignore[no-untyped-call]
            results = result if equation.primitive.multiple_results else [result]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _round(x: Array) -> Array:
    """To the nearest integer, ties to even."""
    below = jnp.floor(x)
    rest = x - below
    odd = below - 2 * jnp.floor(below / 2) == 1
    return jnp.where((rest > 0.5) | ((rest == 0.5) & odd), below + 1, below)
