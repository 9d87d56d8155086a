"""A target in a child process: it may print, hang, exit or crash, and is a failure that the report names.

The child is spoken to over a socket (:mod:`gated.conformance.grading._messages`), so that its standard output is the
target's. Each request has a time limit. A child that is past it is killed, and a new one answers the next request.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

from gated.conformance.grading import _messages as messages
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Facts, Failure, Reply, Request
from gated.conformance.grading.target import TargetError, parse

__all__ = ["RESTARTS", "ChildRunner", "start"]

RESTARTS: Final = 3
"""How often a target that hangs or crashes is loaded again."""

_IMPORT: Final = 300.0
"""Seconds that frameworks may take to be imported: TensorFlow on a busy machine needs tens."""

_DYING: Final = 5.0
"""Seconds in which a process whose socket has closed must have ended."""


def start(
    target: str,
    claim: Claim,
    *,
    framework: str | None = None,
    device: str | None = None,
    gradient: str | None = None,
    timeout: float = 60.0,
) -> ChildRunner:
    """Loads a target in a child process.

    Args:
        target: ``package.module:attr``, ``path/to/file.py:attr``, ``model.onnx`` or ``libx.so:symbol``.
        claim: what it claims to be.
        framework: the adapter's name; None: guessed from the target.
        device: by the framework's name for it; None: its default.
        gradient: a second target, which takes the arguments and the cotangent and gives the cotangents.
        timeout: seconds for the load, the frameworks' own import aside, and for each request.

    Raises:
        ValueError: ``timeout`` is no positive number.
        TargetError: the target cannot be loaded, in time and without ending the process.
        ModuleNotFoundError: the framework is not installed.
    """
    if not 0 < timeout < 1e9:
        raise ValueError(f"check: timeout must be a positive number of seconds, got {timeout:g}")
    for text in (target, gradient):
        if text is not None:
            parse(text)
    return ChildRunner(
        {
            "target": target,
            "claim": messages.pack_claim(claim),
            "framework": framework,
            "device": device,
            "gradient": gradient,
            # What is importable here is there, too.
            "path": [path for path in sys.path if path],
        },
        timeout,
    )


class ChildRunner:
    """The :class:`~gated.conformance.grading.exchange.Runner` of a target in a child process."""

    facts: Facts

    def __init__(self, wanted: dict[str, Any], timeout: float) -> None:
        self._wanted, self._timeout = wanted, timeout
        self._restarts = 0
        self._lost: Failure | None = None
        self._process: _Process | None = None
        self._process, self.facts = self._begin()

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Reply:
        if self._process is None and self._lost is None:
            self._restart()
        if self._process is None:
            return Reply(failure=self._lost)
        try:
            return self._process.ask(request, self._timeout)
        except _EndedError as ended:
            self._process = None
            if self._restarts == RESTARTS:
                self._lost = ended.failure
            return Reply(failure=ended.failure)

    def _restart(self) -> None:
        self._restarts += 1
        try:
            self._process, _ = self._begin()
        except (TargetError, ModuleNotFoundError) as error:
            self._lost = Failure("crash", f"loaded again, it fails: {error}")

    def _begin(self) -> tuple[_Process, Facts]:
        process = _Process()
        try:
            return process, process.load(self._wanted, self._timeout)
        except BaseException:
            process.end()
            raise

    def close(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None
        self._lost = Failure("crash", "the runner is closed")

    def __enter__(self) -> ChildRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _EndedError(Exception):
    """The process hangs, or has ended."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class _Process:
    """One child."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        self._lifeline, watched = socket.socketpair()
        with theirs, watched:
            descriptors = (theirs.fileno(), watched.fileno())
            # Warnings are not the target's prints. A group of its own: an interrupt at the terminal is the parent's.
            command = [sys.executable, "-W", "ignore", "-m", "gated.conformance.grading._serving"]
            self._popen = subprocess.Popen(
                [*command, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
            )

    def load(self, wanted: dict[str, Any], timeout: float) -> Facts:
        text = wanted["target"]
        try:
            self._exchange(wanted, [], _IMPORT)
            header, _ = self._receive(timeout)
        except _EndedError as ended:
            how = "does not end" if ended.failure.kind == "hang" else "ends the process"
            raise TargetError(f"{text}: loading it {how}: {ended.failure.text}") from None
        if "missing" in header:
            raise ModuleNotFoundError(header["missing"], name=header["package"])
        if "error" in header:
            raise TargetError(header["error"])
        return messages.facts_from(header["facts"])

    def ask(self, request: Request, timeout: float) -> Reply:
        return messages.reply_from(*self._exchange(*messages.pack_request(request), timeout))

    def _exchange(self, header: dict[str, Any], buffers: list[bytes], timeout: float) -> tuple[dict[str, Any], Any]:
        self._channel.settimeout(timeout)
        try:
            messages.send(self._channel, header, buffers)
        except (messages.ClosedError, TimeoutError) as error:
            raise self._ended(error, timeout) from None
        return self._receive(timeout)

    def _receive(self, timeout: float) -> tuple[dict[str, Any], Any]:
        try:
            return messages.receive(self._channel, timeout)
        except (messages.ClosedError, TimeoutError) as error:
            raise self._ended(error, timeout) from None

    def _ended(self, error: Exception, timeout: float) -> _EndedError:
        if isinstance(error, TimeoutError):
            self.end()
            return _EndedError(Failure("hang", f"no result within {timeout:g} s"))
        try:
            status = self._popen.wait(_DYING)
        except subprocess.TimeoutExpired:  # it has closed its socket, and goes on
            self.end()
            return _EndedError(Failure("crash", "the process closed its connection"))
        self.end()
        return _EndedError(Failure("crash", _in_words(status)))

    def end(self) -> None:
        # The group: a compiler's workers, too. Without a close, the end of the lifeline does the same.
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()
        self._channel.close()
        self._lifeline.close()


def _in_words(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
