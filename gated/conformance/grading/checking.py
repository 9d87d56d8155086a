"""The check: a target against the exact results, its rows, its findings, its diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gated import __version__
from gated.conformance.error import FORMATS
from gated.conformance.grading import cases
from gated.conformance.grading.claim import Claim
from gated.conformance.grading.exchange import Facts, Reply, Request, Runner
from gated.conformance.grading.measuring import Tally, lined_up
from gated.conformance.grading.observation import Observation
from gated.conformance.grading.probes import probe, reply_findings
from gated.conformance.grading.profiles import PROFILES, Profile
from gated.conformance.grading.report import FAILURE, NOTE, Finding, Picture, Report, Row
from gated.contract import DTYPES

if TYPE_CHECKING:
    from gated.conformance.grading.ledger import Ledger

__all__ = ["MODES", "check"]

Array = NDArray[Any]

MODES: Final = ("gradient", "double-backward", "forward-mode")
"""What a target need not have unless it is asked for."""

_OBSERVED: Final = 2**17
"""The elements of a dtype that a diagnosis looks at."""

_LOST: Final = 3
"""A target that fails so often in a dtype, with nothing to grade between, is not tried on in it."""


def check(
    target: str | Callable[..., Any],
    function: str,
    *,
    framework: str | None = None,
    form: str | None = None,
    layout: str | None = None,
    axis: int = -1,
    activation: str | None = None,
    approximate: str | None = None,
    beta: float | str | None = None,
    alpha: float | None = None,
    limit: float | None = None,
    offset: float | None = None,
    bias: bool = False,
    gradient: str | Callable[..., Any] | None = None,
    dtypes: Sequence[str] | None = None,
    device: str | None = None,
    gradients: bool = True,
    require: Iterable[str] = (),
    seed: int = 0,
    budget: str = "quick",
    profile: str = "contract",
    ledger: str | Path | Ledger | None = None,
    timeout: float = 60.0,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Grades an implementation of a function of the contract.

    Args:
        target: ``"package.module:attr"``, ``"path/to/file.py:attr"``, ``"model.onnx"`` or ``"libx.so:symbol"``, run in
            a child process; or a callable, run in this one, which a crash or an endless loop of it takes along.
        function: the name of the function that it claims to be.
        framework: of :data:`gated.conformance.adapters.ADAPTERS`; guessed from the target if None.
        form, layout, axis, activation, approximate, beta, alpha, limit, offset, bias: see :meth:`Claim.of`.
        gradient: a second target that gives the cotangents, for frameworks without a gradient of their own.
        dtypes: of ``contract.DTYPES``; by default those that the target can be handed.
        device: by the framework's name for it, its default if None.
        gradients: whether gradients are graded.
        require: of :data:`MODES`: those whose absence is a failure.
        seed: of the random inputs.
        budget: ``"quick"``, ``"full"`` or ``"exhaustive"``.
        profile: ``"contract"`` or ``"field"``.
        ledger: the file of known deviations, or what was read from it.
        timeout: seconds that one call in the child process may take.
        progress: called with a text as the work goes on.

    Raises:
        ValueError: a name is unknown, or an option does not go with the function.
        TargetError: the target cannot be loaded.
        ModuleNotFoundError: its framework is not installed.
        LedgerError: the ledger cannot be read.
    """
    began = time.monotonic()
    claim = Claim.of(
        function,
        form=form,
        layout=layout,
        axis=axis,
        activation=activation,
        approximate=approximate,
        beta=beta,
        alpha=alpha,
        limit=limit,
        offset=offset,
        bias=bias,
    )
    for name, given, allowed in (("budget", budget, cases.BUDGETS), ("profile", profile, tuple(PROFILES))):
        if given not in allowed:
            raise ValueError(f"check: {name} must be one of {', '.join(allowed)}, got {given!r}")
    for name, many, allowed in (("dtypes", dtypes, DTYPES), ("require", require, MODES)):
        for one in [many] if isinstance(many, str) else many or ():
            if isinstance(many, str) or one not in allowed:
                raise ValueError(f"check: {name} must be of {', '.join(allowed)}, got {one!r}")
    if not gradients and "gradient" in require:
        raise ValueError("check: require of gradient does not go with gradients=False")
    known = _ledger(ledger)
    runner = _start(target, claim, framework, device, gradient, timeout)
    try:
        grading = _Grading(claim, PROFILES[profile], runner, gradients, frozenset(require), seed, budget, progress)
        report = grading.run(tuple(dtypes or runner.facts.dtypes))
    finally:
        runner.close()
    if known is not None:
        report.findings = known.apply(report.findings, report.rows, target=report.target)
    failed = any(one.severity == FAILURE and not one.known for one in report.findings)
    # Rows fail with a finding each; of a known deviation they do not.
    report.verdict = "fail" if failed else "pass" if report.rows else "error"
    report.seconds = time.monotonic() - began
    return report


def _ledger(ledger: str | Path | Ledger | None) -> Ledger | None:
    if isinstance(ledger, (str, Path)):
        from gated.conformance.grading.ledger import Ledger

        return Ledger.read(Path(ledger))
    return ledger


def _start(
    target: str | Callable[..., Any],
    claim: Claim,
    framework: str | None,
    device: str | None,
    gradient: str | Callable[..., Any] | None,
    timeout: float,
) -> Runner:
    if isinstance(target, str):
        from gated.conformance.grading import child

        if gradient is not None and not isinstance(gradient, str):
            raise ValueError("check: gradient must be a target's text where the target is, got a callable")
        return child.start(target, claim, framework=framework, device=device, gradient=gradient, timeout=timeout)
    from gated.conformance.grading import local

    return local.start(target, claim, framework=framework, device=device, gradient=gradient)


class _Grading:
    """One check under way."""

    def __init__(
        self,
        claim: Claim,
        profile: Profile,
        runner: Runner,
        gradients: bool,
        required: frozenset[str],
        seed: int,
        budget: str,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.claim, self.profile, self.runner, self.seed, self.budget = claim, profile, runner, seed, budget
        self.facts: Facts = runner.facts
        self.gradients = gradients and self.facts.gradients
        self.wanted = gradients
        self.required = required
        self.progress = progress or (lambda text: None)
        self.findings: dict[tuple[str, str, str], Finding] = {}
        self.rows: list[Row] = []
        self.pictures: list[Picture] = []
        self.observations: list[Observation] = []
        self.noise: list[str] = []

    def run(self, dtypes: Sequence[str]) -> Report:
        if self.wanted and not self.facts.gradients:
            severity = FAILURE if "gradient" in self.required else "absent"
            self._add(Finding("gradient-absent", severity, self.facts.gradient_source))
        for dtype in dtypes:
            self._grade(dtype)
        self._add_noise()
        findings = list(self.findings.values())
        diagnosis = []
        if any(one.severity == FAILURE for one in findings):
            from gated.conformance.grading.diagnosis import diagnose

            self.progress("diagnosis")
            diagnosis = diagnose(self.claim, self.observations, findings)
        order = {FAILURE: 0, NOTE: 1}
        findings.sort(key=lambda one: order.get(one.severity, 2))
        claim, facts = self.claim, self.facts
        return Report(
            verdict="error",
            target=facts.name,
            function=claim.function,
            form=claim.form,
            layout=claim.layout,
            profile=self.profile.name,
            claim=claim.describe(),
            framework=facts.framework,
            device=facts.device,
            budget=self.budget,
            seed=self.seed,
            rows=self.rows,
            findings=findings,
            diagnosis=diagnosis,
            versions={"gated": __version__, "numpy": np.__version__, **facts.versions},
            pictures=self.pictures,
        )

    def _grade(self, dtype: str) -> None:
        form = FORMATS[dtype]
        tallies: dict[str, Tally] = {}
        seen = lost = 0
        whole = True
        for trial in cases.trials(self.claim, dtype, self.budget, self.seed, self.facts.sizes):
            self.progress(f"{dtype}: {sum(one.inputs for one in tallies.values()):,} results")
            reply = self._ask(trial)
            for finding in reply_findings(trial, reply, gradients=self.wanted):
                self._add(finding)
            if self.gradients and not seen:
                self._compare_inference(trial, reply)
            if reply.value is None:
                lost += 1
                whole = False
                if lost == _LOST or (reply.failure is not None and reply.failure.kind in ("hang", "crash")):
                    break
                continue
            lost = 0
            results, wrong = {}, {}
            for part in trial.parts:
                result = _whole(trial, part.argument, reply)
                fitting = None if result is None else lined_up(result, part, form)
                if fitting is None:
                    continue
                tally = tallies.setdefault(part.name, Tally(form, part.name, self.profile))
                wrong[part.name] = tally.add(trial, part, fitting, flushes=self.facts.flushes)
                results[part.name] = part.quantity.unpack(fitting)
            if seen < _OBSERVED:
                seen += trial.cotangent.size
                self.observations.append(_observed(trial, reply, results, wrong))
        for tally in tallies.values():
            tally.exhaustive &= whole
            self.rows.append(tally.row())
            self.pictures.extend(tally.pictures())
            for finding in tally.findings():
                self._add(finding)
        if tallies:
            self.progress(f"{dtype}: probes")
            watched = _Watched(self.runner, self.noise)
            for finding in probe(
                self.claim,
                dtype,
                self.profile,
                watched,
                gradients=self.gradients,
                required=self.required,
                seed=self.seed,
            ):
                self._add(finding)

    def _ask(self, trial: cases.Trial, task: str = "") -> Reply:
        arguments = tuple(trial.arguments.values())
        task = task or ("gradient" if self.gradients else "value")
        cotangent = trial.cotangent if task == "gradient" else None
        (reply,) = self.runner.run([Request(task, arguments, cotangent)])
        if reply.noise:
            self.noise.append(reply.noise)
        return reply

    def _compare_inference(self, trial: cases.Trial, differentiated: Reply) -> None:
        """The value where no gradient is wanted: the code that computes it may be another (rules of derivatives)."""
        reply = self._ask(trial, "value")
        for finding in reply_findings(trial, reply, gradients=False):
            self._add(finding)
        part = trial.parts[0]
        alone, beside = (
            None if one.value is None else lined_up(one.value, part, trial.form) for one in (reply, differentiated)
        )
        if alone is None or beside is None:
            return
        tally = Tally(trial.form, part.name, self.profile)
        wrong = tally.add(trial, part, alone, flushes=self.facts.flushes)
        errors, bounds = self.profile.grade(part.quantity, beside, trial.form, flushes=self.facts.flushes)
        if np.any(wrong & (errors <= bounds)):
            (finding,) = [one for one in tally.findings() if one.severity == FAILURE][:1]
            text = f"called without a gradient, the {finding.text}; called with one it is right"
            self._add(Finding("value-depends-on-gradient", FAILURE, text, trial.form.name, finding.evidence))

    def _add(self, finding: Finding) -> None:
        """Keeps the first of each id, dtype and quantity; a failure goes before a note."""
        key = (finding.id, finding.dtype, str(finding.evidence.get("quantity", "")))
        before = self.findings.get(key)
        if before is None or (finding.severity == FAILURE and before.severity != FAILURE):
            self.findings[key] = finding

    def _add_noise(self) -> None:
        if self.noise:
            lines = [line for noise in self.noise for line in noise.splitlines() if line.strip()]
            text = f"the target prints while it computes: {lines[0][:200]!r}" if lines else ""
            if lines:
                self._add(Finding("noise", FAILURE, text, "", {"lines": len(lines), "first": lines[:5]}))
        if self.facts.noise:
            text = f"the target prints while it is loaded: {self.facts.noise.splitlines()[0][:200]!r}"
            self._add(Finding("noise", NOTE, text, "", {"quantity": "loading"}))


class _Watched:
    """A runner whose noise is kept."""

    def __init__(self, runner: Runner, noise: list[str]) -> None:
        self.facts = runner.facts
        self._runner, self._noise = runner, noise

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        replies = self._runner.run(requests)
        self._noise.extend(reply.noise for reply in replies if reply.noise)
        return replies

    def close(self) -> None:
        self._runner.close()


def _whole(trial: cases.Trial, argument: str, reply: Reply) -> Array | None:
    if not argument:
        return reply.value
    if not reply.cotangents:
        return None
    return reply.cotangents[0][list(trial.arguments).index(argument)]


def _observed(
    trial: cases.Trial, reply: Reply, results: Mapping[str, Array], wrong: Mapping[str, NDArray[np.bool_]]
) -> Observation:
    raw = {"": reply.value}
    if reply.cotangents:
        raw |= dict(zip(trial.arguments, reply.cotangents[0], strict=True))
    return Observation(
        trial.claim,
        trial.form,
        trial.arguments,
        trial.elements,
        trial.cotangent,
        trial.parts,
        results,
        raw,
        wrong,
    )
