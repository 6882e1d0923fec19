"""An analysis run: the checkpoints of a series from the Hub or a folder, each opened through TransformerLens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pythiageo.config.runs import AnalyzeConfig
from pythiageo.measurement.probe_sets import choose_probes, describe_probes
from pythiageo.measurement.result import CheckpointResult
from pythiageo.measurement.spec import MeasurementSpec
from pythiageo.observations import read_manifest
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.analysis_progress import AnalysisProgress
from pythiageo.runs.choose_steps import StepChoice, choose_steps
from pythiageo.runs.engine import Engine, WorkerPool
from pythiageo.runs.folder import MANIFEST, RunFolder
from pythiageo.series import open_series
from pythiageo.series.audit.audit import StepAudit
from pythiageo.series.audit.rules import NEIGHBOUR
from pythiageo.series.checkpoint import Checkpoint, Series
from pythiageo.series.sources.folder import FolderSeries
from pythiageo.series.sources.hub import HubSeries


def analyze(config: AnalyzeConfig, folder: RunFolder, report: Reporter, engine: Engine) -> bool:
    """Measure every chosen checkpoint of the series on an engine; return whether none of them needs a look.

    A checkpoint that the audit leaves out or that cannot be opened gives one row that says why, and the rest go on.
    """
    torch.set_num_threads(config.compute.thread_count)
    series = open_series(config.target, config.step_pattern)
    if isinstance(series, HubSeries) and not config.fetch.keep:
        series.store = folder.downloads
        if config.fetch.bytes is not None:  # what a killed run left behind would not be counted
            folder.drop_downloads()
    if isinstance(series, FolderSeries):
        series.hashes = folder.hashes
    choice = choose_steps(config, series, folder.add_audit, report)
    probes = choose_probes(config.probes)
    identity = _identity(config, series)
    folder.update(**identity, probe_sets=describe_probes(probes), steps=choice.steps)
    spec = MeasurementSpec(config, identity, probes, folder.device, choice.steps)
    progress = AnalysisProgress(config.name, len(choice.steps), folder, report)
    session = _Session(spec, folder, engine.pool(spec, progress), progress)
    todo = _Todo.of(series, choice, set(folder.observations.steps()) - folder.worth_retrying())
    for step, checkpoint in todo.left_out.items():
        session.leave_out(choice.left_out[step], checkpoint)
    session.measure_all(todo.measured)
    # what holds the weights of an earlier step is fetched only if that one could not be measured
    session.measure_all([checkpoint for checkpoint in todo.repeated if not session.refer(checkpoint, choice)])
    folder.observations.consolidate()
    folder.drop_downloads()
    folder.update(status="complete")
    report(Progress(config.name, len(choice.steps), len(choice.steps), "done"))
    return folder.sound


@dataclass(frozen=True)
class _Todo:
    """The checkpoints still to do: those to measure, those that may repeat an earlier one, those left out."""

    measured: list[Checkpoint]
    repeated: list[Checkpoint]
    left_out: dict[int, Checkpoint | None]

    @classmethod
    def of(cls, series: Series, choice: StepChoice, done: set[int]) -> _Todo:
        steps = [step for step in choice.steps if step not in done]
        there = [step for step in steps if step in set(series.steps())]
        checkpoints = {checkpoint.step: checkpoint for checkpoint in series.checkpoints(there)}
        kept = [checkpoint for step, checkpoint in checkpoints.items() if step not in choice.left_out]
        return cls(
            measured=[checkpoint for checkpoint in kept if not choice.earlier.get(checkpoint.step)],
            repeated=[checkpoint for checkpoint in kept if choice.earlier.get(checkpoint.step)],
            left_out={step: checkpoints.get(step) for step in steps if step in choice.left_out},
        )


def _identity(config: AnalyzeConfig, series: Series) -> dict[str, Any]:
    """Return series, regime, size and seed; a run folder's own manifest knows the latter two better than its name."""
    source = Path(config.target)
    known = read_manifest(source) if (source / MANIFEST).is_file() else {}
    return {
        "series": series.name,
        "regime": config.regime or known.get("regime") or "naturalistic",
        "size": known.get("size") or series.size,
        "seed": known.get("seed"),
    }


class _Session:
    """Keeps what comes of the checkpoints, one after the other."""

    def __init__(self, spec: MeasurementSpec, folder: RunFolder, pool: WorkerPool, progress: AnalysisProgress) -> None:
        self._spec = spec
        self._folder = folder
        self._pool = pool
        self._progress = progress

    def measure_all(self, checkpoints: list[Checkpoint]) -> None:
        """Have checkpoints fetched and measured, and keep each result as it comes."""
        self._keep(self._pool.results(checkpoints))

    def leave_out(self, found: StepAudit, checkpoint: Checkpoint | None) -> None:
        """Write one row that says why the audit leaves this step out."""
        origin = self._spec.origin(found.step, checkpoint.tokens if checkpoint else None, None)
        label = checkpoint.label if checkpoint else found.revision
        self._keep([self._spec.failed(origin, label, found.verdict, f"left out by the audit: {found.reason}")])

    def refer(self, checkpoint: Checkpoint, choice: StepChoice) -> bool:
        """Write one row that says at which earlier step these same weights are measured; return False if at none."""
        known = {entry["step"]: entry["weight_sha"] for entry in self._folder.manifest["checkpoints"]}
        holder = next((step for step in choice.earlier[checkpoint.step] if known.get(step)), None)
        if holder is None:
            return False
        origin = self._spec.origin(checkpoint.step, checkpoint.tokens, known[holder])
        reason = f"holds the weights of step {holder}, where they are measured: one observation"
        self._keep([self._spec.failed(origin, checkpoint.label, NEIGHBOUR, reason)])
        return True

    def _keep(self, results: Iterable[CheckpointResult]) -> None:
        progress = self._progress
        self._folder.keep_all(results, lambda one: progress.close(one.step, one.label, one.status, one.seconds))
