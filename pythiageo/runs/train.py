"""A training run: the model trains; each checkpoint is measured in memory, saved, and can be gone back to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pythiageo.config.runs import TrainConfig
from pythiageo.durable_files import remove
from pythiageo.errors import CheckpointError, UserError
from pythiageo.measurement.failures import Mishaps
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import GeometryPlan, observe
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.probe_loss import live_logits
from pythiageo.measurement.probe_sets import Prepared, Probe, choose_probes, describe_probes, prepare
from pythiageo.measurement.result import CheckpointResult
from pythiageo.measurement.rows import Origin
from pythiageo.observations import Observation
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.build_training import build_model, checkpoint_steps, describe_data_tasks, make_trainer
from pythiageo.runs.check_sources import check_at_large
from pythiageo.runs.folder import RunFolder
from pythiageo.runs.kept_checkpoints import find_whole, must_go_back, unlike
from pythiageo.runs.training_progress import TrainingView
from pythiageo.series.files.fingerprint import combine, describe_nonfinite, examine_all
from pythiageo.series.live import LiveCheckpoint, TrainingSeries
from pythiageo.synthetic.batches import windows
from pythiageo.synthetic.corpus import Corpus, load_corpus
from pythiageo.synthetic.live import LiveReader
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import Trainable, write_checkpoint
from pythiageo.synthetic.trainer import Trainer, batch_loss
from pythiageo.synthetic.workers import ALONE, Workers

HELD_OUT_WINDOWS = 256


class DivergedError(CheckpointError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class _Training:
    """What a training run works with."""

    config: TrainConfig
    trainable: Trainable
    shape: Shape
    corpus: Corpus | None
    trainer: Trainer
    probes: list[Probe]
    prepared: list[Prepared]
    instruments: GeometryPlan
    landscape: Landscape
    processes: int

    @classmethod
    def of(cls, config: TrainConfig, workers: Workers) -> _Training:
        """Set it up as ``config`` says, with nothing trained yet."""
        trainable, shape = build_model(config)
        corpus = _corpus(config, shape)
        probes = choose_probes(config.probes)
        return cls(
            config=config,
            trainable=trainable,
            shape=shape,
            corpus=corpus,
            trainer=make_trainer(config, trainable, shape, corpus, workers),
            probes=probes,
            prepared=prepare(probes, CharacterTokenizer(), shape.context),
            instruments=GeometryPlan.of(config.measures),
            landscape=Landscape.of(config.measures.landscape, checkpoint_steps(config), probes),
            processes=workers.count,
        )

    def description(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        shape = self.shape
        return {
            "series": self.config.name,
            "regime": self.config.regime,
            "size": self.config.model.size,
            "seed": self.config.seed,
            "probe_sets": describe_probes(self.probes),
            "data_tasks": describe_data_tasks(self.config),
            "corpus": self.corpus.summary() if self.corpus else None,
            "model": {
                "architecture": self.trainable.architecture,
                "parameters": sum(p.numel() for p in self.trainable.module.parameters()),
                "counting": "every trained tensor once: a tied output embedding is not counted again",
                "layers": shape.layers,
                "d_model": shape.d_model,
                "initialisation": "normal, std 0.02"
                + (", residual projections scaled" if shape.residual_scaling else ""),
            },
        }

    def origin(self, checkpoint: LiveCheckpoint) -> Origin:
        """Return the columns that all rows of a checkpoint share."""
        return Origin(
            run=self.config.name,
            series=self.config.name,
            regime=self.config.regime,
            size=self.config.model.size,
            seed=self.config.seed,
            step=checkpoint.step,
            tokens=checkpoint.tokens,
            weight_sha=checkpoint.weight_sha,
        )

    def observe(self, checkpoint: LiveCheckpoint, mishaps: Mishaps) -> list[Observation]:
        """Measure the model as it stands."""
        origin = self.origin(checkpoint)
        reading = Reading.of(LiveReader(self.trainable, self.shape.layers), self.config.measures, self.config.compute)
        rows = observe(reading, self.prepared, self.instruments, origin, checkpoint.nonfinite, mishaps=mishaps)
        rows += self.landscape.rows(
            self.trainable.module,
            live_logits(self.trainable),
            self.shape.layers,
            self.prepared,
            origin,
            checkpoint.nonfinite,
            self.trainable.scored_logits,
            mishaps,
        )
        if self.corpus is not None:
            rows.append(_held_out_loss(self.trainable, self.corpus, self.shape.context, origin))
        return rows

    def summary(self) -> dict[str, Any]:
        """Return how far training came."""
        trainer = self.trainer
        loss = trainer.loss if math.isfinite(trainer.loss) else None
        summary: dict[str, Any] = {
            "step": trainer.step,
            "tokens": trainer.tokens,
            "last_batch_loss": loss,
            "processes": self.processes,
        }
        if self.corpus is not None:
            summary["epochs"] = trainer.tokens / len(self.corpus.train)
        return summary


def train(config: TrainConfig, folder: RunFolder, report: Reporter, workers: Workers = ALONE) -> None:
    """Train, measure and save every checkpoint of ``config``, from the last one saved if there is one.

    The result does not depend on interruptions: batches are a function of seed and step, and a checkpoint's
    observations are written before the state that a resumed run starts from. What a resumed run goes on from is what
    lies on the disk: where the observations, weights or state of an earlier checkpoint are lost or damaged, this is
    told, and training starts at step 0 again to make them anew; what is whole is kept.

    Raises:
        UserError: checkpoints were asked for that lie behind the run; tasks, corpus or the code's numbers are others
            than they were.
        DivergedError: the loss is no number any more; what was measured before is kept.
    """
    torch.set_num_threads(config.compute.thread_count)
    training = _Training.of(config, workers)
    description = training.description()
    check_at_large(folder, description)
    folder.update(**description)
    report(Progress(config.name, 0, checkpoint_steps(config)[-1], "looking at what is there"))
    recorded = {entry.step for entry in folder.manifest.checkpoints}
    whole = find_whole(folder, config.training.weights == "keep")
    again = must_go_back(training.trainer, folder, recorded - whole.keys())
    if again:
        remove(folder.state)
        training = _Training.of(config, workers)
    trainer = training.trainer
    steps = checkpoint_steps(config)
    if trainer.step > steps[-1]:
        raise UserError(f"{folder.path}: training is at step {trainer.step} already, beyond training.stop {steps[-1]}")
    remaining = steps if again else [step for step in steps if step > trainer.step or step not in whole]
    if remaining and remaining[0] < trainer.step:
        raise UserError(
            f"{folder.path}: step {remaining[0]} was not measured, and training is at step {trainer.step} already: "
            "ask for checkpoints after it, or start anew with --overwrite"
        )
    workers.wait()  # from here on the others may read the state
    view = TrainingView(config.name, steps[-1], folder, report, config.training.tensorboard)
    series = TrainingSeries(config.name, config.model.size, steps, _produce(training, steps, view))
    saved = trainer.step

    def kept(piece: CheckpointResult) -> None:
        """Save the weights, and last of all the state that a resumed run starts from."""
        nonlocal saved
        if config.training.weights == "keep":
            with folder.new_checkpoint(piece.step) as path:
                write_checkpoint(path, training.trainable, piece.step, trainer.tokens)
        trainer.save(folder.state)
        saved = trainer.step
        view.measured(piece, trainer)

    checkpoints = series.checkpoints(remaining)
    try:
        folder.keep_all(_pieces(training, unlike(checkpoints, whole, folder) if again else checkpoints, view), kept)
    except DivergedError as error:
        folder.observations.consolidate()
        folder.update(status="diverged", training={**training.summary(), "reason": str(error)})
        raise
    if saved != trainer.step:
        trainer.save(folder.state)
    folder.observations.consolidate()
    folder.update(status="complete", training=training.summary())
    report(Progress(config.name, steps[-1], steps[-1], "done"))


def train_along(config: TrainConfig, state: Path, workers: Workers) -> None:
    """Take every step that the first process of ``workers`` takes in ``train``, and write nothing.

    Raises:
        DivergedError: as ``train``.
    """
    torch.set_num_threads(config.compute.thread_count)
    trainable, shape = build_model(config)
    trainer = make_trainer(config, trainable, shape, _corpus(config, shape), workers)
    workers.wait()
    if state.exists():
        trainer.load(state)
    last = checkpoint_steps(config)[-1]
    while trainer.step < last:
        _advance(trainer, config.name)


def _corpus(config: TrainConfig, shape: Shape) -> Corpus | None:
    return None if config.data.source == "tasks" else load_corpus(list(config.data.corpus), shape.context)


def _advance(trainer: Trainer, name: str) -> None:
    trainer.advance()
    if not math.isfinite(trainer.loss):
        raise DivergedError(
            f"{name}: the loss of step {trainer.step - 1} is NaN or infinite, so training stops; checkpoints before it "
            "are kept: a lower training.peak_lr or training.clip may help"
        )


def _pieces(
    training: _Training, checkpoints: Iterable[LiveCheckpoint], view: TrainingView
) -> Iterator[CheckpointResult]:
    """Measure each checkpoint while it lives."""
    for checkpoint in checkpoints:
        view.measuring(checkpoint.step)
        mishaps = Mishaps()
        try:
            rows = training.observe(checkpoint, mishaps)
            status, reason = mishaps.outcome(checkpoint.nonfinite)
        except BaseException as error:
            status, reason = mishaps.of_checkpoint(error, checkpoint.label)
            rows = [training.origin(checkpoint).failed("checkpoint", status, reason)]
        sha, tracebacks = checkpoint.weight_sha, tuple(mishaps.tracebacks)
        yield CheckpointResult(checkpoint.step, checkpoint.label, sha, status, reason, rows, tracebacks=tracebacks)


def _produce(training: _Training, steps: list[int], view: TrainingView) -> Iterator[LiveCheckpoint]:
    """Train, and hand the model out at each of ``steps`` that is still ahead (or where training stands now)."""
    trainer, trainable, name = training.trainer, training.trainable, training.config.name
    for step in steps:
        if step < trainer.step:
            continue
        while trainer.step < step:
            _advance(trainer, name)
            view.stepped(trainer)
        _, tensors = trainable.export()
        facts = examine_all(tensors)
        yield LiveCheckpoint(
            step=step,
            tokens=trainer.tokens,
            label=f"step{step}",
            model=trainable.module,
            weight_sha=combine(facts),
            architecture=trainable.architecture,
            nonfinite=describe_nonfinite(facts),
        )


def _held_out_loss(trainable: Trainable, corpus: Corpus, context: int, origin: Origin) -> Observation:
    """Mean cross-entropy, in nats per character, over evenly spaced windows of the held-out documents."""
    last = len(corpus.held_out) - context
    starts = np.unique(np.linspace(0, last, HELD_OUT_WINDOWS).astype(np.int64))
    with torch.inference_mode():
        loss = float(batch_loss(trainable, windows(corpus.held_out, starts, context)))
    if not np.isfinite(loss):
        return origin.failed("held_out_loss", "nonfinite", "the loss is NaN or infinite")
    return origin.row(measure="held_out_loss", value=loss, n=len(starts))


def run_path(out: Path | None, name: str) -> Path:
    """Return the folder of a run: ``out``, or ``outputs/NAME`` here."""
    return out if out is not None else Path("outputs") / name
