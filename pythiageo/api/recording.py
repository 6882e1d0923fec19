"""``recorder``: a run folder written while somebody's own loop trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from pythiageo.api.following import LOG, make_follow_config, numbers_for_log, say_status
from pythiageo.errors import MachineError, UserError
from pythiageo.locations import run_path
from pythiageo.measurement.in_memory import device_of
from pythiageo.runs.check_names import GIVEN
from pythiageo.runs.follow import FollowedTraining


class Recorder:
    """Measures a model whenever a loop says so, into a run folder that every other command reads. See ``recorder``."""

    def __init__(self, config: Any, path: Path, tokenizer: Any, device: str | None, overwrite: bool) -> None:
        self._config = config
        self._device = device
        self._tokenizer = tokenizer
        self._overwrite = overwrite
        self._following: FollowedTraining | None = None
        self.path = path
        """The run folder."""

    def __enter__(self) -> Recorder:
        return self

    def measure(self, model: nn.Module, step: int, tokens: int | None = None) -> dict[str, float]:
        """Measure the model as it stands; return its main numbers by name, for a log: ``wandb.log(r.measure(...))``.

        The names are ``pythiageo/MEASURE/TASK``; scores are means over levels, measures with layers are of the last
        block, under ``answer/centred``. Everything is in the run folder. Empty where the step could not be measured.

        The model is left as it is: a copy is measured. The first step raises what is wrong; a later step that cannot be
        measured has a row that says why, and where disk or memory run out there is a warning: the training goes on.

        Args:
            model: a causal language model of transformers, with the weights of this step.
            step: optimiser steps taken, greater than at the call before.
            tokens: training tokens seen, where the loop counts them.

        Raises:
            UserError: steps that do not rise; at the first, a mistake, or a model that cannot be measured so.
        """
        if type(step) is not int or step < 0:
            raise UserError(f"step: expected a whole number from 0, got {step!r}")
        if self._following is None:
            result = self._begin(model, step, tokens)
            return {} if result is None else numbers_for_log(result)
        measured = self._following.measured
        if measured and step <= measured[-1]:
            raise UserError(f"{self.path}: step {step} comes after step {measured[-1]}, which is measured: steps rise")
        try:
            result = self._following.measure(step, tokens, model=model)
        except (MachineError, torch.OutOfMemoryError) as error:
            LOG.warning(f"{self.path}: step {step} is not measured, training goes on: {error}")
            return {}
        say_status(result, self.path)
        return numbers_for_log(result)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the run folder; a loop that was broken off leaves it to be gone on with."""
        if self._following is None:
            if error is None:
                LOG.warning(f"{self.path}: nothing was measured, so there is no run")
        elif error is None:
            self._following.finish({"step": self._following.measured[-1]})

    def _begin(self, model: nn.Module, step: int, tokens: int | None) -> Any:
        compute = self._config.compute
        if self._device is None:
            compute = compute.model_copy(update={"device": device_of(model)})
        config = self._config.model_copy(update={"compute": compute})
        following = FollowedTraining(config, self.path, model, self._tokenizer, step, None, tokens, self._overwrite)
        if following.again:
            again = ", ".join(map(str, following.again))
            LOG.warning(f"{self.path}: training goes on from step {step}: {again} measured before are measured again")
        self._following = following
        if following.first is None and step not in following.measured:
            return following.measure(step, tokens, strict=True)
        return following.first


def recorder(
    tokenizer: Any,
    tasks: str | Sequence[str] = (),
    *,
    name: str,
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
    seed: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Recorder:
    """Return what measures a model whenever a loop says so, into a run folder that every other command reads.

    ``with pythiageo.recorder(tokenizer, "ADD", name="mine") as r: r.measure(model, step)``

    The loop is as it would be without: a copy of the model is measured, and random states, modes, gradients, threads
    and precision are given back. A loop that goes on from a checkpoint of its own goes on with the run: what was
    measured after its first step is measured again. ``MeasureCallback`` does the same in a ``Trainer``.

    Args:
        tokenizer: the model's fast tokenizer.
        tasks: as for ``measure``.
        name: of the run.
        examples, measures, readouts, sites, layers, device, dtype, threads, settings: as for ``measure``; of landscape
            measures, ``settings={"measures.landscape.steps": "all"}``: which steps come is not known before.
        weights: ``"keep"`` to keep each measured checkpoint in the run folder.
        regime: ``"naturalistic"``, ``"task-aligned"`` or ``"mix:0.1"``, in the table.
        size: of the model, in the table; default the run's name.
        seed: of the training, in the table.
        out: the run folder; default ``outputs/NAME``.
        overwrite: start the run anew where a loop begins at step 0 and the folder holds a run.

    Raises:
        UserError: a mistake in these.
    """
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
    facts = {"name": name, "regime": regime, "size": size or name, "seed": seed, "steps": GIVEN, "weights": weights}
    config = make_follow_config(facts, keywords, settings, "recorder")
    return Recorder(config, run_path(None if out is None else Path(out), name), tokenizer, device, overwrite)
