"""What stands in the collection, and how a target of it is named to `gated check`.

`file.py:attribute` is of this folder, `kernels_wrong:symbol` of C source that is compiled when it is needed, and a name
alone an ONNX model that is built when it is needed; `package.module:attribute` is what it says.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Honest", "Wrong", "text_of"]

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Honest:
    """A sound implementation: it passes the profile of its options."""

    target: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Among the tests: the target, with the framework where it is asked for, the profile and the dtypes."""
        parts = [self.options.get("framework"), self.options["profile"], *self.options["dtypes"]]
        return "-".join([self.target, *filter(None, parts)])


@dataclass(frozen=True)
class Wrong(Honest):
    """An implementation that is not what it claims to be.

    Attributes:
        diagnosis: the id that must be among those of the diagnosis; `""` where no hypothesis has the mistake.
        finding: an id that must be among the findings; `""` where the diagnosis says it all.
        missed: why the diagnosis does not have its id yet; `""` where it has. Of a miss that is none any more the test
            fails, so that the list stays true.
    """

    diagnosis: str = ""
    finding: str = ""
    missed: str = ""


def text_of(target: str, folder: Path) -> str:
    """The target's text for `gated check`; what must be compiled or built is, in the folder."""
    place, _, name = target.partition(":")
    if place.endswith(".py"):
        return f"{HERE / place}:{name}"
    if place.startswith("kernels"):
        return f"{_library(place, folder)}:{name}"
    if name:
        return target
    from onnx_models import save

    return str(save(target, folder))


def _library(source: str, folder: Path) -> Path:
    """The shared library of `source.c`, compiled once a folder."""
    library = folder / f"{source}.so"
    if not library.exists():
        compiler = shutil.which("cc")
        assert compiler is not None, "the kernels in C need a C compiler (cc)"
        flags = ["-O2", "-shared", "-fPIC"]
        part = library.with_suffix(".part")
        subprocess.run([compiler, *flags, "-o", part, HERE / f"{source}.c", "-lm"], check=True, timeout=60)
        part.rename(library)
    return library
