"""How long the JAX backend takes on the CPU under jit, beside ``jax.nn.silu(gate) * value`` and ``jax.nn.glu``.

Prints every ratio with its bound, and what each keeps for the backward pass beside its arguments. The candidates of a
row take turns, and a ratio is one of medians, so that a machine that becomes slower or faster does so for both. Another
load on the machine still falsifies the ratios: look at the load that is printed, or compare processor time.

    python benchmarks/jax_cpu.py                          # all rows, wall time
    python benchmarks/jax_cpu.py --clock cpu              # processor time of all threads: on a machine that is shared
    python benchmarks/jax_cpu.py --rows large --seconds 9 # some of: large, forward, small

Exit status 0: every ratio is within its bound; 1: one is not.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from _timing import CLOCKS, medians, shown
from jax._src.ad_checkpoint import saved_residuals

import gated.jax_impl as G

Function = Callable[..., Any]


class Table:
    """Measures rows and prints them as they come."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.failed = 0
        print(f"{'':44}{'ours':>11}{'other':>11}{'ratio':>8}{'bound':>8}{'kept: ours':>14}{'other':>11}")

    def row(self, label: str, ours: Function, other: Function, inputs: list[Any], bound: float, backward: bool) -> None:
        """Ours against the other, forward or forward and backward."""
        kept = ["", ""]
        functions, arguments = [jax.jit(ours), jax.jit(other)], inputs
        if backward:
            kept = [_size(saved_bytes(f, *inputs)) for f in (ours, other)]
            functions = [jax.jit(both(f)) for f in (ours, other)]
            shape = jax.eval_shape(ours, *inputs)
            arguments = [jax.random.normal(jax.random.key(3), shape.shape, shape.dtype), *inputs]
        works = {
            name: lambda f=f: jax.block_until_ready(f(*arguments))
            for name, f in zip(("ours", "other"), functions, strict=True)
        }
        taken = medians(works, self.clock, self.seconds)
        ratio = taken["ours"] / taken["other"]
        self.failed += ratio > bound
        times = f"{shown(taken['ours']):>11}{shown(taken['other']):>11}"
        limit = f"{bound:8.2f}" if bound < math.inf else f"{'':8}"
        past = "  past" if ratio > bound else ""
        print(f"{label:44}{times}{ratio:8.2f}{limit}{kept[0]:>14}{kept[1]:>11}{past}", flush=True)


def both(f: Function) -> Function:
    """The value, and the cotangents of all arguments."""

    def value_and_cotangents(cotangent: Any, *arguments: Any) -> Any:
        value, pullback = jax.vjp(f, *arguments)
        return value, pullback(cotangent)

    return value_and_cotangents


def saved_bytes(f: Function, *arguments: Any) -> int:
    """What is kept for the backward pass beside the arguments."""
    return sum(
        aval.size * aval.dtype.itemsize
        for aval, source in saved_residuals(f, *arguments)
        if aval.shape and "argument" not in source
    )


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count else "0"


def plain(gate: Any, value: Any) -> Any:
    """What users write"""
    return jax.nn.silu(gate) * value


def plain_packed(x: Any) -> Any:
    """The same of the halves"""
    gate, value = jnp.split(x, 2, -1)
    return jax.nn.silu(gate) * value


def ours_packed(x: Any) -> Any:
    """The same in one call"""
    return G.swiglu(x, layout="gate_first")


def ours_glu(x: Any) -> Any:
    """As jax.nn.glu has its halves: the gate is the last"""
    return G.glu(x, layout="gate_last")


UNITS: list[tuple[str, Function, Function, int]] = [
    ("pair", G.gated_unit, plain, 2),
    ("packed", ours_packed, plain_packed, 1),
    ("glu", ours_glu, jax.nn.glu, 1),
]


def inputs(rows: int, width: int, arrays: int, dtype: str) -> list[Any]:
    """A pair, or one packed array."""
    columns = width if arrays == 2 else 2 * width
    return [jax.random.normal(jax.random.key(i), (rows, columns), jnp.dtype(dtype)) for i in range(arrays)]


def large(table: Table) -> None:
    """2048 x 11008, forward and backward"""
    for dtype in ("float32", "bfloat16"):
        for name, ours, other, arrays in UNITS:
            bound = 0.75 if name == "glu" else 1.05
            table.row(f"{name} {dtype}, both passes", ours, other, inputs(2048, 11008, arrays, dtype), bound, True)


def forward(table: Table) -> None:
    """2048 x 11008, forward. The bound was set for both passes."""
    for dtype in ("float32", "bfloat16"):
        for name, ours, other, arrays in UNITS:
            table.row(f"{name} {dtype}, forward", ours, other, inputs(2048, 11008, arrays, dtype), math.inf, False)


def small(table: Table) -> None:
    """For information: no bound was set"""
    for rows in (1, 64):
        for name, ours, other, arrays in UNITS:
            label = f"{name} float32 {rows} x 4096, both passes"
            table.row(label, ours, other, inputs(rows, 4096, arrays, "float32"), math.inf, True)


ROWS = {"large": large, "forward": forward, "small": small}


def main() -> int:
    """The command"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--seconds", type=float, default=5.0, help="time spent on each row, about")
    parser.add_argument("--rows", default=",".join(ROWS), help="which, separated by commas")
    arguments = parser.parse_args()
    chosen = arguments.rows.split(",")
    unknown = [name for name in chosen if name not in ROWS]
    if unknown:
        parser.error(f"--rows must be among {', '.join(ROWS)}, got {', '.join(unknown)}")
    print(f"jax {jax.__version__}, {os.cpu_count()} processors, {arguments.clock} time, load {os.getloadavg()[0]:.1f}")
    table = Table(CLOCKS[arguments.clock], arguments.seconds)
    for name in chosen:
        ROWS[name](table)
    print(f"load {os.getloadavg()[0]:.1f}; {table.failed} past their bound")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
