"""lm-evaluation-harness on a model in memory, its scores as observations."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from pythiageo.config.runs import AnalyzeConfig
from pythiageo.errors import UserError
from pythiageo.importers.lm_eval import harness_rows
from pythiageo.measurement.checkpoint import MeasurementSpec, OpenModel
from pythiageo.measurement.failures import FAILED, Failures
from pythiageo.measurement.result import Origin
from pythiageo.measurement.saved_model import SavedModels
from pythiageo.observations import Observation
from pythiageo.series.checkpoint import Checkpoint


def evaluate(
    model: nn.Module, tokenizer: Any, tasks: Sequence[Any], origin: Origin, options: dict[str, Any]
) -> list[Observation]:
    """Return the scores of tasks; ``options`` are those of the harness's ``simple_evaluate`` and ``batch_size``.

    Raises:
        UserError: it is not installed, or no task is named.
    """
    if not tasks:
        raise UserError("expected names of lm-evaluation-harness's tasks, got none")
    harness, wrapper = _load("lm_eval"), _load("lm_eval.models.huggingface").HFLM
    wrapped = wrapper(pretrained=model, tokenizer=tokenizer, batch_size=options.pop("batch_size", 1))
    found = harness.simple_evaluate(model=wrapped, tasks=list(tasks), **{"bootstrap_iters": 0, **options})
    return list(_observe(found, origin))


def check_harness(tasks: Sequence[str]) -> None:
    """Check that lm-evaluation-harness is installed and has these tasks.

    Raises:
        UserError: it is not, or has not.
    """
    if not tasks:
        return
    known = _load("lm_eval.tasks").TaskManager()
    for task in tasks:
        if not known.match_tasks([task]):
            raise UserError(f"--harness: lm-evaluation-harness has no task {task!r}: lm-eval ls tasks lists them")


def open_and_score(spec: MeasurementSpec) -> Callable[[Checkpoint], OpenModel]:
    """Return what opens the checkpoints of a specification; the harness scores each where its tasks are asked for.

    So its scores and all else come from one download. An error of the harness is a row a task, and the rest goes on.
    """
    models, config = SavedModels(spec), spec.config
    tasks = config.harness if isinstance(config, AnalyzeConfig) and spec.only is None else ()
    if not tasks:
        return models.open

    def open_model(checkpoint: Checkpoint) -> OpenModel:
        model = models.open(checkpoint)

        def score(origin: Origin, failures: Failures) -> list[Observation]:
            status, reason = "nonfinite", model.nonfinite
            if reason is None:
                try:
                    return evaluate(model.module, models.read_tokenizer(), tasks, origin, {})
                except Exception as error:
                    status, reason = FAILED, failures.reason(error)
                    failures.note_lost("harness", reason)
            return [origin.failed("accuracy", status, reason, task=task) for task in tasks]

        return replace(model, first=score)

    return open_model


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"lm-evaluation-harness cannot be imported ({error}): pip install lm_eval") from None


def _observe(found: dict[str, Any], origin: Origin) -> Iterator[Observation]:
    for row in harness_rows(found):
        measure, value = row.pop("measure"), row.pop("value")
        if not math.isfinite(value):
            what = {key: row[key] for key in ("task", "level", "probe_set", "n")}
            yield origin.failed(measure, "undefined", "lm-evaluation-harness gave no finite number", **what)
            continue
        error = row.pop("stderr")
        fine = error is not None and math.isfinite(error)
        yield origin.row(measure=measure, value=float(value), stderr=float(error) if fine else None, **row)
