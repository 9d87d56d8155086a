"""A point (the inputs of one test) and a group of them, and the numbers that are points for every function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gated.conformance.error import Format
from gated.conformance.vectors._numbers import bits_of, canonical_nan, infinity, sign_bit

__all__ = ["Group", "Point", "binade_of", "landmarks", "specials"]


@dataclass(frozen=True)
class Point:
    """The inputs of one test, by name: the bit patterns of each, in row-major order where there are several."""

    inputs: Mapping[str, tuple[int, ...]]
    comment: str = ""


@dataclass(frozen=True)
class Group:
    """Points that share their parameters.

    Attributes:
        kind: ``"elementwise"``, ``"packed"`` or ``"projected"``.
        about: what the points have in common.
        parameters: Python numbers (float), names and shapes (str) of the call.
    """

    name: str
    kind: str
    about: str
    points: tuple[Point, ...]
    parameters: Mapping[str, float | str] = field(default_factory=dict)


def specials(form: Format) -> dict[str, int]:
    """The bit patterns of what every format has, by name, each in both signs; nan in one."""
    smallest_normal = 1 << (form.precision - 1)
    positive = {
        "0": 0,
        "the smallest subnormal": 1,
        "the largest subnormal": smallest_normal - 1,
        "the smallest normal": smallest_normal,
        "the largest": infinity(form) - 1,
        "inf": infinity(form),
    }
    both = {}
    for name, bits in positive.items():
        both[name], both[f"-{name}" if name in ("0", "inf") else f"minus {name}"] = bits, bits | sign_bit(form)
    return both | {"nan": canonical_nan(form)}


def landmarks(form: Format) -> tuple[int, ...]:
    """A few plain numbers, in both signs."""
    return tuple(bits_of(sign * number, form) for number in (0.5, 1.0, 2.0, 3.0, 7.5) for sign in (1.0, -1.0))


def binade_of(bits: int, form: Format) -> int | None:
    """The exponent of the binade of a finite number that is not 0."""
    magnitude = bits & (sign_bit(form) - 1)
    if magnitude == 0 or magnitude >= infinity(form):
        return None
    exponent, fraction = divmod(magnitude, 1 << (form.precision - 1))
    return exponent - 1 + form.lowest if exponent else fraction.bit_length() + form.lowest - form.precision
