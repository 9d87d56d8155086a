"""Liger's SwiGLU, through Triton's interpreter: `TRITON_INTERPRET=1` is set before it is imported."""

from __future__ import annotations

from typing import Any

from liger_kernel.ops import swiglu as _ops

__all__ = ["silu_mul"]


class _Scalar(float):
    """A float as a compiled kernel sees it: one with ``.to``. The interpreter hands kernels Python's own."""

    def to(self, dtype: Any) -> float:
        return float(self)


# The name that the module's own `float(gate_multiplier)` looks up first.
_ops.float = _Scalar

silu_mul = _ops.LigerSiLUMulFunction
