"""timm's gated MLPs. The package itself imports torchvision, which these files do not need: they are imported alone."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

__all__ = ["glu", "swiglu", "swiglu_packed"]


def _alone(module: str) -> Any:
    """A module of timm.layers, without the ``__init__`` of its packages."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("timm is not installed: pip install timm")
    root = Path(spec.origin).parent
    for name, folder in (("timm", root), ("timm.layers", root / "layers")):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules.setdefault(name, package)
    return importlib.import_module(f"timm.layers.{module}")


_MLP = _alone("mlp")


def _between(block: Any) -> Any:
    """A block whose projections are identities."""
    block.fc1, block.fc2 = nn.Identity(), nn.Identity()
    return block.eval()


glu = _between(_MLP.GluMlp(8))
swiglu_packed = _between(_MLP.SwiGLUPacked(8))
swiglu = _MLP.SwiGLU(8, 16, bias=False).eval()
