"""An analysis run: the checkpoints of a series from the Hub or a folder, each opened through TransformerLens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pythiageo.config.protocols import describe_protocol
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.errors import CheckpointError, UserError
from pythiageo.measurement.checkpoint import MeasurementSpec
from pythiageo.measurement.examples import look_ahead
from pythiageo.measurement.probe_sets import choose_probes, describe_probes, too_few
from pythiageo.measurement.result import CheckpointResult
from pythiageo.names import shared_by_seeds, split_seed
from pythiageo.observations import Manifest, read_manifest
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.analysis_progress import AnalysisProgress
from pythiageo.runs.audit_behind import AuditBehind
from pythiageo.runs.check_sources import go_on, moved_since
from pythiageo.runs.choose_steps import StepChoice
from pythiageo.runs.engine import Engine, WorkerPool
from pythiageo.runs.folder import MANIFEST, RunFolder
from pythiageo.series import open_series
from pythiageo.series.audit.audit import StepAudit
from pythiageo.series.audit.rules import MISSING, NEIGHBOUR, VERDICTS
from pythiageo.series.checkpoint import Checkpoint, Remembering, Series, checkpoints_of
from pythiageo.series.kinds import check_kinds
from pythiageo.series.names import MOST
from pythiageo.series.tokenizers import NamedTokenizer, read_tokenizer


def analyze(config: AnalyzeConfig, folder: RunFolder, report: Reporter, engine: Engine, refresh: bool = False) -> bool:
    """Measure every chosen checkpoint of the series on an engine; return whether none of them needs a look.

    A checkpoint that the audit leaves out or that cannot be measured gives one row that says why, and the rest go on. A
    run that is gone on with is first held against what its rows came from; ``refresh``: what moved is measured anew.

    Raises:
        UserError: the series or the tasks cannot be had; something moved, and ``refresh`` was not asked for; nothing
            can be measured of a probe set with the model's tokenizer and context; or as ``CheckpointMeasurer``.
        MachineError: disk or memory run out, or the Hub cannot be reached.
    """
    torch.set_num_threads(1)  # of one piece of work: compute.threads of them are at work at a time
    tokenizer = None if config.tokenizer is None else _same_tokenizer(read_tokenizer(config.tokenizer), folder)
    series = open_series(config.target, config.naming)
    if config.fetch.bytes is not None:  # what a killed run left behind would not be counted
        folder.drop_downloads()
    if isinstance(series, Remembering):
        series.remember_in(folder.hashes)
    store = None if config.fetch.keep else folder.downloads
    with AuditBehind(config, series, report, soon=not folder.manifest.checkpoints) as audit:
        choice = audit.choice
        probes = choose_probes(config.probes)
        identity = _identity(config, series, folder.manifest)
        alike = shared_by_seeds(str(identity["size"]))
        described = describe_protocol(config, config.protocol)
        remarks = [*series.remarks, *([alike] if alike else []), *too_few(probes), *described]
        now = {
            **identity,
            "probe_sets": describe_probes(probes),
            "steps": choice.steps,
            "remarks": remarks,
            "tokenizer": tokenizer and tokenizer.describe(),
        }
        moved = moved_since(folder, series, choice, now, report)
        if not moved or refresh:
            folder.mend()
        go_on(folder, moved, {**now, **_note_unlisted(remarks, audit)}, refresh)
        if audit.record is not None:
            folder.add_audit(audit.record)
        spec = MeasurementSpec(config, identity, probes, folder.device, choice.steps, tokenizer)
        progress = AnalysisProgress(config.name, len(choice.steps), folder, report)
        session = _Session(spec, folder, engine.pool(spec, progress), progress, series, store)
        todo = _Todo.of(series, choice, _done(folder, choice), store)
        if not folder.observations.steps() and (first := [*todo.measured, *todo.repeated]):
            with suppress(CheckpointError), TemporaryDirectory() as scratch:  # it has a row of its own, as have others
                look_ahead(first, probes, Path(scratch), tokenizer=tokenizer)
        elif not folder.observations.steps():  # the audit saw no weights, or none that can be told apart
            check_kinds([one for one in todo.left_out.values() if one is not None], series.name)
        session.do(todo, choice, audit.begin)
        if audit.unlisted is not None:
            audit.finish(lambda: len(folder.manifest.checkpoints))
            session.do(_Todo.of(series, audit.choice, _done(folder, audit.choice), store), audit.choice)
            folder.add_audit(audit.record or {})
            folder.update(**_note_unlisted(remarks, audit))
        if pending := folder.manifest.pending:
            due = replace(spec, only=frozenset((task, level) for task, level in pending.probes))
            _Session(due, folder, engine.pool(due, progress), progress, series, store).complete(pending.steps)
        folder.observations.consolidate()
        folder.drop_downloads()
        folder.update(status="complete")
    report(Progress(config.name, len(choice.steps), len(choice.steps), "done"))
    return folder.sound


def _note_unlisted(remarks: list[str], audit: AuditBehind) -> dict[str, Any]:
    """Return what the manifest says while the audit is under way, and no more once it is finished."""
    return {"remarks": [*remarks, *([audit.unlisted] if audit.unlisted else [])], "unlisted": audit.unlisted}


def _same_tokenizer(tokenizer: NamedTokenizer, folder: RunFolder) -> NamedTokenizer:
    """Return the tokenizer that was named, if it is still the one of what the run has measured so far.

    Raises:
        UserError: it is another one now.
    """
    before = folder.manifest.tokenizer
    if folder.manifest.checkpoints and before and before.get("sha256") != tokenizer.sha:
        raise UserError(
            f"{folder.path}: the tokenizer {tokenizer.name} is another one than when this run began: numbers of one "
            f"table come from one tokenizer: choose another folder with --out, or --overwrite"
        )
    return tokenizer


@dataclass(frozen=True)
class _Todo:
    """The checkpoints still to do: those to measure, those that may repeat an earlier one, those left out."""

    measured: list[Checkpoint]
    repeated: list[Checkpoint]
    left_out: dict[int, Checkpoint | None]

    @classmethod
    def of(cls, series: Series, choice: StepChoice, done: set[int], store: Path | None) -> _Todo:
        steps = [step for step in choice.steps if step not in done]
        there = [step for step in steps if step in set(series.steps())]
        checkpoints = {checkpoint.step: checkpoint for checkpoint in checkpoints_of(series, there, store)}
        kept = [checkpoint for step, checkpoint in checkpoints.items() if step not in choice.left_out]
        return cls(
            measured=[checkpoint for checkpoint in kept if not choice.earlier.get(checkpoint.step)],
            repeated=[checkpoint for checkpoint in kept if choice.earlier.get(checkpoint.step)],
            left_out={step: checkpoints.get(step) for step in steps if step in choice.left_out},
        )


def _done(folder: RunFolder, choice: StepChoice) -> set[int]:
    """Return the steps that are finished: what the audit said of them, where they were left out, still stands."""
    known = {entry.step: entry for entry in folder.manifest.checkpoints}
    done = set()
    for step in set(folder.observations.steps()) & known.keys() - folder.worth_retrying():
        status, reason, sha = known[step].status, known[step].reason, known[step].weight_sha
        if status == NEIGHBOUR:
            holders = (other for other in choice.earlier.get(step, ()) if other in known and known[other].weight_sha)
            holder = next(holders, None)
            stands = holder is not None and (sha, reason) == (known[holder].weight_sha, _held(holder))
        elif status in VERDICTS and sha is None:
            found = choice.left_out.get(step)
            stands = found is not None and (status, reason) == (found.verdict, _left_out(found))
        else:
            stands = step not in choice.left_out  # what an audit by all steps doubts is not believed
        if stands:
            done.add(step)
    return done


def _left_out(found: StepAudit) -> str:
    return f"left out by the audit: {found.reason}"


def _held(holder: int) -> str:
    return f"holds the weights of step {holder}, where they are measured: one observation"


def _identity(config: AnalyzeConfig, series: Series, before: Manifest) -> dict[str, Any]:
    """Return series, regime, size and seed.

    Size and seed are those of the run's rows ``before``, if there are any: one table is of one run. Else those that a
    run folder's own manifest knows, else what the name of the series says.
    """
    source = Path(config.target)
    known = read_manifest(source) if (source / MANIFEST).is_file() else Manifest()
    size, seed = (known.size, known.seed) if known.size else split_seed(series.size)
    if before.checkpoints and before.size:
        size, seed = before.size, before.seed
    return {
        "series": series.name,
        "regime": config.regime or known.regime or "naturalistic",
        "size": size,
        "seed": seed if seed is not None and 0 <= seed < MOST else None,
    }


class _Session:
    """Keeps what comes of the checkpoints, one after the other."""

    def __init__(
        self,
        spec: MeasurementSpec,
        folder: RunFolder,
        pool: WorkerPool,
        progress: AnalysisProgress,
        series: Series,
        store: Path | None,
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._pool = pool
        self._progress = progress
        self._series = series
        self._store = store

    def do(self, todo: _Todo, choice: StepChoice, measured: Callable[[], None] = lambda: None) -> None:
        """Have what is to do done, and keep each result as it comes; what is left out has a row that says why.

        ``measured`` is called whenever a checkpoint was.
        """
        for step, checkpoint in todo.left_out.items():
            self.leave_out(choice.left_out[step], checkpoint)
        for result in self._remembered(todo.measured):
            self._keep([result])
            measured()
        # what holds the weights of an earlier step is fetched only if that one could not be measured
        repeated = [checkpoint for checkpoint in todo.repeated if not self.refer(checkpoint, choice)]
        self._keep(self._remembered(repeated))

    def complete(self, steps: list[int]) -> None:
        """Measure what the order asks of checkpoints whose other rows stand, and put it beside these."""
        there = [step for step in steps if step in set(self._series.steps())]
        self._keep(map(self._joined, self._remembered(list(checkpoints_of(self._series, there, self._store)))))
        known = {entry.step: entry for entry in self._folder.manifest.checkpoints}
        for step in sorted(set(steps) - set(there)):
            sha, label = known[step].weight_sha, str(known[step].label)
            reason = "the checkpoint is not there any more, so that what was asked anew could not be measured"
            gone = CheckpointResult.failed(self._spec.origin(step, None, sha), label, MISSING, reason)
            self._keep([self._joined(gone)])

    def _joined(self, result: CheckpointResult) -> CheckpointResult:
        """Return a result with the rows of its checkpoint that stand.

        Raises:
            UserError: it was measured on other weights than these.
        """
        known = next(entry for entry in self._folder.manifest.checkpoints if entry.step == result.step)
        if result.weight_sha not in (None, known.weight_sha):
            raise UserError(
                f"{result.label}: its weights changed while the run went on: --refresh once they are finished"
            )
        again = self._spec.only or frozenset()
        rows = self._folder.observations.rows(result.step)
        stand = [row for row in rows if (row.task, row.level) not in again and row.measure != "checkpoint"]
        kept = result.kept.joined(self._folder.sidecars.read(known), again)
        return replace(result, rows=[*stand, *result.rows], kept=kept)

    def _remembered(self, checkpoints: list[Checkpoint]) -> Iterator[CheckpointResult]:
        """Yield the results; a series that can notes the fingerprints that were read."""
        if not isinstance(self._series, Remembering):
            yield from self._pool.results(checkpoints)
            return
        with self._series.remembering([checkpoint.step for checkpoint in checkpoints]) as note:
            for result in self._pool.results(checkpoints):
                if result.weight_sha:
                    note(result.step, result.weight_sha)
                yield result

    def leave_out(self, found: StepAudit, checkpoint: Checkpoint | None) -> None:
        """Write one row that says why the audit leaves this step out."""
        origin = self._spec.origin(found.step, checkpoint.tokens if checkpoint else None, None)
        label = checkpoint.label if checkpoint else found.revision
        self._keep([CheckpointResult.failed(origin, label, found.verdict, _left_out(found))])

    def refer(self, checkpoint: Checkpoint, choice: StepChoice) -> bool:
        """Write one row that says at which earlier step these same weights are measured; return False if at none."""
        known = {entry.step: entry.weight_sha for entry in self._folder.manifest.checkpoints}
        holder = next((step for step in choice.earlier[checkpoint.step] if known.get(step)), None)
        if holder is None:
            return False
        origin = self._spec.origin(checkpoint.step, checkpoint.tokens, known[holder])
        self._keep([CheckpointResult.failed(origin, checkpoint.label, NEIGHBOUR, _held(holder))])
        return True

    def _keep(self, results: Iterable[CheckpointResult]) -> None:
        for one in results:
            self._folder.keep(one)
            self._progress.close(one.step, one.label, one.status, one.seconds, one.tracebacks)
