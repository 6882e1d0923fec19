"""What an audit of the series means for a run: which steps are measured, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pythiageo.config.runs import AnalyzeConfig
from pythiageo.progress import Progress, Reporter
from pythiageo.series.audit.audit import Audit, Auditable, StepAudit, audit_series
from pythiageo.series.audit.rules import DOUBTED, MISSING, NEIGHBOUR, OK
from pythiageo.series.checkpoint import Series
from pythiageo.series.steps import select


@dataclass(frozen=True)
class StepChoice:
    """The steps of a run, ascending, and what the audit found of those that are left out; the others are measured."""

    steps: list[int]
    left_out: dict[int, StepAudit] = field(default_factory=dict)
    earlier: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """For a step that is the same as a neighbour: the chosen steps before it that hold its weights."""


def choose_steps(
    config: AnalyzeConfig, series: Series, keep: Callable[[dict[str, Any]], None], report: Reporter
) -> StepChoice:
    """Select the steps of a run and, unless it is not wanted, audit the series; ``keep`` is given the audit.

    Raises:
        UserError: the steps are not there, or the series cannot be reached.
        MachineError: the Hub cannot be reached.
    """
    steps = select(config.steps, series.steps())
    if not config.audit or not isinstance(series, Auditable):
        return StepChoice(steps)
    report(Progress(config.name, 0, len(steps), f"auditing {series.name}"))

    def told(what: str) -> Callable[[int, int], None]:
        doing = f"auditing {series.name}: {what}"
        return lambda done, of: report(Progress(config.name, 0, len(steps), f"{doing}{done} of {of}"))

    reading = told("reading rows, ") if config.audit_values else None
    audit = audit_series(series, series.expected, told(""), reading)
    keep(audit.as_json())
    if "all" in (part.strip() for part in config.steps.split(",")):
        # steps that the series should have belong to all of it
        steps = sorted({*steps, *(found.step for found in audit.steps if found.verdict == MISSING)})
    return choose_among(steps, audit, config.trust_revisions)


def choose_among(steps: Sequence[int], audit: Audit, trust: bool) -> StepChoice:
    """Return what an audit says of the chosen steps; ``trust``: those that it doubts are measured too."""
    audited = {step.step: step for step in audit.steps}
    measured = {OK, NEIGHBOUR, *(DOUBTED if trust else ())}
    left_out = {step: audited[step] for step in steps if audited[step].verdict not in measured}
    earlier = {
        step: tuple(other for other in audited[step].shares_with if other < step and other in steps)
        for step in steps
        if audited[step].verdict == NEIGHBOUR
    }
    return StepChoice(list(steps), left_out, earlier)
