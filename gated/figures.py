"""The pictures: GLU, Swish, SwiGLU, and every activation beside its derivative, drawn from a backend's own numbers.

matplotlib's ``Figure`` is used directly: nothing here opens a window, or leaves a setting of matplotlib changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.backends import Adapter, load
from gated.contract import BACKENDS, missing_framework

try:
    import matplotlib
except ModuleNotFoundError as error:
    if error.name != "matplotlib":
        raise
    raise ModuleNotFoundError(missing_framework("gated.figures", "matplotlib", "cli"), name="matplotlib") from error

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw"]

Curve = NDArray[np.float64]

# Okabe and Ito's palette, told apart by colour-blind readers; the line styles tell the curves apart in grey.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"

# matplotlib's own type of a setting's name, a union of literals, differs between its versions.
SETTINGS: Final[Mapping[Any, Any]] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlepad": 10,
    "axes.titlesize": 13,
    "figure.dpi": 100,
    "font.size": 11,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.framealpha": 1.0,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "mathtext.fontset": "dejavusans",
    "savefig.dpi": 160,
    # The ids in an SVG are random unless they are salted.
    "svg.hashsalt": "gated",
}

# The date of drawing is no part of a figure: the same numbers give the same bytes.
METADATA: Final[Mapping[str, Mapping[str, Any]]] = {"png": {"Software": None}, "svg": {"Date": None}}


class Curves:
    """The functions of a backend and their derivatives on float64 points, computed through its adapter."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def value(self, function: str, x: Curve, *numbers: float, **static: Any) -> Curve:
        """``function`` at ``x``, on NumPy arrays."""
        return self.value_and_slope(function, x, *numbers, **static)[0]

    def value_and_slope(self, function: str, x: Curve, *numbers: float, **static: Any) -> tuple[Curve, Curve]:
        """An elementwise ``function`` and its derivative in ``x``: the pullback of ones."""
        cotangent = np.ones(x.size // 2 if "layout" in static else x.size)
        value, cotangents = self._adapter.value_and_cotangents(function, (x, *numbers), cotangent, static)
        return value, cotangents[0]

    def unit(self, function: str, x: Curve) -> Curve:
        """A unit whose gate and value are both ``x``."""
        return self.value(function, np.concatenate([x, x]), layout="gate_last")


def draw(backend: str, out: Path) -> list[Path]:
    """Draw the four figures with the numbers of a backend, each as PNG and as SVG.

    ``glu`` and ``swiglu`` show the unit with gate and value equal over [-3, 3]; ``swish`` three values of beta;
    ``derivatives`` every activation beside its derivative. The same versions give the same bytes.

    Args:
        backend: ``"numpy"``, ``"torch"`` or ``"jax"``.
        out: the folder, made if it is not there; files of the same names are replaced.

    Returns:
        The files written: ``glu.png``, ``glu.svg``, ``swish.png`` and so on.

    Raises:
        ValueError: ``backend`` is none of the three.
        ModuleNotFoundError: its framework is not installed.
    """
    if backend not in BACKENDS:
        *others, last = (f'"{name}"' for name in BACKENDS)
        raise ValueError(f"draw: backend must be {', '.join(others)} or {last}, got {backend!r}")
    curves = Curves(load(backend))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        for name, draw_one in FIGURES.items():
            figure = Figure(layout="constrained")
            FigureCanvasAgg(figure)
            draw_one(figure, curves)
            for suffix, metadata in METADATA.items():
                path = out / f"{name}.{suffix}"
                figure.savefig(path, metadata=dict(metadata))
                written.append(path)
    return written


def glu(figure: Figure, curves: Curves) -> None:
    """GLU of x with itself, and its two factors."""
    x = np.linspace(-3, 3, 601)
    axes = single(figure, r"$\mathrm{GLU}(x, x) = \sigma(x) \cdot x$")
    axes.plot(x, x, color=GREY, linestyle=":", label=r"value: $x$")
    axes.plot(x, curves.value("sigmoid", x), color=VERMILION, linestyle="--", label=r"$\sigma$(gate): $\sigma(x)$")
    axes.plot(x, curves.unit("glu", x), color=BLUE, label=r"GLU: $\sigma(x) \cdot x$")
    axes.set(xlim=(-3, 3), ylim=(-1, 3), ylabel="GLU and its factors")
    axes.legend(loc="upper left")


def swish(figure: Figure, curves: Curves) -> None:
    """Swish between x / 2 and relu."""
    x = np.linspace(-5, 5, 1001)
    axes = single(figure, r"$\mathrm{swish}_\beta(x) = x \, \sigma(\beta x)$")
    for beta, color, style in ((0.1, GREEN, ":"), (1.0, BLUE, "-"), (10.0, VERMILION, "--")):
        axes.plot(x, curves.value("swish", x, beta), color=color, linestyle=style, label=rf"$\beta = {beta:g}$")
    axes.set(xlim=(-5, 5), ylim=(-2.2, 5), ylabel=r"$\mathrm{swish}_\beta(x)$")
    axes.legend(loc="upper left")


def swiglu(figure: Figure, curves: Curves) -> None:
    """SwiGLU of x with itself, and its two factors."""
    x = np.linspace(-3, 3, 601)
    axes = single(figure, r"$\mathrm{SwiGLU}(x, x) = \mathrm{swish}_1(x) \cdot x = x^2 \, \sigma(x)$")
    axes.plot(x, x, color=GREY, linestyle=":", label=r"value: $x$")
    factor = r"$\mathrm{swish}_1$(gate): $\mathrm{swish}_1(x)$"
    axes.plot(x, curves.value("swish", x, 1.0), color=VERMILION, linestyle="--", label=factor)
    axes.plot(x, curves.unit("swiglu", x), color=BLUE, label=r"SwiGLU: $\mathrm{swish}_1(x) \cdot x$")
    axes.set(xlim=(-3, 3), ylim=(-3, 9), ylabel="SwiGLU and its factors")
    axes.legend(loc="upper left")


def derivatives(figure: Figure, curves: Curves) -> None:
    """Each activation beside its derivative."""
    x = np.linspace(-4, 4, 801)
    panels: tuple[tuple[str, str, dict[str, Any]], ...] = (
        (r"$\sigma(x) = 1 / (1 + e^{-x})$", "sigmoid", {}),
        (r"$\mathrm{swish}_1(x) = x \, \sigma(x)$", "swish", {"beta": 1.0}),
        (r"$\mathrm{relu}(x) = \max(x, 0)$", "relu", {}),
        (r"$\mathrm{gelu}(x) = x \, \Phi(x)$", "gelu", {"approximate": "none"}),
        (r"$\mathrm{gelu}_{\mathrm{tanh}}(x) = x \, \sigma(w(x))$", "gelu", {"approximate": "tanh"}),
    )
    figure.set_size_inches(10.5, 6.4)
    grid = figure.subplots(2, 3)
    *used, last = grid.flat
    for axes, (title, function, static) in zip(used, panels, strict=True):
        value, slope = curves.value_and_slope(function, x, **static)
        # relu's derivative jumps at 0: no line is drawn through the jump.
        slope = np.where(np.abs(np.diff(slope, prepend=slope[0])) > 0.5, np.nan, slope)
        (value_line,) = axes.plot(x, value, color=BLUE)
        (slope_line,) = axes.plot(x, slope, color=VERMILION, linestyle="--")
        axes.set(title=title, xlim=(-4, 4), ylim=(-0.1, 1.1) if function == "sigmoid" else (-0.5, 4.1))
        label(axes)
    last.axis("off")
    last.legend([value_line, slope_line], ["activation", "its derivative"], loc="center", fontsize=13)
    last.text(0.5, 0.22, r"$w(x) = 2 \sqrt{2 / \pi} \, (x + 0.044715 \, x^3)$", ha="center", transform=last.transAxes)


def single(figure: Figure, title: str) -> Axes:
    """The one axes of a figure."""
    figure.set_size_inches(6.4, 4.4)
    axes = figure.subplots()
    axes.set_title(title)
    label(axes)
    return axes


def label(axes: Axes) -> None:
    """The name of the abscissa, and the two lines through the origin."""
    axes.set_xlabel("$x$")
    for line in (axes.axhline, axes.axvline):
        # Over the grid, which matplotlib draws at 1.5, and under the curves, at 2.
        line(0, color="#9C9C9C", linewidth=1, zorder=1.6)


FIGURES: Final[Mapping[str, Callable[[Figure, Curves], None]]] = {
    "glu": glu,
    "swish": swish,
    "swiglu": swiglu,
    "derivatives": derivatives,
}
"""Every figure by the name of its file."""
