"""Checkpoints on disk: read and converted an array at a time, so that none has to fit in memory.

:func:`open_checkpoint` gives the arrays of a file by key; :func:`plan_conversion` finds a family's blocks in it, and
:func:`write_conversion` writes them as another family's, with the other arrays as they are.
"""

from gated.interop.checkpoints.checkpoint import Checkpoint, Spec
from gated.interop.checkpoints.converting import write_conversion
from gated.interop.checkpoints.opening import open_checkpoint
from gated.interop.checkpoints.planning import Plan, plan_conversion

__all__ = ["Checkpoint", "Plan", "Spec", "open_checkpoint", "plan_conversion", "write_conversion"]
