"""The child process: loads one target, answers requests, and keeps what the target prints apart.

``python -m gated.conformance.grading._serving CHANNEL LIFELINE``, two descriptors of sockets that the parent passes on.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import os
import re
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from gated.conformance.grading import _messages as messages
from gated.conformance.grading import target as targets
from gated.conformance.grading.exchange import Failure, Reply

__all__ = ["NOISE_LIMIT", "main"]

NOISE_LIMIT: Final = 2000
"""Characters of what a target prints that are kept."""

# Lines that a framework logs: absl, XLA, TensorFlow and torch; ONNX Runtime, in colours; Python's logging of theirs.
_LOG: Final = re.compile(
    r"^(?:[IWEF]\d{4} \d\d:\d\d:\d\d"
    r"|(?:\x1b\[[\d;]*m)?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+:? ?\[?[IWEF]"
    r"|(?:INFO|WARNING|ERROR):(?:tensorflow|absl|jax|\d{4}-\d\d-\d\d)"
    r"|WARNING: All log messages before absl)"
)


class _Output:
    """Standard output and error, Python's and C's, sent to a file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - for the life of the process
        for stream in (1, 2):
            os.dup2(self._file.fileno(), stream)
        self._c = ctypes.CDLL(None)
        self._read = 0

    def since(self) -> str:
        """What was written since the last call, the frameworks' log lines left out."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # the target may have closed or replaced them
                continue
        self._c.fflush(None)
        end = os.fstat(self._file.fileno()).st_size
        # The position is shared with the descriptors that write; pread leaves it alone.
        raw = os.pread(self._file.fileno(), min(end - self._read, 16 * NOISE_LIMIT), self._read)
        self._read = end
        lines = raw.decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if not _LOG.match(line)).strip()[:NOISE_LIMIT]


def _die_with(lifeline: socket.socket) -> None:
    # SIGIO, whose default action ends the process, comes when the parent's end closes: also to code that hangs in C.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _import_frameworks(wanted: Mapping[str, Any]) -> None:
    from gated.conformance.adapters import FRAMEWORKS

    names = list(targets.frameworks_imported(wanted["target"]))
    if wanted["framework"] in FRAMEWORKS:
        names += FRAMEWORKS[wanted["framework"]].packages
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            continue  # the load says so, in its own words


def _load(wanted: Mapping[str, Any]) -> Any:
    from gated.conformance.adapters import load

    text, gradient = wanted["target"], wanted["gradient"]
    target = targets.load(text)
    adapter = load(wanted["framework"] or targets.guess_framework(target, text), wanted["device"])
    adapter.load(
        target,
        messages.claim_from(wanted["claim"]),
        gradient=None if gradient is None else targets.load(gradient),
        gradient_name=gradient or "",
    )
    return adapter


def main(channel: socket.socket, lifeline: socket.socket) -> None:
    """Serves the parent until it closes its end."""
    _die_with(lifeline)
    output = _Output()
    wanted, _ = messages.receive(channel)
    sys.path.extend(path for path in wanted["path"] if path not in sys.path)
    _import_frameworks(wanted)
    output.since()
    messages.send(channel, {"imported": True})
    try:
        adapter = _load(wanted)
        facts = replace(adapter.facts(wanted["target"]), noise=output.since())
    except ModuleNotFoundError as error:
        messages.send(channel, {"missing": str(error), "package": error.name})
        return
    except targets.TargetError as error:
        messages.send(channel, {"error": str(error)})
        return
    except BaseException as error:
        messages.send(channel, {"error": f"{wanted['target']}: loading it raised {targets.one_line(error)}"})
        return
    messages.send(channel, {"facts": messages.pack_facts(facts)})
    while True:
        request = messages.request_from(*messages.receive(channel))
        try:
            reply = adapter.execute(request)
        except BaseException as error:  # an interrupt is the target's here: this process has no terminal
            reply = Reply(failure=Failure("raised", targets.one_line(error)))
        messages.send(channel, *messages.pack_reply(replace(reply, noise=output.since())))


if __name__ == "__main__":
    with contextlib.suppress(messages.ClosedError):
        main(*(socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[1:3]))
    # Without the interpreter's own end: a target's threads and atexit functions may hang it.
    os._exit(0)
