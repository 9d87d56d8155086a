"""What the tests of adapters and of the child process share: targets, claims, exact products of small integers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from gated.conformance.adapters import FRAMEWORKS, Adapter, is_installed, load
from gated.conformance.adapters.base import Function
from gated.conformance.error import FORMATS
from gated.conformance.grading import target as targets
from gated.conformance.grading.claim import Claim

Array = NDArray[Any]

TARGETS = Path(__file__).parent / "_check_targets"
UNARY = Claim.of("silu")
PAIR = Claim.of("bilinear", form="pair")


def needs(framework: str) -> None:
    """Skips the test where the packages of a framework are not installed."""
    if not is_installed(framework):
        pytest.skip(f"{framework} needs {' and '.join(FRAMEWORKS[framework].packages)}")


def loaded(framework: str, target: Any, claim: Claim = PAIR, **options: Any) -> Adapter:
    """The adapter of a framework with a target: a name in one of the files, or the target itself."""
    needs(framework)
    adapter = load(framework)
    adapter.load(targets.load(str(TARGETS / target)) if isinstance(target, str) else target, claim, **options)
    return adapter


def compiled(folder: Path) -> Path:
    """The shared library of functions.c."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler cc")
    library = folder / "libfunctions.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(TARGETS / "functions.c")]
    subprocess.run(command, check=True, timeout=60)
    return library


def integers(dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Integers of magnitude 1 to 3: products of three and their sums of a few are exact in every dtype."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 4, shape) * rng.choice([-1, 1], shape)).astype(FORMATS[dtype].dtype)


def pair_of(dtype: str = "float32", shape: tuple[int, ...] = (4, 6)) -> tuple[Array, Array, Array, Array, Array]:
    """gate, value, dy, and a direction of each argument."""
    gate, value, dy, d_gate, d_value = (integers(dtype, shape, seed) for seed in range(5))
    return gate, value, dy, d_gate, d_value


def same_bits(a: Array | None, b: Array) -> bool:
    """Whether both have the same dtype, shape and bits."""
    return a is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def onnx_models(folder: Path) -> Callable[..., Path]:
    """Writes models: ``write(name, nodes, inputs, outputs, dtype, opset)``."""
    onnx = pytest.importorskip("onnx")

    def write(
        name: str,
        nodes: list[tuple[str, list[str], list[str], dict[str, Any]]],
        inputs: dict[str, list[Any]],
        outputs: dict[str, list[Any]],
        dtype: str = "float32",
        opset: int = 21,
    ) -> Path:
        elem = getattr(onnx.TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper()))
        make = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node(kind, of, to, **attributes) for kind, of, to, attributes in nodes],
            "graph",
            [make(one, elem, shape) for one, shape in inputs.items()],
            [make(one, elem, shape) for one, shape in outputs.items()],
        )
        imports = [onnx.helper.make_opsetid("", opset)]
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10 if opset < 24 else 11)
        onnx.save(model, str(folder / name))
        return folder / name

    return write


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

__all__ = [
    "BFLOAT16",
    "PAIR",
    "TARGETS",
    "UNARY",
    "Array",
    "Function",
    "compiled",
    "integers",
    "loaded",
    "needs",
    "onnx_models",
    "pair_of",
    "same_bits",
]
