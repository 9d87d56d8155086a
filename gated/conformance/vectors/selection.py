"""Which inputs the elementwise vectors have: specials, thresholds, hard cases, betas, random points, every binade.

The choice is made with integers and the oracle alone; it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Final

from gated.conformance.error import Format
from gated.conformance.oracle import correctly_rounded
from gated.conformance.vectors._near_ties import double_rounded
from gated.conformance.vectors._numbers import Exact, bits_of, decode, infinity, order, sign_bit, unorder
from gated.conformance.vectors._points import Group, Point, binade_of, landmarks, specials
from gated.conformance.vectors._streams import Stream
from gated.conformance.vectors._thresholds import activation_thresholds, bend, boundary
from gated.conformance.vectors.catalogue import FUNCTIONS, Function

__all__ = ["RANDOM_POINTS", "activation_of", "elementwise_groups"]

RANDOM_POINTS: Final = 200
"""At least so many random points are in a file."""

_CLAMPS: Final = {
    "": {"alpha": 1.702, "limit": 7.0, "offset": 1.0},
    "-plain": {"alpha": 1.25, "limit": 3.5, "offset": 0.0},
}
_NUMBERS: Final = (0.1, 1.702, -1.3, 0.0)
"""Values of beta as a Python number: the first three are numbers of no narrow format."""

_EVERY_BINADE: Final = "swish"
"""The function whose float64 file has every binade."""

_PITFALLS: Final = {
    -91.2: "x / (1 + e^-x) is -0 here in float32 and bfloat16",
    -17.7: "a sigmoid that saturates early is far off",
    -1.28: "next to where the derivative is 0",
}
"""Where implementations in use were found wrong."""

_SHARE: Final = 16
"""The float64 file of another activation has one in so many of the binades where nothing bends."""


def activation_of(function: Function) -> Function | None:
    """The entry of a unit's activation; None for the identity, which has none."""
    return next(
        (one for one in FUNCTIONS.values() if one.kind == "activation" and one.activation == function.activation), None
    )


def elementwise_groups(function: Function, form: Format) -> Iterator[Group]:
    """The groups of points of an activation or unit, without those of packed arrays."""
    choices: Mapping[str, Mapping[str, float]]
    choices = _CLAMPS if function.name == "clamped_swiglu" else {"": {"beta": 1.0} if function.takes_beta else {}}
    chosen = _Chooser(function, form)
    main: list[Group] = []
    for suffix, parameters in choices.items():
        groups = {
            "special": ("zeros, infinities, nan, the ends of the ranges", chosen.special(suffix)),
            "threshold": ("both sides of each threshold", chosen.thresholds(parameters)),
        }
        if not suffix:
            groups |= {
                "hard": ("next to a tie: a wider format rounds them onto it", chosen.hard()),
                "random": ("random numbers where the activation bends", chosen.random()),
            }
        for name, (about, points) in groups.items():
            group = chosen.group(name + suffix, about, points, parameters)
            if group.points:
                yield group
                main.append(group)
    about = "a random number of each binade that no group above has, and random bit patterns"
    yield chosen.group("binade", about, chosen.binades(main), choices[""])
    if function.takes_beta:
        yield chosen.group("beta", "beta is an argument", chosen.betas(), {})
        for beta in _NUMBERS:
            about = "beta is a Python number, which keeps its double value"
            yield chosen.group(f"beta-{beta}", about, chosen.number(beta), {"beta": beta})


class _Chooser:
    """The points of a function in a format."""

    def __init__(self, function: Function, form: Format) -> None:
        self._function, self._form = function, form
        self._seen: dict[tuple[tuple[str, float], ...], set[tuple[tuple[str, tuple[int, ...]], ...]]] = {}
        self._activation = activation_of(function)
        # Where there is nothing to bend, the range of the functions that do.
        self._thresholds: dict[int, str] = {}
        self._bend = 5
        if self._activation is not None and self._activation.name != "relu":
            self._thresholds = activation_thresholds(self._activation, form)
            self._bend = bend(self._activation, form)

    def group(self, name: str, about: str, points: Iterable[Point], parameters: Mapping[str, float]) -> Group:
        """A group of the points that no group with the same parameters has had."""
        seen = self._seen.setdefault(tuple(parameters.items()), set())
        new = []
        for point in points:
            inputs = tuple(point.inputs.items())
            if inputs not in seen:
                seen.add(inputs)
                new.append(point)
        return Group(name, "elementwise", about, tuple(new), parameters)

    def _point(self, *numbers: int, cotangent: int | None = None, comment: str = "", **more: int) -> Point:
        cotangent = self._bits(1.0) if cotangent is None else cotangent
        names = (*self._function.arguments, *more, "cotangent")
        return Point(
            {name: (bits,) for name, bits in zip(names, (*numbers, *more.values(), cotangent), strict=True)}, comment
        )

    def _bits(self, number: float) -> int:
        return bits_of(number, self._form)

    def _stream(self, purpose: str) -> Stream:
        return Stream(self._function.name, self._form.name, purpose)

    # Specials

    def special(self, suffix: str) -> Iterator[Point]:
        form, function = self._form, self._function
        named = specials(form)
        if suffix:
            for (name, value), plain_gate in product(named.items(), (1.5, -1.5)):
                yield self._point(self._bits(plain_gate), value, comment=f"value: {name}")
            return
        if function.kind == "activation":
            yield from (self._point(bits, comment=name) for name, bits in named.items())
            yield from (self._point(bits) for bits in landmarks(form))
            return
        plain = {name: self._bits(float(name)) for name in ("1", "-1")}
        without = {name: bits for name, bits in named.items() if name in ("0", "-0", "inf", "-inf", "nan")} | plain
        for (gate_name, gate), (value_name, value) in product(without.items(), without.items()):
            yield self._point(gate, value, comment=f"gate {gate_name}, value {value_name}")
        for name, bits in named.items():
            if name not in without:
                yield self._point(bits, self._bits(-1.5), comment=f"gate: {name}")
                yield self._point(self._bits(1.5), bits, comment=f"value: {name}")
                yield self._point(self._bits(-1.5), bits, comment=f"value: {name}")
        yield self._point(infinity(form) - 1, infinity(form) - 1, comment="the largest twice")
        tiny = "an activation that is not zero, however small, times an infinity"
        for far, infinite in product((-(2.0**form.highest), -40.0), (float("inf"), float("-inf"))):
            yield self._point(self._bits(far), self._bits(infinite), comment=tiny)
        yield from (self._point(gate, self._bits(2.5)) for gate in landmarks(form))

    # Thresholds

    def thresholds(self, parameters: Mapping[str, float]) -> Iterator[Point]:
        form, function = self._form, self._function
        if function.kind == "activation":
            yield from (self._point(bits, comment=text) for bits, text in self._thresholds.items())
            if function.name == "swish":
                yield from (self._point(self._bits(x), comment=text) for x, text in _PITFALLS.items())
            return
        if "limit" in parameters:
            yield from self._clamp(parameters)
        elif self._thresholds:
            large = self._bits(-1.375 * 2.0 ** (form.highest - 2))
            for gate, text in self._thresholds.items():
                yield self._point(gate, self._bits(1.0), comment=f"activation: {text}")
                if decode(gate, form) < -4:
                    yield self._point(gate, large, comment=f"activation: {text}; large value")
                if "derivative not below" in text:
                    ends = {"terms past the range": infinity(form) - 1, "times infinity": infinity(form)}
                    for what, value in ends.items():
                        comment = f"the derivative cancels; {what}"
                        yield self._point(gate, value, cotangent=self._bits(-32.0), comment=comment)
        yield from self._ends(parameters)

    def _ends(self, parameters: Mapping[str, float]) -> Iterator[Point]:
        """The ends of the range along the value and, where a parameter moves them, along the gate."""
        form, function = self._form, self._function
        static = {**function.static, **parameters}
        beta = {"beta": parameters["beta"]} if "beta" in parameters else {}
        static.pop("beta", None)

        def magnitude(gate: int, value: int) -> int:
            inputs = {"gate": decode(gate, form), "value": decode(value, form), **beta}
            bits = correctly_rounded(function.call, "result", form, inputs, static=static).bits
            return bits & (sign_bit(form) - 1)

        least, largest = decode(1, form), decode(infinity(form) - 1, form)
        smallest_normal = 1 << (form.precision - 1)
        for gate in (self._bits(-1.5), self._bits(3.0)):
            for kind, holds, end in (
                ("finite", lambda value, gate=gate: magnitude(gate, value) < infinity(form), largest),
                ("normal", lambda value, gate=gate: magnitude(gate, value) >= smallest_normal, least),
                ("not rounded to 0", lambda value, gate=gate: magnitude(gate, value) > 0, least),
            ):
                for bits, text in _sides(boundary(holds, 0.5, end, form), kind):
                    yield self._point(gate, bits, comment=f"value: {text}")
        if "alpha" not in parameters:
            return
        for value in (self._bits(-1.5), self._bits(parameters["limit"])):
            for kind, along, end in (
                ("normal", lambda gate, value=value: magnitude(gate, value) >= smallest_normal, -largest),
                ("not rounded to 0", lambda gate, value=value: magnitude(gate, value) > 0, -largest),
            ):
                for bits, text in _sides(boundary(along, -1.5, end, form), kind):
                    yield self._point(bits, value, comment=f"gate: {text}")

    def _clamp(self, parameters: Mapping[str, float]) -> Iterator[Point]:
        limit, offset = self._bits(parameters["limit"]), self._bits(parameters["offset"])
        negative = sign_bit(self._form)
        edges = {"below": limit - 1, "at": limit, "above": limit + 1}
        for (name, edge), value in product(edges.items(), (1.0, -1.5)):
            yield self._point(edge, self._bits(value), comment=f"gate {name} the limit")
        for (name, edge), gate in product(edges.items(), (1.0, -1.5, -30.0)):
            yield self._point(self._bits(gate), edge, comment=f"value {name} the limit")
            yield self._point(self._bits(gate), edge | negative, comment=f"value {name} minus the limit")
        for step in (-1, 0, 1):
            near = unorder(order(offset ^ negative, self._form) + step, self._form)
            yield self._point(self._bits(2.0), near, comment="value next to minus the offset")
        stream = self._stream("clamp")
        for _ in range(16):
            numbers = stream.spread(-2, 5, self._form), stream.spread(-3, 4, self._form)
            yield self._point(*numbers, cotangent=stream.cotangent(self._form))

    # Hard cases

    def hard(self) -> Iterator[Point]:
        """In a 16-bit format by way of float32, in float32 by way of float64."""
        form, activation = self._form, self._activation
        wider = {"float16": 24, "bfloat16": 24, "float32": 53}.get(form.name)
        if wider is None or activation is None or activation.name == "relu" or self._function.name == "clamped_swiglu":
            return
        stream = self._stream("hard")
        quantity = "d_x" if self._function.kind == "activation" else "result"
        found = 0
        while found < (3 if form.name == "float32" else 6):
            x = stream.spread(-3, 2, form)
            exact = correctly_rounded(
                activation.call, quantity, form, {"x": decode(x, form)}, static=activation.static
            ).decimal
            factor = Exact(exact).fraction
            for significand in double_rounded(factor, form.precision, wider):
                found += 1
                # 2^-(precision - 1) n is in [1, 2): the product is a normal number.
                number = self._bits(significand * 2.0 ** (1 - form.precision))
                if self._function.kind == "activation":
                    yield self._point(x, cotangent=number)
                else:
                    yield self._point(x, number)
                break

    # Betas

    def betas(self) -> Iterator[Point]:
        form = self._form
        stream = self._stream("beta")
        named = specials(form)
        value = () if self._function.kind == "activation" else (self._bits(-1.5),)
        ends = [named[name] for name in ("0", "-0", "inf", "-inf", "nan")]
        for x, beta in product([*ends, self._bits(2.0), self._bits(-2.0)], [*ends, self._bits(1.0), self._bits(-1.0)]):
            yield self._point(x, *value, beta=beta)
        for name, bits in named.items():
            if bits not in ends:
                yield self._point(self._bits(-1.25), *value, beta=bits, comment=f"beta: {name}")
        for number in (0.5, 1.702, 10.0, -1.5, 100.0, -64.0):
            for _ in range(2):
                yield self._random_beta(stream, self._bits(number))
        for _ in range(24):
            yield self._random_beta(stream, stream.spread(-12, 11, form))

    def _random_beta(self, stream: Stream, beta: int) -> Point:
        """beta x where the activation bends."""
        form = self._form
        exponent = binade_of(beta, form)
        assert exponent is not None
        x = stream.spread(-4 - exponent, self._bend - 1 - exponent, form)
        value = () if self._function.kind == "activation" else (stream.spread(-4, 4, form),)
        return self._point(x, *value, beta=beta, cotangent=stream.cotangent(form))

    def number(self, beta: float) -> Iterator[Point]:
        form = self._form
        stream = self._stream(f"beta {beta}")
        for _ in range(6):
            x = stream.spread(-3, self._bend - 1, form)
            value = () if self._function.kind == "activation" else (stream.spread(-4, 4, form),)
            yield self._point(x, *value, cotangent=stream.cotangent(form))

    # Random points and binades

    def random(self) -> Iterator[Point]:
        """Numbers at which the activation bends."""
        form = self._form
        stream = self._stream("random")
        for _ in range(RANDOM_POINTS // 2):
            x = stream.spread(-6, self._bend - 1, form)
            value = () if self._function.kind == "activation" else (stream.spread(-12, 11, form),)
            yield self._point(x, *value, cotangent=stream.cotangent(form))

    def binades(self, others: Iterable[Group]) -> Iterator[Point]:
        """A random number of each binade that no other group has; in float64 of those that the file is to have.

        The first ones, and as many of random bit patterns as it takes to make them half of :data:`RANDOM_POINTS`, have
        random cotangents, the others 1.
        """
        form = self._form
        stream = self._stream("binade")
        missing = []
        for place, name in enumerate(self._function.arguments):
            had = {binade_of(point.inputs[name][0], form) for group in others for point in group.points}
            missing.append(stream.shuffled([e for e in self._wanted(place) if e not in had]))
        count = max(map(len, missing))
        for index in range(max(count, RANDOM_POINTS // 2)):
            numbers = []
            for binades in missing:
                if index < len(binades):
                    numbers.append(stream.in_binade(binades[index], form))
                else:
                    # Where one argument has no binade left, its numbers are plain ones.
                    numbers.append(stream.spread(-2, 2, form) if index < count else stream.pattern(form))
            yield self._point(*numbers, cotangent=stream.cotangent(form) if index < RANDOM_POINTS // 2 else None)

    def _wanted(self, place: int) -> list[int]:
        """The binades that an argument's numbers are to come from.

        All of them; in float64, where there are 2098, a file but one has those between 2^-60, below which an activation
        is linear to the last bit, and the bend, and a share of the others. All units together have every binade, as
        that of a gate or of a value.
        """
        form, function = self._form, self._function
        binades = list(range(form.lowest - form.precision + 1, form.highest + 1))
        if form.name != "float64" or function.name == _EVERY_BINADE:
            return binades
        kind = [one.name for one in FUNCTIONS.values() if one.kind == function.kind]
        parts = len(kind) * 2 if function.kind == "unit" else _SHARE
        part = kind.index(function.name) + place * len(kind)
        return [e for e in binades if -60 <= e <= self._bend or e % parts == part]


def _sides(pair: tuple[int, int] | None, kind: str) -> Iterator[tuple[int, str]]:
    """Both sides of a threshold past which the result is not of a kind, with what they are."""
    if pair is not None:
        yield pair[0], f"last with a result {kind}"
        yield pair[1], f"first without a result {kind}"
