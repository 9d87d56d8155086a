"""Measuring: the errors of a target's results, gathered into rows, findings and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import FORMATS, Format
from gated.conformance.grading.cases import Trial
from gated.conformance.grading.observation import Part
from gated.conformance.grading.profiles import PROFILES, Profile
from gated.conformance.grading.regions import REGIONS, regions_of
from gated.conformance.grading.report import FAILURE, Finding, Picture, Region, Row

__all__ = ["Place", "Tally", "describe", "hexadecimal", "in_format", "lined_up"]

Float64 = NDArray[np.float64]

_BINS: Final = 1024
"""The bins of a picture."""

_CLASSES: Final = ("nan-at-infinity", "wrong-limit", "zero-sign")
"""Wrong classes that have a finding of their own: nan or another number for the limit at an infinity, a zero's sign."""


@dataclass(frozen=True)
class Place:
    """One element: its inputs, what was computed there, what is exact, the error and its bound."""

    at: Mapping[str, str]
    bits: Mapping[str, str]
    computed: str
    exact: str
    error: float
    bound: float
    share: float


@dataclass
class _Region:
    inputs: int = 0
    failing: int = 0
    worst: Place | None = None


@dataclass
class Tally:
    """The measurements of one quantity in one dtype, over all trials."""

    form: Format
    name: str
    profile: Profile
    inputs: int = 0
    failing: int = 0
    exhaustive: bool = True
    nearest: Place | None = None
    largest: float = 0.0
    regions: dict[str, _Region] = field(default_factory=dict)
    classes: dict[str, tuple[int, Place]] = field(default_factory=dict)
    others: int = 0
    other: Place | None = None
    """Failures that are of none of the classes: how many, and the worst."""
    _bins: dict[str, dict[int, tuple[float, float, float, str, str]]] = field(default_factory=dict)

    def add(self, trial: Trial, part: Part, result: NDArray[Any], *, flushes: bool) -> NDArray[np.bool_]:
        """Takes in the whole result that a part is of, of the trial's dtype; gives where it is past its bound."""
        quantity = part.quantity
        errors, bounds = self.profile.grade(quantity, result, self.form, flushes=flushes)
        shares = _shares(errors, bounds)
        wrong: NDArray[np.bool_] = shares > 1
        got = quantity.unpack(result)
        fits = got.shape == errors.shape
        self.inputs += errors.size
        self.failing += int(wrong.sum())
        self.exhaustive &= trial.exhaustive
        self.largest = max(self.largest, float(np.max(errors, initial=0.0)))
        if not errors.size or not fits:
            return wrong

        def place(index: tuple[int, ...]) -> Place:
            return _place(trial, part, got, index, errors, bounds, shares)

        top = _largest(shares)
        if self.nearest is None or shares[top] > self.nearest.share:
            self.nearest = place(top)
        codes = regions_of(trial.claim, self.form, trial.elements, quantity)
        for code in np.unique(codes):
            inside = codes == code
            one = self.regions.setdefault(REGIONS[code], _Region())
            one.inputs += int(inside.sum())
            one.failing += int(np.sum(wrong & inside))
            index = _largest(np.where(inside, shares, -1.0))
            if one.worst is None or shares[index] > one.worst.share:
                one.worst = place(index)
        self._add_classes(trial, part, result, got, codes, wrong, errors, shares, place, flushes=flushes)
        self._add_picture(trial, got, quantity.high, errors, bounds)
        return wrong

    def _add_classes(
        self,
        trial: Trial,
        part: Part,
        result: NDArray[Any],
        got: NDArray[Any],
        codes: NDArray[np.int8],
        wrong: NDArray[np.bool_],
        errors: Float64,
        shares: Float64,
        place: Any,
        *,
        flushes: bool,
    ) -> None:
        high = part.quantity.high
        strict = errors
        if not self.profile.strict:
            strict, _ = PROFILES["contract"].grade(part.quantity, result, self.form, flushes=flushes)
        mismatch = np.isinf(strict)
        at_infinity = np.zeros_like(wrong)
        with np.errstate(invalid="ignore"):
            for operand in trial.elements.values():
                if operand.shape == wrong.shape:
                    at_infinity |= np.isinf(operand.astype(np.float64))
        with np.errstate(invalid="ignore"):
            number = np.asarray(got, np.float64)
        lost = mismatch & at_infinity & np.isnan(number)
        signs = mismatch & (number == 0) & (np.abs(high) < self.form.smallest_normal) & ~lost
        masks = {
            "nan-at-infinity": lost,
            "wrong-limit": (mismatch | wrong) & at_infinity & ~lost & ~signs,
            "zero-sign": signs,
        }
        rest = wrong.copy()
        for name, mask in masks.items():
            rest &= ~mask
            count = int(mask.sum())
            if count:
                before, first = self.classes.get(name, (0, None))
                self.classes[name] = (before + count, first or place(_largest(mask.astype(float))))
        count = int(rest.sum())
        self.others += count
        if count:
            worst = place(_largest(np.where(rest, shares, -1.0)))
            if self.other is None or worst.share > self.other.share:
                self.other = worst

    def _add_picture(self, trial: Trial, got: NDArray[Any], high: Float64, errors: Float64, bounds: Float64) -> None:
        axis = "x" if "x" in trial.elements else "gate"
        operand = trial.elements.get(axis)
        if operand is None or operand.shape != errors.shape:
            return
        bins = self._bins.setdefault(axis, {})
        line = _line(operand, self.form)
        keys = (line * (_BINS / 2)).astype(int).ravel()
        flat = errors.ravel()
        # The largest of each bin: written in rising order, the last one stays.
        order = np.argsort(flat)
        largest = np.full(_BINS + 2, -1)
        largest[keys[order] + _BINS // 2] = order
        for i in largest[largest >= 0]:
            index = np.unravel_index(int(i), errors.shape)
            if not np.isfinite(float(operand[index])):
                continue
            error = float(flat[i])
            if int(keys[i]) not in bins or error > bins[int(keys[i])][1]:
                bins[int(keys[i])] = (
                    float(operand[index]),
                    error,
                    float(bounds[index]),
                    describe(got[index]),
                    f"{high[index]:.9g}",
                )

    def row(self) -> Row:
        """The row of the report."""
        nearest = self.nearest or Place({}, {}, "", "", 0.0, 0.0, 0.0)
        regions = []
        for name in REGIONS:
            one = self.regions.get(name)
            if one is not None and one.worst is not None:
                worst = one.worst
                regions.append(
                    Region(name, one.inputs, one.failing, worst.error, worst.at, worst.computed, worst.exact)
                )
        return Row(
            self.form.name,
            self.name,
            self.inputs,
            self.exhaustive,
            self.failing,
            nearest.error,
            nearest.bound,
            self.largest,
            nearest.at,
            nearest.bits,
            nearest.computed,
            nearest.exact,
            tuple(regions),
        )

    def findings(self) -> Iterator[Finding]:
        """What is wrong with the quantity."""
        for name in _CLASSES:
            if name in self.classes:
                count, first = self.classes[name]
                yield self._finding(name, self.profile.severity, count, first)
        if self.others and self.other is not None:
            kind = "wrong-value" if self.name == "value" else "wrong-gradient"
            where = {name: f"{one.failing:,} of {one.inputs:,}" for name, one in self.regions.items() if one.failing}
            yield self._finding(kind, FAILURE, self.others, self.other, where)

    def _finding(
        self, kind: str, severity: str, count: int, place: Place, regions: Mapping[str, str] | None = None
    ) -> Finding:
        where = ", ".join(f"{name} = {number}" for name, number in place.at.items())
        error = "the class is wrong" if math.isinf(place.error) else f"{place.error:.4g} ulp off"
        text = f"{self.name}: {count:,} of {self.inputs:,}"
        text += f"; {where or 'an element'}: {place.computed} where {place.exact} is exact"
        if severity == FAILURE and place.share > 1:
            text += f" ({error}, bound {place.bound:.4g})"
        evidence: dict[str, Any] = {
            "quantity": self.name,
            "failing": count,
            "inputs": self.inputs,
            "at": dict(place.at),
            "bits": dict(place.bits),
            "computed": place.computed,
            "exact": place.exact,
            "error": place.error,
            "bound": place.bound,
        }
        return Finding(kind, severity, text, self.form.name, evidence | ({"regions": dict(regions)} if regions else {}))

    def pictures(self) -> Iterator[Picture]:
        """Its errors against the input."""
        for axis, bins in self._bins.items():
            ordered = [bins[key] for key in sorted(bins)]
            inputs, errors, bounds, computed, exact = zip(*ordered, strict=True) if ordered else ((),) * 5
            yield Picture(self.form.name, self.name, axis, inputs, errors, bounds, computed, exact)


def lined_up(result: NDArray[Any], part: Part, form: Format) -> NDArray[Any] | None:
    """A result in the dtype, where it can be graded: a float of another width is converted, another shape is not."""
    converted = in_format(result, form)
    if converted is None or part.quantity.unpack(converted).shape != part.quantity.high.shape:
        return None
    return converted


def in_format(result: NDArray[Any], form: Format) -> NDArray[Any] | None:
    """A result in the dtype, where it is of floats."""
    if result.dtype == form.dtype:
        return result
    if result.dtype not in [one.dtype for one in FORMATS.values()]:
        return None
    with np.errstate(all="ignore"):
        return result.astype(np.float64).astype(form.dtype)


def describe(number: Any) -> str:
    """A number of any dtype in decimal."""
    with np.errstate(invalid="ignore"):
        return f"{float(number):.9g}"


def hexadecimal(number: Any, form: Format) -> str:
    """Its bit pattern."""
    return f"0x{int(np.asarray(number).view(form.bits)):0{2 * form.bits.itemsize}x}"


def _shares(errors: Float64, bounds: Float64) -> Float64:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shares = np.where(errors == 0, 0.0, errors / bounds)
    return np.where(np.isnan(shares), np.inf, shares)


def _largest(numbers: Float64) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(numbers)), numbers.shape))


def _place(
    trial: Trial,
    part: Part,
    got: NDArray[Any],
    index: tuple[int, ...],
    errors: Float64,
    bounds: Float64,
    shares: Float64,
) -> Place:
    # The cotangent of a number, and what is a sum, is of no one input.
    named = trial.elements if part.quantity.high.shape == trial.cotangent.shape else {}
    return Place(
        {name: describe(operand[index]) for name, operand in named.items()},
        {name: hexadecimal(operand[index], trial.form) for name, operand in named.items()},
        describe(got[index]),
        f"{float(part.quantity.high[index]):.17g}",
        float(errors[index]),
        float(bounds[index]),
        float(shares[index]),
    )


def _line(x: NDArray[Any], form: Format) -> Float64:
    """The floats as a line from -1 to 1 on which each has the same room."""
    with np.errstate(invalid="ignore"):
        wide = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=form.largest, neginf=-form.largest)
        fraction, exponent = np.frexp(np.abs(wide))
    least = form.lowest - form.precision
    position = np.where(wide == 0, 0.0, (exponent - 1 - least + 2 * fraction - 1) / (form.highest + 2 - least))
    line: Float64 = np.copysign(np.clip(position, 0.0, 1.0), wide)
    return line
