"""Messages between the grader and its child process: a JSON header, the raw bytes of arrays. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Facts, Failure, Reply, Request

__all__ = [
    "ClosedError",
    "claim_from",
    "facts_from",
    "pack_claim",
    "pack_facts",
    "pack_reply",
    "pack_request",
    "receive",
    "reply_from",
    "request_from",
    "send",
]

Array = NDArray[Any]

_LENGTH: Final = struct.Struct("<Q")
_NAMES: Final = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


class ClosedError(Exception):
    """The other side has gone."""


class _Out:
    """The bytes of the arrays of one message, and of each a description that stands in the header."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []

    def take(self, array: Array | None) -> dict[str, Any] | None:
        if array is None:
            return None
        self.buffers.append(array.tobytes())
        return {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": len(self.buffers[-1])}


class _In:
    """The arrays of one message, in the order in which the header describes them."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def give(self, description: Mapping[str, Any] | None) -> Array | None:
        if description is None:
            return None
        size = description["bytes"]
        raw, self._data = self._data[:size], self._data[size:]
        name = description["dtype"]
        dtype = _NAMES.get(name) or np.dtype(getattr(ml_dtypes, name, name))
        return np.frombuffer(bytearray(raw), dtype).reshape(description["shape"])

    def array(self, description: Mapping[str, Any]) -> Array:
        given = self.give(description)
        assert given is not None
        return given


# One message on the socket


def send(channel: socket.socket, header: Mapping[str, Any], buffers: list[bytes] | None = None) -> None:
    """Sends a message, within the socket's time limit.

    Raises:
        ClosedError: the other side has gone.
        TimeoutError: it does not take the message.
    """
    text = json.dumps(header).encode()
    size = sum(map(len, buffers or ()))
    try:
        channel.sendall(b"".join((_LENGTH.pack(len(text)), _LENGTH.pack(size), text, *(buffers or ()))))
    except (BrokenPipeError, ConnectionResetError):
        raise ClosedError from None


def receive(channel: socket.socket, seconds: float | None = None) -> tuple[dict[str, Any], _In]:
    """The next message, waiting at most ``seconds`` for all of it.

    Raises:
        ClosedError: the other side has gone, or speaks another language.
        TimeoutError: the time is over.
    """
    until = None if seconds is None else time.monotonic() + seconds
    lengths = _exactly(channel, 2 * _LENGTH.size, until)
    text, size = (_LENGTH.unpack_from(lengths, offset)[0] for offset in (0, _LENGTH.size))
    try:
        header = json.loads(bytes(_exactly(channel, text, until)))
    except ValueError:  # no message of this module: the target wrote to the socket
        raise ClosedError from None
    return header, _In(_exactly(channel, size, until))


def _exactly(channel: socket.socket, size: int, until: float | None) -> memoryview:
    data = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        if until is not None:
            # A time limit of 0 would mean a socket that does not wait.
            channel.settimeout(max(until - time.monotonic(), 1e-3))
        try:
            got = channel.recv_into(data[filled:])
        except ConnectionResetError:
            raise ClosedError from None
        if not got:
            raise ClosedError
        filled += got
    return data


# What is sent


def pack_request(request: Request) -> tuple[dict[str, Any], list[bytes]]:
    """The message of a request."""
    out = _Out()
    header = {
        "task": request.task,
        "arrangement": request.arrangement,
        "backwards": request.backwards,
        "arguments": [out.take(one) for one in request.arguments],
        "cotangent": out.take(request.cotangent),
        "directions": [out.take(one) for one in request.directions],
    }
    return header, out.buffers


def request_from(header: Mapping[str, Any], arrays: _In) -> Request:
    """The request of a message."""
    return Request(
        task=header["task"],
        arguments=tuple(arrays.array(one) for one in header["arguments"]),
        cotangent=arrays.give(header["cotangent"]),
        directions=tuple(arrays.array(one) for one in header["directions"]),
        arrangement=header["arrangement"],
        backwards=header["backwards"],
    )


def pack_reply(reply: Reply) -> tuple[dict[str, Any], list[bytes]]:
    """The message of a reply."""
    out = _Out()
    header = {
        "value": out.take(reply.value),
        "cotangents": [[out.take(one) for one in each] for each in reply.cotangents],
        "overwritten": list(reply.overwritten),
        "failure": None if reply.failure is None else dataclasses.asdict(reply.failure),
        "noise": reply.noise,
    }
    return header, out.buffers


def reply_from(header: Mapping[str, Any], arrays: _In) -> Reply:
    """The reply of a message."""
    value = arrays.give(header["value"])
    failure = header["failure"]
    return Reply(
        value=value,
        cotangents=tuple(tuple(arrays.give(one) for one in each) for each in header["cotangents"]),
        overwritten=tuple(header["overwritten"]),
        failure=None if failure is None else Failure(**failure),
        noise=header["noise"],
    )


def pack_claim(claim: Claim) -> dict[str, Any]:
    """A claim as JSON, which has no infinity of its own."""
    return {**dataclasses.asdict(claim), "limit": None if math.isinf(claim.limit) else claim.limit}


def claim_from(fields: Mapping[str, Any]) -> Claim:
    """The claim of :func:`pack_claim`."""
    return Claim(**{**fields, "limit": math.inf if fields["limit"] is None else fields["limit"]})


def pack_facts(facts: Facts) -> dict[str, Any]:
    """Facts as JSON."""
    return dataclasses.asdict(facts)


def facts_from(fields: Mapping[str, Any]) -> Facts:
    """The facts of :func:`pack_facts`."""
    sizes = {name: tuple(shape) for name, shape in fields["sizes"].items()}
    return Facts(**{**fields, "dtypes": tuple(fields["dtypes"]), "sizes": sizes})
