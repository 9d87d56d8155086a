"""The conformance tools: the oracle, the error measure, the cases, the vectors, and the grading of implementations.

:func:`check` grades an implementation of anyone's; it is loaded at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gated.conformance.grading.checking import check

__all__ = ["check"]


def __getattr__(name: str) -> Any:
    if name == "check":
        from gated.conformance.grading.checking import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
