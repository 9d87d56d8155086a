"""The gated activations in PyTorch: differentiable in every mode and order, on every device.

The modules are in :mod:`gated.torch_impl.nn`.
"""

from gated import contract as _contract

try:
    import torch as _torch  # noqa: F401 - only asked for
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(_contract.missing_framework(__name__, "torch", "torch"), name="torch") from error

from .activations import gelu, relu, sigmoid, silu, swish
from .derivatives import jvp, vjp
from .projections import gated_ffn, gated_linear, glu_linear, swiglu_linear
from .units import bilinear, clamped_swiglu, gated_unit, geglu, glu, reglu, swiglu

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
