"""A callable as a target, in this process: without a time limit, and a crash of it is a crash of this process."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from gated.conformance.adapters import load
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Reply, Request
from gated.conformance.grading.target import TargetError, guess_framework
from gated.conformance.grading.target import load as load_target

__all__ = ["LocalRunner", "start"]


def start(
    target: Callable[..., Any],
    claim: Claim,
    *,
    framework: str | None = None,
    device: str | None = None,
    gradient: Callable[..., Any] | str | None = None,
) -> LocalRunner:
    """Takes a callable in; the arguments are those of :func:`gated.conformance.grading.child.start`.

    Raises:
        TargetError: it cannot be called as claimed.
        ModuleNotFoundError: the framework is not installed.
    """
    if not callable(target):
        raise TargetError(f"check: target must be callable or a target's text, got {type(target).__name__}")
    module, name = getattr(target, "__module__", ""), getattr(target, "__qualname__", type(target).__qualname__)
    return LocalRunner(f"{module}:{name}" if module else name, target, claim, framework, device, gradient)


class LocalRunner:
    """The :class:`~gated.conformance.grading.exchange.Runner` of a callable in this process.

    Of what it prints, only what goes through ``sys.stdout`` and ``sys.stderr`` is seen.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        claim: Claim,
        framework: str | None,
        device: str | None,
        gradient: Callable[..., Any] | str | None,
    ) -> None:
        self._adapter = load(framework or guess_framework(target, name), device)
        with _quiet() as printed:
            function = load_target(gradient) if isinstance(gradient, str) else gradient
            self._adapter.load(
                target, claim, gradient=function, gradient_name=gradient if isinstance(gradient, str) else ""
            )
        self.facts = replace(self._adapter.facts(name), noise=printed.getvalue()[:2000].strip())

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Reply:
        with _quiet() as printed:
            reply = self._adapter.execute(request)
        return replace(reply, noise=printed.getvalue()[:2000].strip())

    def close(self) -> None:
        pass


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Python's output taken in; warnings, such as NumPy's of an overflow, are no output of the target's."""
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        warnings.simplefilter("ignore")
        yield printed
