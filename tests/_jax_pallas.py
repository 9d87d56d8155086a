"""The kernels in what a function of JAX is traced to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

__all__ = ["pallas_calls"]


def pallas_calls(jaxpr: Any) -> Iterator[Any]:
    """The equations that call one."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield equation
        else:
            for each in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from pallas_calls(inner)
