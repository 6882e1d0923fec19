"""A saved checkpoint as a model to measure: probe sets under its own tokenizer, states through TransformerLens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pythiageo.compute.allocator import give_back, loading
from pythiageo.compute.device import make_repeatable
from pythiageo.errors import CheckpointError, UserError
from pythiageo.lens import BridgeReader
from pythiageo.measurement.checkpoint import MeasurementSpec, OpenModel
from pythiageo.measurement.probe_loss import logits_of
from pythiageo.measurement.probe_sets import Prepared, check_left, prepare
from pythiageo.measurement.reader import Reader
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.series.architecture import context_of, read_tokenizer
from pythiageo.series.checkpoint import Checkpoint, OnDevice, OpenCheckpoint
from pythiageo.series.files.tensor_files import read_json
from pythiageo.series.origin import TOKENIZER as TOKENIZER_FILES


def find_load_device(device: str, dtype: str) -> str:
    """Return where a run's weights are loaded in float32, and its landscape measured: on its device.

    Or on the CPU, where they are divided among GPUs or halved on their way: they may fit no GPU in float32.
    """
    return "cpu" if device == "split" or dtype != "float32" else device


class SavedModels:
    """Opens the checkpoints of one specification; probe sets are tokenized anew only for another tokenizer."""

    def __init__(self, spec: MeasurementSpec) -> None:
        self._spec = spec
        self._prepared_for: tuple[str, int | None] | None = None
        self._prepared: list[Prepared] = []
        self._tokenizer: dict[str, Any] = {}
        self._folder: Path | None = None
        self._scratch: TemporaryDirectory[str] | None = None
        if spec.tokenizer is not None:
            self._scratch = TemporaryDirectory(prefix="pythiageo-tokenizer-")
            spec.tokenizer.write(Path(self._scratch.name))

    def open(self, checkpoint: Checkpoint) -> OpenModel:
        """Load a checkpoint. Raises as ``make_ready``, and ``CheckpointError`` where it cannot be read."""
        opened = self.load(checkpoint.open_on if isinstance(checkpoint, OnDevice) else lambda _: checkpoint.open())
        if self._scratch is not None:
            opened = replace(opened, tokenizer_folder=Path(self._scratch.name))
        return replace(self.make_ready(opened), source=checkpoint.source())

    def load(self, open_on: Callable[[str], OpenCheckpoint]) -> OpenCheckpoint:
        """Have a checkpoint loaded onto the device where a run's weights are loaded."""
        make_repeatable(self._spec.device, strict=False)  # TransformerLens may use what has no repeatable form
        with loading():
            return open_on(find_load_device(self._spec.device, self._spec.config.compute.dtype))

    def read_tokenizer(self) -> Any:
        """Return transformers' tokenizer of the checkpoint that was opened last. Raises what transformers does."""
        return read_tokenizer(self._folder)

    def make_ready(self, opened: OpenCheckpoint) -> OpenModel:
        """Return a transformers model that ``load`` gave, with the probe sets under its tokenizer.

        Opening its reader takes it apart: nothing is left of it to be used.

        Raises:
            CheckpointError: its tokenizer cannot be read, can read nothing of what is asked, or is another model's.
            UserError: it is somebody's model in memory, and nothing is left of a probe set.
        """
        folder, model = opened.tokenizer_folder, opened.model
        assert folder is not None
        self._folder = folder
        settings: Any = model.config
        self._prepare(opened, folder, context_of(settings))
        only, compute = self._spec.only, self._spec.config.compute

        @contextmanager
        def open_reader() -> Iterator[Reader]:
            with loading():
                reader = BridgeReader(
                    model, folder, self._spec.device, getattr(torch, compute.dtype), compute.passes_at_once
                )
            with reader:
                yield reader
            give_back()

        return OpenModel(
            module=model,
            layers=settings.num_hidden_layers,
            passes_at_once=compute.passes_at_once,
            logits=logits_of(model),
            open_reader=open_reader,
            prepared=[one for one in self._prepared if only is None or one.probe.key in only],
            weight_sha=opened.weight_sha,
            nonfinite=opened.nonfinite,
            description={
                "architecture": opened.architecture,
                # counted before TransformerLens splits joint matrices into copies
                "parameters": sum(p.numel() for p in model.parameters()),
                "layers": settings.num_hidden_layers,
                "d_model": settings.hidden_size,
                "tokenizer": self._tokenizer,
                **({} if opened.note is None else {"note": opened.note}),
            },
        )

    def _prepare(self, opened: OpenCheckpoint, folder: Path, context: int | None) -> None:
        """Tokenize the probe sets, again only if this checkpoint's tokenizer or context is another one."""
        wanted = (_hash_tokenizer(folder), context)
        if wanted != self._prepared_for:
            try:
                tokenizer = FileTokenizer(folder)
            except UserError as error:  # this checkpoint's fault; the next may have one
                raise CheckpointError(str(error)) from None
            self._prepared = prepare(self._spec.probes, tokenizer, context, strict=False)
            self._prepared_for = wanted
            self._tokenizer = {
                "kind": tokenizer.kind,
                "around": list(tokenizer.around),
                "texts_unlike_file": tokenizer.unlike_file,
            }
        if self._spec.in_memory:
            check_left(self._prepared)
        if not any(prepared.kept for prepared in self._prepared):
            raise CheckpointError(f"nothing of what is asked can be measured: {self._prepared[0].loss}")
        _check_vocabulary(opened, self._prepared)


def _hash_tokenizer(folder: Path) -> str:
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
