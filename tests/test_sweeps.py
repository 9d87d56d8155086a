"""The exhaustive sweeps: proven results over runs of numbers, faults that are planted and found, all 16-bit inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gated.conformance import inputs
from gated.conformance.backends import FORMS, Adapter, load
from gated.conformance.error import FORMATS, ulp_exponent
from gated.conformance.sweeps import numbers, pairs
from gated.conformance.sweeps.catalogue import SWEEPS, Sweep
from gated.conformance.sweeps.enclosures import RUN, Run, run
from gated.conformance.sweeps.points import PARTIAL, exact_points, table
from gated.conformance.sweeps.running import measure_unit
from gated.conformance.sweeps.tally import Tally

Array = NDArray[Any]

BACKENDS = ("numpy", "torch", "jax")
WIDE = [name for name, sweep in SWEEPS.items() if sweep.dtype == "float32"]
PAIRS = [name for name, sweep in SWEEPS.items() if sweep.pairs]
SMALL = [name for name, sweep in SWEEPS.items() if sweep.inputs == 2**16]

# Runs of finite numbers, those where the curves turn drawn more often.
runs = st.builds(
    lambda index, sign: index | sign << 15,
    st.integers(0, 0x7F7F) | st.integers(0x3C00, 0x4300),
    st.integers(0, 1),
)


@pytest.fixture(scope="module")
def reference() -> Adapter:
    return load("numpy")


# What is proven of a run


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "gelu_tanh"])
@settings(max_examples=60)
@given(index=runs, offsets=st.lists(st.integers(0, RUN - 1), min_size=1, max_size=4))
def test_a_run_is_as_near_the_oracle_as_it_says(activation: str, index: int, offsets: list[int]) -> None:
    # A and A' are what sigmoid is made of; of gelu, the value is x A.
    found = run(activation, index)
    x = found.x[offsets]
    bits = np.uint32(index << 16) + np.array(offsets, np.uint32)
    assert np.array_equal(x, bits.view(np.float32).astype(np.float64))
    curve = found.curve()[offsets]
    if activation == "sigmoid":
        slope = exact_points(activation, "x", x)
        assert np.all(np.abs((found.slope()[offsets] - slope.high) - slope.low) <= found.slope.error)
        exact = exact_points(activation, "value", x)
        assert np.all(np.abs((curve - exact.high) - exact.low) <= found.curve.error)
    else:
        exact = exact_points(activation, "value", x)
        # The product x A is rounded once, and may underflow.
        allowed = np.abs(x) * found.curve.error + 2.0**-53 * np.abs(exact.high) + 2.0**-1074
        assert np.all(np.abs((x * curve - exact.high) - exact.low) <= allowed)


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "gelu_tanh"])
def test_a_run_of_every_binade_is_known_to_far_less_than_an_ulp(activation: str) -> None:
    form = FORMATS["float32"]
    for index in [*range(0x007F, 0x7F80, 0x80), *range(0x807F, 0xFF80, 0x80)]:
        found = run(activation, index)
        farthest = float(np.max(np.abs(found.x)))
        least = np.min(np.abs(found.curve())) * (farthest if activation != "sigmoid" else 1.0)
        ulp = max(2.0**-24 * least, form.smallest_subnormal)
        factor = farthest if activation != "sigmoid" else 1.0
        assert found.curve.error * factor <= 2.0**-24 * ulp
        if activation == "sigmoid":
            least = max(2.0**-24 * np.min(np.abs(found.slope())), form.smallest_subnormal)
            assert found.slope.error <= 2.0**-24 * least


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("segment", ["curve", "slope"])
def test_what_an_enclosure_can_be_off_by_is_what_an_error_can_be_off_by(
    name: str, segment: str, reference: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enclosures of [0.5, 1] that are known 2^-47 less well: of numbers whose ulp is at most 2^-24."""
    unit = unit_of(SWEEPS[name], bits_of(0.7))
    honest = measure_unit(name, reference, unit)

    def wider(activation: str, index: int) -> Run:
        found = run(activation, index)
        one = getattr(found, segment)
        return replace(found, **{segment: replace(one, error=one.error + 2.0**-47)})

    monkeypatch.setattr(numbers, "run", wider)
    found = measure_unit(name, reference, unit)
    takes_part = {"value": segment == "curve", "d x": segment == "slope" or name != "sigmoid-float32"}
    for quantity, tally in found.items():
        more = tally.unsure - honest[quantity].unsure
        assert more >= 2.0**-47 * 0.5 / 2.0**-24 if takes_part[quantity] else more == 0


# Faults that are planted


class Planted:
    """The reference with some results replaced."""

    flushes = False

    def __init__(
        self, honest: Adapter, fault: Callable[[Array, Array, list[Array]], None], name: str = "numpy"
    ) -> None:
        self.honest, self.fault, self.name = honest, fault, name

    def value_and_cotangents(
        self, function: str, primals: Sequence[Any], cotangent: Any, static: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        value, cotangents = self.honest.value_and_cotangents(function, primals, cotangent, static)
        value, copies = np.array(value), [np.array(one) for one in cotangents]
        self.fault(primals[0], value, copies)
        return value, tuple(copies)


def unit_of(sweep: Sweep, pattern: int) -> int:
    return pattern // sweep.unit


def bits_of(number: float) -> int:
    return int(np.float32(number).view(np.uint32))


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("pattern", [bits_of(-17.7), bits_of(3e-3), bits_of(0.7)])
def test_one_number_in_a_million_is_found(name: str, pattern: int, reference: Adapter) -> None:
    sweep = SWEEPS[name]

    def fault(x: Array, value: Array, cotangents: list[Array]) -> None:
        where = x.view(np.uint32) == pattern
        value[where] = np.nextafter(np.nextafter(value[where], np.float32(np.inf)), np.float32(np.inf))
        cotangents[0][where] = np.nan

    found = measure_unit(name, Planted(reference, fault), unit_of(sweep, pattern))
    assert found["value"].at == pattern
    # Two numbers up from the correctly rounded one, whose binade may be the lower of the two.
    assert 0.75 <= found["value"].error <= 2.5
    assert (found["value"].failing, found["value"].past_half) == (1, 1)
    assert (found["d x"].error, found["d x"].at, found["d x"].failing) == (np.inf, pattern, 1)
    assert found["value"].unsure < 2.0**-24


@pytest.mark.parametrize("name", ["swish-float32", "gelu-float32", "gelu_tanh-float32"])
def test_the_lost_tail_and_the_lost_sign_are_found(name: str, reference: Adapter) -> None:
    lost = bits_of(-5.0)
    zero = bits_of(-200.0)

    def fault(x: Array, value: Array, cotangents: list[Array]) -> None:
        value[x.view(np.uint32) == lost] = -0.0
        value[x.view(np.uint32) == zero] = 0.0

    tail = measure_unit(name, Planted(reference, fault), unit_of(SWEEPS[name], lost))["value"]
    assert (tail.at, tail.failing) == (lost, 1)
    assert tail.error > 2.0**22
    sign = measure_unit(name, Planted(reference, fault), unit_of(SWEEPS[name], zero))["value"]
    assert (sign.at, sign.error, sign.failing) == (zero, np.inf, 1)


def test_a_flushed_result_is_excused_where_the_runtime_flushes_and_only_there(reference: Adapter) -> None:
    def fault(x: Array, value: Array, cotangents: list[Array]) -> None:
        value[np.abs(value) < np.finfo(np.float32).smallest_normal] *= 0.0

    unit = unit_of(SWEEPS["swish-float32"], bits_of(-95.0))
    strict = measure_unit("swish-float32", Planted(reference, fault), unit)["value"]
    assert strict.error > 1000
    lenient = Planted(reference, fault)
    lenient.flushes = True
    assert measure_unit("swish-float32", lenient, unit)["value"].error <= 0.51


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("number", [-80.0, -1.2784645, -1e-39, 0.5, 3.0, 70.0])
def test_the_fast_measure_says_what_the_slow_one_says(name: str, number: float, reference: Adapter) -> None:
    """Results that are off by random amounts, measured by runs and, some of them, one by one by the oracle."""
    sweep = SWEEPS[name]
    form = sweep.form
    rng = np.random.default_rng(1)
    results: dict[str, list[Array]] = {"x": [], "value": [], "d x": []}

    def fault(x: Array, value: Array, cotangents: list[Array]) -> None:
        for result in (value, cotangents[0]):
            noise = (rng.integers(-3, 4, x.shape) * np.spacing(result)).astype(np.float32)
            # Where no result changes its sign, nor a zero (-0.0 + 0 is 0).
            large = np.abs(result) > 8 * form.smallest_subnormal
            result[large] += noise[large]
        for key, array in (("x", x), ("value", value), ("d x", cotangents[0])):
            results[key].append(array)

    found = measure_unit(name, Planted(reference, fault, name="torch"), unit_of(sweep, bits_of(number)))
    x = np.concatenate(results["x"])
    some = np.flatnonzero(x.view(np.uint32) % 499 == 7)
    for quantity, tally in found.items():
        some_of_it = np.union1d(some, np.flatnonzero(x.view(np.uint32) == tally.at))
        computed = np.concatenate(results[quantity])[some_of_it]
        partial = PARTIAL[quantity]
        exact = exact_points(sweep.activation, partial, x[some_of_it].astype(np.float64))
        # At a power of two the sweep takes the lower binade's ulp, however near above it the exact number is.
        binade = ulp_exponent(np.maximum(exact.scale, np.abs(exact.high)) * (1 - 2.0**-40), form)
        errors = np.ldexp(np.abs((computed.astype(np.float64) - exact.high) - exact.low), -binade)
        assert tally.error == pytest.approx(np.max(errors), abs=2 * tally.unsure)
        if tally.error:
            assert np.uint32(tally.at) == x.view(np.uint32)[some_of_it][np.argmax(errors)]


@pytest.mark.parametrize("name", PAIRS)
def test_one_pair_in_a_million_is_found(name: str, reference: Adapter) -> None:
    sweep = SWEEPS[name]
    form = sweep.form
    gate, value = (int(np.array(number, form.dtype).view(np.uint16)) for number in (-1.2734375, 3.5))

    def fault(x: Array, result: Array, cotangents: list[Array]) -> None:
        values, gates = np.split(x.view(np.uint16), 2, axis=-1)
        where = (gates == gate) & (values == value)
        result.view(np.uint16)[where] += 1
        for half in np.split(cotangents[0].view(np.uint16), 2, axis=-1):
            half[where] ^= 0x8000

    found = measure_unit(name, Planted(reference, fault), (gate << 16 | value) // sweep.unit)
    assert (found["value"].at, found["value"].failing) == (gate << 16 | value, 1)
    assert 0.5 < found["value"].error <= 1.5
    for quantity in ("d gate", "d value"):
        assert (found[quantity].at, found[quantity].failing) == (gate << 16 | value, 1)


@pytest.mark.parametrize("name", PAIRS)
def test_a_second_rounding_is_found(name: str, reference: Adapter) -> None:
    """What frameworks do: the activation is rounded to bfloat16 before it is multiplied."""

    def fault(x: Array, result: Array, cotangents: list[Array]) -> None:
        values, gates = np.split(x, 2, axis=-1)
        function = "silu" if name.startswith("swiglu") else "sigmoid"
        activated, _ = reference.value_and_cotangents(function, (gates,), np.ones_like(gates), {})
        with np.errstate(all="ignore"):
            result[:] = (activated.astype(np.float32) * values.astype(np.float32)).astype(result.dtype)

    unit = (int(np.array(1.1, SWEEPS[name].form.dtype).view(np.uint16)) << 16) // SWEEPS[name].unit
    found = measure_unit(name, Planted(reference, fault), unit)["value"]
    assert 0.9 < found.error < 1.5
    # About a quarter of the results (the gates' activations that happen to be exact have none).
    assert found.failing > 0.1 * SWEEPS[name].unit


def test_what_needs_no_further_look_is_rounded_to_the_nearest_number() -> None:
    rng = np.random.default_rng(6)
    bits = rng.integers(0, 0x7F7F_8000, 2**18).astype(np.uint32) | rng.integers(0, 2, 2**18).astype(np.uint32) << 31
    bits[: 2**10] = bits[: 2**10] & 0xFFFF_0000 | 0x8000
    nearest = bits.view(np.float32).astype(FORMATS["bfloat16"].dtype).view(np.uint16)
    assert np.array_equal(pairs._as_bfloat16(bits), nearest)
    assert np.array_equal(pairs._on_a_tie(bits), bits & 0xFFFF == 0x8000)


def hidden(product: Array) -> tuple[Array, Array]:
    """Where float32 takes a product for the middle of two bfloat16 numbers, and the even one is not the nearest."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        middle = product.astype(np.float32)
        past = np.abs(product) - np.abs(middle.astype(np.float64))
    below = (middle.view(np.uint32) >> 16).astype(np.uint16)
    even = below + (below & 1)
    return (middle.view(np.uint32) & 0xFFFF == 0x8000) & np.where(even == below, past > 0, past < 0), even


@pytest.mark.parametrize("name", PAIRS)
def test_the_wrong_side_of_what_float32_takes_for_a_tie_is_found(name: str, reference: Adapter) -> None:
    sweep = SWEEPS[name]
    with np.errstate(invalid="ignore"):
        values = inputs.all_patterns(sweep.form).astype(np.float64)
    factors = table(sweep.activation, "value", sweep.dtype).high
    # Of gates of magnitude 2^-8 to 16, the first with such a product.
    significands = values[0x3F80:0x4000]
    gates = [*range(0x3B80, 0x4180), *range(0xBB80, 0xC180)]
    gate = next(gate for gate in gates if hidden(factors[gate] * significands)[0].any())
    where, even = hidden(factors[gate] * values)

    def fault(x: Array, result: Array, cotangents: list[Array]) -> None:
        for row in np.flatnonzero(x[:, 2**16].view(np.uint16) == gate):
            result.view(np.uint16)[row, where] = even[where]

    found = measure_unit(name, Planted(reference, fault), (gate << 16) // sweep.unit)["value"]
    # One of each binade and sign.
    assert found.past_half == np.count_nonzero(where) > 100
    assert found.at >> 16 == gate and 0.5 < found.error <= 0.5 + 2.0**-16


def few(name: str, adapter: Adapter, number: float) -> dict[str, Tally]:
    """A small unit: the 2^16 numbers that begin with the bits of ``number``, or all pairs of it and its neighbours."""
    sweep = SWEEPS[name]
    pattern = int(np.array(number, sweep.form.dtype).view(sweep.form.bits))
    if sweep.pairs:
        small = replace(sweep, unit=4 << 16)
        return pairs.measure_pairs(small, adapter, (pattern << 16) // small.unit)
    small = replace(sweep, unit=1 << 16)
    return numbers.measure_numbers(small, adapter, pattern // small.unit)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("gate", [0.0, -1.28, -17.0, -88.5, 0.3, 5.0, float("inf"), float("nan")])
def test_pairs_of_a_few_gates_are_within_the_contract(name: str, backend: str, gate: float) -> None:
    for quantity, tally in few(name, load(backend), gate).items():
        assert (tally.failing, tally.error <= 0.51) == (0, True), quantity


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, marks=[] if name.startswith("sw") else [pytest.mark.inductor])
        for name in (*WIDE, *PAIRS)
        for form in FORMS
    ],
)
def test_the_other_forms_of_a_backend_are_within_the_contract(name: str, form: str) -> None:
    """Compiled, and not jitted: other instructions, the same bounds, where the curves turn and where they end."""
    adapter = load(form)
    for number in (-100.0, -88.5, -17.0, -1.28, 0.3, 5.0):
        for quantity, tally in few(name, adapter, number).items():
            assert (tally.failing, tally.share <= 1) == (0, True), (number, quantity, tally)


# All inputs of the 16-bit dtypes, each backend


@pytest.mark.parametrize("name", SMALL)
def test_every_16_bit_input_is_within_the_contract_in_each_backend(name: str) -> None:
    sweep = SWEEPS[name]
    # The three in one test: they share the exact results.
    for backend in BACKENDS:
        adapter = load(backend)
        units = [measure_unit(name, adapter, unit) for unit in range(sweep.units)]
        for quantity in sweep.quantities:
            total = Tally.sum(unit[quantity] for unit in units)
            assert (total.failing, total.error <= 0.51) == (0, True), (backend, quantity)
