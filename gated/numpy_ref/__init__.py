"""The definition: every function of the contract in NumPy, values and derivatives by closed form.

Read it to learn what a gated activation is; port from it; hold other implementations against it. It is exact before it
is fast: float16, bfloat16 and float32 are worked in float64 and rounded once.
"""

from gated.numpy_ref.activations import gelu, relu, sigmoid, silu, swish
from gated.numpy_ref.derivatives import jvp, vjp
from gated.numpy_ref.projections import gated_ffn, gated_linear, glu_linear, swiglu_linear
from gated.numpy_ref.units import bilinear, clamped_swiglu, gated_unit, geglu, glu, reglu, swiglu

__all__ = [
    "bilinear",
    "clamped_swiglu",
    "gated_ffn",
    "gated_linear",
    "gated_unit",
    "geglu",
    "gelu",
    "glu",
    "glu_linear",
    "jvp",
    "reglu",
    "relu",
    "sigmoid",
    "silu",
    "swiglu",
    "swiglu_linear",
    "swish",
    "vjp",
]
