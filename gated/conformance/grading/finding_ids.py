"""The ids of findings: stable names that ledgers and scripts match on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FINDING_IDS"]

FINDING_IDS: Final[Mapping[str, str]] = {
    "wrong-value": "values are farther from the exact ones than the profile allows",
    "wrong-gradient": "gradients are farther from the exact ones than the profile allows",
    "value-depends-on-gradient": "called without a gradient, the value is wrong where it is right with one",
    "wrong-limit": "at an infinite input, a result is not the limit that the function has there",
    "nan-at-infinity": "at an infinite input, a result is nan where the function has a limit",
    "zero-sign": "a zero of the wrong sign",
    "wrong-dtype": "the value comes back in another dtype than the arguments'",
    "wrong-shape": "the value comes back in another shape",
    "wrong-type": "the result is no array of the framework",
    "raises": "the call raises",
    "hangs": "the call does not return within `--timeout`",
    "crashes": "the process that ran the call died",
    "noise": "the call prints to standard output or standard error",
    "input-overwritten": "an argument or the cotangent has other bits after the call, or after the backward pass",
    "second-backward-differs": "a second backward pass from the same forward pass gives another gradient",
    "same-array-gradient": "with one array as both gate and value, the gradient is not the sum of the two",
    "nondeterministic": "the same call gives other bits",
    "depends-on-strides": "the same numbers in other memory order give other results",
    "depends-on-alignment": "the same numbers at an unaligned address give other results",
    "depends-on-batch": "the same row gives other results among other rows",
    "integers-promoted": "an array of integers is accepted, and promoted in silence",
    "pair-broadcast": "a gate and a value of different shapes are accepted, and broadcast in silence",
    "dtype-absent": "the framework or the target cannot be handed arrays of the dtype",
    "gradient-absent": "the target has no gradient",
    "gradient-stopped": "the framework says that the value does not depend on an argument",
    "wrong-gradient-dtype": "a gradient comes back in another dtype than its argument's",
    "wrong-gradient-shape": "a gradient comes back in another shape than its argument's",
    "double-backward-absent": "the gradient has no gradient",
    "double-backward-wrong": "the gradient of the gradient is wrong",
    "forward-mode-absent": "the target has no forward mode",
    "forward-mode-wrong": "the tangent of forward mode is wrong",
    "ledger-stale": "an entry of the ledger matches nothing that was found",
    "not-loaded": "the target cannot be loaded, so nothing was graded",
}
"""What each finding says."""
