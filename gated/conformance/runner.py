"""The run: each function in each backend and dtype against the exact results, a row each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.backends import Adapter, load
from gated.conformance.cases import cases
from gated.conformance.error import FORMATS
from gated.conformance.quantities import Case, Quantity
from gated.conformance.versions import versions
from gated.contract import ARRAY_PARAMETERS

__all__ = ["Measurement", "Row", "run", "run_in_processes", "versions", "within"]

WITHIN: Final = "within"
NOT_MET: Final = "not met"
ERROR: Final = "error"


@dataclass(frozen=True)
class Measurement:
    """The element of one result that came closest to its bound, or went farthest past it."""

    quantity: str
    """``"value"``, or ``"d "`` and the argument whose cotangent it is."""
    case: str
    error: float
    """In ulp; inf: the class is wrong (nan, an infinity, a zero of the wrong sign, a wrong dtype or shape)."""
    bound: float
    largest: float
    """The largest error of all elements, whatever their bounds: those differ where the contract's allowance does."""
    largest_at: dict[str, str]
    """Its inputs, in decimal."""
    at: dict[str, str]
    """The inputs of the element nearest its bound, in decimal."""
    bits: dict[str, str]
    """The inputs there, as bit patterns in hex."""
    computed: str
    exact: str
    failing: int
    """How many elements are past their bound."""
    rounding_bound: bool
    """The bound is that of the rounding errors of products or sums, not a constant of the contract."""

    @property
    def share(self) -> float:
        """error / bound: past 1 the bound is not met."""
        share = 0.0 if self.error == 0 else self.error / self.bound if self.bound else np.inf
        return np.inf if np.isnan(share) else share


@dataclass
class Row:
    """A function in a backend and a dtype: the inputs tried, the worst of the value and of the gradients."""

    function: str
    dtype: str
    backend: str
    inputs: int = 0
    value: Measurement | None = None
    gradient: Measurement | None = None
    failure: str = ""
    all: list[Measurement] = field(default_factory=list)

    def add(self, measurement: Measurement) -> None:
        """Takes a measurement in, and keeps the worst."""
        self.all.append(measurement)
        kind = "value" if measurement.quantity == "value" else "gradient"
        worst = getattr(self, kind)
        if worst is None or measurement.share > worst.share:
            setattr(self, kind, measurement)

    def largest(self, *, gradient: bool) -> Measurement | None:
        """The measurement with the largest error of the value or of the gradients, whatever the bound there."""
        kinds = [one for one in self.all if (one.quantity != "value") == gradient]
        return max(kinds, key=lambda one: one.largest, default=None)

    @property
    def worst(self) -> Measurement | None:
        """The measurement that is closest to its bound."""
        known = [one for one in (self.value, self.gradient) if one is not None]
        return max(known, key=lambda one: one.share, default=None)

    @property
    def verdict(self) -> str:
        """``"within"`` the contract, a bound ``"not met"``, or an ``"error"``: the call raised or measured nothing."""
        if self.failure or self.worst is None:
            return ERROR
        return WITHIN if self.worst.share <= 1 else NOT_MET


def within(rows: Sequence[Row]) -> bool:
    """Whether there are rows and all of them are within the contract."""
    return bool(rows) and all(row.verdict == WITHIN for row in rows)


def run(
    adapters: Sequence[Adapter],
    functions: Sequence[str],
    dtypes: Sequence[str],
    *,
    seed: int = 0,
    size: int | None = None,
) -> Iterator[Row]:
    """A row for each function, dtype and backend, in that order.

    Args:
        seed: of the random inputs.
        size: about how many inputs a broad case has; see :func:`gated.conformance.cases.cases`.
    """
    for function in functions:
        for dtype in dtypes:
            try:
                built = list(cases(function, dtype, seed=seed, size=size))
            except ArithmeticError as error:
                yield from (Row(function, dtype, adapter.name, failure=str(error)) for adapter in adapters)
                continue
            for adapter in adapters:
                row = Row(function, dtype, adapter.name)
                for case in built:
                    row.inputs += case.size
                    try:
                        measure(adapter, case, dtype, row)
                    except Exception as error:  # whatever an implementation raises is its row's finding
                        row.failure = f"{case.label or 'value'}: {type(error).__name__}: {error}".splitlines()[0]
                yield row


def run_in_processes(
    backends: Sequence[str],
    functions: Sequence[str],
    dtypes: Sequence[str],
    *,
    jobs: int,
    device: str | None = None,
    seed: int = 0,
    size: int | None = None,
) -> Iterator[Row]:
    """The rows of :func:`run`, by ``jobs`` processes at once, in the order in which they are finished.

    Args:
        backends: the names of the adapters, which each process loads for itself.
        device: given to all but NumPy; see :func:`gated.conformance.backends.load`.
    """
    # The last functions have the most to compile: begun first, they do not leave one process to finish alone.
    tasks = [(function, dtype) for function in reversed(functions) for dtype in dtypes]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, _start_process, (tuple(backends), device)) as pool:
        futures = {pool.submit(_rows, *task, seed, size): task for task in tasks}
        for future in as_completed(futures):
            try:
                yield from future.result()
            except BrokenProcessPool:
                function, dtype = futures[future]
                for backend in backends:
                    yield Row(function, dtype, backend, failure="the process that measured it died")


_loaded: list[Adapter] = []


def _start_process(backends: Sequence[str], device: str | None) -> None:
    # Several processes share a GPU only if none of them takes all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _loaded.extend(load(name, None if name == "numpy" else device) for name in backends)


def _rows(function: str, dtype: str, seed: int, size: int | None) -> list[Row]:
    return list(run(_loaded, [function], [dtype], seed=seed, size=size))


def measure(adapter: Adapter, case: Case, dtype: str, row: Row) -> None:
    """Runs a case through a backend and adds its measurements to the row."""
    value, cotangents = adapter.value_and_cotangents(case.function, case.primals, case.cotangent, case.static)
    row.add(_measured(case, case.quantities[0], np.asarray(value), dtype, adapter, "value"))
    for quantity in case.quantities[1:]:
        cotangent = cotangents[ARRAY_PARAMETERS[case.function].index(quantity.name)]
        row.add(_measured(case, quantity, np.asarray(cotangent), dtype, adapter, f"d {quantity.name}"))


def _measured(
    case: Case, quantity: Quantity, result: NDArray[Any], dtype: str, adapter: Adapter, name: str
) -> Measurement:
    form = FORMATS[dtype]
    errors = quantity.errors(result, form, flush=adapter.flushes)
    bounds = np.broadcast_to(quantity.bound(adapter.name), errors.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(errors == 0, 0.0, errors / bounds)
    shares = np.where(np.isnan(shares), np.inf, shares)
    index = np.unravel_index(int(np.argmax(shares)), shares.shape)
    top = np.unravel_index(int(np.argmax(errors)), errors.shape)
    part = quantity.unpack(result) if result.dtype == form.dtype else result
    fits = part.shape == errors.shape
    # The cotangent of a number is of no one input.
    named = case.inputs if errors.shape == case.cotangent.shape else {}
    return Measurement(
        quantity=name,
        case=case.label,
        error=float(errors[index]),
        bound=float(bounds[index]),
        largest=float(errors[top]),
        largest_at={name: f"{float(array[top]):.9g}" for name, array in named.items()},
        at={name: f"{float(array[index]):.9g}" for name, array in named.items()},
        bits={name: _hex(array[index], form.bits) for name, array in named.items()},
        computed=f"{float(part[index]):.9g}" if fits else f"{result.dtype} of shape {result.shape}",
        exact=f"{float(quantity.high[index]):.17g}" if fits else f"{dtype} of shape {quantity.high.shape}",
        failing=int(np.sum(shares > 1)),
        rounding_bound=not named,
    )


def _hex(number: Any, bits: np.dtype[Any]) -> str:
    return f"0x{int(np.asarray(number).view(bits)):0{2 * bits.itemsize}x}"
