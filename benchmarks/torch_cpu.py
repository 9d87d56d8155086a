"""How long the PyTorch backend takes on the CPU, beside eager ``chunk, silu, *`` and ``torch.compile`` of it.

Prints every ratio with its bound. The candidates of a row take turns, and a ratio is one of medians, so that a machine
that becomes slower or faster does so for all. Another load on the machine still falsifies the ratios: look at the load
that is printed, or compare processor time on one thread.

    python benchmarks/torch_cpu.py                            # all rows, 2 threads, wall time
    python benchmarks/torch_cpu.py --threads 1 --clock cpu    # processor time: on a machine that is shared
    python benchmarks/torch_cpu.py --rows large,ffn           # some of: large, small, ffn, sizes, outliers

Exit status 0: every ratio is within its bound; 1: one is not.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from _timing import CLOCKS, Work, medians, shown
from torch import Tensor
from torch.nn.functional import silu

import gated.torch_impl as G
from gated.torch_impl.nn import GatedFFN


class Table:
    """Measures rows and prints them as they come."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.failed = 0
        print(f"{'':44}{'ours':>11}{'other':>11}{'ratio':>8}{'bound':>8}")

    def row(self, label: str, works: Mapping[str, Work], bounds: Mapping[str, float]) -> None:
        """Ours against each of the others, with the bound of the ratio."""
        taken = medians(works, self.clock, self.seconds)
        for other, bound in bounds.items():
            ratio = taken["ours"] / taken[other]
            past = "" if ratio <= bound else "  past"
            self.failed += ratio > bound
            times = f"{shown(taken['ours']):>11}{shown(taken[other]):>11}"
            limit = f"{bound:8.2f}" if bound < math.inf else f"{'':8}"
            print(f"{label + ' / ' + other:44}{times}{ratio:8.2f}{limit}{past}", flush=True)


def eager_packed(x: Tensor) -> Tensor:
    """What users write"""
    gate, value = x.chunk(2, -1)
    return silu(gate) * value


def ours_packed(x: Tensor) -> Tensor:
    """The same in one call"""
    return G.swiglu(x, layout="gate_first")


def gradient(function: Callable[..., Tensor], inputs: Sequence[Tensor], cotangent: Tensor) -> Work:
    """Forward and backward"""
    return lambda: torch.autograd.grad(function(*inputs), inputs, cotangent)


def large(table: Table) -> None:
    """2048 x 11008"""
    compiled = torch.compile(eager_packed)
    for dtype, bound in ((torch.float32, 0.45), (torch.bfloat16, 0.8)):
        x = torch.randn(2048, 2 * 11008, dtype=dtype, requires_grad=True)
        c = torch.randn(2048, 11008, dtype=dtype)
        works = {"ours": gradient(ours_packed, [x], c), "eager": gradient(eager_packed, [x], c)}
        bounds = {"eager": bound}
        if dtype == torch.float32:
            works["compile"] = gradient(compiled, [x], c)
            bounds["compile"] = 0.65
        table.row(f"packed {str(dtype)[6:]}, forward and backward", works, bounds)
    x = torch.randn(2048, 2 * 11008)
    works = {"ours": lambda: ours_packed(x), "eager": lambda: eager_packed(x)}
    table.row("packed float32, forward", works, {"eager": 0.75})
    pair = [torch.randn(2048, 11008, requires_grad=True) for _ in range(2)]
    c = torch.randn(2048, 11008)
    works = {
        "ours": gradient(G.gated_unit, pair, c),
        "eager": gradient(lambda gate, value: silu(gate) * value, pair, c),
    }
    table.row("pair float32, forward and backward", works, {"eager": 0.85})


def small(table: Table) -> None:
    """1 x 4096"""
    pair = [torch.randn(1, 4096, requires_grad=True) for _ in range(2)]
    gate, value = (one.detach() for one in pair)
    works = {"ours": lambda: G.gated_unit(gate, value), "eager": lambda: silu(gate) * value}
    table.row("1 x 4096, forward without grad", works, {"eager": 3.5})
    c = torch.randn(1, 4096)
    works = {
        "ours": gradient(G.gated_unit, pair, c),
        "eager": gradient(lambda gate, value: silu(gate) * value, pair, c),
    }
    table.row("1 x 4096, forward and backward", works, {"eager": 3.0})


def ffn(table: Table) -> None:
    """512 x 576 x 1536"""
    ours = GatedFFN(576, 1536)
    x, c = torch.randn(512, 576, requires_grad=True), torch.randn(512, 576)
    inputs = [x, *ours.parameters()]

    def llama(x: Tensor) -> Tensor:
        return ours.down_proj(silu(ours.gate_proj(x)) * ours.up_proj(x))

    def work(block: Callable[[Tensor], Tensor]) -> Work:
        return lambda: torch.autograd.grad(block(x), inputs, c)

    table.row("GatedFFN 512 x 576 x 1536", {"ours": work(ours), "eager": work(llama)}, {"eager": 1.02})


def sizes(table: Table) -> None:
    """The whole curve, packed float32"""
    for rows, width in [
        *((1, 512), (1, 4096), (1, 14336), (4, 11008), (16, 4096), (16, 11008), (64, 4096), (64, 11008)),
        *((256, 4096), (256, 11008), (1024, 4096), (1024, 14336), (4096, 11008), (8192, 14336)),
    ]:
        x, c = torch.randn(rows, 2 * width, requires_grad=True), torch.randn(rows, width)
        works = {"ours": gradient(ours_packed, [x], c), "eager": gradient(eager_packed, [x], c)}
        table.row(f"packed {rows} x {width}, forward and backward", works, {"eager": 1.7})


def outliers(table: Table) -> None:
    """One number in 40,000 that plain arithmetic does not serve: its whole block takes more. No bound was set."""
    for gate in (-100.0, -math.inf):
        x, c = torch.randn(256, 2 * 11008), torch.randn(256, 11008)
        places = torch.arange(0, c.numel(), 40_000)
        x[places // 11008, places % 11008] = gate
        x.requires_grad_()
        works = {"ours": gradient(ours_packed, [x], c), "eager": gradient(eager_packed, [x], c)}
        table.row(f"packed 256 x 11008, some {gate:g}", works, {"eager": math.inf})


ROWS = {"large": large, "small": small, "ffn": ffn, "sizes": sizes, "outliers": outliers}


def main() -> int:
    """The command"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each row, about")
    parser.add_argument("--rows", default=",".join(ROWS), help="which, separated by commas")
    arguments = parser.parse_args()
    chosen = arguments.rows.split(",")
    unknown = [name for name in chosen if name not in ROWS]
    if unknown:
        parser.error(f"--rows must be among {', '.join(ROWS)}, got {', '.join(unknown)}")
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {arguments.threads} threads, "
        f"{arguments.clock} time, load {os.getloadavg()[0]:.1f}"
    )
    table = Table(CLOCKS[arguments.clock], arguments.seconds)
    for name in chosen:
        ROWS[name](table)
    print(f"load {os.getloadavg()[0]:.1f}; {table.failed} past their bound")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
