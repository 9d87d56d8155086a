"""A check whose target may not load: then the report says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gated.conformance.grading.claim import Claim
from gated.conformance.grading.report import FAILURE, Finding, Report

__all__ = ["attempt"]

_CLAIM = ("form", "layout", "axis", "activation", "approximate", "beta", "alpha", "limit", "offset", "bias")


def attempt(target: str | Callable[..., Any], function: str, **options: Any) -> Report:
    """The report of :func:`gated.conformance.check`; of verdict ``"error"`` where the target cannot be loaded.

    Raises:
        ValueError: a name is unknown, an option does not go with the function, or the ledger cannot be read.
    """
    from gated.conformance import check
    from gated.conformance.grading.target import TargetError

    try:
        return check(target, function, **options)
    except (TargetError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("gated"):
            raise  # a fault of this package's own
        claim = Claim.of(function, **{name: options[name] for name in _CLAIM if name in options})
        return Report(
            verdict="error",
            target=str(target),
            function=function,
            form=claim.form,
            layout=claim.layout,
            profile=options.get("profile") or "contract",
            claim=claim.describe(),
            framework=options.get("framework") or "",
            device=options.get("device") or "",
            budget=options.get("budget") or "quick",
            seed=options.get("seed") or 0,
            findings=[Finding("not-loaded", FAILURE, str(error).removeprefix("check: "))],
        )
