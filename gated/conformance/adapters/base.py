"""What all adapters share: a request is carried out, what is overwritten is seen, what is raised is told."""

from __future__ import annotations

import importlib.metadata
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Facts, Failure, Reply, Request
from gated.conformance.grading.target import TargetError, one_line

__all__ = ["AbsentError", "Adapter", "WrongTypeError", "aligned", "arranged", "as_function", "instance"]

Array = NDArray[Any]
Function = Callable[..., Any]

ALIGNMENT: Final = 64
"""Bytes: a cache line, and the width of the widest vector registers."""


class AbsentError(Exception):
    """The framework or the target has no such mode."""


class WrongTypeError(Exception):
    """A result is of another type than the framework's arrays."""


class Adapter(ABC):
    """A framework on a device, and one target loaded in it.

    A framework's file writes :meth:`prepare`, :meth:`put`, :meth:`get` and, where the framework differentiates,
    :meth:`differentiate`, :meth:`double` and :meth:`forward`. Arguments and results are the framework's own arrays
    there.
    """

    framework: str
    """The adapter's name."""
    packages: tuple[str, ...] = ()
    """The distributions that take part, for the versions of a report."""
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    flushes: bool = False
    device: str = "cpu"
    kind: str = "function"
    gradient_source: str = ""
    """Whose gradients they are; ``""`` where the framework has none."""
    absent: tuple[str, ...] = ()
    """Parts of the messages by which the framework says that it has no double backward, or no forward mode."""

    def __init__(self) -> None:
        self.claim: Claim
        self.function: Function
        self.gradient: Function | None = None
        self.sizes: dict[str, tuple[int, ...]] = {}

    # What a framework's file writes

    @abstractmethod
    def prepare(self, target: Any, claim: Claim) -> Function:
        """The target as a function of the framework's arrays; sets ``kind``, ``dtypes``, ``sizes`` where they differ.

        Raises:
            TargetError: the framework cannot call it, or not in the claimed form.
        """

    @abstractmethod
    def put(self, array: Array, arrangement: str) -> Any:
        """A NumPy array as one of the framework's, bit for bit, in memory that is the target's own.

        Raises:
            AbsentError: the framework has no such arrangement or dtype.
        """

    @abstractmethod
    def get(self, result: Any) -> Array:
        """One of the framework's arrays as a NumPy array of its own memory, bit for bit.

        Raises:
            WrongTypeError: it is something else.
        """

    def prepare_gradient(self, target: Any, claim: Claim) -> Function:
        """A gradient target as a function of the arguments and then the cotangent."""
        return as_function(target)

    def for_dtype(self, dtype: np.dtype[Any]) -> Function:
        """The target for arguments of a dtype: of a module with parameters there is one for each."""
        return self.function

    def settings(self, request: Request) -> AbstractContextManager[Any]:
        """What is set around a call."""
        return nullcontext()

    def differentiate(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, backwards: int
    ) -> Iterator[Any]:
        """Yields the value, then ``backwards`` times, from that one forward pass, the cotangents; None: it stops."""
        yield function(*arguments)
        raise AbsentError(self._no_gradient)

    def double(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, directions: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        """The value, and the gradient of <cotangents, directions> in the arguments and, last, in the cotangent."""
        raise AbsentError(f"{self.framework} has no double backward")

    def forward(self, function: Function, arguments: Sequence[Any], directions: Sequence[Any]) -> tuple[Any, Any]:
        """The value and its tangent along the directions."""
        raise AbsentError(f"{self.framework} has no forward mode")

    # What all share

    def load(self, target: Any, claim: Claim, *, gradient: Any = None, gradient_name: str = "") -> None:
        """Takes a target in.

        Args:
            target: a callable, the path of a model, or a symbol.
            gradient: one that takes the arguments and then the cotangent, and gives the cotangents.
            gradient_name: what a report calls it.
        """
        self.claim = claim
        if gradient is not None:
            self.gradient = self.prepare_gradient(gradient, claim)
            self.gradient_source = gradient_name or getattr(gradient, "__qualname__", "gradient")
        self.function = self.prepare(target, claim)

    def facts(self, name: str) -> Facts:
        """What is known of the loaded target."""
        return Facts(
            name=name,
            framework=self.framework,
            kind=self.kind,
            device=self.device,
            flushes=self.flushes,
            dtypes=self.dtypes,
            gradients=bool(self.gradient_source),
            gradient_source=self.gradient_source or self._no_gradient,
            versions=self.versions(),
            sizes=self.sizes,
        )

    @property
    def _no_gradient(self) -> str:
        return f"{self.framework} has no gradients of its own: --gradient names a target that computes them"

    def versions(self) -> dict[str, str]:
        """Of the packages that take part."""
        found = {}
        for package in self.packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found

    def execute(self, request: Request) -> Reply:
        """Carries a request out. What the target raises is the reply's failure; an interrupt goes on to the caller."""
        steps = _Steps()
        failure = None
        try:
            with self.settings(request):
                self._carry_out(request, steps)
        except AbsentError as reason:
            failure = Failure("absent", str(reason))
        except WrongTypeError as reason:
            failure = Failure("type", str(reason))
        except (Exception, SystemExit) as error:
            failure = Failure(self._kind_of(error, request.task), one_line(error))
        return Reply(steps.value, tuple(steps.cotangents), tuple(dict.fromkeys(steps.overwritten)), failure)

    def _kind_of(self, error: BaseException, task: str) -> str:
        if task not in ("double", "forward"):
            return "raised"
        said = str(error).lower()
        is_absent = isinstance(error, NotImplementedError) or any(part in said for part in self.absent)
        return "absent" if is_absent else "raised"

    def _carry_out(self, request: Request, steps: _Steps) -> None:
        names = list(self.claim.arguments)
        given = list(request.arguments)
        directions = list(request.directions)
        # One array for the gate and the value: a function of one array fewer, whose cotangent stands for both.
        same = request.arrangement == "same"
        if same:
            if self.claim.form != "pair":
                raise AbsentError("one array for both arguments needs a pair")
            names[:2], given[:2], directions[:2] = ["gate, value"], given[:1], directions[:1]
        arguments = [self.put(one, "plain" if same else request.arrangement) for one in given]
        handed = dict(zip(names, zip(arguments, given, strict=True), strict=True))
        function = self.for_dtype(given[0].dtype)
        if same:
            function = _of_same(function)
        if request.task == "value":
            steps.value = self.get(function(*arguments))
            self._look(handed, steps, "forward")
            return
        if request.task == "forward":
            along = [self.put(one, "plain") for one in directions]
            result, tangent = self.forward(function, arguments, along)
            steps.value = self.get(result)
            steps.cotangents.append((None if tangent is None else self.get(tangent),))
            return
        assert request.cotangent is not None
        cotangent = self.put(request.cotangent, "plain" if request.arrangement == "same" else request.arrangement)
        handed["cotangent"] = (cotangent, request.cotangent)
        if request.task == "double":
            along = [self.put(one, "plain") for one in directions]
            result, seconds = self.double(function, arguments, cotangent, along)
            steps.value = self.get(result)
            steps.cotangents.append(self._read(seconds, len(arguments) + 1, same))
            return
        passes = self._passes(function, arguments, cotangent, request.backwards, same)
        steps.value = self.get(next(passes))
        self._look(handed, steps, "forward")
        for cotangents in passes:
            steps.cotangents.append(self._read(cotangents, len(arguments), same))
            self._look(handed, steps, "backward")

    def _passes(
        self, function: Function, arguments: Sequence[Any], cotangent: Any, backwards: int, same: bool
    ) -> Iterator[Any]:
        if self.gradient is None:
            yield from self.differentiate(function, arguments, cotangent, backwards)
            return
        yield function(*arguments)
        for _ in range(backwards):
            if same:
                first, second, *others = self.gradient(arguments[0], *arguments, cotangent)
                yield first + second, *others
            else:
                yield self.gradient(*arguments, cotangent)

    def _read(self, cotangents: Any, count: int, same: bool) -> tuple[Array | None, ...]:
        """What a backward pass gave: a sequence, or one array for one argument."""
        if not isinstance(cotangents, tuple | list):
            cotangents = (cotangents,)
        if len(cotangents) != count:
            raise WrongTypeError(f"{len(cotangents)} cotangents, where {count} are expected")
        read = tuple(None if one is None else self.get(one) for one in cotangents)
        return (read[0], *read) if same else read

    def _look(self, handed: dict[str, tuple[Any, Array]], steps: _Steps, which: str) -> None:
        """Notes which of the arrays that were handed over have other bits than before."""
        for name, (native, before) in handed.items():
            try:
                now = self.get(native)
            except Exception:  # a buffer that the target gave away (JAX's donation) can no longer be read
                steps.overwritten.append(f"{name} in the {which} pass")
                handed[name] = (self.put(before, "plain"), before)
                continue
            if now.shape != before.shape or now.dtype != before.dtype or now.tobytes() != before.tobytes():
                steps.overwritten.append(f"{name} in the {which} pass")
                handed[name] = (native, now)


class _Steps:
    """What a request has come to so far: what is there is kept when the next step fails."""

    def __init__(self) -> None:
        self.value: Array | None = None
        self.cotangents: list[tuple[Array | None, ...]] = []
        self.overwritten: list[str] = []


def _of_same(function: Function) -> Function:
    return lambda x, *others: function(x, x, *others)


def as_function(target: Any) -> Function:
    """The target, which must be callable."""
    if not callable(target):
        raise TargetError(f"the target must be callable, got an instance of {type(target).__name__}")
    return target  # type: ignore[no-any-return]


def instance(cls: type[Any], **options: Any) -> Any:
    """An instance of a target that is a class."""
    try:
        return cls(**options)
    except Exception as error:
        given = ", ".join(options)
        raise TargetError(
            f"{cls.__name__}({given}) raised {one_line(error)}; name an instance of it instead"
        ) from error


def aligned(shape: Sequence[int], dtype: np.dtype[Any], *, past: int = 0) -> Array:
    """An uninitialised array that begins ``past`` elements after an address that is a multiple of 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 2 * ALIGNMENT + past * dtype.itemsize, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT + past * dtype.itemsize
    return memory[first : first + size].view(dtype).reshape(shape)


def arranged(array: Array, arrangement: str) -> Array:
    """A copy that lies in memory as asked: see :data:`gated.conformance.grading.exchange.ARRANGEMENTS`.

    An array without axes is always plain, and so is a vector that is to be transposed.
    """
    shape = array.shape
    if arrangement == "strided" and shape:
        room = aligned((*shape[:-1], 2 * shape[-1]), array.dtype)[..., ::2]
    elif arrangement == "reversed" and shape:
        room = aligned(shape, array.dtype)[..., ::-1]
    elif arrangement == "transposed" and len(shape) > 1:
        room = aligned((*shape[:-2], shape[-1], shape[-2]), array.dtype).swapaxes(-1, -2)
    else:
        room = aligned(shape, array.dtype, past=int(arrangement == "unaligned"))
    room[...] = array
    return room
