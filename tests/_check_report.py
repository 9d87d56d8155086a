"""A report made by hand: a failing swiglu with every kind of part, for the tests of what shows it."""

from __future__ import annotations

import math

from gated.conformance.grading.report import ABSENT, FAILURE, NOTE, Diagnosis, Finding, Picture, Region, Report, Row

__all__ = ["failing_report", "passing_report"]


def failing_report(target: str = "kernels.ops:swiglu") -> Report:
    """Values past their bound in one dtype, a class wrong in the gradient, a note, an absent mode, a diagnosis."""
    place = {"gate": "-91.2", "value": "1"}
    bits = {"gate": "0xc2b66666", "value": "0x3f800000"}
    regions = (
        Region("ordinary", 9000, 0, 1.5, {"gate": "1", "value": "2"}, "1.4", "1.4"),
        Region("tail", 1000, 37, 16.1e6, place, "-0", "-2.250813e-38"),
    )
    rows = [
        Row("float32", "value", 10000, False, 37, 16.1e6, 5.0, 16.1e6, place, bits, "-0", "-2.250813e-38", regions),
        Row(
            "float32",
            "d gate",
            10000,
            False,
            2,
            math.inf,
            8.0,
            math.inf,
            {"gate": "-inf", "value": "1"},
            bits,
            "nan",
            "0",
        ),
        Row("float16", "value", 65536, True, 0, 0.5004, 0.51, 0.5004, place, bits, "1", "1"),
    ]
    findings = [
        Finding(
            "wrong-value",
            FAILURE,
            "value: 37 of 10,000",
            "float32",
            {"quantity": "value", "error": 16.1e6, "at": place},
        ),
        Finding(
            "nan-at-infinity", FAILURE, "d gate: 2 of 10,000", "float32", {"quantity": "d gate", "error": math.inf}
        ),
        Finding("integers-promoted", NOTE, "an int32 array is taken"),
        Finding("forward-mode-absent", ABSENT, "no forward mode"),
    ]
    diagnosis = [Diagnosis("tail-underflow", "exp overflows below -88", {"matched": 37, "of": 37, "at": place})]
    sizes = [2.0 ** (k / 2) for k in range(-280, 255)]
    inputs = [-size for size in reversed(sizes)] + [0.0] + sizes
    errors = [math.inf if x < -1e30 else 16.1e6 if -104 < x < -88 else 1.5 / (1 + abs(x) * 1e3 % 7) for x in inputs]
    texts = [f"{x:.6g}" for x in inputs]
    pictures = [
        Picture("float32", name, "gate", inputs, errors, [bound] * len(inputs), texts, texts)
        for name, bound in (("value", 5.0), ("d gate", 8.0))
    ]
    return Report(
        "fail",
        target,
        "swiglu",
        "packed",
        "gate_first",
        "contract",
        "swiglu, packed, gate_first",
        "torch",
        "cpu",
        "quick",
        0,
        rows,
        findings,
        diagnosis,
        {"gated": "0.1", "torch": "2.13.0"},
        pictures,
        3.25,
    )


def passing_report(target: str = "kernels.ops:swiglu") -> Report:
    """The same without what is wrong."""
    report = failing_report(target)
    return Report(
        **{
            **vars(report),
            "verdict": "pass",
            "rows": report.rows[2:],
            "findings": report.findings[2:],
            "diagnosis": [],
            "pictures": [],
        }
    )
