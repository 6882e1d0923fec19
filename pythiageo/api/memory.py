"""``measure``: a model in memory gives the same table as its checkpoint in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from pythiageo.config.options import keyword_overrides
from pythiageo.config.runs import AnalyzeConfig, make_config
from pythiageo.errors import UserError
from pythiageo.observations.shown import ObservationTable

if TYPE_CHECKING:
    from torch import nn


def measure(
    model: nn.Module,
    tokenizer: Any,
    tasks: str | Sequence[str] = (),
    *,
    examples: int | None = None,
    measures: str | Sequence[str] | None = None,
    readouts: str | Sequence[str] | None = None,
    sites: str | Sequence[str] | None = None,
    layers: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    name: str = "model",
    step: int = 0,
) -> pl.DataFrame:
    """Measure a causal language model of transformers that is in memory; return its observations.

    The same numbers, columns and weight fingerprint as ``pythiageo analyze`` gives for the checkpoint that
    ``model.save_pretrained`` writes. The model is left as it is, and so are the process' random states, threads and
    gradients.

    Args:
        model: a model as transformers opens it; a wrapper of ``torch.compile`` or data parallelism is looked through.
        tokenizer: its fast tokenizer.
        tasks: tasks or groups (``"diagnostic"``, ``["ADD", "MOD"]``); none: the eight algorithmic tasks.
        examples: a task and level, and a task in all for geometry; default 200, or as many as there are.
        measures: names that ``pythiageo measures`` lists, landscape and ``linear_probe`` too.
        readouts: ``"answer/centred"``, or several; default all.
        sites: hook names of TransformerLens, or patterns of them; default every ``resid_post`` and the final LayerNorm.
        layers: ``"0,3-5,last"``; default all.
        device: ``"cpu"``, ``"cuda:1"`` or ``"auto"``; default the model's own.
        dtype: of the forward passes, ``"float32"`` or ``"bfloat16"``.
        threads: default as many as torch has now.
        settings: any other key of an analysis' config, as for ``--set``: ``{"probes.seed": 1}``.
        name: of the run and the series, in the table.
        step: in the table.

    Returns:
        One row an observation (columns: ``observations.schema``).

    Raises:
        UserError: something that there is not or that cannot be measured so.
        CheckpointError: this model cannot be measured: TransformerLens does not know it, or the tokenizer is another's.
        MachineError: disk or memory run out.
    """
    import torch  # noqa: PLC0415 - a mistake in the keywords need not wait for it

    from pythiageo.measurement.in_memory import device_of, measure_model  # noqa: PLC0415

    if type(step) is not int or step < 0:
        raise UserError(f"step: expected a whole number from 0, got {step!r}")
    keywords = {
        "tasks": tasks,
        "examples": examples,
        "measures": measures,
        "readouts": readouts,
        "sites": sites,
        "layers": layers,
        "device": device or device_of(model),
        "dtype": dtype,
        "threads": threads or torch.get_num_threads(),
    }
    config = make_config(
        {"name": name, "target": name}, keyword_overrides(AnalyzeConfig, keywords, settings), "analyze", "measure"
    )
    assert isinstance(config, AnalyzeConfig)
    return ObservationTable(measure_model(model, tokenizer, config, step))
