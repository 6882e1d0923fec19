"""A training run: the model trains; each checkpoint is measured in memory, saved, and can be gone back to."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pythiageo.config.runs import TrainConfig
from pythiageo.durable_files import remove
from pythiageo.errors import CheckpointError, UserError
from pythiageo.measurement.checkpoint import CheckpointMeasurer, LiveCheckpoint, MeasurementSpec, OpenModel
from pythiageo.measurement.probe_loss import live_logits
from pythiageo.measurement.probe_sets import Prepared, choose_probes, describe_probes, list_prompts, prepare
from pythiageo.measurement.result import Origin
from pythiageo.observations import Observation
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.build_training import build_model, checkpoint_steps, describe_data_tasks, make_trainer
from pythiageo.runs.check_sources import check_unmoved
from pythiageo.runs.folder import RunFolder
from pythiageo.runs.kept_checkpoints import find_whole, is_repeated, must_go_back
from pythiageo.runs.training_progress import TrainingProgress
from pythiageo.series.files.fingerprint import combine, describe_nonfinite, examine_all
from pythiageo.synthetic.batches import cut_windows
from pythiageo.synthetic.corpus import Corpus, load_corpus
from pythiageo.synthetic.exposure import Exposure
from pythiageo.synthetic.live import LiveReader
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import Trainable, write_checkpoint
from pythiageo.synthetic.trainer import Trainer, batch_loss
from pythiageo.synthetic.workers import ALONE, Workers

HELD_OUT_WINDOWS = 256


class DivergedError(CheckpointError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class _LiveModels:
    """The model in training as one to measure: states from its own passes, the loss of held-out text beside them."""

    trainable: Trainable
    shape: Shape
    corpus: Corpus | None
    prepared: list[Prepared]
    exposure: Exposure | None

    def open(self, checkpoint: LiveCheckpoint) -> OpenModel:
        """Return the model as it stands."""
        assert checkpoint.weight_sha is not None
        return OpenModel(
            module=self.trainable.module,
            layers=self.shape.layers,
            logits=live_logits(self.trainable),
            open_reader=lambda: nullcontext(LiveReader(self.trainable, self.shape.layers)),
            prepared=self.prepared,
            weight_sha=checkpoint.weight_sha,
            nonfinite=checkpoint.nonfinite,
            scored_logits=self.trainable.scored_logits,
            further=self._held_out_loss,
            met=None if self.exposure is None else self.exposure.met(),
        )

    def _held_out_loss(self, origin: Origin) -> list[Observation]:
        """Mean cross-entropy, in nats per character, over evenly spaced windows of the held-out documents, if any."""
        if self.corpus is None:
            return []
        held_out, context = self.corpus.held_out, self.shape.context
        starts = np.unique(np.linspace(0, len(held_out) - context, HELD_OUT_WINDOWS).astype(np.int64))
        with torch.inference_mode():
            loss = float(batch_loss(self.trainable, cut_windows(held_out, starts, context)))
        if not np.isfinite(loss):
            return [origin.failed("held_out_loss", "nonfinite", "the loss is NaN or infinite")]
        return [origin.row(measure="held_out_loss", value=loss, n=len(starts))]


class _Training:
    """A model that trains, and what is asked of its checkpoints; nothing is trained yet."""

    def __init__(self, config: TrainConfig, workers: Workers) -> None:
        self._config = config
        self._processes = workers.count
        self.trainable, self._shape = build_model(config)
        self._corpus = _load_corpus(config, self._shape)
        probes = choose_probes(config.probes)
        exposure = None if config.data.source == "text" else Exposure(list_prompts(probes))
        self.trainer = make_trainer(config, self.trainable, self._shape, self._corpus, workers, exposure)
        prepared = prepare(probes, CharacterTokenizer(), self._shape.context)
        self._identity = {
            "series": config.name,
            "regime": config.regime,
            "size": config.model.size,
            "seed": config.seed,
        }
        steps = checkpoint_steps(config)
        self._spec = MeasurementSpec(config, self._identity, probes, config.compute.device, steps, in_memory=True)
        models = _LiveModels(self.trainable, self._shape, self._corpus, prepared, exposure)
        self.measurer = CheckpointMeasurer(self._spec, models.open)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        shape = self._shape
        return {
            **self._identity,
            "probe_sets": describe_probes(self._spec.probes),
            "data_tasks": describe_data_tasks(self._config),
            "corpus": self._corpus.summary() if self._corpus else None,
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

    def advance(self) -> None:
        """Take one optimiser step. Raises ``DivergedError``."""
        _advance(self.trainer, self._config.name)

    def examine(self) -> LiveCheckpoint:
        """Return the checkpoint that the model is now, its weights fingerprinted. Raises ``DivergedError``."""
        if self.trainer.step:
            _check_loss(self.trainer, self.trainer.loss, self._config.name)
        step, facts = self.trainer.step, examine_all(self.trainable.export()[1])
        return LiveCheckpoint(step, self.trainer.tokens, f"step{step}", combine(facts), describe_nonfinite(facts))

    def summarise(self) -> dict[str, Any]:
        """Return how far training came."""
        trainer = self.trainer
        summary: dict[str, Any] = {
            "step": trainer.step,
            "tokens": trainer.tokens,
            "last_batch_loss": trainer.loss if math.isfinite(trainer.loss) else None,
            "processes": self._processes,
        }
        if self._corpus is not None:
            summary["epochs"] = trainer.tokens / len(self._corpus.train)
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
    training = _Training(config, workers)
    description = training.describe()
    check_unmoved(folder, description)
    folder.update(**description)
    steps, keeps_weights = checkpoint_steps(config), config.training.weights == "keep"
    last = steps[-1]
    report(Progress(config.name, 0, last, "looking at what is there"))
    recorded = {entry.step for entry in folder.manifest.checkpoints}
    whole = find_whole(folder, keeps_weights)
    again = must_go_back(training.trainer, folder, recorded - whole.keys())
    if again:
        remove(folder.state)
        training = _Training(config, workers)
    trainer = training.trainer
    due = _find_due(folder, trainer.step, steps, {} if again else whole)
    workers.wait()  # from here on the others may read the state
    progress = TrainingProgress(config.name, last, folder, report, config.training.tensorboard)
    saved = trainer.step
    try:
        for step in range(trainer.step, last + 1):
            if step > trainer.step:
                training.advance()
                progress.report_step(trainer)
            if step not in due:
                continue
            checkpoint = training.examine()
            if again and is_repeated(folder, whole, checkpoint):
                continue
            progress.report_measuring(step)
            result = training.measurer.measure(checkpoint)
            folder.keep(result)
            if keeps_weights:
                with folder.new_checkpoint(step) as path:
                    write_checkpoint(path, training.trainable, step, trainer.tokens)
            trainer.save(folder.state)  # last of all: a resumed run starts from it
            saved = step
            progress.report_result(result, trainer)
    except DivergedError as error:
        folder.observations.consolidate()
        folder.update(status="diverged", training={**training.summarise(), "reason": str(error)})
        raise
    if saved != trainer.step:
        trainer.save(folder.state)
    folder.observations.consolidate()
    folder.update(status="complete", training=training.summarise())
    report(Progress(config.name, last, last, "done"))


def _find_due(folder: RunFolder, now: int, steps: list[int], whole: dict[int, str | None]) -> set[int]:
    """Return those of ``steps`` to be measured, where training is at step ``now`` and those of ``whole`` stand.

    Raises:
        UserError: training is beyond them, or beyond one of them that was not measured.
    """
    if now > steps[-1]:
        raise UserError(f"{folder.path}: training is at step {now} already, beyond training.stop {steps[-1]}")
    due = {step for step in steps if step > now or step not in whole}
    if due and min(due) < now:
        raise UserError(
            f"{folder.path}: step {min(due)} was not measured, and training is at step {now} already: "
            "ask for checkpoints after it, or start anew with --overwrite"
        )
    return due


def train_along(config: TrainConfig, state: Path, workers: Workers) -> None:
    """Take every step that the first process of ``workers`` takes in ``train``, and write nothing.

    Raises:
        DivergedError: as ``train``.
    """
    torch.set_num_threads(config.compute.thread_count)
    trainable, shape = build_model(config)
    trainer = make_trainer(config, trainable, shape, _load_corpus(config, shape), workers)
    workers.wait()
    if state.exists():
        trainer.load(state)
    for _ in range(trainer.step, checkpoint_steps(config)[-1]):
        _advance(trainer, config.name)


def _load_corpus(config: TrainConfig, shape: Shape) -> Corpus | None:
    return None if config.data.source == "tasks" else load_corpus(list(config.data.corpus), shape.context)


def _advance(trainer: Trainer, name: str) -> None:
    trainer.advance()
    if trainer.recent_loss is not None:
        _check_loss(trainer, trainer.recent_loss, name)


def _check_loss(trainer: Trainer, loss: float, name: str) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"{name}: the loss of step {trainer.step - 1} is NaN or infinite, so training stops; checkpoints before it "
            "are kept: a lower training.peak_lr or training.clip may help"
        )
