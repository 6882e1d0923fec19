"""A model in somebody else's process, measured once: as its saved checkpoint would be."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import torch
from torch import nn

from pythiageo.compute.device import resolve_device
from pythiageo.compute.isolation import isolate_process
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.errors import UserError
from pythiageo.measurement.checkpoint import CheckpointMeasurer, LiveCheckpoint, MeasurementSpec, OpenModel
from pythiageo.measurement.probe_sets import choose_probes
from pythiageo.measurement.saved_model import SavedModels
from pythiageo.observations import table_of
from pythiageo.series.files.load import open_folder
from pythiageo.series.files.save import write_snapshot

_LOG = logging.getLogger("pythiageo")


def measure_model(model: nn.Module, tokenizer: Any, config: AnalyzeConfig, step: int) -> pl.DataFrame:
    """Return the observations of a model in memory; neither it nor the process is changed.

    A copy is written to the system's temporary folder and opened in float32, so it takes the model's bytes on the disk
    and twice its parameters' in memory (float32, and TransformerLens' copies).

    Raises:
        UserError: a wrong config, a probe set of which the model can take no item; see ``write_snapshot``.
        CheckpointError: TransformerLens cannot open it, or the tokenizer is another model's.
        MachineError: disk or memory run out.
    """
    if config.measures.spectra or config.measures.sketch:
        raise UserError("measures.spectra and measures.sketch are kept in a run's folder, and there is none here")
    with isolate_process():
        torch.set_num_threads(1)  # of one piece of work: compute.threads of them are at work at a time
        device = resolve_device(config.compute.device)
        identity = {
            "series": config.target,
            "regime": config.regime or "naturalistic",
            "size": config.target,
            "seed": None,
        }
        probes = choose_probes(config.probes)
        spec = MeasurementSpec(config, identity, probes, device, [step], in_memory=True)
        with TemporaryDirectory(prefix="pythiageo-") as folder:

            def open_copy(checkpoint: LiveCheckpoint) -> OpenModel:
                write_snapshot(model, tokenizer, Path(folder))
                models = SavedModels(spec)
                return models.make_ready(models.load(partial(open_folder, Path(folder), checkpoint.label)))

            measurer = CheckpointMeasurer(spec, open_copy)
            result = measurer.measure(LiveCheckpoint(step, None, config.name), strict=True)
            for traceback in result.tracebacks:  # there is no run whose log could keep them
                _LOG.error(f"a measure ended in an error:\n{traceback}")
            return table_of(step, result.rows)


def device_of(model: nn.Module) -> str:
    """Return the device of a model's weights as a config names it; the CPU where it names no such kind.

    Raises:
        UserError: not a model.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"expected a causal language model of transformers, got a {type(model).__name__}")
    found = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return str(found) if found.type == "cuda" else "cpu"
