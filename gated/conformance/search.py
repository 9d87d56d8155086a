"""The search for the inputs at which an implementation is least accurate: a lower bound of its largest error.

A wide dtype cannot be swept. Points of every binade, sign and threshold are tried first; then, generation after
generation, points near the worst ones found, a random number of bit patterns away, and fresh ones beside them. The
worst point of every eighth of a binade is kept, so that one bad region does not take all the attention. Points are
ranked by a fast evaluation that proves nothing; what is reported is proven by the oracle, and so is never above the
true maximum.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance import oracle
from gated.conformance._long_math import HAS_LONG_DOUBLE, LongMath
from gated.conformance._search_points import Archive, Points, generation
from gated.conformance.backends import Adapter
from gated.conformance.calls import activation_of
from gated.conformance.closed_forms import activation_terms
from gated.conformance.elements import Elements, Packing
from gated.conformance.error import FORMATS, Format
from gated.conformance.quantities import Case, pack
from gated.contract import ARRAY_PARAMETERS

__all__ = ["FUNCTIONS", "Found", "search"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

FUNCTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "sigmoid": ("x",),
    "silu": ("x",),
    "swish": ("x", "beta"),
    "gelu": ("x",),
    "relu": ("x",),
    "glu": ("gate", "value"),
    "bilinear": ("gate", "value"),
    "reglu": ("gate", "value"),
    "geglu": ("gate", "value"),
    "swiglu": ("gate", "value"),
    "clamped_swiglu": ("gate", "value"),
    "gated_unit": ("gate", "value", "beta"),
}
"""The functions that can be searched, and the inputs that are varied beside the cotangent.

beta is varied where it is an input of its own; the silu and the swiglu have a beta of 1.
"""

_OBJECTIVES: Final = ("error", "share")
_BATCH: Final = 2**16


@dataclass(frozen=True)
class Found:
    """The worst point of a search for one result, proven by the oracle.

    Attributes:
        quantity: ``"result"``, ``"d_x"``, ``"d_gate"``, ``"d_value"`` or ``"d_beta"``.
        objective: ``"error"``: the largest error in ulp; ``"share"``: the largest share of the contract's bound.
        error: in ulp; inf: the class is wrong (nan, an infinity, a zero of the wrong sign).
        bound: the contract's, in ulp, at this point.
        at: the inputs, as bit patterns in hex.
        evaluations: how many points the whole search has tried.
    """

    backend: str
    function: str
    static: Mapping[str, Any]
    dtype: str
    quantity: str
    objective: str
    error: float
    bound: float
    at: Mapping[str, str]
    evaluations: int
    seed: int


def search(
    adapter: Adapter,
    function: str,
    dtype: str,
    *,
    evaluations: int,
    seed: int,
    static: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Found]:
    """The worst inputs that are found of a function's value and gradients, two for each: by error and by share.

    The same arguments find the same points, on the same machine.

    Args:
        adapter: the implementation.
        function: one of :data:`FUNCTIONS`.
        dtype: of all inputs.
        evaluations: how many points are tried.
        seed: of all that is random.
        static: keywords of the function: ``approximate``, ``alpha``, ``limit``, ``offset``, ``activation``.
        progress: called after every generation with the number of points tried so far.

    Raises:
        ValueError: the function, the dtype or a keyword is unknown, or there is nothing to evaluate.
    """
    if function not in FUNCTIONS:
        raise ValueError(f'search: function must be one of {", ".join(FUNCTIONS)}, got "{function}"')
    if dtype not in FORMATS:
        raise ValueError(f'search: dtype must be one of {", ".join(FORMATS)}, got "{dtype}"')
    if evaluations < 1:
        raise ValueError(f"search: evaluations must be at least 1, got {evaluations}")
    trial = _Trial(adapter, function, FORMATS[dtype], dict(static or {}))
    rng = np.random.default_rng([seed, zlib.crc32(repr((function, dtype, sorted(trial.static.items()))).encode())])
    archives = {(name, objective): Archive(trial.form) for name in trial.quantities for objective in _OBJECTIVES}
    batch = min(_BATCH, max(256, evaluations // 16))
    tried = 0
    while tried < evaluations:
        # One size throughout: a compiler of array programs compiles for every shape.
        points = generation(trial.form, trial.names, list(archives.values()), rng, batch)
        count = min(batch, evaluations - tried)
        scores = trial.measured(points, trial.ranked)
        for (name, objective), archive in archives.items():
            archive.add(
                _score(*scores[name][:2], objective)[:count], {key: array[:count] for key, array in points.items()}
            )
        tried += count
        if progress is not None:
            progress(tried)
    return [_proven(trial, *key, archive, tried, seed) for key, archive in archives.items()]


# An implementation under trial


class _Proven(Elements):
    """Elements whose exact results are the oracle's in every dtype."""

    def _exact(
        self, partial: str, cotangent: Float64, value: Float64, offset: float
    ) -> tuple[Float64, Float64, Float64]:
        return oracle.exact_sums(
            oracle.unit_terms(self.activation, partial, offset), cotangent, self.gate, value, self.beta
        )


class _Ranked(Elements):
    """Elements whose exact results are good to some 60 bits."""

    def _exact(
        self, partial: str, cotangent: Float64, value: Float64, offset: float
    ) -> tuple[Float64, Float64, Float64]:
        with np.errstate(all="ignore"):
            c, gate, v, beta = (np.asarray(one, np.longdouble) for one in (cotangent, self.gate, value, self.beta))
            terms = [
                c * one * (v + offset) for one in activation_terms(LongMath(), self.activation, partial, gate, beta)
            ]
            total = np.sum(np.broadcast_arrays(*terms), axis=0)
            largest = np.finfo(np.float64).max
            inside = np.abs(total) <= np.longdouble(largest) * (1 + 2.0**-48)
            high = np.where(inside, np.clip(total, -largest, largest), total).astype(np.float64)
            low = np.where(inside, total - high, 0).astype(np.float64)
            scale = np.max(np.abs(np.stack(np.broadcast_arrays(*terms))), axis=0).astype(np.float64)
        return high, low, scale


class _Trial:
    """A function of an implementation in one dtype: what is measured at points."""

    def __init__(self, adapter: Adapter, function: str, form: Format, static: dict[str, Any]) -> None:
        self.adapter, self.function, self.form, self.static = adapter, function, form, static
        self.activation, self.keywords = activation_of(function, static)
        self.names = FUNCTIONS[function]
        self.quantities = ("result", *(f"d_{name}" for name in self.names))
        # In the narrower dtypes the reference in float64 is as good as exact, and fast.
        self.ranked = Elements if form.name != "float64" else _Ranked if HAS_LONG_DOUBLE else _Proven

    def _case(self, points: Points, kind: type[Elements]) -> Case:
        function, static = self.function, dict(self.static)
        gate, value = points[self.names[0]], points.get("value")
        beta: Array | float = points.get("beta", self.keywords.get("alpha", 1.0))
        clamp = {name: self.keywords[name] for name in ("limit", "offset") if name in self.keywords}
        elements = kind(self.form, self.activation, gate, value, beta, points["cotangent"], **clamp)
        beta_cotangent = ("beta",) if "beta" in self.names else ()
        if value is None or function == "gated_unit":
            primals = tuple(points[name] for name in self.names)
            kinds = ("gate", "value") if value is not None else ("gate",)
            return elements.case(function, "", primals, static, (*kinds, *beta_cotangent))
        packing = Packing("gate_last")
        x = pack(gate, value, packing.layout)
        static |= {"axis": packing.axis, "layout": packing.layout}
        return elements.case(
            function, "", (x, *(points[name] for name in self.names[2:])), static, ("packed",), packing
        )

    def measured(self, points: Points, kind: type[Elements]) -> dict[str, tuple[Float64, Float64, Array]]:
        """For each quantity the errors and the bounds at points, and what was computed there."""
        case = self._case(points, kind)
        value, cotangents = self.adapter.value_and_cotangents(self.function, case.primals, case.cotangent, case.static)
        parameters = ARRAY_PARAMETERS[self.function]
        results = {}
        for name, quantity in zip(self.quantities, case.quantities, strict=True):
            result = value if name == "result" else cotangents[parameters.index(quantity.name)]
            errors = quantity.errors(np.asarray(result), self.form, flush=self.adapter.flushes)
            bounds = np.broadcast_to(quantity.bound(self.adapter.name), errors.shape)
            results[name] = errors, bounds, quantity.unpack(np.asarray(result))
        return results

    def proven(self, name: str, points: Points, i: int, computed: float) -> float:
        """The error of one finite result to all digits: a pair of float64 numbers loses some below 2^-1022."""
        inputs = {key: float(array[i]) for key, array in points.items() if name != "result" or key != "cotangent"}
        exact = oracle.correctly_rounded(self.function, name, self.form, inputs, static=self.static)
        if exact.ulp_exponent is None or not math.isfinite(computed):
            return math.inf
        # Below 10^-20000 a decimal is a bound, and nothing beside any ulp.
        value = Fraction(0) if exact.decimal[0] in "<>" else Fraction(exact.decimal)
        return float(abs(Fraction(computed) - value) / Fraction(2) ** exact.ulp_exponent)


# What is found


def _score(errors: Float64, bounds: Float64, objective: str) -> Float64:
    if objective == "error":
        return errors
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(errors == 0, 0.0, errors / bounds)


def _proven(trial: _Trial, name: str, objective: str, archive: Archive, evaluations: int, seed: int) -> Found:
    """The worst point by proven scores: groups are proven until no unproven one is ranked above the best proven."""
    best, found = -math.inf, None
    for highest, points in archive.ranking():
        if highest <= best:
            break
        errors, bounds, computed = trial.measured(points, _Proven)[name]
        i = int(np.argmax(_score(errors, bounds, objective)))
        errors = errors.copy()
        if 0 < errors[i] < math.inf and np.isfinite(computed[i]):
            errors[i] = trial.proven(name, points, i, float(computed[i]))
        scores = _score(errors, bounds, objective)
        if scores[i] > best:
            best = float(scores[i])
            at = {
                key: _hex(array[i], trial.form)
                for key, array in points.items()
                if name != "result" or key != "cotangent"
            }
            found = Found(
                backend=trial.adapter.name,
                function=trial.function,
                static=trial.static,
                dtype=trial.form.name,
                quantity=name,
                objective=objective,
                error=float(errors[i]),
                bound=float(bounds[i]),
                at=at,
                evaluations=evaluations,
                seed=seed,
            )
    assert found is not None
    return found


def _hex(number: Any, form: Format) -> str:
    return f"0x{int(np.asarray(number).view(form.bits)):0{2 * form.bits.itemsize}x}"
