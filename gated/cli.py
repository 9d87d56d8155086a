"""The command ``gated``.

Exit status: 0, everything is within the contract; 1, something is not; 2, wrong usage, or an input or output that
cannot be read or written; 130, interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from gated import __version__
from gated.commands import accuracy, check, convert, identify, info, plot, survey, validate, vectors
from gated.commands._shared import OK, USAGE, UsageError

__all__ = ["main"]

INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gated", description="The yardstick for gated activations: GLU, Swish, SwiGLU and their family."
    )
    parser.add_argument("--version", action="version", version=f"gated {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (validate, check, survey, accuracy, vectors, convert, identify, plot, info):
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except (UsageError, ModuleNotFoundError) as error:
        print(f"gated {options.command}: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        # The reader (head, less) has closed: what it did not want to read is no error.
        _silence()
        return OK
    except OSError as error:
        _silence()
        print(f"gated {options.command}: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(f"gated {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status


def _silence() -> None:
    """Gives up standard output, so that closing it at exit raises no second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
