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

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.closed_forms import activation_condition
from gated.conformance.error import FORMATS, Format, ulp_exponent

__all__ = ["ceiling", "elementwise_bound", "reduction_bound"]

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
        condition = activation_condition(activation, partial, gate, beta, farthest=_farthest(FORMATS[dtype]))
        bound += 4 * np.where(np.isfinite(condition), condition, 0.0)
    return bound


def _farthest(form: Format) -> float:
    """e^-t is lost beyond: times three numbers of the format (a value, x^2) and a cotangent of 2^16 it is zero."""
    bits = (form.precision - form.lowest) + 3 * (form.highest + 1) + 16
    return bits * math.log(2)


def reduction_bound(
    backend: str,
    dtype: str,
    scale: NDArray[np.float64],
    *,
    activation: str,
    gate: NDArray[np.float64],
    beta: Any,
    exact: float,
) -> NDArray[np.float64]:
    """The bound on the absolute error of the cotangent of a number beta: a sum over all elements.

    Each term may be off by its own bound in the dtype that is computed in; the n additions, in any order, by n u times
    the sum of the magnitudes; the rounding to a narrower dtype by half an ulp.

    Args:
        scale: the magnitudes of the terms.
        exact: the sum.
    """
    narrow = FORMATS[dtype]
    wide = FORMATS["float64" if backend == "numpy" or dtype == "float64" else "float32"]
    ulps = elementwise_bound(
        backend, wide.name, activation=activation, partial="beta", gate=gate, beta=beta, gradient=True
    )
    terms = np.ldexp(ulps, ulp_exponent(scale, wide))
    absolute: NDArray[np.float64] = np.sum(terms) + scale.size * wide.unit_roundoff * np.sum(scale + terms)
    if narrow == wide:
        return absolute
    return absolute + 0.5 * np.ldexp(1.0, ulp_exponent(np.abs(exact) + absolute, narrow))
