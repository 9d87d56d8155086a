"""Pictures of a sweep: the largest error against x, each eighth of a binade a step, value beside derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gated.conformance.bounds import ceiling
from gated.conformance.sweeps.journal import Result
from gated.figures import BLUE, GREEN, METADATA, SETTINGS, VERMILION

__all__ = ["draw"]

_COLORS: Final[Mapping[str, str]] = {"numpy": GREEN, "torch": VERMILION, "jax": BLUE}
_REACH: Final = 256.0
"""Farther out nothing happens: the errors are those of the limits."""
_LINEAR: Final = 2.0**-8


def draw(results: Sequence[Result], path: Path) -> None:
    """Draws one float32 sweep of some backends to a PNG file."""
    sweep = results[0].sweep
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(10.5, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(sweep.quantities))
        for axes, quantity in zip(np.ravel(panels), sweep.quantities, strict=True):
            for result in results:
                if result.header.backend not in _COLORS:
                    continue
                x, errors = _steps(result.curves[quantity])
                name = result.header.backend
                axes.step(x, errors, where="mid", color=_COLORS[name], linewidth=1.2, label=name)
            _label(axes, sweep.name, quantity, max(max(result.curves[quantity]) for result in results))
            for bound in {_bound(result, quantity) for result in results}:
                axes.axhline(bound, color="#767676", linewidth=0.8, linestyle=":")
        figure.legend(*np.ravel(panels)[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        figure.savefig(path, format="png", metadata=dict(METADATA["png"]))


def _bound(result: Result, quantity: str) -> float:
    sweep = result.sweep
    return ceiling(result.header.backend, sweep.dtype, gradient=quantity != "value", activation=sweep.activation)


def _label(axes: Axes, sweep: str, quantity: str, largest: float) -> None:
    title = sweep.removesuffix("-float32")
    axes.set_title(title if quantity == "value" else f"{title}, derivative")
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.4)
    axes.set_xlim(-_REACH, _REACH)
    axes.set_xticks(
        [-100, -10, -1, -0.1, 0, 0.1, 1, 10, 100], labels=["-100", "-10", "-1", "-.1", "0", ".1", "1", "10", "100"]
    )
    axes.minorticks_off()
    if largest > 20:
        axes.set_yscale("log")
        axes.set_ylim(0.2, 2 * largest)
    else:
        axes.set_ylim(0, 1.1 * max(largest, 1.0))
    axes.set_xlabel("$x$")
    axes.set_ylabel("largest error, ulp")


def _steps(curve: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """The middle of each step and its error, in the order of x, finite numbers only."""
    errors = np.array(curve)
    patterns = (np.arange(len(errors), dtype=np.uint64) * np.uint64(2**32 // len(errors))).astype(np.uint32)
    with np.errstate(invalid="ignore"):  # signalling nans
        middles = (patterns + np.uint32(2**31 // len(errors))).view(np.float32).astype(np.float64)
    order = np.argsort(middles)
    order = order[np.isfinite(middles[order])]
    return middles[order], errors[order]
