"""A run that follows a training which is somebody else's: each chosen step measured as its checkpoint would be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pythiageo.compute.device import resolve_device
from pythiageo.compute.isolation import isolate_process
from pythiageo.config.runs import FollowConfig
from pythiageo.config.training import MOST_STEPS
from pythiageo.errors import UserError
from pythiageo.measurement.checkpoint import CheckpointMeasurer, LiveCheckpoint, MeasurementSpec, OpenModel, Stopwatch
from pythiageo.measurement.probe_sets import choose_probes, describe_probes
from pythiageo.measurement.result import CheckpointResult
from pythiageo.measurement.saved_model import SavedModels
from pythiageo.observations import read_whole_manifest
from pythiageo.progress import silent
from pythiageo.runs.analysis_progress import AnalysisProgress
from pythiageo.runs.check_names import GIVEN, SAVES
from pythiageo.runs.check_sources import check_unmoved
from pythiageo.runs.folder import MANIFEST, RunFolder, open_run_folder
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files.load import open_folder
from pythiageo.series.files.save import write_snapshot
from pythiageo.series.steps import select


@dataclass(frozen=True, kw_only=True)
class _Copied(LiveCheckpoint):
    """A step of the training, copied into ``folder`` when it is opened."""

    folder: RunFolder


class FollowedTraining:
    """The run folder at ``path``, and the training of ``model`` that it follows from step ``start`` to ``last``.

    ``tokens``: seen before ``start``, where the training counts them. ``last``: ``None`` where nobody knows it.

    The folder is opened for each step and closed again, so that a training which is stopped leaves no lock behind. The
    first step is measured at once: what is wrong is said before anything is trained.

    A training that goes on from a checkpoint goes on with its run: steps after the checkpoint's are measured again, and
    the weights at the checkpoint must be those that were measured there, if that step was.

    Raises:
        UserError: the folder holds another run, or one of other tasks or of code with other numbers; the training
            starts at step 0 and the folder holds a run and ``overwrite`` was not asked for; something that cannot be
            measured so.
    """

    def __init__(
        self,
        config: FollowConfig,
        path: Path,
        model: nn.Module,
        tokenizer: Any,
        start: int,
        last: int | None,
        tokens: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self._config = config
        self._path = path
        self._model = model
        self._tokenizer = tokenizer
        known = read_whole_manifest(path).checkpoints if (path / MANIFEST).is_file() else []
        if known and not start and not overwrite:
            raise UserError(f"{path}: holds a run already: overwrite=True starts anew, another name keeps both")
        gone_on = bool(known and start)
        self._shas: dict[int, str | None] = {one.step: one.weight_sha for one in known if gone_on and one.step <= start}
        every = range((MOST_STEPS if last is None else last) + 1)
        planned = config.steps not in (SAVES, GIVEN)
        chosen = select(config.steps, list(every), beyond="ignore") if planned else []
        self._steps = {min(self._shas, default=start), *chosen, *([] if last is None else [last])}
        with self._open_folder(resume=gone_on) as folder:
            probes = choose_probes(config.probes)
            possible = sorted(self._steps) if planned else every
            identity = {"series": config.name, "regime": config.regime, "size": config.size, "seed": config.seed}
            self._spec = MeasurementSpec(config, identity, probes, folder.device, possible, in_memory=True)
            self._models = SavedModels(self._spec)
            self._clock = Stopwatch()
            self._measurer = CheckpointMeasurer(self._spec, self._open_copy, self._clock)
            now = {**identity, "probe_sets": describe_probes(probes)}
            check_unmoved(folder, now)
            folder.update(**now, steps=sorted(self._steps))
            lost = self._keep_lost(folder, start) if gone_on else False
            self.again = self._check_same_training(folder, start)
            """Steps that an earlier attempt measured, and that are measured again."""
        self.first = self.measure(start, tokens, strict=True) if lost or not self._shas else None
        """What was measured at ``start``; ``None`` where an earlier attempt did."""

    @property
    def measured(self) -> list[int]:
        """Steps that are in the run folder, ascending."""
        return sorted(self._shas)

    def is_due(self, step: int) -> bool:
        """Whether ``step`` was chosen; which steps are saved is not known here."""
        return step in self._steps

    def measure(
        self, step: int, tokens: int | None, strict: bool = False, model: nn.Module | None = None
    ) -> CheckpointResult:
        """Measure the model as it stands at ``step``, write its observations and return them.

        Where it cannot be measured, one row says why; ``strict``: that is an error. ``model``: where it is another
        object from now on.

        Raises:
            UserError: something that cannot be measured so.
            CheckpointError: the model cannot be measured, and ``strict``; so are errors that nobody foresaw.
            MachineError: disk or memory run out; every step before is kept.
        """
        self._model = self._model if model is None else model
        with self._open_folder() as folder:
            progress = AnalysisProgress(self._config.name, len(self._steps), folder, silent)
            try:
                copied = _Copied(step, tokens, f"step{step}", folder=folder)
                result = self._measurer.measure(copied, strict=strict)
            finally:
                folder.drop_downloads()
            folder.note(steps=sorted({*self._steps, *self._shas, step}))
            folder.keep(result)
            self._shas[step] = result.weight_sha
            progress.close(step, result.label, result.status, self._clock.read(), result.tracebacks)
        return result

    def finish(self, training: dict[str, Any]) -> None:
        """Write the whole table; ``training``: what the manifest says of the training."""
        with self._open_folder() as folder:
            folder.observations.consolidate()
            folder.update(status="complete", training=training)

    @contextmanager
    def _open_folder(self, resume: bool = True) -> Iterator[RunFolder]:
        """Open the run folder, with everything that numbers depend on as the config says, and not as it is here."""
        with isolate_process():
            torch.set_num_threads(1)  # of one piece of work: compute.threads of them are at work at a time
            device = resolve_device(self._config.compute.device)
            with open_run_folder(self._path, self._config, resume, not resume, device) as folder:
                yield folder

    def _open_copy(self, copied: _Copied) -> OpenModel:
        return self._models.make_ready(self._copy(copied, self._config.weights == "keep"))

    def _copy(self, copied: _Copied, keep: bool) -> OpenCheckpoint:
        """Write the model and open what was written; it stays in the run folder only if it is to be kept."""
        folder = copied.folder
        if keep:
            with folder.new_checkpoint(copied.step) as path:
                self._write(path, copied)
            path = folder.checkpoints / copied.label
        else:
            path = folder.downloads / copied.label
            shutil.rmtree(path, ignore_errors=True)
            self._write(path, copied)
        return self._models.load(partial(open_folder, path, copied.label))

    def _write(self, path: Path, copied: _Copied) -> None:
        write_snapshot(self._model, self._tokenizer, path)
        facts = {"step": copied.step} | ({} if copied.tokens is None else {"tokens": copied.tokens})
        (path / "training.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")

    def _keep_lost(self, folder: RunFolder, start: int) -> bool:
        """Write a row for each step whose observations are lost, for this training cannot go back to it.

        Return whether those of ``start`` are, which can be taken again.
        """
        lost = folder.mend()
        reason = "its observations were cut, empty or gone when the run went on, and training cannot go back to it"
        for step in lost & self._shas.keys() - {start}:
            origin = self._spec.origin(step, None, self._shas[step])
            folder.keep(CheckpointResult.failed(origin, f"step{step}", "unreadable", reason))
        return start in lost and start in self._shas

    def _check_same_training(self, folder: RunFolder, start: int) -> list[int]:
        """Hold the run against the training where this one begins, and forget what comes after; return those steps."""
        if start in self._shas:
            try:
                found = self._copy(_Copied(start, None, f"step{start}", folder=folder), keep=False).weight_sha
            finally:
                folder.drop_downloads()
            if found != self._shas[start]:
                raise UserError(
                    f"{self._path}: other weights were measured at step {start}: this run followed another training, "
                    f"so take another name"
                )
        return folder.forget_after(start)
