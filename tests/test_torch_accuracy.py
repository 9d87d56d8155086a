"""The accuracy of each arithmetic of the PyTorch backend, held to the contract's bounds without any allowance."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("flint")

import gated.numpy_ref as reference  # noqa: E402
import gated.torch_impl as ours  # noqa: E402
from gated.conformance.backends import load  # noqa: E402
from gated.conformance.cases import cases  # noqa: E402
from gated.conformance.error import FORMATS  # noqa: E402
from gated.conformance.quantities import Case  # noqa: E402
from gated.contract import ARRAY_PARAMETERS  # noqa: E402
from gated.torch_impl import _blocks, _cpu  # noqa: E402

ELEMENTWISE = [name for name in ARRAY_PARAMETERS if "linear" not in name and "ffn" not in name]
LIMITS = {"float32": (5.0, 8.0), "float64": (5.0, 8.0), "bfloat16": (0.51, 0.51), "float16": (0.51, 0.51)}
"""Values and gradients in ulp: those of the contract, also where the exponential's argument must be rounded."""


SCALED = "scaled"
BY_ELEMENT = "plain, by element"
BY_EIGHT = "plain, by eight"
AT_ONCE = "plain, at once"
"""The arithmetic of compilers and other devices; the plain one, chosen for each element, for eight, and as it is for
small arrays, whose operations make tensors of their own.

Only numbers that the plain arithmetic admits get it. With blocks of one element all of these do, and the extreme ones
go from the first arithmetic to the next one by one; with blocks of eight there are extremes within a block.
"""


@functools.cache
def _cases(function: str, dtype: str) -> list[Case]:
    """The exact results, for all arithmetics."""
    return list(cases(function, dtype, seed=7, size=128))


@pytest.fixture
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == SCALED:
        monkeypatch.setattr(_cpu, "is_plain", lambda *operands: False)
    elif request.param != AT_ONCE:
        size = 1 if request.param == BY_ELEMENT else 8
        monkeypatch.setattr(_cpu, "SMALL", 0)
        monkeypatch.setattr(_blocks, "SMALL", size)
        monkeypatch.setattr(_blocks, "EACH", size)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.parametrize(
    ("arithmetic", "dtype"),
    [
        *((SCALED, dtype) for dtype in LIMITS),
        *((BY_ELEMENT, dtype) for dtype in ("float32", "float64")),
        *((BY_EIGHT, dtype) for dtype in ("float32", "bfloat16", "float16")),
        *((AT_ONCE, dtype) for dtype in LIMITS),
    ],
    indirect=["arithmetic"],
)
@pytest.mark.parametrize("function", ELEMENTWISE)
def test_every_arithmetic_is_within_the_bounds_without_allowance(function: str, dtype: str, arithmetic: None) -> None:
    adapter, form = load("torch"), FORMATS[dtype]
    for case in _cases(function, dtype):
        value, cotangents = adapter.value_and_cotangents(case.function, case.primals, case.cotangent, case.static)
        for place, quantity in enumerate(case.quantities):
            if quantity.scale is None:  # a sum over all elements has a bound of its own
                continue
            result = cotangents[ARRAY_PARAMETERS[function].index(quantity.name)] if place else value
            errors = quantity.errors(np.asarray(result), form, flush=False)
            assert np.max(errors) <= LIMITS[dtype][place > 0], (case.label, quantity.name)


EVERY = pytest.mark.parametrize("arithmetic", [SCALED, BY_ELEMENT, BY_EIGHT, AT_ONCE], indirect=True)


@EVERY
@pytest.mark.parametrize("beta", [1.702, 0.1, -1.3, 1e-3, 37.7])
def test_a_number_beta_keeps_the_value_that_float32_cannot_hold(beta: float, arithmetic: None) -> None:
    # Rounded to float32, beta would move z by |z| 2^-25, and e^z by as much: 20 units in the last place at z = -80.
    x = np.linspace(-85, 85, 401).astype(np.float32) / np.float32(beta)
    c = np.linspace(1, 2, 401).astype(np.float32)
    _, exact = reference.vjp(reference.swish, x.astype(np.float64), beta)
    z = beta * x.astype(np.float64)
    s, r = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    scale = c * np.maximum(s, np.abs(z * s * r))
    spacing = np.spacing(scale.astype(np.float32)).astype(np.float64)
    tensor, cotangent = torch.from_numpy(x), torch.from_numpy(c)
    by_number = ours.vjp(ours.swish, tensor, beta=beta)[1](cotangent)[0]
    # A number that is differentiated is a tensor inside, and must not have been rounded on its way either.
    by_primal = ours.vjp(ours.swish, tensor, beta)[1](cotangent)[0]
    for result in (by_number, by_primal):
        error = np.abs(result.numpy().astype(np.float64) - exact(c.astype(np.float64))[0])
        assert np.max(error / spacing) <= 8


@EVERY
@pytest.mark.parametrize("limit", [0.1, 3.3, 40.3])
@pytest.mark.parametrize("offset", [0.1, -0.1, 0.7])
@pytest.mark.parametrize("alpha", [-1.702, 1.0])
def test_the_numbers_of_a_clamp_keep_the_values_that_float32_cannot_hold(
    limit: float, offset: float, alpha: float, arithmetic: None
) -> None:
    near = np.nextafter(np.float32(limit), np.float32([0, np.inf]))
    numbers = np.concatenate([[-1e30, -limit, -offset, 0.05, limit, 1e30], near]).astype(np.float32)
    gate, value = (grid.ravel() for grid in np.meshgrid(numbers, np.concatenate([numbers, -numbers])))
    x = np.concatenate([value, gate])
    keywords = {"alpha": alpha, "limit": limit, "offset": offset}
    exact, exact_pull = reference.vjp(reference.clamped_swiglu, x.astype(np.float64), **keywords)
    result, pull = ours.vjp(ours.clamped_swiglu, torch.from_numpy(x), **keywords)
    spacing = np.spacing(np.abs(exact).astype(np.float32).clip(2.0**-126)).astype(np.float64)
    assert np.max(np.abs(result.numpy() - exact) / spacing) <= 5
    # The clamp's derivative is 0 or 1 by the limit as it is: float32 is on either side of it.
    one = np.ones_like(exact)
    (cotangent,), (exact_cotangent,) = pull(torch.from_numpy(one.astype(np.float32))), exact_pull(one)
    zero = exact_cotangent.astype(np.float32) == 0
    assert np.array_equal(cotangent.numpy() == 0, zero)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["silu", "swish", "gelu", "gelu_tanh"])
def test_a_derivative_that_underflows_keeps_its_sign(name: str, dtype: torch.dtype, arithmetic: None) -> None:
    # Each is -x e^-t for a t > 700: no number of the dtype, though its terms, the larger and negative one, have signs.
    x = -torch.tensor([41.0, 60.0, 800.0, 6e4], dtype=dtype)
    fn, static = {
        "silu": (ours.silu, {}),
        "swish": (ours.swish, {"beta": 1.7}),
        "gelu": (ours.gelu, {}),
        "gelu_tanh": (ours.gelu, {"approximate": "tanh"}),
    }[name]
    x = x[2:] if name in ("silu", "swish") else x
    (gradient,) = ours.vjp(fn, x, **static)[1](torch.ones_like(x))
    assert gradient.tolist() == [0.0] * len(x)
    assert gradient.signbit().all()


@pytest.mark.parametrize("top", [5.0, 6.0, 8.0, 17.4, 79.0])
@pytest.mark.parametrize("lowest", [-1.0, -8.0, -9.0])
def test_the_derivative_of_swish_is_within_8_ulp_where_its_complement_is_rounded(top: float, lowest: float) -> None:
    # All in one block: how the complement of the sigmoid is had depends on the extremes. A number just below 2 has the
    # smallest unit in the last place for its size.
    random = np.random.default_rng(5)
    x = np.concatenate([random.uniform(top - 0.5, top, 200_000), np.linspace(lowest, top, 4000)]).astype(np.float32)
    c = random.uniform(1.9, 2, len(x)).astype(np.float32)
    result = ours.vjp(ours.silu, torch.from_numpy(x))[1](torch.from_numpy(c))[0].numpy().astype(np.float64)
    wide, cotangent = x.astype(np.float64), c.astype(np.float64)
    exact = reference.vjp(reference.silu, wide)[1](cotangent)[0]
    s, r = 1 / (1 + np.exp(-wide)), 1 / (1 + np.exp(wide))
    scale = np.maximum(np.abs(exact), cotangent * np.maximum(s, np.abs(wide * s * r)))
    assert np.max(np.abs(result - exact) / np.spacing(scale.astype(np.float32))) <= 8


@pytest.mark.parametrize("lowest", [-7.9, -8.1, -30.0])
def test_a_derivative_of_swish_in_the_subnormal_range_is_within_8_ulp(lowest: float) -> None:
    # c s is subnormal here, and 1 + x (1 - s), which multiplies it, far from 1.
    random = np.random.default_rng(5)
    x = random.uniform(lowest, lowest + 1, 20000).astype(np.float32)
    c = random.uniform(1, 2, 20000) * 2.0 ** (-128 - lowest / math.log(2) - random.integers(0, 12, 20000))
    c = c.astype(np.float32)
    result = ours.vjp(ours.silu, torch.from_numpy(x))[1](torch.from_numpy(c))[0].numpy().astype(np.float64)
    exact = reference.vjp(reference.silu, x.astype(np.float64))[1](c.astype(np.float64))[0]
    spacing = np.spacing(np.maximum(np.abs(exact), 2.0**-126).astype(np.float32))
    assert np.max(np.abs(result - exact) / spacing) <= 8
