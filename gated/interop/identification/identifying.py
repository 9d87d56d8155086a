"""Which gated feed-forward block some weights are, from one input and the output that was recorded for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.error import FORMATS
from gated.contract import DTYPES
from gated.interop._state import State
from gated.interop.arrays import Array, dtype_name
from gated.interop.errors import InteropError
from gated.interop.identification.candidates import read_parts
from gated.interop.identification.matches import Match, Matches
from gated.interop.identification.naming import description, expressions, name
from gated.interop.identification.rounding import Arithmetic
from gated.interop.identification.search import Found, search
from gated.interop.identification.separation import separate
from gated.interop.identification.stored import Stored, numpy_view, read_state, units

__all__ = ["identify"]

_SEED: Final = 0
_SEPARATED: Final = 4
_REPORTED: Final = 4


def identify(
    state: State, x: Array, y: Array, *, prefix: str = "", experts: int | None = None, dtype: str | None = None
) -> Matches:
    r"""Every way to read weights as a gated feed-forward block, ranked by how well it gives a recorded output.

    Tried are all assignments of the arrays to gate, value and down projection that their shapes allow, in both
    orientations, separate, packed in halves or interleaved, stacked, with and without each bias, and without a down
    projection where y has the hidden size; with the six activations of the contract, quick gelu, and the clamped unit
    of gpt-oss, its clamp or its offset lost. Where none of these gives the output, swish's beta is fitted. Keys are not
    looked at, but to name the families that have them.

    The error of a way is the largest :math:`|y - \hat y| / \text{bound}`, with :math:`\hat y` its output in float64, or
    the root mean square of these over its own bound where that is more. The bounds are those of
    :mod:`gated.interop.identification.rounding`; under its model of rounding the output of the right way exceeds them
    with a probability of at most 1e-9.

    An expert of a mixture is found where y is that expert's own output; the sum of several, with the weights of a
    router, is not.

    Args:
        state: arrays by key, of NumPy, PyTorch or JAX; a nested mapping counts as the flat one. Those of other dtypes
            than the contract's are passed over.
        x: (..., d_in), an input of the block.
        y: (..., d_out), its output.
        prefix: only keys that begin so are read, such as ``"model.layers.7.mlp."``.
        experts: how many experts lie under one another in a matrix, for DBRX, whose shapes do not tell.
        dtype: that the output was computed in; None: the one of fewest digits among state, x and y.

    Raises:
        InteropError: x or y is no array of the contract's dtypes or not finite, their rows differ, ``state`` has no
            arrays, or the arrays leave too many ways.
    """
    rows, output = _recorded("x", x), _recorded("y", y)
    if len(rows) != len(output) or not len(rows):
        raise InteropError(f"identify: x and y must have as many rows, at least 1, got {len(rows)} and {len(output)}")
    if experts is not None and (type(experts) is not int or experts < 1):
        raise InteropError(f"identify: experts must be None or an int of at least 1, got {experts!r}")
    found, passed = read_state("identify", state, prefix)
    names = [dtype_name(one) for one in (*(stored.native for stored in found), rows, output)]
    computed = _checked_dtype(dtype) if dtype is not None else min(names, key=lambda one: FORMATS[one].precision)
    arithmetic = Arithmetic(computed, dtype_name(output), output.size)
    rng = np.random.default_rng(_SEED)
    parts = read_parts(list(units(found, experts)), rows.shape[1], output.shape[1])
    with np.errstate(all="ignore"):
        wide = rows.astype(np.float64), output.astype(np.float64)
        ways, tried = search(parts, _numbers(found), *wide, arithmetic, rng)
        within = [one for one in ways if one.error <= 1]
        separation = None
        if len(within) > 1:
            separation = separate(arithmetic, [one.candidate for one in within[:_SEPARATED]], rows, rng)
    arrays = {one.key: one.native for one in found}
    shown = ways[: max(_REPORTED, len(within))]
    matches = tuple(_match(arrays, one, _next(ways, rank), experts) for rank, one in enumerate(shown))
    verdict = "none" if not within else "match" if len(within) == 1 else "ambiguous"
    return Matches(matches, verdict, separation, tried, computed, tuple(passed))


def _recorded(name: str, array: Array) -> NDArray[Any]:
    """An input or output as NumPy's (rows, features)."""
    plain = numpy_view("identify", name, array)
    if dtype_name(plain) not in DTYPES:
        raise InteropError(f"identify: {name} must have dtype {', '.join(DTYPES)}, got {dtype_name(plain)}")
    if plain.ndim == 0 or plain.shape[-1] == 0:
        raise InteropError(f"identify: {name} must have shape (..., features), at least 1 feature, got {plain.shape}")
    rows = plain.reshape(-1, plain.shape[-1])
    if not np.all(np.isfinite(rows.astype(np.float64))):
        raise InteropError(f"identify: {name} must be finite, got infinities or nans")
    return rows


def _checked_dtype(dtype: str) -> str:
    if dtype not in DTYPES:
        raise InteropError(f"identify: dtype must be None or one of {', '.join(DTYPES)}, got {dtype!r}")
    return dtype


def _numbers(found: list[Stored]) -> tuple[float, ...]:
    """Arrays of one number, any of which may be a learned beta."""
    numbers = (float(one.plain.reshape(-1)[0]) for one in found if one.plain.size == 1)
    return tuple(number for number in numbers if math.isfinite(number))


def _next(ways: Sequence[Found], rank: int) -> float:
    return ways[rank + 1].error if rank + 1 < len(ways) else math.inf


def _match(arrays: Mapping[str, Array], one: Found, following: float, experts: int | None) -> Match:
    own, function = one.candidate.assignment, one.candidate.function
    naming = name(arrays, one.candidate, one.reference, experts)
    return Match(
        family=naming.families[0] if naming.families else description(one.candidate, naming),
        families=naming.families,
        prefix=naming.prefix,
        stored_as=naming.alike,
        packing=own.pair.packing,
        layout=own.pair.layout,
        transposed=own.pair.gate.whole.transposed,
        down_transposed=None if own.down is None else own.down.transposed,
        activation=function.activation,
        beta=function.beta,
        clamp=function.clamp,
        expert=own.pair.expert,
        arrays=expressions(one.candidate),
        error=one.error,
        margin=following - one.error if math.isfinite(one.error) else math.nan,
        reference=one.reference,
    )
