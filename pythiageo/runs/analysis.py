"""An analysis run: the checkpoints of a series from the Hub or a folder, each opened through TransformerLens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pythiageo.errors import CheckpointError
from pythiageo.observations import read_manifest
from pythiageo.runs.auditing import Choice, choose_steps
from pythiageo.runs.config import AnalyzeConfig
from pythiageo.runs.folder import MANIFEST, RunFolder
from pythiageo.runs.measuring import Origin
from pythiageo.runs.memory import loading
from pythiageo.runs.meter import Meter
from pythiageo.runs.probing import Probe, choose_probes, describe_probes
from pythiageo.runs.progress import Progress, Reporter
from pythiageo.runs.watch import Watch
from pythiageo.series import open_series
from pythiageo.series.audit import StepAudit
from pythiageo.series.checkpoint import Checkpoint, OpenCheckpoint, Series
from pythiageo.series.fetching import HubCheckpoint
from pythiageo.series.folder import FolderSeries
from pythiageo.series.hub import HubSeries
from pythiageo.series.recurrence import NEIGHBOUR
from pythiageo.series.stream import Stream


def analyze(config: AnalyzeConfig, folder: RunFolder, report: Reporter) -> bool:
    """Measure every chosen checkpoint of the series; return whether none of them needs a look.

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
    session = _Session(config, folder, identity, probes, report)
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
    def of(cls, series: Series, choice: Choice, done: set[int]) -> _Todo:
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
    """What stays the same from one checkpoint to the next."""

    def __init__(
        self,
        config: AnalyzeConfig,
        folder: RunFolder,
        identity: dict[str, Any],
        probes: list[Probe],
        report: Reporter,
    ) -> None:
        self._config = config
        self._folder = folder
        self._identity = identity
        steps = folder.manifest["steps"]
        self._meter = Meter(config.measures, config.compute, folder.device, probes, steps)
        self._watch = Watch(config.name, len(steps), folder, report)

    def measure_all(self, checkpoints: list[Checkpoint]) -> None:
        """Measure checkpoints one after the other, those on the Hub fetched ahead and dropped when done."""
        fetched = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, HubCheckpoint)]
        if fetched:
            stream = Stream(fetched, self._config.fetch.bytes, self._config.fetch.ahead)
            for brought in stream.while_waiting(lambda: self._watch.arriving(stream.arrival(), waits=True)):
                self._watch.fetched(stream.seconds(brought))
                self._try(brought, stream.failure(brought), lambda: self._watch.arriving(stream.arrival()))
            self._watch.arriving(None)
        for checkpoint in checkpoints:
            if not isinstance(checkpoint, HubCheckpoint):
                self._try(checkpoint, None)

    def _try(self, checkpoint: Checkpoint, failure: Exception | None, look: Callable[[], None] = lambda: None) -> None:
        """Measure a checkpoint; ``look`` is called between its probe sets."""
        try:
            if failure is not None:
                raise failure
            with self._watch.phase("load", f"opening {checkpoint.label}"), loading():
                opened = checkpoint.open()
            with self._watch.phase("compute", f"measuring {checkpoint.label}"):
                status = self.measure(checkpoint, opened, look)
        except CheckpointError as error:
            status = self.give_up(checkpoint, error)
        self._watch.close(checkpoint.step, checkpoint.label, status)

    def measure(self, checkpoint: Checkpoint, opened: OpenCheckpoint, look: Callable[[], None]) -> str:
        """Measure one checkpoint, write its observations, return its status."""
        origin = self._origin(checkpoint.step, checkpoint.tokens, opened.weight_sha)

        def tell(share: float) -> None:
            look()
            self._watch.measured(share)

        taken = self._meter.take(opened, origin, tell)
        self._folder.observations.write(checkpoint.step, taken.rows)
        self._folder.manifest["model"] = taken.model
        status = "nonfinite" if opened.nonfinite else "ok"
        self._folder.add_checkpoint(checkpoint.step, checkpoint.label, opened.weight_sha, status, opened.nonfinite)
        return status

    def give_up(self, checkpoint: Checkpoint, error: CheckpointError) -> str:
        """Write one row that says why there are no others; return the status."""
        origin = self._origin(checkpoint.step, checkpoint.tokens, None)
        self._fail(origin, checkpoint.label, error.status, str(error))
        return error.status

    def leave_out(self, found: StepAudit, checkpoint: Checkpoint | None) -> None:
        """Write one row that says why the audit leaves this step out."""
        origin = self._origin(found.step, checkpoint.tokens if checkpoint else None, None)
        label = checkpoint.label if checkpoint else found.revision
        self._fail(origin, label, found.verdict, f"left out by the audit: {found.reason}")
        self._watch.close(found.step, label, found.verdict)

    def refer(self, checkpoint: Checkpoint, choice: Choice) -> bool:
        """Write one row that says at which earlier step these same weights are measured; return False if at none."""
        known = {entry["step"]: entry["weight_sha"] for entry in self._folder.manifest["checkpoints"]}
        holder = next((step for step in choice.earlier[checkpoint.step] if known.get(step)), None)
        if holder is None:
            return False
        origin = self._origin(checkpoint.step, checkpoint.tokens, known[holder])
        reason = f"holds the weights of step {holder}, where they are measured: one observation"
        self._fail(origin, checkpoint.label, NEIGHBOUR, reason)
        self._watch.close(checkpoint.step, checkpoint.label, NEIGHBOUR)
        return True

    def _fail(self, origin: Origin, label: str, status: str, reason: str) -> None:
        self._folder.observations.write(origin.step, [origin.failed("checkpoint", status, reason)])
        self._folder.add_checkpoint(origin.step, label, origin.weight_sha, status, reason)

    def _origin(self, step: int, tokens: int | None, weight_sha: str | None) -> Origin:
        return Origin(run=self._config.name, step=step, tokens=tokens, weight_sha=weight_sha, **self._identity)
