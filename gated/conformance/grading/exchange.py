"""What goes between the grader and the process that runs the target: one request, one reply.

The grader holds the exact results and never runs the target; the process that does knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from numpy.typing import NDArray

__all__ = ["ARRANGEMENTS", "TASKS", "Facts", "Failure", "Reply", "Request", "Runner"]

Array = NDArray[Any]

TASKS: Final = ("value", "gradient", "double", "forward")
"""What a request asks for.

- ``"value"``: call the target.
- ``"gradient"``: call it and take the cotangents of all arguments.
- ``"double"``: the gradient of the inner product of these cotangents with ``directions``, in every argument and in
  the cotangent (double backward).
- ``"forward"``: the tangent of the value along ``directions``, in forward mode.
"""

ARRANGEMENTS: Final = ("plain", "strided", "reversed", "transposed", "unaligned", "same")
"""How the arguments lie in memory; what a framework does not have is a :class:`Failure` ``"absent"``.

- ``"plain"``: fresh, contiguous, aligned.
- ``"strided"``: every second element of a larger array. - ``"reversed"``: a negative step.
- ``"transposed"``: the last two axes swapped in memory.
- ``"unaligned"``: contiguous, beginning one element past an aligned address.
- ``"same"``: one array given for both arguments of a pair; its cotangent is the sum.
"""


@dataclass(frozen=True)
class Request:
    """One call of the target.

    Attributes:
        arguments: in the order of ``Claim.arguments``.
        cotangent: of the value's shape; None for the task ``"value"``.
        directions: one array an argument, of its shape, for ``"double"`` and ``"forward"``.
        backwards: how often the cotangents are taken from one forward pass.
    """

    task: str
    arguments: tuple[Array, ...]
    cotangent: Array | None = None
    directions: tuple[Array, ...] = ()
    arrangement: str = "plain"
    backwards: int = 1


@dataclass(frozen=True)
class Failure:
    """Why there is no result.

    Attributes:
        kind: ``"raised"`` (the target raised), ``"type"`` (its result is not an array of the framework), ``"absent"``
            (the framework or the target has no such mode: no gradient, no forward mode, no such arrangement),
            ``"hang"`` (past the time limit), ``"crash"`` (the process died).
        text: one line: the exception's type and message, the type that came, the signal's name.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Reply:
    """The results of a request, bit for bit, in the dtypes and shapes in which they came.

    Attributes:
        value: None where there is a failure.
        cotangents: of each backward pass, one an argument (for ``"double"``: and last that of the cotangent); None
            where the gradient stops: the framework says that the value does not depend on the argument. For
            ``"forward"``: one pass of one array, the tangent.
        overwritten: the arguments (``"cotangent"`` among them) whose bits the call changed, with the pass: ``"x in the
            forward pass"``.
        failure: of the call, or of the gradient where ``value`` is there.
        noise: what the target printed meanwhile.
    """

    value: Array | None = None
    cotangents: tuple[tuple[Array | None, ...], ...] = ()
    overwritten: tuple[str, ...] = ()
    failure: Failure | None = None
    noise: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of a loaded target.

    Attributes:
        name: the target as it was given.
        framework: the adapter's name.
        kind: ``"function"``, ``"module"``, ``"model"``, ``"symbol"``, ...
        device: where it ran.
        flushes: whether results below the smallest normal number may come back as zeros.
        dtypes: those that the target can be handed; the default of ``--dtypes``.
        gradients: whether there is a gradient to take; ``gradient_source`` says whose ("torch.autograd", "jax.vjp",
            "the symbol swiglu_vjp", ...), or why there is none.
        versions: of the packages that took part.
        noise: what was printed while it loaded.
        sizes: of a target with weights of its own sizes, the sizes by argument name: shapes that it must be handed.
    """

    name: str
    framework: str
    kind: str
    device: str
    flushes: bool
    dtypes: tuple[str, ...]
    gradients: bool
    gradient_source: str
    versions: Mapping[str, str] = field(default_factory=dict)
    noise: str = ""
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Runner(Protocol):
    """Runs requests on a loaded target: in this process, or in a child that may hang or crash."""

    facts: Facts

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        """The replies, one a request; a request that hangs or crashes has its failure, the ones after it still run."""

    def close(self) -> None:
        """Ends the child, if there is one."""
