"""``MeasureCallback``: a run folder written while transformers' ``Trainer`` trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import SchedulerType, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pythiageo.api.following import LOG, make_follow_config, numbers_for_log, say_status
from pythiageo.errors import MachineError, UserError, count_noun
from pythiageo.locations import run_path
from pythiageo.measurement.in_memory import device_of
from pythiageo.measurement.result import CheckpointResult
from pythiageo.runs.check_names import SAVES
from pythiageo.runs.follow import FollowedTraining


class MeasureCallback(TrainerCallback):
    """Measures the model at chosen steps of a training, into a run folder that every other command reads.

    ``Trainer(..., callbacks=[MeasureCallback(["ADD"], name="mine", steps="log:20")])``

    The training is as it would be without: a copy of the model is measured, and random states, modes, gradients,
    threads and precision are given back; losses are equal to the last bit. What cannot be measured at all is said
    before the first step. Later on, a step that cannot be measured has a row that says why, and where disk or memory
    run out there is a warning; the training goes on.

    With ``trainer.train(resume_from_checkpoint=...)`` the run goes on too: what was measured after the checkpoint is
    measured again, and the weights there must be those that were measured. In distributed training the first process
    measures while the others wait at their next exchange; sharded weights are refused. With ``load_best_model_at_end``
    and a training that stops early, its last step is measured only if it was chosen.

    Args:
        tasks: as for ``measure``.
        name: of the run.
        steps: as for ``analyze`` (``"log:20"``, ``"every:500"``, ``"0,1,2,512"``), or ``"saves"``: those at which the
            trainer saves. The first and the last step are always measured.
        tokenizer: default the trainer's ``processing_class``.
        examples, measures, readouts, sites, layers, device, dtype, threads, settings: as for ``measure``.
        weights: ``"keep"`` to keep each measured checkpoint in the run folder.
        regime: ``"naturalistic"``, ``"task-aligned"`` or ``"mix:0.1"``, in the table.
        size: of the model, in the table; default the run's name.
        out: the run folder; default ``outputs/NAME``.
        overwrite: start the run anew where a training starts from its first step and the folder holds a run.
        log: what is called with each measured step's main numbers by name (``pythiageo/rankme/ADD``, see
            ``Recorder.measure``). ``trainer.add_callback(MeasureCallback(..., log=trainer.log))`` puts them into the
            trainer's ``log_history`` and into whatever it reports to: W&B, TensorBoard, trackio.

    Raises:
        UserError: a mistake in these; when training begins, what cannot be measured so.
    """

    def __init__(
        self,
        tasks: str | Sequence[str] = (),
        *,
        name: str,
        steps: str = "log:20",
        tokenizer: Any = None,
        examples: int | None = None,
        measures: str | Sequence[str] | None = None,
        readouts: str | Sequence[str] | None = None,
        sites: str | Sequence[str] | None = None,
        layers: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        threads: int | None = None,
        settings: Mapping[str, Any] | None = None,
        weights: str = "measure-only",
        regime: str = "naturalistic",
        size: str | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        log: Callable[[dict[str, float]], object] | None = None,
    ) -> None:
        keywords = {
            "tasks": tasks,
            "examples": examples,
            "measures": measures,
            "readouts": readouts,
            "sites": sites,
            "layers": layers,
            "device": device,
            "dtype": dtype,
            "threads": threads or torch.get_num_threads(),
        }
        facts = {"name": name, "regime": regime, "size": size or name, "steps": steps, "weights": weights}
        self._config = make_follow_config(facts, keywords, settings, "MeasureCallback")
        self._log = log
        self._device = device
        self._tokenizer = tokenizer
        self._path = run_path(None if out is None else Path(out), name)
        self._overwrite = overwrite
        self._following: FollowedTraining | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the run folder, and measure the first step."""
        if not state.is_world_process_zero:
            return
        tokenizer = self._tokenizer or kwargs.get("processing_class")
        if tokenizer is None:
            raise UserError("MeasureCallback: expected a tokenizer, here or as the trainer's processing_class")
        model = kwargs["model"]
        compute = self._config.compute
        if self._device is None:
            compute = compute.model_copy(update={"device": device_of(model)})
        config = self._config.model_copy(update={"compute": compute, "seed": args.seed})
        start, last, tokens = state.global_step, state.max_steps, _count_tokens(args, state)
        self._following = FollowedTraining(config, self._path, model, tokenizer, start, last, tokens, self._overwrite)
        if self._following.again:
            again = ", ".join(map(str, self._following.again))
            LOG.warning(f"{self._path}: training goes on from step {start}: {again} measured before are measured again")
        self._give(self._following.first, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure a chosen step."""
        if self._following is not None and self._following.is_due(state.global_step):
            self._measure(args, state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure a step that is saved, if these were asked for."""
        if self._config.steps == SAVES:
            self._measure(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the last step of a training that stopped early, and finish the run folder."""
        if self._following is None:
            return
        if not args.load_best_model_at_end:  # or else these weights are those of another step
            self._measure(args, state, control)
        facts = {
            "step": state.global_step,
            "steps": state.max_steps,
            "tokens": _count_tokens(args, state),
            "epochs": state.epoch,
            "peak_lr": args.learning_rate,
            "schedule": SchedulerType(args.lr_scheduler_type).value,
            "batch_size": state.train_batch_size,
            "gradient_accumulation": args.gradient_accumulation_steps,
        }
        self._following.finish(facts)
        if not args.disable_tqdm:
            done = count_noun(len(self._following.measured), "checkpoint")
            print(f"pythiageo: {done} measured into {self._path}: pythiageo report {self._path}")

    def _measure(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        following, step = self._following, state.global_step
        if following is None or step in following.measured:
            return
        try:
            result = following.measure(step, _count_tokens(args, state))
        except (MachineError, torch.OutOfMemoryError) as error:
            LOG.warning(f"{self._path}: step {step} is not measured, training goes on: {error}")
        else:
            say_status(result, self._path)
            self._give(result, control)

    def _give(self, result: CheckpointResult | None, control: TrainerControl) -> None:
        """Give the numbers of a step to whoever logs them."""
        if self._log is not None and result is not None and (numbers := numbers_for_log(result)):
            due = control.should_log
            self._log(numbers)
            control.should_log = due  # the trainer takes any log for its own of this step, and would leave that out


def _count_tokens(args: TrainingArguments, state: TrainerState) -> int | None:
    """Return the tokens seen, ``None`` where the trainer does not count them."""
    counted = str(args.include_num_input_tokens_seen).lower() not in {"false", "no"}
    return int(state.num_input_tokens_seen) if counted else None
