"""The figures: drawn with each backend's own numbers, the same bytes every time, and nothing else changed."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib
import numpy as np
import pytest
from _calls import INSTALLED
from matplotlib.figure import Figure

import gated.numpy_ref as reference
from gated import figures
from gated.conformance.backends import Adapter, load

NAMES = ["glu", "swish", "swiglu", "derivatives"]
FILES = [f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")]


class Once:
    """An adapter that computes each thing once: every call of JAX compiles."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter, self._done = adapter, {}

    def value_and_cotangents(self, function: str, primals: Any, cotangent: Any, static: Any) -> Any:
        key = (function, *(np.asarray(one).tobytes() for one in primals), *static.items())
        if key not in self._done:
            self._done[key] = self._adapter.value_and_cotangents(function, primals, cotangent, static)
        return self._done[key]


@pytest.fixture(scope="module", params=INSTALLED)
def adapter(request: pytest.FixtureRequest) -> Any:
    return Once(load(request.param))


@pytest.fixture(scope="module")
def curves(adapter: Any) -> figures.Curves:
    return figures.Curves(adapter)


@pytest.fixture(scope="module")
def drawn(adapter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the figures of a backend."""
    out = tmp_path_factory.mktemp("figures") / "made" / "here"
    with mock.patch.object(figures, "load", lambda name: adapter):
        assert figures.draw("numpy", out) == [out / name for name in FILES]
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The figures of NumPy, as bytes."""
    return [path.read_bytes() for path in figures.draw("numpy", tmp_path_factory.mktemp("plain"))]


def test_eight_files_are_written_and_no_other(drawn: Path) -> None:
    assert sorted(path.name for path in drawn.iterdir()) == sorted(FILES)


def test_the_pictures_open_and_have_a_legible_size(drawn: Path) -> None:
    for name in NAMES:
        data = (drawn / f"{name}.png").read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert min(width, height) >= 600
        svg = ElementTree.parse(drawn / f"{name}.svg").getroot()
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"


def test_no_date_is_written(drawn: Path) -> None:
    for path in drawn.iterdir():
        assert not re.search(rb"dc:date|\d{4}-\d\d-\d\dT|tIME|Creation Time", path.read_bytes())


def test_a_fresh_interpreter_draws_the_same_bytes_in_silence_without_pyplot(plain: list[bytes], tmp_path: Path) -> None:
    """pyplot would choose a window system for the whole process."""
    code = """
        import pathlib, sys
        from gated.figures import draw
        draw("numpy", pathlib.Path(sys.argv[1]))
        sys.exit("matplotlib.pyplot" in sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=100)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert [(tmp_path / name).read_bytes() for name in FILES] == plain


def test_matplotlib_s_own_settings_are_neither_used_nor_changed(plain: list[bytes], tmp_path: Path) -> None:
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30.0, "xtick.direction": "in"}):
        before = dict(matplotlib.rcParams)
        assert [path.read_bytes() for path in figures.draw("numpy", tmp_path)] == plain
        assert dict(matplotlib.rcParams) == before


def lines(name: str, curves: figures.Curves) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """The curves of a figure, axes by axes: abscissas and ordinates."""
    figure = Figure()
    figures.FIGURES[name](figure, curves)
    # A line of two points is an axis through the origin.
    curves_of = [[line for line in axes.lines if np.size(line.get_xdata()) > 2] for axes in figure.axes]
    return [[(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in each] for each in curves_of]


# A picture of 10^4 pixels a side shows 1e-4 of its range: 1e-9 is invisible, and far above the backends' differences.
INVISIBLE = 1e-9


def test_the_units_are_drawn_over_minus_3_to_3_with_equal_halves(curves: figures.Curves) -> None:
    for name, factor in (("glu", reference.sigmoid), ("swiglu", reference.silu)):
        ((value, gate, unit),) = lines(name, curves)
        for x, _ in (value, gate, unit):
            assert (x[0], x[-1]) == (-3, 3)
        x = unit[0]
        np.testing.assert_allclose(value[1], x)
        np.testing.assert_allclose(gate[1], factor(x), atol=INVISIBLE)
        np.testing.assert_allclose(unit[1], factor(x) * x, atol=INVISIBLE)


def test_swish_is_drawn_for_three_betas(curves: figures.Curves) -> None:
    (found,) = lines("swish", curves)
    for (x, y), beta in zip(found, (0.1, 1.0, 10.0), strict=True):
        np.testing.assert_allclose(y, reference.swish(x, beta), atol=INVISIBLE)


def test_every_activation_is_drawn_beside_its_derivative(curves: figures.Curves) -> None:
    *panels, legend = lines("derivatives", curves)
    assert legend == []
    expected = (
        reference.sigmoid,
        reference.swish,
        reference.relu,
        reference.gelu,
        lambda x: reference.gelu(x, approximate="tanh"),
    )
    for ((x, value), (_, slope)), function in zip(panels, expected, strict=True):
        np.testing.assert_allclose(value, function(x), atol=INVISIBLE)
        # The slope is that of the drawn curve: central differences on its own points, wrong by h^2 |f'''| / 6, and at
        # relu's corner, which is left out, by the jump.
        h = x[1] - x[0]
        smooth = (np.abs(x) > 2 * h)[1:-1] | (function is not reference.relu)
        difference = (value[2:] - value[:-2]) / (2 * h)
        np.testing.assert_allclose(slope[1:-1][smooth], difference[smooth], atol=h * h)


def test_only_relu_s_slope_has_a_gap_and_that_at_its_jump(curves: figures.Curves) -> None:
    for number, panel in enumerate(lines("derivatives", curves)[:-1]):
        (x, _), (_, slope) = panel
        gaps = x[np.isnan(slope)]
        assert len(gaps) == (number == 2)
        assert np.all(np.abs(gaps) <= 2 * (x[1] - x[0]))


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'^draw: backend must be "numpy", "torch" or "jax", got \'tensorflow\'$'):
        figures.draw("tensorflow", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_framework_is_named(tmp_path: Path) -> None:
    with (
        mock.patch("gated.conformance.backends.is_installed", lambda name: name not in ("torch",)),
        pytest.raises(ModuleNotFoundError, match=r"^gated\.torch_impl needs the package torch, .*gated\[torch\]"),
    ):
        figures.draw("torch", tmp_path / "out")
    assert not (tmp_path / "out").exists()
