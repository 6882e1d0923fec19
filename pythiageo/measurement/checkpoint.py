"""An opened checkpoint's observations: states through TransformerLens, the landscape on its plain module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pythiageo.compute.allocator import loading
from pythiageo.config.tables import ComputeConfig, MeasureConfig
from pythiageo.errors import CheckpointError, UserError
from pythiageo.lens import BridgeReader
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import GeometryPlan, observe
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.probe_loss import logits_of
from pythiageo.measurement.probe_sets import Prepared, Probe, prepare
from pythiageo.measurement.rows import Origin
from pythiageo.observations import Observation
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.series.checkpoint import OpenCheckpoint


@dataclass(frozen=True)
class Taken:
    """What was taken of one checkpoint: its rows, and what a manifest says of its model."""

    rows: list[Observation]
    model: dict[str, Any]


class OpenedMeasurer:
    """Takes the same observations of one checkpoint after the other.

    ``device``: of the forward passes. ``steps``: those of the run, of which the landscape is measured at some.

    Raises:
        UserError: measures, readouts, steps or tasks that there are not.
    """

    def __init__(
        self, measures: MeasureConfig, compute: ComputeConfig, device: str, probes: list[Probe], steps: Sequence[int]
    ) -> None:
        self._measures = measures
        self._compute = compute
        self._device = device
        self._probes = probes
        self._instruments = GeometryPlan.of(measures, compute.dtype)
        self._landscape = Landscape.of(measures.landscape, steps, probes)
        self._tokenizer_sha = ""
        self._prepared: list[Prepared] = []

    def take(self, opened: OpenCheckpoint, origin: Origin, tell: Callable[[float], None] = lambda _: None) -> Taken:
        """Return the observations of a transformers model; booting TransformerLens changes it for good.

        ``tell`` is told which share of the probe sets is done.

        Raises:
            CheckpointError: its tokenizer cannot be read or is another model's; no adapter for its architecture.
            UserError: sites or layers that it does not have, examples that it cannot read.
        """
        assert opened.tokenizer_folder is not None
        settings: Any = opened.model.config
        layers = settings.num_hidden_layers
        facts = {
            "architecture": opened.architecture,
            # counted before TransformerLens splits joint matrices into copies
            "parameters": sum(p.numel() for p in opened.model.parameters()),
            "layers": layers,
            "d_model": settings.hidden_size,
        }
        self._prepare(opened, getattr(settings, "max_position_embeddings", None))
        # on the plain module: the bridge's copies of joint matrices are not its parameters
        landscape = self._landscape.rows(
            opened.model, logits_of(opened.model), layers, self._prepared, origin, opened.nonfinite
        )
        with loading():
            dtype = getattr(torch, self._compute.dtype)
            reader = BridgeReader(opened.model, opened.tokenizer_folder, self._device, dtype)
        reading = Reading.of(reader, self._measures, self._compute)
        rows = observe(reading, self._prepared, self._instruments, origin, opened.nonfinite, tell)
        return Taken([*rows, *landscape], facts)

    def _prepare(self, opened: OpenCheckpoint, context: int | None) -> None:
        """Tokenize the probe sets, again only if this checkpoint's tokenizer is another one."""
        folder = opened.tokenizer_folder
        assert folder is not None
        sha = _sha(folder / "tokenizer.json")
        if sha != self._tokenizer_sha:
            try:
                tokenizer = FileTokenizer(folder)
            except UserError as error:  # this checkpoint's fault; the next may have one
                raise CheckpointError(str(error)) from None
            self._prepared = prepare(self._probes, tokenizer, context)
            self._tokenizer_sha = sha
        _check_vocabulary(opened, self._prepared)


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"


def _check_vocabulary(opened: OpenCheckpoint, prepared: list[Prepared]) -> None:
    """Raise ``CheckpointError`` for tokens that the model has no embedding for: on a GPU that would end the process."""
    rows = opened.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    encoded = [one for probe in prepared for one in (*probe.encoded, *(w for wrong in probe.wrong for w in wrong))]
    greatest = max(max(*one.ids, *one.targets) for one in encoded)
    if greatest >= rows:
        raise CheckpointError(
            f"the tokenizer gives token {greatest}, and the model has embeddings for {rows} tokens: is it this model's?"
        )
