"""Triton kernels of the gated forms, for CUDA and ROCm tensors.

They are chosen by themselves, in eager mode: compilers, tracers and transforms get plain operations. Triton is imported
when the first tensor on such a device comes.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import Final

import torch
from torch import Tensor, nn

from .._arrays import Factor
from .._forms import IN_VALUE, IN_X, Form
from .._plain import is_watched

__all__ = ["OLDEST", "evaluate", "pullback", "serve", "status"]

OLDEST: Final = (3, 4)
"""The oldest Triton that is used, which torch 2.8 brings: before it, constants cannot be tuples, as polynomials are."""

_CAPABILITY: Final = (8, 0)
"""The oldest NVIDIA GPUs that Triton supports, and the first with bfloat16."""
_DEVICE: Final = "cuda"
"""torch's name for CUDA and ROCm devices."""
_TENSORS: Final = (Tensor, nn.Parameter)


@functools.cache
def _triton() -> tuple[str, str | None]:
    """The version of Triton, and why it is not used, None if it is."""
    if importlib.util.find_spec("triton") is None:
        return "", "triton is not installed"
    try:
        import triton

        version = str(triton.__version__)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        return "", f"triton cannot be imported: {error}"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        return version, f"triton is too old: {version} < {OLDEST[0]}.{OLDEST[1]}"
    return version, None


def status() -> str:
    """Whether the kernels are used, and why not, in words: what ``gated info`` says.

    >>> print(status())  # doctest: +SKIP
    used on CUDA and ROCm tensors (triton 3.9.0)
    """
    version, reason = _triton()
    if reason:
        return f"not used: {reason}"
    failures = "".join(f"; not on {device}: {failure}" for device, failure in _failures.items() if failure)
    return f"used on CUDA and ROCm tensors (triton {version}){failures}"


_failures: Final[dict[torch.device, str | None]] = {}
"""Of each device that was asked about, why the kernels do not run on it; None if they do."""


def _try_on(device: torch.device) -> None:
    """Computes swish of a pair, forward and backward, in float32: kernels with all that the others are made of."""
    x = torch.zeros(16, dtype=torch.float32, device=device)
    form = Form("swish")
    evaluate(form, x, x, 1.0)
    pullback(form, IN_X + IN_VALUE, x, x, x, 1.0)


def _is_for_want_of_memory(error: Exception) -> bool:
    """Whether that was the reason: Triton and drivers raise a RuntimeError then, with these words."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _fails_on(device: torch.device) -> str | None:
    """Why the kernels do not run on a device: it is too old, or those that are tried do not compile or run.

    Triton needs a C compiler besides itself, and may not know a new device: then plain operations serve.

    Raises:
        MemoryError: there is too little memory at the moment, which says nothing about the kernels.
    """
    if device.type == "cuda" and torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) < _CAPABILITY:
            return f"compute capability {major}.{minor} < {_CAPABILITY[0]}.{_CAPABILITY[1]}"
    try:
        _try_on(device)
    except Exception as error:  # whatever compilers and drivers raise
        if _is_for_want_of_memory(error):
            raise MemoryError(str(error)) from error
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _runs_on(device: torch.device) -> bool:
    """Whether the kernels run on a device. Where memory is too short to try it, they do not this time."""
    if device not in _failures:
        try:
            _failures[device] = _fails_on(device)
        except MemoryError:
            return False
    return _failures[device] is None


def serve(*operands: object) -> bool:
    """Whether the kernels compute with the operands: ordinary tensors of one such device (or no tensors), outside
    compilers, tracers and transforms."""
    devices = set()
    for operand in operands:
        if isinstance(operand, Tensor):
            if type(operand) not in _TENSORS or operand.device.type != _DEVICE:
                return False
            devices.add(operand.device)
    return len(devices) == 1 and not is_watched() and _triton()[1] is None and _runs_on(*devices)


def evaluate(form: Form, x: Tensor, value: Tensor | None, beta: Factor) -> Tensor:
    """P"""
    from . import _launches

    return _launches.evaluate(form, x, value, beta)


def pullback(
    form: Form, wanted: str, cotangent: Tensor, x: Tensor, value: Tensor | None, beta: Factor
) -> tuple[Tensor, ...]:
    """The cotangent times the derivatives of P that are ``wanted``, in the order x, value, beta; each in the dtype and
    the shape of its argument."""
    from . import _launches

    return _launches.pullback(form, wanted, cotangent, x, value, beta)
