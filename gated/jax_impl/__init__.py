"""The gated activations in JAX: pure functions with closed-form rules for every transformation.

    import gated.jax_impl as G

The functions work under jit, grad, jvp, vmap, scan and their compositions of any order, and an activation or a unit
keeps its inputs alone for the backward pass. Modules for Flax are in :mod:`gated.jax_impl.nnx` and
:mod:`gated.jax_impl.linen`.
"""

from gated.contract import missing_framework

try:
    import jax  # noqa: F401 - the first import to fail, with a text that says what to install
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ModuleNotFoundError(missing_framework("gated.jax_impl", "jax", "jax"), name="jax") from error

from gated.jax_impl.activations import gelu, relu, sigmoid, silu, swish
from gated.jax_impl.derivatives import jvp, vjp
from gated.jax_impl.projections import gated_ffn, gated_linear, glu_linear, swiglu_linear
from gated.jax_impl.units import bilinear, clamped_swiglu, gated_unit, geglu, glu, reglu, swiglu

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
