"""``gated convert``: a checkpoint whose gated feed-forward blocks are stored as another family stores them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from gated.commands._shared import OK, UsageError, at_least, progress, require

__all__ = ["add"]

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def add(commands: Any) -> None:
    """Adds the parser to the subparsers."""
    convert = commands.add_parser(
        "convert",
        help="store the gated feed-forward blocks of a checkpoint as another family does",
        description="Reads a checkpoint (safetensors, GGUF, npz, Flax's msgpack; no pickle), finds the gated "
        "feed-forward blocks of one family in it, and writes them as another family stores them, with all other arrays "
        "as they are. A few arrays are in memory at a time. What is written is read back and compared bit for bit "
        "before it takes the name DST.",
    )
    convert.add_argument("source", metavar="SRC", type=Path, help="a file, an index of safetensors, or their folder")
    convert.add_argument(
        "destination",
        metavar="DST",
        help="ends in .safetensors, .npz or .msgpack; with no ending, or a / at its end, a folder of safetensors files "
        "like those of SRC",
    )
    convert.add_argument("--from", required=True, dest="origin", metavar="FAMILY", help="of the blocks in SRC")
    convert.add_argument("--to", required=True, dest="target", metavar="FAMILY", help="of the blocks in DST")
    convert.add_argument(
        "--prefix",
        default="*",
        metavar="PREFIX",
        help="of the keys of the blocks, 'model.layers.*.mlp.': * stands for anything (default: *)",
    )
    convert.add_argument(
        "--target-prefix",
        metavar="PREFIX",
        help="of the keys in DST, 'blk.*.': * is as in --prefix (default: as it is)",
    )
    convert.add_argument("--experts", type=at_least(1), metavar="N", help="how many, for dbrx, whose shapes do not say")
    convert.add_argument("--only-ffn", action="store_true", help="leave out the arrays of no block")
    convert.add_argument("--dequantise", action="store_true", help="read quantised tensors of GGUF as float32")
    convert.add_argument(
        "--shard-size", type=_size, metavar="SIZE", help="of the files of a folder: bytes, or 500MB, 5GB"
    )
    convert.add_argument("--force", action="store_true", help="replace DST where it is there")
    convert.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    require("rich", "cli")
    from gated.interop import InteropError
    from gated.interop.checkpoints import open_checkpoint, plan_conversion, write_conversion

    try:
        checkpoint = open_checkpoint(options.source, dequantise=options.dequantise)
        plan = plan_conversion(
            checkpoint,
            options.origin,
            options.target,
            prefix=options.prefix,
            target_prefix=options.target_prefix,
            experts=options.experts,
            only_ffn=options.only_ffn,
        )
        with progress("convert", plan.steps) as advance:
            write_conversion(
                plan, options.destination, shard_size=options.shard_size, force=options.force, advance=advance
            )
    except InteropError as error:
        raise UsageError(str(error).removeprefix("convert: ")) from error
    except OSError as error:
        raise UsageError(f"{error.filename or options.destination}: {error.strerror or error}") from error
    print(
        f"{options.destination}: {len(plan.blocks)} blocks, {plan.source.name} to {plan.target.name}; "
        f"{len(plan.copied)} arrays as they were; {plan.nbytes} bytes, read back and compared"
    )
    return OK


def _size(text: str) -> int:
    """A number of bytes, for argparse."""
    match = re.fullmatch(r"(\d+) ?(KB|MB|GB|)", text.strip(), re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"must be a number of bytes, or of KB, MB or GB, got {text!r}")
    return int(match[1]) * _UNITS[match[2].upper()]
