"""What any reply may show: failures, wrong dtypes and shapes, stopped gradients, inputs that were written to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gated.conformance.grading.cases import Trial
from gated.conformance.grading.exchange import Reply
from gated.conformance.grading.report import ABSENT, FAILURE, Finding

__all__ = ["overwriting", "reply_findings"]

Array = NDArray[Any]


def overwriting(dtype: str, reply: Reply) -> Finding:
    """The finding of a reply whose call wrote to its arguments."""
    text = f"the target writes to what it is given: {', '.join(reply.overwritten)}"
    return Finding("input-overwritten", FAILURE, text, dtype, {"overwritten": list(reply.overwritten)})


def reply_findings(trial: Trial, reply: Reply, *, gradients: bool) -> Iterator[Finding]:
    """Failures, wrong dtypes and shapes, stopped gradients, written inputs of one reply."""
    dtype = trial.form.name
    if reply.failure is not None:
        kinds = {"hang": "hangs", "crash": "crashes", "type": "wrong-type", "raised": "raises"}
        if reply.failure.kind in kinds:
            during = "" if reply.value is None else "in the backward pass: "
            evidence = {"shape": list(trial.cotangent.shape)}
            yield Finding(kinds[reply.failure.kind], FAILURE, during + reply.failure.text, dtype, evidence)
        elif reply.value is None:
            yield Finding("dtype-absent", ABSENT, reply.failure.text, dtype)
        elif gradients:
            yield Finding("gradient-absent", ABSENT, reply.failure.text, dtype)
    if reply.value is not None:
        yield from _kind(trial, "", reply.value, trial.cotangent.shape)
    if reply.cotangents:
        for (name, argument), found in zip(trial.arguments.items(), reply.cotangents[0], strict=True):
            if found is None:
                if not any(part.argument == name and np.any(part.quantity.high != 0) for part in trial.parts):
                    continue
                text = f"the gradient stops before {name}: the framework sees no dependence on it"
                yield Finding("gradient-stopped", FAILURE, text, dtype, {"quantity": f"d {name}", "argument": name})
            else:
                yield from _kind(trial, name, found, argument.shape)
    if reply.overwritten:
        yield overwriting(dtype, reply)


def _kind(trial: Trial, name: str, found: Array, shape: tuple[int, ...]) -> Iterator[Finding]:
    dtype = trial.form.name
    what, kind = (f"the gradient of {name}", "wrong-gradient") if name else ("the result", "wrong")
    quantity = f"d {name}" if name else "value"
    if found.dtype != trial.form.dtype:
        text = f"{what} is {found.dtype}, not {dtype}"
        yield Finding(f"{kind}-dtype", FAILURE, text, dtype, {"quantity": quantity, "dtype": str(found.dtype)})
    if found.shape != shape:
        text = f"{what} has the shape {found.shape}, not {shape}"
        evidence = {"quantity": quantity, "shape": list(found.shape), "expected": list(shape)}
        yield Finding(f"{kind}-shape", FAILURE, text, dtype, evidence)
