"""An opened checkpoint's observations: states through TransformerLens, the landscape on its plain module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pythiageo.compute.allocator import give_back, loading
from pythiageo.config.tables import ComputeConfig, MeasureConfig
from pythiageo.errors import CheckpointError, UserError
from pythiageo.lens import BridgeReader
from pythiageo.measurement.failures import Mishaps
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import GeometryPlan, observe
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.probe_loss import logits_of
from pythiageo.measurement.probe_sets import Prepared, Probe, check_left, named, prepare
from pythiageo.measurement.rows import Origin
from pythiageo.observations import Observation
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.series.architecture import context_of
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files.tensor_files import read_json
from pythiageo.series.origin import TOKENIZER as TOKENIZER_FILES


@dataclass(frozen=True)
class Taken:
    """What was taken of one checkpoint: its rows, and what a manifest says of its model."""

    rows: list[Observation]
    model: dict[str, Any]


class OpenedMeasurer:
    """Takes the same observations of one checkpoint after the other.

    ``device``: of the forward passes. ``steps``: those of the run, of which the landscape is measured at some.
    ``only``: tasks and levels to measure, if not all. ``every_set``: a probe set of which the model can take no
    item is refused, where nobody has looked before.

    Raises:
        UserError: measures, readouts, steps or tasks that there are not.
    """

    def __init__(
        self,
        measures: MeasureConfig,
        compute: ComputeConfig,
        device: str,
        probes: list[Probe],
        steps: Sequence[int],
        only: Collection[tuple[str, str]] | None = None,
        every_set: bool = False,
    ) -> None:
        self._measures = measures
        self._compute = compute
        self._device = device
        self._probes = probes
        self._only = only
        self._instruments = GeometryPlan.of(measures, compute.dtype)
        self._landscape = Landscape.of(measures.landscape, steps, probes)
        self._every_set = every_set
        self._prepared_for: tuple[str, int | None] | None = None
        self._prepared: list[Prepared] = []
        self._tokenizer: dict[str, Any] = {}

    def take(
        self,
        opened: OpenCheckpoint,
        origin: Origin,
        tell: Callable[[float], None] = lambda _: None,
        mishaps: Mishaps | None = None,
    ) -> Taken:
        """Return the observations of a transformers model, which is taken apart: nothing is left of it to be used.

        ``tell`` is told which share of the probe sets is done; ``mishaps`` keeps the errors that cost single measures.

        Raises:
            CheckpointError: its tokenizer cannot be read, can read nothing of what is asked, or is another model's; no
                adapter for its architecture.
            UserError: sites or layers that it does not have; ``every_set``, and nothing is left of a probe set.
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
        self._prepare(opened, context_of(settings))
        facts["tokenizer"] = self._tokenizer
        asked = [one for one in self._prepared if self._only is None or named(one.probe) in self._only]
        # on the plain module: the bridge's copies of joint matrices are not its parameters
        landscape = self._landscape.rows(
            opened.model,
            logits_of(opened.model),
            layers,
            asked,
            origin,
            opened.nonfinite,
            mishaps=mishaps,
        )
        with loading():
            dtype = getattr(torch, self._compute.dtype)
            reader = BridgeReader(opened.model, opened.tokenizer_folder, self._device, dtype)
        with reader:
            reading = Reading.of(reader, self._measures, self._compute)
            rows = observe(reading, asked, self._instruments, origin, opened.nonfinite, tell, mishaps)
        give_back()
        return Taken([*rows, *landscape], facts)

    def _prepare(self, opened: OpenCheckpoint, context: int | None) -> None:
        """Tokenize the probe sets, again only if this checkpoint's tokenizer or context is another one."""
        folder = opened.tokenizer_folder
        assert folder is not None
        wanted = (_sha(folder), context)
        if wanted != self._prepared_for:
            try:
                tokenizer = FileTokenizer(folder)
            except UserError as error:  # this checkpoint's fault; the next may have one
                raise CheckpointError(str(error)) from None
            self._prepared = prepare(self._probes, tokenizer, context, strict=False)
            self._prepared_for = wanted
            self._tokenizer = {
                "kind": tokenizer.kind,
                "around": list(tokenizer.around),
                "texts_unlike_file": tokenizer.unlike_file,
            }
        if self._every_set:
            check_left(self._prepared)
        if not any(prepared.kept for prepared in self._prepared):
            raise CheckpointError(f"nothing of what is asked can be measured: {self._prepared[0].loss}")
        _check_vocabulary(opened, self._prepared)


def _sha(folder: Path) -> str:
    """Return a hash of all that a folder's tokenizer is read from; of the config its kind of model and tokenizer."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        file = folder / name
        digest.update(hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b"missing")
    config = folder / "config.json"
    said = read_json(config, folder.name) if config.is_file() else {}
    digest.update(repr([said.get(key) for key in ("model_type", "tokenizer_class", "model_name")]).encode())
    return digest.hexdigest()


def _check_vocabulary(opened: OpenCheckpoint, prepared: list[Prepared]) -> None:
    """Raise ``CheckpointError`` for tokens that the model has no embedding for: on a GPU that would end the process."""
    rows = opened.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    encoded = [one for probe in prepared for one in (*probe.encoded, *(w for wrong in probe.wrong for w in wrong))]
    greatest = max(max(*one.ids, *one.targets) for one in encoded)
    if greatest >= rows:
        raise CheckpointError(
            f"the tokenizer gives token {greatest}, and the model has embeddings for {rows} tokens: is it this model's?"
        )
