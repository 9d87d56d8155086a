"""Minimal programs that show where a neighbour is wrong in a way that its users would feel."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["REPRODUCERS", "Reproducer"]


@dataclass(frozen=True)
class Reproducer:
    """A program in the folder of the results, ``name.py``; what it printed stands beside it, ``name.txt``.

    Attributes:
        package: of the survey's entries.
        name: of its files.
        title, text: for the page.
        needs: the packages that it imports.
        environment: variables that it runs under.
    """

    package: str
    name: str
    title: str
    text: str
    needs: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_installed(self) -> bool:
        """Whether what it imports is there."""
        return all(importlib.util.find_spec(name) for name in self.needs)

    def run(self, program: Path) -> str:
        """What the program prints, in a process of its own.

        Raises:
            subprocess.SubprocessError: it failed, or took more than two minutes.
        """
        command = [sys.executable, "-W", "ignore", str(program)]
        variables = {**os.environ, **self.environment}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout


REPRODUCERS: Final[Sequence[Reproducer]] = (
    Reproducer(
        "torch",
        "torch_silu",
        "The tail and the limits of silu",
        """\
The exponential overflows below -88, where the result is still a normal number. At -inf, and for the derivative at both
infinities, the product of infinity and zero is nan: a masked score of -inf is such an input.""",
        ("torch",),
    ),
    Reproducer(
        "jax",
        "jax_bfloat16",
        "The derivative of silu in bfloat16",
        """\
Each operation of the derivative rounds to bfloat16. Around -1.28, where its terms cancel, little of it is left.""",
        ("jax",),
    ),
    Reproducer(
        "onnxruntime",
        "onnxruntime_swish",
        "Swish-24 below -16",
        """\
From -18 down all is zero, and above it the result is off by a third to more than the result itself.""",
        ("onnx", "onnxruntime"),
    ),
    Reproducer(
        "liger_kernel",
        "liger_swiglu",
        "A second backward pass",
        """\
The backward kernel writes the gradients over the saved inputs. A second pass through the same graph, or an input that
something else has saved, then reads gradients.""",
        ("liger_kernel", "torch", "triton"),
        {"TRITON_INTERPRET": "1"},
    ),
    Reproducer(
        "tinygrad",
        "tinygrad_silu",
        "silu in float16 below -11",
        """\
The exponential is computed in float16, which ends at 65,504: from exp(11.09) on it is infinite.""",
        ("tinygrad",),
    ),
)
