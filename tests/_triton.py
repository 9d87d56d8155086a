"""What the tests of the Triton kernels share: a process in which they are interpreted on CPU tensors, and the grading.

Triton decides whether a kernel is compiled or interpreted when it is defined, so that one process does one of the two.
The functions here are what that process is asked for; they take and return what can be pickled.
"""

from __future__ import annotations

import functools
import importlib
import math
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
import torch

from gated.conformance import inputs
from gated.conformance.backends import load
from gated.conformance.backends.torch import from_torch, to_torch
from gated.conformance.cases import cases
from gated.conformance.elements import Elements, random_cotangents
from gated.conformance.error import FORMATS
from gated.conformance.quantities import Case
from gated.contract import ARRAY_PARAMETERS
from gated.torch_impl import _cpu, _forms, kernels
from gated.torch_impl._forms import IN_BETA, IN_VALUE, IN_X, Form

Tensor = torch.Tensor

ELEMENTWISE = [name for name in ARRAY_PARAMETERS if "linear" not in name and "ffn" not in name]
ACTIVATIONS = ("identity", "sigmoid", "relu", "gelu", "gelu_tanh", "swish")
LIMITS = {"float32": (5.0, 8.0), "float64": (5.0, 8.0), "bfloat16": (0.51, 0.51), "float16": (0.51, 0.51)}
"""Values and gradients in ulp: the contract's, without its allowance for an argument that is rounded."""


# The process


@functools.cache
def _process() -> ProcessPoolExecutor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start)
        process.submit(int).result(timeout=300)
    return process


def interpreted(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in the process that interprets the kernels."""
    return _process().submit(function, *arguments).result(timeout=300)


def _start() -> None:
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    warnings.simplefilter("ignore", RuntimeWarning)
    use_kernels_only("cpu", setattr)


def use_kernels_only(device: str, put: Callable[[Any, str, Any], object]) -> None:
    """Sends tensors of a device to the kernels, and lets no plain operations take their place.

    Args:
        put: ``setattr``, or one that can be undone.
    """
    if device == "cpu":
        put(_cpu, "is_plain", lambda *operands: False)
        put(kernels, "_DEVICE", "cpu")
    put(_forms, "evaluate", _not_here)
    put(_forms, "pullback", _not_here)


def _not_here(*operands: Any) -> Any:
    raise AssertionError("computed in plain operations, not by a kernel")


def run_test(module: str, name: str, *arguments: Any) -> None:
    """A test of another module, on the kernels."""
    getattr(importlib.import_module(module), name)(*arguments)


def dispatched() -> tuple[bool, bool]:
    """Whether the kernels serve plain tensors, and tensors under a transform."""
    x = torch.ones(3)
    seen = []
    torch.func.vmap(lambda one: (seen.append(kernels.serve(one)), one)[1])(x)
    return kernels.serve(x), seen[0]


# Grading


class Grade(NamedTuple):
    """The worst of one quantity of a case."""

    label: str
    quantity: str
    gradient: bool
    error: float
    """In ulp."""
    share: float
    """Of the contract's bound."""
    summed: bool
    """It is a sum over all elements, whose bound is one of its own."""


def _grades(case: Case, dtype: str, value: Any, cotangents: Sequence[Any], *, flush: bool) -> list[Grade]:
    grades = []
    for place, quantity in enumerate(case.quantities):
        result = cotangents[ARRAY_PARAMETERS[case.function].index(quantity.name)] if place else value
        errors = quantity.errors(np.asarray(result), FORMATS[dtype], flush=flush)
        with np.errstate(all="ignore"):
            shares = np.where(errors == 0, 0.0, errors / quantity.bound("torch"))
        summed = quantity.scale is None
        grades.append(Grade(case.label, quantity.name, place > 0, float(errors.max()), float(shares.max()), summed))
    return grades


def grade(function: str, dtype: str, seed: int, size: int, device: str = "cpu") -> list[Grade]:
    """The built-in cases of a function: those of ``gated validate``."""
    adapter = load("torch", device)
    grades = []
    for case in cases(function, dtype, seed=seed, size=size):
        results = adapter.value_and_cotangents(case.function, case.primals, case.cotangent, case.static)
        grades += _grades(case, dtype, *results, flush=adapter.flushes)
    return grades


def grade_bfloat16(activation: str, layout: str | None, seed: int, size: int) -> list[Grade]:
    """The arithmetic of bfloat16: its numbers in float32 arrays, the results rounded by torch.

    A kernel widens bfloat16 to float32 as it reads and rounds as it writes, and does all else in float32. Those two the
    interpreter does wrong: it widens subnormal numbers to others, and truncates (triton#4972).
    """
    from gated.torch_impl.kernels import _launches

    form = FORMATS["bfloat16"]
    rng = np.random.default_rng([seed, ACTIVATIONS.index(activation)])
    gate, value = inputs.pairs(form, rng, size)
    c = random_cotangents(form, rng, gate.shape)
    beta = inputs.betas(form, rng, len(gate)) if activation == "swish" else 1.0
    names = ("gate", "value", "beta") if activation == "swish" else ("gate", "value")
    case = Elements(form, activation, gate, value, beta, c).case("gated_unit", activation, (gate, value), {}, names)
    g, v, cotangent = (to_torch(one).float() for one in (gate, value, c))
    b = to_torch(beta).float() if activation == "swish" else None
    in_beta = IN_BETA if activation == "swish" else ""
    if layout is None:
        call = Form(activation)
        y = _launches.evaluate(call, g, v, b)
        gradients = _launches.pullback(call, IN_X + IN_VALUE + in_beta, cotangent, g, v, b)
    else:
        call = Form(activation, 0, layout)
        x = call.join(g, v)
        y = _launches.evaluate(call, x, None, b)
        d_x, *d_beta = _launches.pullback(call, IN_X + in_beta, cotangent, x, None, b)
        gradients = (*call.split(d_x, None), *d_beta)
    result, *cotangents = (from_torch(one.to(torch.bfloat16)) for one in (y, *gradients))
    return _grades(case, "bfloat16", result, cotangents, flush=False)


def grade_sum(dtype: str, shape: tuple[int, ...]) -> list[Grade]:
    """The gradient of a beta that all elements share."""
    from gated.torch_impl.kernels import _launches

    form = FORMATS[dtype]
    rng = np.random.default_rng(shape)
    x, c = (3 * rng.standard_normal((2, *shape))).astype(form.dtype)
    beta = np.array(1.25, form.dtype)
    case = Elements(form, "swish", x, None, beta, c).case("swish", str(shape), (x, beta), {}, ("gate", "number"))
    operands = [to_torch(one) for one in (c, x, beta)]
    y = _launches.evaluate(Form("swish"), operands[1], None, operands[2])
    gradients = _launches.pullback(Form("swish"), IN_X + IN_BETA, operands[0], operands[1], None, operands[2])
    result, *cotangents = (from_torch(one) for one in (y, *gradients))
    return _grades(case, dtype, result, cotangents, flush=False)


def piece_errors(name: str, dtype: str) -> float:
    """The largest error of a piece of the kernels, in ulp."""
    import _triton_pieces as pieces

    size = 1 << 15
    rng = np.random.default_rng(3)
    bits = 24 if dtype == "float32" else 53
    if name == "exponential":
        x = np.concatenate([rng.uniform(0, 87, size // 2), rng.uniform(0, 1, size // 2)]).astype(dtype)
    else:
        x = np.concatenate([rng.uniform(1, 2, size // 2), 2.0 ** rng.uniform(-20, 20, size // 2)]).astype(dtype)
    result = torch.empty(size, dtype=getattr(torch, dtype))
    getattr(pieces, name)[(1,)](torch.from_numpy(x), result, SIZE=size)
    computed = result.numpy()
    worst = 0.0
    with mpmath.workprec(120):
        for one, y in zip(x[:4096].tolist() + x[-4096:].tolist(), [*computed[:4096], *computed[-4096:]], strict=True):
            exact = mpmath.exp(-mpmath.mpf(one)) if name == "exponential" else 1 / mpmath.mpf(one)
            spacing = mpmath.mpf(2) ** (mpmath.frexp(exact)[1] - bits)
            worst = max(worst, float(abs(mpmath.mpf(float(y)) - exact) / spacing))
    return worst


def taken_apart(dtype: str) -> tuple[bool, bool]:
    """Whether every number is its mantissa times its power of two, and every mantissa is of moderate size."""
    import _triton_pieces as pieces

    form = FORMATS[dtype]
    x = np.concatenate([inputs.specials(form), inputs.line(form, np.random.default_rng(4), 1 << 14)])[: 1 << 13]
    result, mantissas = (torch.empty(len(x), dtype=getattr(torch, dtype)) for _ in range(2))
    pieces.parted[(1,)](torch.from_numpy(x), result, mantissas, SIZE=len(x))
    bits = form.bits
    same = (result.numpy().view(bits) == x.view(bits)) | (np.isnan(x) & np.isnan(result.numpy()))
    normal = np.isfinite(x) & (np.abs(x) >= form.smallest_normal)
    size = np.abs(mantissas.numpy()[normal])
    return bool(same.all()), bool(((size >= 1) & (size < 16)).all())


# Through the public functions


def swiglu_bits(x: Any) -> list[Any]:
    """swiglu of an interleaved array with a beta of each element, and its gradients."""
    import gated.torch_impl as ours

    x = torch.from_numpy(x).requires_grad_()
    beta = torch.full((x.numel() // 2,), 1.3, dtype=x.dtype, requires_grad=True)
    y = ours.swiglu(x, beta, layout="interleaved")
    return [one.detach().numpy() for one in (y, *torch.autograd.grad(y, (x, beta), torch.ones_like(y)))]


def second_derivatives() -> tuple[float, float]:
    """d^2/dx^2 of silu at 0.5, through kernels in the first order, and the closed form."""
    import gated.torch_impl as ours

    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(ours.silu(x), x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    s = 1 / (1 + math.exp(-0.5))
    return second.item(), s * (1 - s) * (2 + 0.5 * (1 - 2 * s))
