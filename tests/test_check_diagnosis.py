"""The diagnosis: every hypothesis is found in an implementation written by hand, and none in a true one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
from _check_observations import Implementation, observe
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gated.conformance.error import FORMATS
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.diagnosis import diagnose
from gated.conformance.grading.hypotheses_gradients import GRADIENT_HYPOTHESES
from gated.conformance.grading.hypotheses_projected import PROJECTED_HYPOTHESES
from gated.conformance.grading.hypotheses_units import UNIT_HYPOTHESES
from gated.conformance.grading.reference import reference_gradient
from gated.conformance.grading.report import FAILURE, Finding
from gated.conformance.grading.symptoms import SYMPTOMS

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from gated.conformance.backends.torch import from_torch, to_torch  # noqa: E402

Array = NDArray[Any]

INF: Final = math.inf


def by_autograd(function: Callable[..., Any]) -> Implementation:
    """A function of tensors, differentiated by PyTorch; an argument that it does not depend on has None."""

    def run(*given: Array) -> tuple[Array, Sequence[Array | None]]:
        *arguments, cotangent = (to_torch(np.array(one)) for one in given)
        leaves = [one.requires_grad_() for one in arguments]
        value = function(*leaves)
        cotangents = torch.autograd.grad(value, leaves, cotangent, allow_unused=True)
        return from_torch(value.detach()), [None if one is None else from_torch(one) for one in cotangents]

    return run


def by_rule(function: Callable[..., Any], rule: Callable[..., Sequence[Any]]) -> Implementation:
    """A function of tensors with a gradient written by hand: of the arguments and the cotangent."""

    def run(*given: Array) -> tuple[Array, Sequence[Array | None]]:
        tensors = [to_torch(np.array(one)) for one in given]
        return from_torch(function(*tensors[:-1])), [from_torch(one) for one in rule(*tensors)]

    return run


def last(x: Any) -> tuple[Any, Any]:
    """Gate and value of gate_last."""
    value, gate = x.chunk(2, -1)
    return gate, value


def first(x: Any) -> tuple[Any, Any]:
    return tuple(x.chunk(2, -1))


def woven(x: Any) -> tuple[Any, Any]:
    return x[..., ::2], x[..., 1::2]


def clamped(
    x: Any, *, low: float = -INF, high: float = 7.0, below: float = -7.0, above: float = 7.0, offset: float = 1.0
) -> Any:
    gate, value = last(x)
    gate = gate.clamp(low, high) if math.isfinite(low) or math.isfinite(high) else gate
    value = value.clamp(below, above) if math.isfinite(below) or math.isfinite(above) else value
    return gate * torch.sigmoid(1.702 * gate) * (value + offset)


def ffn(activation: Callable[[Any], Any] = F.silu, **times: float) -> Callable[..., Any]:
    def run(x: Any, W: Any, V: Any, W2: Any, b: Any, c: Any, b2: Any) -> Any:
        b, c, b2 = (times.get(name, 1.0) * one for name, one in (("b", b), ("c", c), ("b2", b2)))
        return (activation(x @ W + b) * (x @ V + c)) @ W2 + b2

    return run


class Case(NamedTuple):
    """A wrong implementation.

    Attributes:
        id: what the diagnosis must begin with.
        implementation: by hand.
    """

    id: str
    claim: Claim
    implementation: Implementation
    dtypes: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")
    profile: str = "field"


ALL: Final = ("float32", "float64", "bfloat16", "float16")
WIDE: Final = ("float32", "float64")

SWIGLU: Final = Claim.of("swiglu")
PAIR: Final = Claim.of("gated_unit")
BETA: Final = Claim.of("swish", beta="array")
CLAMPED: Final = Claim.of("clamped_swiglu")
FFN: Final = Claim.of("gated_ffn", bias=True)
LINEAR: Final = Claim.of("swiglu_linear", bias=True)


def value_of(claim: Claim, function: Callable[..., Any], id: str, *dtypes: str, profile: str = "field") -> Case:
    return Case(id, claim, by_autograd(function), dtypes or ALL, profile)


def _silu_slope(x: Any) -> Any:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


def gate_slope(slope: Callable[[Any], Any]) -> Implementation:
    """silu(gate) * value, whose gradient in the gate is ``slope`` of it, times cotangent and value."""
    return by_rule(
        lambda gate, value: F.silu(gate) * value,
        lambda gate, value, c: (c * value * slope(gate), c * F.silu(gate)),
    )


def _clamp_rule(mask: Callable[[Any, Any], tuple[Any, Any]], offset: float = 1.0) -> Implementation:
    """gpt-oss's unit, whose gradient is masked in some way."""

    def rule(x: Any, c: Any) -> Sequence[Any]:
        gate, value = last(x)
        g, v = gate.clamp(max=7.0), value.clamp(-7.0, 7.0)
        s = torch.sigmoid(1.702 * g)
        of_gate, of_value = mask(gate, value)
        in_gate = c * (v + offset) * s * (1 + 1.702 * g * (1 - s)) * of_gate
        return (torch.cat([c * g * s * of_value, in_gate], -1),)

    return by_rule(clamped, rule)


CASES: Final = (
    # Order.
    value_of(SWIGLU, lambda x: F.silu(first(x)[0]) * first(x)[1], "gate-order"),
    value_of(
        Claim.of("geglu", layout="gate_first"), lambda x: F.gelu(last(x)[0]) * last(x)[1], "gate-order", "float32"
    ),
    value_of(
        Claim.of("clamped_swiglu", form="pair"),
        lambda v, g: (g.clamp(max=7) * torch.sigmoid(1.702 * g.clamp(max=7))) * (v.clamp(-7, 7) + 1),
        "gate-order",
        "float32",
    ),
    value_of(PAIR, lambda gate, value: gate * F.silu(value), "value-activated"),
    value_of(
        Claim.of("swiglu", layout="interleaved"),
        lambda x: F.silu(last(x)[0]) * last(x)[1],
        "interleaved-read-as-halves",
    ),
    value_of(
        Claim.of("glu", layout="interleaved"),
        lambda x: torch.sigmoid(first(x)[0]) * first(x)[1],
        "interleaved-read-as-halves",
        "float32",
    ),
    value_of(SWIGLU, lambda x: F.silu(woven(x)[0]) * woven(x)[1], "halves-read-as-interleaved"),
    value_of(SWIGLU, lambda x: F.silu(woven(x)[1]) * woven(x)[0], "halves-read-as-interleaved", "float32"),
    value_of(SWIGLU, lambda x: F.silu(last(x)[0] * last(x)[1]), "product-activated"),
    value_of(Claim.of("geglu"), lambda x: F.gelu(last(x)[0] * last(x)[1]), "product-activated", *WIDE),
    value_of(PAIR, lambda gate, value: F.silu(gate) * F.silu(value), "both-activated"),
    value_of(PAIR, lambda gate, value: F.silu(gate) + 0 * value, "value-missing", *WIDE),
    value_of(PAIR, lambda gate, value: F.silu(gate) + value, "sum-for-product"),
    # Beta.
    value_of(BETA, lambda x, beta: F.silu(beta * x), "beta-scales-output"),
    value_of(Claim.of("swish", beta="scalar"), lambda x, beta: F.silu(beta * x), "beta-scales-output"),
    value_of(Claim.of("swiglu", beta=1.5), lambda x: F.silu(1.5 * last(x)[0]) * last(x)[1], "beta-scales-output"),
    value_of(BETA, lambda x, beta: beta * x * torch.sigmoid(x), "beta-outside-sigmoid"),
    value_of(BETA, lambda x, beta: F.silu(x) + 0 * beta, "beta-ignored", *WIDE),
    value_of(Claim.of("swish", beta="vector"), lambda x, beta: F.silu(x), "beta-ignored"),
    value_of(
        CLAMPED,
        lambda x: F.silu(last(x)[0].clamp(max=7)) * (last(x)[1].clamp(-7, 7) + 1),
        "alpha-missing",
    ),
    value_of(Claim.of("silu"), lambda x: x * torch.sigmoid(-x), "sigmoid-argument-negated"),
    value_of(Claim.of("silu"), lambda x: x * torch.sigmoid(1.702 * x), "beta-value"),
    # Activations.
    value_of(Claim.of("gelu"), lambda x: F.gelu(x, approximate="tanh"), "gelu-tanh-for-erf"),
    value_of(
        Claim.of("gelu"),
        lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x * x * x))),
        "gelu-tanh-for-erf",
        "float16",
    ),
    value_of(Claim.of("geglu", approximate="tanh"), lambda x: F.gelu(last(x)[0]) * last(x)[1], "gelu-erf-for-tanh"),
    value_of(Claim.of("gelu"), lambda x: x * torch.sigmoid(1.702 * x), "gelu-sigmoid"),
    value_of(
        Claim.of("gelu", approximate="tanh"),
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.44715 * x * x * x))),
        "gelu-constant",
        *WIDE,
    ),
    value_of(Claim.of("silu"), F.relu, "other-activation"),
    value_of(Claim.of("reglu"), lambda x: torch.sigmoid(last(x)[0]) * last(x)[1], "other-activation", "float32"),
    value_of(Claim.of("silu"), F.hardswish, "other-activation", *WIDE),
    # The clamp.
    value_of(CLAMPED, lambda x: clamped(x, offset=0.0), "offset-missing"),
    value_of(
        CLAMPED,
        lambda x: (lambda g, v: g * torch.sigmoid(1.702 * g) * v)(last(x)[0].clamp(max=7) + 1, last(x)[1].clamp(-7, 7)),
        "offset-on-gate",
    ),
    value_of(
        CLAMPED,
        lambda x: (lambda g, v: (g * torch.sigmoid(1.702 * g) + 1) * v)(
            last(x)[0].clamp(max=7), last(x)[1].clamp(-7, 7)
        ),
        "offset-on-gate",
        "float32",
    ),
    value_of(
        CLAMPED,
        lambda x: (lambda g, v: g * torch.sigmoid(1.702 * g) * v)(
            last(x)[0].clamp(max=7), (last(x)[1] + 1).clamp(-7, 7)
        ),
        "offset-clamped",
        *WIDE,
    ),
    value_of(
        CLAMPED,
        lambda x: (lambda g, v: g * torch.sigmoid(1.702 * g) * v + 1)(last(x)[0].clamp(max=7), last(x)[1].clamp(-7, 7)),
        "offset-after-product",
        *WIDE,
    ),
    value_of(CLAMPED, lambda x: clamped(x, high=INF, below=-INF, above=INF), "clamp-missing"),
    value_of(CLAMPED, lambda x: clamped(x, high=INF), "clamp-missing"),
    value_of(CLAMPED, lambda x: clamped(x, below=-INF, above=INF), "clamp-missing"),
    value_of(CLAMPED, lambda x: clamped(x, low=-7.0), "clamp-both-sides"),
    value_of(CLAMPED, lambda x: clamped(x, low=-7.0, high=INF), "clamp-wrong-side"),
    value_of(CLAMPED, lambda x: clamped(x, low=7.0, high=INF), "clamp-wrong-side", "float32"),
    value_of(CLAMPED, lambda x: clamped(x, below=-INF), "clamp-one-side"),
    value_of(CLAMPED, lambda x: clamped(x, above=INF), "clamp-one-side", "float32"),
    value_of(CLAMPED, lambda x: clamped(x, below=0.0), "clamp-from-zero"),
    value_of(CLAMPED, lambda x: clamped(x, low=0.0), "clamp-from-zero", "float32"),
    value_of(
        CLAMPED,
        lambda x: (last(x)[0] * torch.sigmoid(1.702 * last(x)[0])).clamp(max=7) * (last(x)[1].clamp(-7, 7) + 1),
        "clamp-after-activation",
        *WIDE,
    ),
    value_of(
        CLAMPED,
        lambda x: last(x)[0] * torch.sigmoid(1.702 * last(x)[0].clamp(max=7)) * (last(x)[1].clamp(-7, 7) + 1),
        "clamp-inside-sigmoid",
        "float32",
    ),
    # Projected functions.
    value_of(FFN, lambda x, W, V, W2, b, c, b2: ffn()(x, V, W, W2, c, b, b2), "weights-swapped"),
    value_of(FFN, lambda x, W, V, W2, b, c, b2: ffn()(x, V, W, W2, b, c, b2), "weights-swapped", *WIDE),
    value_of(FFN, lambda x, W, V, W2, b, c, b2: ffn()(x, W, V, W2, c, b, b2), "biases-swapped", *WIDE),
    value_of(LINEAR, lambda x, W, V, b, c: F.silu(x @ W) * (x @ V), "bias-dropped"),
    value_of(FFN, ffn(b=0.0), "bias-dropped", *WIDE),
    value_of(FFN, ffn(b2=0.0), "bias-dropped"),
    value_of(FFN, ffn(b2=2.0), "bias-added-twice"),
    value_of(FFN, lambda x, W, V, W2, b, c, b2: ffn()(x, W, W, W2, b, c, b2), "weight-used-twice", *WIDE),
    value_of(FFN, ffn(lambda x: F.gelu(x)), "other-activation", *WIDE),
    value_of(LINEAR, lambda x, W, V, b, c: F.silu((x @ W + b) * (x @ V + c)), "product-activated"),
    # Gradients.
    Case(
        "gradient-halves-swapped",
        SWIGLU,
        by_rule(
            lambda x: F.silu(last(x)[0]) * last(x)[1],
            lambda x, c: (torch.cat([c * last(x)[1] * _silu_slope(last(x)[0]), c * F.silu(last(x)[0])], -1),),
        ),
    ),
    Case(
        "gradient-without-cotangent",
        Claim.of("silu"),
        by_rule(F.silu, lambda x, c: (_silu_slope(x),)),
    ),
    Case(
        "gradient-without-value",
        PAIR,
        by_rule(
            lambda gate, value: F.silu(gate) * value,
            lambda gate, value, c: (c * _silu_slope(gate), c * F.silu(gate)),
        ),
    ),
    Case(
        "gradient-without-activation",
        PAIR,
        by_rule(
            lambda gate, value: F.silu(gate) * value,
            lambda gate, value, c: (c * value * _silu_slope(gate), c * gate),
        ),
    ),
    Case("gradient-without-derivative", PAIR, gate_slope(torch.ones_like)),
    Case("gradient-of-activation-for-derivative", PAIR, gate_slope(F.silu)),
    Case("gradient-stopped", PAIR, gate_slope(torch.sigmoid)),
    Case("gradient-stopped", PAIR, gate_slope(lambda x: x * torch.sigmoid(x) * (1 - torch.sigmoid(x))), WIDE),
    value_of(PAIR, lambda gate, value: F.silu(gate.detach()) * value + 0 * gate, "gradient-stopped", *WIDE),
    Case("gradient-of-other-function", PAIR, gate_slope(lambda x: (x > 0).to(x.dtype))),
    Case(
        "gradient-without-beta",
        Claim.of("swish", beta=1.702),
        by_rule(
            lambda x: x * torch.sigmoid(1.702 * x),
            lambda x, c: (c * torch.sigmoid(1.702 * x) * (1 + x * (1 - torch.sigmoid(1.702 * x))),),
        ),
        WIDE,
    ),
    Case(
        "gradient-sigmoid-squared",
        Claim.of("sigmoid"),
        by_rule(torch.sigmoid, lambda x, c: (c * torch.sigmoid(x) * torch.sigmoid(x),)),
    ),
    Case(
        "gradient-not-masked",
        CLAMPED,
        _clamp_rule(lambda gate, value: (torch.ones_like(gate), torch.ones_like(value))),
    ),
    Case(
        "gradient-masked-below",
        CLAMPED,
        _clamp_rule(lambda gate, value: ((gate.abs() <= 7).to(gate.dtype), (value.abs() <= 7).to(value.dtype))),
        WIDE,
    ),
    Case(
        "gradient-without-offset",
        CLAMPED,
        _clamp_rule(lambda gate, value: ((gate <= 7).to(gate.dtype), (value.abs() <= 7).to(value.dtype)), offset=0.0),
        WIDE,
    ),
    # Rounding, range, scale.
    value_of(PAIR, lambda gate, value: F.silu(gate) * value, "double-rounding", "bfloat16", profile="contract"),
    value_of(PAIR, lambda gate, value: F.silu(gate) * value, "double-rounding", "float16", profile="contract"),
    value_of(Claim.of("silu"), lambda x: F.silu(x.float()).to(x.dtype), "float32-arithmetic-in-float64", "float64"),
    value_of(
        Claim.of("silu"),
        lambda x: x / (1 + torch.exp(-x.float()).to(x.dtype)),
        "float32-arithmetic-in-float64",
        "float64",
    ),
    value_of(
        Claim.of("gelu"),
        lambda x: 0.5 * x * (1 + torch.erf((x * math.sqrt(0.5)).float()).to(x.dtype)),
        "float32-arithmetic-in-float64",
        "float64",
    ),
    value_of(
        Claim.of("sigmoid"),
        lambda x: torch.sigmoid(x.bfloat16()).to(x.dtype),
        "bfloat16-arithmetic-in-float32",
        "float32",
    ),
    value_of(
        Claim.of("sigmoid"), lambda x: torch.sigmoid(x.half()).to(x.dtype), "float16-arithmetic-in-float32", "float32"
    ),
    value_of(Claim.of("gelu"), lambda x: 2 * F.gelu(x), "scaled"),
    Case("gradient-scaled", Claim.of("silu"), by_rule(F.silu, lambda x, c: (3 * c * _silu_slope(x),))),
    value_of(Claim.of("silu"), F.silu, "tail-underflow", "float32", "float64", "bfloat16", profile="contract"),
    value_of(Claim.of("gelu"), F.gelu, "tail-cancellation", *WIDE, profile="contract"),
    value_of(
        Claim.of("sigmoid"), lambda x: 0.5 + 0.5 * torch.tanh(0.5 * x.clamp(-15, 15)), "tail-cancellation", "float32"
    ),
    Case(
        "overflow-nan",
        Claim.of("sigmoid"),
        by_rule(
            lambda x: torch.exp(x) / (1 + torch.exp(x)),
            lambda x, c: (c * torch.sigmoid(x) * (1 - torch.sigmoid(x)),),
        ),
    ),
)


def explained(case: Case, dtype: str, findings: Sequence[Finding] = ()) -> list[str]:
    observations = observe(case.claim, dtype, case.implementation, profile=case.profile)
    assert any(one.any() for each in observations for one in each.wrong.values()), "nothing fails"
    return [one.id for one in diagnose(case.claim, observations, findings)]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        # Every mistake in its first dtype in each run, in the others with -m collection.
        pytest.param(case, dtype, id=f"{case.id}-{i}-{dtype}", marks=[pytest.mark.collection] if n else [])
        for i, case in enumerate(CASES)
        for n, dtype in enumerate(case.dtypes)
    ],
)
def test_an_implementation_with_the_mistake_has_its_id_first(case: Case, dtype: str) -> None:
    assert explained(case, dtype)[0] == case.id


def test_every_hypothesis_has_an_implementation() -> None:
    told = {one.id for one in (*UNIT_HYPOTHESES, *PROJECTED_HYPOTHESES, *GRADIENT_HYPOTHESES, *SYMPTOMS)}
    elsewhere = {"weight-not-transposed", "nan-at-infinity", "truncation"}
    assert told - {case.id for case in CASES} == elsewhere


def test_a_weight_that_is_not_transposed_is_told_of_square_weights() -> None:
    claim = Claim.of("gated_ffn")

    def linear(x: Any, W: Any, V: Any, W2: Any) -> Any:
        def project(x: Any, weight: Any) -> Any:
            # torch.nn.functional.linear takes (out, in).
            return F.linear(x, weight) if weight.shape[0] == weight.shape[1] else x @ weight

        return project(F.silu(project(x, W)) * project(x, V), W2)

    assert explained(Case("", claim, by_autograd(linear)), "float32") == ["weight-not-transposed"]


def test_nan_at_infinity_is_told_beside_what_else_fails() -> None:
    case = Case("", Claim.of("silu"), by_autograd(F.silu), profile="contract")
    assert "nan-at-infinity" in explained(case, "float32")


def test_a_truncated_result_is_told() -> None:
    def truncated(x: Array, c: Array) -> tuple[Array, Sequence[Array]]:
        def cut(exact: NDArray[np.float64]) -> Array:
            bits = exact.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
            return bits.view(np.float32).astype(FORMATS["bfloat16"].dtype)

        wide = x.astype(np.float64)
        s = 1 / (1 + np.exp(-np.clip(wide, -700, 700)))
        return cut(wide * s), [cut(c.astype(np.float64) * s * (1 + wide * (1 - s)))]

    assert explained(Case("", Claim.of("silu"), truncated, profile="contract"), "bfloat16")[0] == "truncation"


def test_two_mistakes_are_told_together() -> None:
    claim = Claim.of("geglu")
    case = Case("", claim, by_autograd(lambda x: F.gelu(first(x)[0], approximate="tanh") * first(x)[1]))
    assert set(explained(case, "float32")) == {"gate-order", "gelu-tanh-for-erf"}
    two = Case("", CLAMPED, by_autograd(lambda x: clamped(x, low=-7.0, offset=0.0)))
    assert set(explained(two, "float32")) >= {"clamp-both-sides", "offset-missing"}


def _swish_rule(beta_of: Callable[[Any], Any]) -> Implementation:
    def rule(x: Any, beta: Any, c: Any) -> Sequence[Any]:
        s = torch.sigmoid(beta * x)
        return c * s * (1 + beta * x * (1 - s)), beta_of(c * x * x * s * (1 - s))

    return by_rule(lambda x, beta: x * torch.sigmoid(beta * x), rule)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    ("beta", "reduce"),
    [
        ("scalar", lambda each: each),
        ("vector", lambda each: each),
        ("scalar", lambda each: each.mean()),
        ("scalar", lambda each: each[0, 0]),
        ("vector", lambda each: each[-1]),
        ("scalar", lambda each: each.sum(0)),
    ],
)
def test_a_gradient_of_beta_that_is_not_summed_is_told(beta: str, reduce: Callable[[Any], Any], dtype: str) -> None:
    claim = Claim.of("swish", beta=beta)
    observations = observe(claim, dtype, _swish_rule(reduce))
    assert "beta-gradient-not-summed" in [one.id for one in diagnose(claim, observations, [])]


def test_a_sum_that_is_right_is_not_told() -> None:
    claim = Claim.of("swish", beta="scalar")
    for dtype in WIDE:
        assert diagnose(claim, observe(claim, dtype, _swish_rule(lambda each: each.sum())), []) == []


def test_what_the_findings_show_by_themselves() -> None:
    claim = Claim.of("silu")
    findings = [
        Finding("input-overwritten", FAILURE, "x in the backward pass", "float32", {"argument": "x"}),
        Finding("gradient-stopped", FAILURE, "beta", "float32"),
        Finding("input-overwritten", FAILURE, "x", "float64", known="issue 7"),
        Finding("wrong-dtype", FAILURE, "float64", "float32"),
    ]
    told = diagnose(claim, [], findings)
    assert [one.id for one in told] == ["input-overwritten", "gradient-stopped"]
    assert told[0].evidence == {"argument": "x"} and "x in the backward pass" in told[0].text


def test_the_evidence_is_a_match_that_the_claimed_function_has_not() -> None:
    case = CASES[0]
    (told, *_) = diagnose(case.claim, observe(case.claim, "float32", case.implementation), [])
    evidence = told.evidence
    assert told.id == "gate-order"
    assert evidence["inputs that tell"] >= 8
    assert evidence["match the hypothesis"] >= 0.97 * evidence["inputs that tell"]
    assert evidence["match the claimed function"] <= 0.03 * evidence["inputs that tell"]
    assert evidence["quantities"] == ["d gate (float32)", "d value (float32)", "value (float32)"]
    at = {name: float(number) for name, number in evidence["at"].items()}
    swish = at["gate"] / (1 + math.exp(-at["gate"]))
    assert at["claimed function"] == pytest.approx(swish * at["value"], rel=1e-6)
    assert at["computed"] == pytest.approx(at["hypothesis"], rel=1e-5)
    assert at["hypothesis"] == pytest.approx(at["value"] / (1 + math.exp(-at["value"])) * at["gate"], rel=1e-6)


# What is true has none


TRUE: Final = (
    (SWIGLU, lambda x: F.silu(last(x)[0]) * last(x)[1]),
    (SWIGLU, lambda x: last(x)[0] * torch.sigmoid(last(x)[0]) * last(x)[1]),
    (Claim.of("glu"), lambda x: torch.sigmoid(last(x)[0]) * last(x)[1]),
    (Claim.of("gelu"), F.gelu),
    (Claim.of("gelu"), lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    (Claim.of("gelu", approximate="tanh"), lambda x: F.gelu(x, approximate="tanh")),
    (Claim.of("reglu", layout="interleaved"), lambda x: F.relu(woven(x)[0]) * woven(x)[1]),
    (Claim.of("bilinear", layout="gate_first"), lambda x: first(x)[0] * first(x)[1]),
    (BETA, lambda x, beta: x * torch.sigmoid(beta * x)),
    (CLAMPED, clamped),
    (FFN, ffn()),
    (LINEAR, lambda x, W, V, b, c: F.silu(x @ W + b) * (x @ V + c)),
)
PARTIAL: Final = {symptom.id for symptom in SYMPTOMS} - {
    "scaled",
    "gradient-scaled",
    "gradient-stopped",
    "float32-arithmetic-in-float64",
    "bfloat16-arithmetic-in-float32",
    "float16-arithmetic-in-float32",
    "truncation",
}
"""What may be said of a true function whose accuracy is not the contract's: of rounding, range and infinities."""


@pytest.mark.parametrize(
    "dtype", [one if one in ("bfloat16", "float32") else pytest.param(one, marks=pytest.mark.collection) for one in ALL]
)
@pytest.mark.parametrize("index", range(len(TRUE)))
def test_a_true_function_has_no_diagnosis(index: int, dtype: str) -> None:
    claim, function = TRUE[index]
    implementation = by_autograd(function)
    assert diagnose(claim, observe(claim, dtype, implementation), []) == []
    # Held to the contract, which it misses, it is told of no other function.
    held = diagnose(claim, observe(claim, dtype, implementation, profile="contract"), [])
    assert {one.id for one in held} <= PARTIAL


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    function = draw(st.sampled_from(("silu", "gelu", "sigmoid", "swish", "swiglu", "glu", "geglu", "clamped_swiglu")))
    options: dict[str, Any] = {}
    if function in ("swiglu", "glu", "geglu", "clamped_swiglu"):
        options["form"] = draw(st.sampled_from(("packed", "pair")))
        if options["form"] == "packed":
            options["layout"] = draw(st.sampled_from(("gate_last", "gate_first", "interleaved")))
    if function in ("gelu", "geglu"):
        options["approximate"] = draw(st.sampled_from(("none", "tanh")))
    if function in ("swish", "swiglu"):
        options["beta"] = draw(st.sampled_from((1.0, 1.702, -0.5, "array", "scalar", "vector")))
    return Claim.of(function, **options)


@settings(max_examples=15, deadline=None)
@given(
    claims(),
    st.sampled_from(ALL),
    st.integers(0, 2**31),
    st.sampled_from((0.0, 2.0**-20, 2.0**-10, 0.1)),
)
def test_the_true_function_with_random_errors_has_no_diagnosis(
    claim: Claim, dtype: str, seed: int, noise: float
) -> None:
    """However large: an error of no system is no other function."""
    rng = np.random.default_rng(seed)

    def noisy(*given: Array) -> tuple[Array, Sequence[Array | None]]:
        *arguments, cotangent = (one.astype(np.float64) for one in given)
        value, cotangents = reference_gradient(claim, arguments, cotangent)
        value, *cotangents = (
            (one * (1 + noise * rng.standard_normal(np.shape(one)))).astype(FORMATS[dtype].dtype)
            for one in (value, *cotangents)
        )
        return value, cotangents

    assert diagnose(claim, observe(claim, dtype, noisy, seed=seed % 7), []) == []
