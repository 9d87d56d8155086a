"""The cases of a claim: what a target is called with, and the exact results of each call.

A broad case is made of numbers of every binade, specials, thresholds and random bits; a moderate one, whose sums
cancel nothing and overflow nowhere, has one beta for many elements. Arrays have two axes, (rows, columns), with a
prime number of columns, so that no vector width divides them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance import inputs, oracle
from gated.conformance.carried import projection_bounds
from gated.conformance.elements import Elements, Packing, random_cotangents
from gated.conformance.error import FORMATS, Format, ulp_exponent
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.observation import Part
from gated.conformance.quantities import Quantity, pack

__all__ = ["BUDGETS", "CHUNK", "Trial", "elementwise_trial", "moderate_trial", "trials"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

BUDGETS: Final = ("quick", "full", "exhaustive")

COLUMNS: Final = 67
LONG_ROW: Final = 16_411
LARGE: Final = 2**20
CHUNK: Final = 2**18
"""The elements of one call of a long run."""

_SIZES: Final[Mapping[str, Mapping[str, int]]] = {
    "quick": {"float16": 2**14, "bfloat16": 2**14, "float32": 2**14, "float64": 2**11},
    "full": {"float16": 2**21, "bfloat16": 2**21, "float32": 2**21, "float64": 2**17},
}
_BETAS: Final = (1.0, -1.3, 0.5, 1.702)


@dataclass(frozen=True)
class Trial:
    """One call of a target and its exact results.

    Attributes:
        arguments: by name, in the order of ``Claim.arguments``.
        elements: the operands of each element of the value (``x``, or ``gate`` and ``value``, and ``beta``), of its
            shape; empty for projected functions.
        parts: the value first.
        exhaustive: the trials of this dtype together have all inputs.
    """

    claim: Claim
    form: Format
    arguments: Mapping[str, Array]
    elements: Mapping[str, Array]
    cotangent: Array
    parts: tuple[Part, ...]
    exhaustive: bool = False


def trials(
    claim: Claim, dtype: str, budget: str, seed: int, sizes: Mapping[str, tuple[int, ...]] | None = None
) -> Iterator[Trial]:
    """The trials of a claim in a dtype.

    Args:
        budget: one of :data:`BUDGETS`. ``"exhaustive"`` has every input of a function of one array in the dtypes of 16
            and 32 bits, and every pair in those of 16; in the others it is ``"full"``.
        sizes: of a target with weights of its own, the shapes of the arguments.
    """
    form = FORMATS[dtype]
    rng = np.random.default_rng([seed, list(FORMATS).index(dtype), len(claim.function)])
    if claim.form == "projected":
        yield from _projected_trials(claim, form, rng, sizes or {})
        return
    if isinstance(claim.beta, str):
        for kind in ("scalar", "vector") if claim.beta == "array" else (claim.beta,):
            yield from _summed_trials(claim, form, rng, kind)
    for gate, value, exhaustive in _operands(claim, form, rng, budget):
        if claim.beta in ("scalar", "vector"):
            # The sums of such numbers mean nothing: only the value and the other cotangents are graded.
            beta = np.asarray(rng.choice(_BETAS, () if claim.beta == "scalar" else gate.shape[-1:])).astype(form.dtype)
            yield elementwise_trial(claim, form, rng, gate, value, beta=beta, grade_beta=False)
        elif claim.beta == "array":
            beta = inputs.betas(form, rng, gate.size).reshape(gate.shape)
            yield elementwise_trial(claim, form, rng, gate, value, beta=beta)
        else:
            yield elementwise_trial(claim, form, rng, gate, value, exhaustive=exhaustive)


def _operands(
    claim: Claim, form: Format, rng: np.random.Generator, budget: str
) -> Iterator[tuple[Array, Array | None, bool]]:
    """Gates, values (None for an activation alone), and whether all of them together are all inputs."""
    narrow, unary = form.bits.itemsize == 2, claim.form == "unary"
    fixed = not isinstance(claim.beta, str)
    if unary and narrow and fixed:
        yield _rows(inputs.all_patterns(form), 64), None, True
        return
    if budget == "exhaustive" and fixed and (narrow or (unary and form.name == "float32")):
        for start in range(0, 2**32, CHUNK):
            patterns = np.arange(start, start + CHUNK, dtype=np.uint32)
            if unary:
                yield patterns.view(form.dtype).reshape(-1, 64), None, True
            else:
                gate = (patterns >> 16).astype(form.bits).view(form.dtype).reshape(-1, 64)
                yield gate, (patterns & 0xFFFF).astype(form.bits).view(form.dtype).reshape(-1, 64), True
        return
    size = _SIZES["quick" if budget == "quick" else "full"][form.name]
    count = min(size, 2**16 if narrow else CHUNK)
    for number in range(size // count):
        # Every other call of a long run has long rows.
        columns = COLUMNS if number % 2 == 0 else LONG_ROW
        if unary:
            yield _rows(inputs.line(form, rng, count), columns), None, False
        else:
            gate, value = inputs.pairs(form, rng, count)
            yield _rows(gate, columns), _rows(value, columns), False
    if budget != "quick" and form.name != "float64":
        # One call of more than 2^20 elements, of ordinary numbers: an index that wraps, a grid that ends too early.
        shape = (LARGE // LONG_ROW + 1, LONG_ROW)
        ordinary = (4 * rng.standard_normal(shape)).astype(form.dtype)
        yield ordinary, None if unary else rng.standard_normal(shape).astype(form.dtype), False


def _rows(x: Array, columns: int = COLUMNS) -> Array:
    """A line as rows, the last one filled up from the beginning."""
    return np.resize(x, (-(-len(x) // columns), columns))


def _summed_trials(claim: Claim, form: Format, rng: np.random.Generator, kind: str) -> Iterator[Trial]:
    """One beta for many elements: its cotangent is a sum."""
    for number in _BETAS:
        yield moderate_trial(claim, form, rng, (31, 17), beta_kind=kind, beta=number)


def moderate_trial(
    claim: Claim,
    form: Format,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    *,
    beta_kind: str | None = None,
    beta: float = 1.25,
) -> Trial:
    """Normally distributed operands of a shape, for probes and for sums.

    Args:
        beta_kind: how beta is handed over, by default as the claim has it (as an array for ``"array"``).
        beta: about what it is.
    """
    gate = (4 * rng.standard_normal(shape)).astype(form.dtype)
    value = None if claim.form == "unary" else rng.standard_normal(shape).astype(form.dtype)
    cotangent = rng.standard_normal(shape).astype(form.dtype)
    if not isinstance(claim.beta, str):
        return elementwise_trial(claim, form, rng, gate, value, cotangent=cotangent)
    kind = beta_kind or claim.beta
    spread = {"scalar": (), "vector": shape[-1:], "array": shape}[kind]
    numbers = np.asarray(beta * (1 if kind == "scalar" else rng.uniform(0.8, 1.25, spread))).astype(form.dtype)
    return elementwise_trial(claim, form, rng, gate, value, beta=numbers, cotangent=cotangent, beta_kind=kind)


def elementwise_trial(
    claim: Claim,
    form: Format,
    rng: np.random.Generator,
    gate: Array,
    value: Array | None,
    *,
    beta: Array | None = None,
    beta_kind: str = "array",
    grade_beta: bool = True,
    cotangent: Array | None = None,
    exhaustive: bool = False,
) -> Trial:
    """The trial of an activation or a unit at these operands.

    Args:
        beta: what the target is handed, where the claim has it so: an array that broadcasts to the gate.
        beta_kind: which cotangent it has: its own for each element (``"array"``), or sums (``"scalar"``, ``"vector"``).
        grade_beta: whether that cotangent is graded.
    """
    if cotangent is None:
        cotangent = random_cotangents(form, rng, gate.shape)
    spread = claim.fixed_beta if beta is None else np.broadcast_to(beta, gate.shape).copy()
    elements = Elements(form, claim.activation, gate, value, spread, cotangent, limit=claim.limit, offset=claim.offset)
    kinds = {"unary": ("gate",), "packed": ("packed",), "pair": ("gate", "value")}[claim.form]
    if beta is not None and grade_beta:
        kinds += ({"array": "beta", "scalar": "number", "vector": "vector"}[beta_kind],)
    packing = Packing(claim.layout, claim.axis) if claim.form == "packed" else None
    case = elements.case(claim.function, "", (), {}, kinds, packing)
    if claim.form == "packed":
        assert value is not None
        handed = {"x": pack(gate, value, claim.layout, claim.axis)}
        names = ["value", "d gate", "d value", "d beta"]
    else:
        handed = {"x": gate} if value is None else {"gate": gate, "value": value}
        names = ["value", *(f"d {quantity.name}" for quantity in case.quantities[1:])]
    if beta is not None:
        handed["beta"] = beta
    parts = tuple(
        Part(name, "" if name == "value" else quantity.name, quantity)
        for name, quantity in zip(names, case.quantities, strict=False)
    )
    return Trial(claim, form, handed, case.inputs, cotangent, parts, exhaustive)


# Projected functions


def _projected_trials(
    claim: Claim, form: Format, rng: np.random.Generator, sizes: Mapping[str, tuple[int, ...]]
) -> Iterator[Trial]:
    """Weights of different sizes; and square ones, which fit also where they should have been transposed."""
    if "W" in sizes:
        d_in, d_hidden = sizes["W"]
        yield projected_trial(claim, form, rng, (12, d_in, d_hidden, sizes.get("W2", (0, 1))[1]))
        return
    yield projected_trial(claim, form, rng, (12, 24, 40, 16))
    yield projected_trial(claim, form, rng, (10, 24, 24, 24))


def projected_trial(
    claim: Claim, form: Format, rng: np.random.Generator, sizes: tuple[int, int, int, int], *, wide: float = 1.5
) -> Trial:
    """A projected function of (rows, d_in) through (d_in, d_hidden), and down to d_out for ``gated_ffn``."""
    rows, d_in, d_hidden, d_out = sizes
    shapes: dict[str, tuple[int, ...]] = {
        "x": (rows, d_in),
        "W": (d_in, d_hidden),
        "V": (d_in, d_hidden),
        "W2": (d_hidden, d_out),
        "b": (d_hidden,),
        "c": (d_hidden,),
        "b2": (d_out,),
    }
    arrays = {}
    for name in claim.arguments:
        if name != "beta":
            shape = shapes[name]
            spread = 1.0 if name == "x" else wide / np.sqrt(shape[0]) if len(shape) == 2 else 0.5
            arrays[name] = (spread * rng.standard_normal(shape)).astype(form.dtype)
    handed_beta = isinstance(claim.beta, str)
    columns = () if claim.beta in ("scalar",) else (d_hidden,)
    beta = rng.uniform(0.5, 2.0, columns).astype(form.dtype)
    cotangent = rng.standard_normal((rows, d_out if claim.function == "gated_ffn" else d_hidden)).astype(form.dtype)
    exact_arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    exact_beta = beta.astype(np.float64) if handed_beta else np.asarray(claim.fixed_beta)
    exact = oracle.exact_projection(
        exact_arrays, cotangent.astype(np.float64), activation=claim.activation, beta=exact_beta
    )

    def quantity(name: str) -> Quantity:
        high, low = exact[name]

        def bound(backend: str) -> Float64:
            wide = dict(exact_arrays), cotangent.astype(np.float64)
            if backend == "field":
                from gated.conformance.grading.projections import field_projection_bound

                bounds = field_projection_bound(form.name, *wide, activation=claim.activation, beta=exact_beta)
            else:
                bounds = projection_bounds(backend, form.name, *wide, activation=claim.activation, beta=exact_beta)
            return np.ldexp(bounds[name], -ulp_exponent(high, form))

        return Quantity(name, high, low, None, bound, zero_signs=False)

    handed = arrays | ({"beta": beta} if handed_beta else {})
    parts = (
        Part("value", "", quantity("value")),
        *(Part(f"d {name}", name, quantity(name)) for name in handed),
    )
    return Trial(claim, form, handed, {}, cotangent, parts)
