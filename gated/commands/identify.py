"""``gated identify``: which gated feed-forward block some weights are, from one recorded input and output."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated.commands._shared import (
    NOT_WITHIN,
    OK,
    UsageError,
    at_least,
    console,
    require,
    writable,
    write_json,
)
from gated.contract import DTYPES

if TYPE_CHECKING:
    from gated.interop.identification import Match, Matches

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    identify = commands.add_parser(
        "identify",
        help="say which half is the gate, and all else, from weights and one recorded input and output",
        description="Tries every way to read the weights as a gated feed-forward block, whatever their keys, and ranks "
        "them by how well they give the recorded output, in units of the rounding bound. Exit 0: one does; 1: none "
        "does, or several that the input cannot tell apart; 2: something cannot be read, or wrong usage.",
    )
    identify.add_argument(
        "weights", type=Path, metavar="WEIGHTS", help="safetensors, GGUF, npz or Flax's msgpack; no pickle"
    )
    identify.add_argument("--input", type=Path, required=True, metavar="FILE", help=".npy, (..., d_in)")
    identify.add_argument("--output", type=Path, required=True, metavar="FILE", help=".npy, (..., d_out)")
    identify.add_argument(
        "--prefix", default="", metavar="TEXT", help="only keys that begin so, such as model.layers.7.mlp."
    )
    identify.add_argument("--experts", type=at_least(1), metavar="N", help="that lie in one matrix, for DBRX")
    identify.add_argument(
        "--dtype", choices=DTYPES, help="that the output was computed in (default: that of the files, the coarsest)"
    )
    identify.add_argument("--dequantise", action="store_true", help="read quantised tensors of GGUF as float32")
    identify.add_argument("--json", type=Path, metavar="FILE", help="also write what was found to FILE")
    identify.add_argument(
        "--propose", type=Path, metavar="FILE", help="where several match: write an input that tells them apart (.npy)"
    )
    identify.set_defaults(run=_identify)


def _identify(options: argparse.Namespace) -> int:
    require("rich", "cli")
    writable(options.json)
    writable(options.propose, "--propose")
    from gated.interop import InteropError, identify
    from gated.interop.checkpoints import open_checkpoint

    x, y = _array("--input", options.input), _array("--output", options.output)
    try:
        state = open_checkpoint(options.weights, dequantise=options.dequantise)
        found = identify(state, x, y, prefix=options.prefix, experts=options.experts, dtype=options.dtype)
    except InteropError as error:
        raise UsageError(str(error).removeprefix("identify: ")) from error
    except OSError as error:
        raise UsageError(f"{options.weights}: {error.strerror or error}") from error
    _print(found)
    write_json(options.json, _as_json(found))
    if options.propose is not None and found.separation is not None:
        _save(options.propose, found.separation.x)
        console().print(f"Written to {options.propose}: {len(found.separation.x)} rows. Record their output too.")
    return OK if found.verdict == "match" else NOT_WITHIN


def _array(option: str, path: Path) -> Any:
    """The array of a .npy file, in which no object is read."""
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{option}: {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise UsageError(f"{option}: {path} must be an array of numbers as numpy.save writes it: {error}") from error
    if not isinstance(found, np.ndarray):
        raise UsageError(f"{option}: {path} must be one array as numpy.save writes it, got an archive")
    return found


def _save(path: Path, array: Any) -> None:
    import numpy as np

    try:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"--propose: {path}: {error.strerror or error}") from error


def _print(found: Matches) -> None:
    from rich import box
    from rich.table import Table

    terminal = console()
    if found.ranked:
        table = Table(box=box.SIMPLE_HEAD if terminal.is_terminal else box.ASCII2, pad_edge=False)
        for heading in ("family", "function", "error/bound", "read as"):
            table.add_column(heading, overflow="fold")
        for match in found:
            read = "\n".join(f"{letter} = {text}" for letter, text in match.arrays.items())
            table.add_row(_family(match), match.function, f"{match.error:.3g}", read)
        terminal.print(table)
    terminal.print(_verdict(found))


def _family(match: Match) -> str:
    others = f" (also {', '.join(match.families[1:])})" if match.families[1:] else ""
    return match.family + others


def _verdict(found: Matches) -> str:
    tried = f"{found.tried} ways to read the weights tried, bounds of {found.dtype}"
    if found.verdict == "match":
        best = found[0]
        return f"match: {best.family}, {best.function}; the next is {best.margin:.3g} bounds further off. {tried}."
    if not found.ranked:
        return (
            "none: no arrays of the weights fit together as gate, value and down projection between the sizes of the "
            "input and the output."
        )
    if found.verdict == "none":
        return f"none: no way to read the weights gives the output. {tried}."
    within = sum(match.error <= 1 for match in found)
    lines = [f"ambiguous: this input cannot tell {within} ways apart. {tried}."]
    if found.separation is not None:
        for (first, second), distance in found.separation.distances.items():
            apart = "would be told apart" if distance > 1 else "would not be told apart"
            lines.append(f"  {first + 1} and {second + 1} {apart} by the input of --propose: {distance:.3g} bounds")
    return "\n".join(lines)


def _as_json(found: Matches) -> dict[str, Any]:
    separation = found.separation
    return {
        "verdict": found.verdict,
        "dtype": found.dtype,
        "tried": found.tried,
        "passed_over": list(found.passed_over),
        "matches": [_match_as_json(match) for match in found],
        "separation": None
        if separation is None
        else {
            "rows": len(separation.x),
            "distances": [
                {"first": first, "second": second, "distance": _number(distance)}
                for (first, second), distance in separation.distances.items()
            ],
        },
    }


def _match_as_json(match: Match) -> dict[str, Any]:
    clamp = match.clamp
    names = ("family", "prefix", "packing", "layout", "transposed", "down_transposed", "activation", "beta", "expert")
    return {
        **{name: getattr(match, name) for name in names},
        "families": list(match.families),
        "stored_as": list(match.stored_as),
        "clamp": None
        if clamp is None
        else {"alpha": clamp.alpha, "limit": _number(clamp.limit), "offset": clamp.offset},
        "arrays": dict(match.arrays),
        "error": _number(match.error),
        "margin": _number(match.margin),
    }


def _number(value: float) -> float | None:
    """A number for JSON, which has none for infinities: null is infinite."""
    return value if math.isfinite(value) else None
