"""The accuracy contract: what error each backend may have, in ulp (design, section 4).

========================================== ========= =====================
quantity                                   numpy_ref torch_impl, jax_impl
========================================== ========= =====================
float16, bfloat16: values and gradients    0.51      0.51
float32: values / gradients                0.51/0.51 5 / 8
float64: values / gradients                4 / 6     5 / 8
float64: gelu, values and gradients        8         5 / 8
where the exponential's argument must be   none      + 4 cond
rounded, in float32 and float64
========================================== ========= =====================

These are ceilings: a later version may lower one, never raise it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.closed_forms import activation_condition

__all__ = ["ceiling", "elementwise_bound"]

_REFERENCE: Final = {
    "float16": (0.51, 0.51),
    "bfloat16": (0.51, 0.51),
    "float32": (0.51, 0.51),
    "float64": (4.0, 6.0),
}
_FRAMEWORKS: Final = {
    "float16": (0.51, 0.51),
    "bfloat16": (0.51, 0.51),
    "float32": (5.0, 8.0),
    "float64": (5.0, 8.0),
}


def ceiling(backend: str, dtype: str, *, gradient: bool, activation: str) -> float:
    """The contract's bound in ulp, before the allowance for a rounded argument."""
    if backend == "numpy":
        if dtype == "float64" and activation in ("gelu", "gelu_tanh"):
            return 8.0
        return _REFERENCE[dtype][gradient]
    return _FRAMEWORKS[dtype][gradient]


def elementwise_bound(
    backend: str,
    dtype: str,
    *,
    activation: str,
    partial: str,
    gate: NDArray[np.float64],
    beta: Any,
    gradient: bool,
) -> NDArray[np.float64]:
    """The bound for each element of a value or gradient of an activation or unit.

    Args:
        partial: which partial of the activation the quantity has as its factor: ``"value"``, ``"x"`` or ``"beta"``. The
            cotangent of a unit's value has ``"value"`` and is a gradient.
    """
    base = ceiling(backend, dtype, gradient=gradient, activation=activation)
    bound: NDArray[np.float64] = np.full(np.shape(gate), base)
    if backend == "numpy" or dtype in ("float16", "bfloat16"):
        return bound
    with np.errstate(all="ignore"):
        condition = np.broadcast_to(activation_condition(activation, partial, gate, beta), bound.shape)
        # Past 2^60 ulp a bound allows everything that is of the right class.
        bound += 4 * np.where(np.isfinite(condition), np.minimum(condition, 2.0**60), 0.0)
    return bound
