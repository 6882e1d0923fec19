"""lm-evaluation-harness on a model in memory, its scores as observations."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from pythiageo.errors import UserError
from pythiageo.importers.lm_eval import harness_rows
from pythiageo.measurement.result import Origin
from pythiageo.observations import Observation


def evaluate(
    model: nn.Module, tokenizer: Any, tasks: Sequence[Any], origin: Origin, options: dict[str, Any]
) -> list[Observation]:
    """Return the scores of tasks; ``options`` are those of the harness's ``simple_evaluate`` and ``batch_size``.

    Raises:
        UserError: it is not installed, or no task is named.
    """
    if not tasks:
        raise UserError("expected names of lm-evaluation-harness's tasks, got none")
    try:
        harness = importlib.import_module("lm_eval")
        wrapper = importlib.import_module("lm_eval.models.huggingface").HFLM
    except ImportError as error:
        raise UserError(f"lm-evaluation-harness cannot be imported ({error}): pip install lm_eval") from None
    wrapped = wrapper(pretrained=model, tokenizer=tokenizer, batch_size=options.pop("batch_size", 1))
    found = harness.simple_evaluate(model=wrapped, tasks=list(tasks), **{"bootstrap_iters": 0, **options})
    return list(_observe(found, origin))


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
