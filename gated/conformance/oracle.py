"""The oracle: exact results of the closed forms, by ball arithmetic (python-flint).

Two forms of an answer. :func:`exact_sums` gives arrays of exact float64 numbers as unevaluated sums high + low, for
errors to be measured against; :func:`correctly_rounded` gives one result with the bits of any format, and its decimal.
Both raise the precision until the answer is proven, and raise :class:`Undecided` where none is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import flint
import numpy as np
from numpy.typing import NDArray

from gated.conformance._pairs import RELATIVE_BITS, as_pair, magnitude
from gated.conformance.balls import (
    PRECISIONS,
    SATURATED_PRECISION,
    BallMath,
    BoundedBallMath,
    SaturatedBallMath,
    Straddles,
    Undecided,
    decide,
)
from gated.conformance.calls import QUANTITIES, Product, product
from gated.conformance.closed_forms import activation_terms
from gated.conformance.error import Format
from gated.conformance.limits import activation_limit, activation_sign
from gated.conformance.projected_oracle import correctly_rounded_projection, exact_projection
from gated.conformance.rounding import Rounded, round_ball, rounded_special, rounded_sum

__all__ = [
    "PRECISIONS",
    "QUANTITIES",
    "BallMath",
    "Rounded",
    "Undecided",
    "correctly_rounded",
    "correctly_rounded_projection",
    "exact_projection",
    "exact_sums",
    "round_ball",
    "unit_terms",
]

Float64 = NDArray[np.float64]

# What a saturated activation is above: it is 1 or x (2^-1074 or more), and its stand-in deviation below 2^-20000.
_DEVIATION: Final = flint.arb((1, -2000))


# Arrays of exact results


def exact_sums(terms: Callable[..., Sequence[Any]], *inputs: Float64) -> tuple[Float64, Float64, Float64]:
    """The sums of ``terms(*numbers)`` over arrays of finite float64 numbers.

    Returns:
        high, low: the exact sums as ``high + low``: to some 100 bits, or to the smallest subnormal number. An exact
            zero is +0.0, a sum below all numbers a zero of its sign.
        scale: the magnitude of the largest term.
    """
    arrays = np.broadcast_arrays(*inputs)
    shape = arrays[0].shape
    columns = [array.ravel().tolist() for array in arrays]
    results = [_exact_sum(terms, numbers) for numbers in zip(*columns, strict=True)]
    high, low, scale = np.array(results, np.float64).reshape(-1, 3).T.reshape(3, *shape)
    return high, low, scale


def _exact_sum(terms: Callable[..., Sequence[Any]], numbers: tuple[float, ...]) -> tuple[float, float, float]:
    def summed() -> tuple[float, float, float]:
        parts = [flint.arb(part) for part in terms(*(flint.arb(number) for number in numbers))]
        total = sum(parts[1:], start=parts[0])
        if total == 0:
            return 0.0, 0.0, max(magnitude(part) for part in parts)
        if total.rel_accuracy_bits() < RELATIVE_BITS:
            raise Straddles
        high, low = as_pair(total)
        return high, low, max(magnitude(part) for part in parts)

    return decide(summed, lambda: f"the sum of the terms at {numbers}", (192, 384, 1536, 6144))


def unit_terms(activation: str, partial: str, offset: float = 0.0) -> Callable[..., list[Any]]:
    """The terms of cotangent * activation(gate, beta) * (value + offset), or of its derivative, over balls."""
    m = BoundedBallMath()

    def terms(cotangent: Any, gate: Any, value: Any, beta: Any) -> list[Any]:
        return [cotangent * part * (value + offset) for part in activation_terms(m, activation, partial, gate, beta)]

    return terms


# One result, correctly rounded


def correctly_rounded(
    function: str,
    quantity: str,
    form: Format,
    inputs: Mapping[str, float],
    *,
    static: Mapping[str, Any] | None = None,
    precisions: Sequence[int] = (*PRECISIONS, SATURATED_PRECISION),
) -> Rounded:
    """A value or derivative of an elementwise function at one input, rounded once from the exact result.

    Nan, infinite operands and the signs of zeros go by the rules of :mod:`gated.conformance.limits`.

    Args:
        function: ``"sigmoid"``, ``"swish"``, ``"silu"``, ``"gelu"``, ``"relu"``, or a unit: ``"glu"``, ``"bilinear"``,
            ``"reglu"``, ``"geglu"``, ``"swiglu"``, ``"clamped_swiglu"``, ``"gated_unit"``.
        quantity: one of ``QUANTITIES[function]``: ``"result"``; the first derivatives ``"d_x"`` or ``"d_gate"``,
            ``"d_value"``, and ``"d_beta"``; of the activations the second derivatives ``"d_x_x"``, ``"d_x_beta"``,
            ``"d_beta_beta"``. Each derivative is multiplied by the cotangent.
        form: the format of the inputs and the result.
        inputs: ``"x"``, or ``"gate"`` and ``"value"``; where the function has it ``"beta"`` (1 if absent), any float64
            number; ``"cotangent"`` (1 if absent). They are taken for exact.
        static: keywords of the function, with its defaults: ``approximate``, ``alpha``, ``limit``, ``offset``,
            ``activation``.
        precisions: in bits, tried in order; from :data:`gated.conformance.balls.SATURATED_PRECISION` on, for results
            that no precision tells from their limit.

    Raises:
        ValueError: a name is unknown, an input is missing, or a keyword has a value that the function does not take.
        Undecided: no precision that was tried proves the result.
    """
    one = product(function, quantity, inputs, static or {})

    def rounded() -> Rounded:
        return _rounded_product(one, form)

    return decide(rounded, lambda: f"{quantity} of {function} at {dict(inputs)}", precisions)


def _rounded_product(one: Product, form: Format) -> Rounded:
    if one.absent:
        return rounded_special(math.nan, form)
    shifted = one.value + one.offset if one.offset else one.value
    gate, beta = np.asarray(one.gate), np.asarray(one.beta)
    factors: Sequence[Any]
    at_limit = math.isinf(one.gate) or (math.isinf(one.beta) and one.activation == "swish")
    if at_limit:
        limit = float(activation_limit(one.activation, one.partial, gate, beta))
        factors, activation_is = [limit], math.copysign(1.0, limit)
    else:
        saturated = flint.ctx.prec >= SATURATED_PRECISION
        m = SaturatedBallMath() if saturated else BallMath()
        factors = activation_terms(m, one.activation, one.partial, flint.arb(one.gate), _ball(one.beta))
        if saturated and not abs(sum(factors)) > _DEVIATION:
            raise Straddles
        activation_is = float(activation_sign(one.activation, one.partial, gate))
    cut = 0.0 if one.cut else 1.0
    if any(map(math.isinf, (one.cotangent, one.value))) or (at_limit and math.isinf(limit)):
        # An infinity, or nan where another factor is exactly zero.
        signs = (_sign(one.cotangent), _sign(sum(factors)), _sign(shifted), cut)
        return rounded_special(math.inf * math.prod(signs), form)
    outer, inner = flint.arb(one.cotangent) * cut, flint.arb(one.value) + one.offset
    zero_sign = math.copysign(1.0, one.cotangent) * activation_is * math.copysign(1.0, shifted)
    return rounded_sum([outer * factor * inner for factor in factors], form, zero_sign)


def _ball(beta: float) -> flint.arb:
    """beta; 1 in place of what the other activations do not look at."""
    return flint.arb(beta if math.isfinite(beta) else 1.0)


def _sign(number: flint.arb | float) -> float:
    """-1, 0 or 1, proven."""
    if number == 0:
        return 0.0
    if not (number > 0 or number < 0):
        raise Straddles
    return 1.0 if number > 0 else -1.0
