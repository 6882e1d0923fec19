"""What comes before a checkpoint's passes, tried here: weights read and widened, modules wrapped, and looks at both."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from pythiageo.compute.allocator import loading
from pythiageo.compute.device import count_cores, wait_for_device
from pythiageo.compute.side_by_side import SideBySide
from pythiageo.config.tables import ComputeConfig
from pythiageo.estimate.timer import scale, time_items
from pythiageo.lens import BridgeReader
from pythiageo.measurement.check_forest import try_forest
from pythiageo.series.causality import check_causal
from pythiageo.series.files.tensor_files import SAFETENSORS, StoredTensor, stored_tensors
from pythiageo.series.model_shape import FEW, ModelShape

_TENSORS, _VALUES = 8, 2**21
_LOADERS = 4
"""Tensors that transformers asks for at a time, at most; never more than there are cores."""
_SMALL = 8
"""Tokens of the texts that opening is checked with."""


class _Opened(NamedTuple):
    """Seconds of opening a few blocks: wrapping their modules, and the small passes that check them."""

    modules: float
    checks: float


class TrialOpening:
    """Loading and opening a checkpoint, tried.

    ``load_device``: where its weights are loaded. ``longest``: tokens of the longest prompt of a prefix forest, 0 where
    none is fed.
    """

    def __init__(
        self, shape: ModelShape, folder: Path, compute: ComputeConfig, device: str, load_device: str, longest: int
    ) -> None:
        self._shape = shape
        self._folder = folder
        self._compute = compute
        self._device = device
        self._load_device = load_device
        self._longest = longest

    def time_weights(self, size: int) -> float:
        """Return the seconds to read, fingerprint and widen files of ``size`` bytes, in half precision."""

        kept: list[Tensor] = []  # as in a run, so that memory of all is fresh

        def widen(stored: StoredTensor) -> None:
            kept.append(stored.widen(self._load_device))
            wait_for_device(self._load_device)

        with TemporaryDirectory() as scratch, loading():
            sample = {str(number): torch.ones(_VALUES, dtype=torch.float16) for number in range(_TENSORS)}
            save_file(sample, Path(scratch) / SAFETENSORS)
            tensors = list(stored_tensors(Path(scratch), "the trial").values())
            timed = time_items(tensors, widen, warm_up=True, at_once=min(_LOADERS, count_cores()))
        return scale(timed, lambda one: 2 * one.count, size)

    def time_opening(self, checked: bool = True) -> float:
        """Return the seconds in which TransformerLens wraps a model's modules, and of the small passes that check it.

        From models of one block and of two: each further block takes what the second takes. ``checked``: with the
        passes, which are not worth counting on a GPU.

        Raises:
            CheckpointError: TransformerLens cannot open the model.
        """
        one, two = (self._open(blocks) for blocks in (1, 2))
        modules, checks = (
            first + max(0.0, second - first) * (self._shape.layers - 1) for first, second in zip(one, two, strict=True)
        )
        return modules + checks + self._time_logits() if checked else modules

    def _open(self, blocks: int) -> _Opened:
        compute, at_once = self._compute, self._compute.passes_at_once
        model = self._shape.with_blocks(blocks).to(self._load_device)
        text = torch.arange(_SMALL)[None]
        gc.collect()  # one that came by while the second model is opened would count for every block
        begun = time.perf_counter()
        check_causal(model, "the trial")
        causal = time.perf_counter() - begun
        begun = time.perf_counter()
        opened = BridgeReader(model, self._folder, self._device, getattr(torch, compute.dtype), at_once)
        seconds = time.perf_counter() - begun
        with opened as reader, SideBySide(at_once, compute.state_bytes) as threads:
            begun = time.perf_counter()
            reader.read(text, [], text[0])
            wait_for_device(self._device)
            small = time.perf_counter() - begun
            begun = time.perf_counter()
            if self._longest:
                beside = threads if at_once > 1 else None
                try_forest(reader, list(reader.sites()), np.arange(FEW), self._longest, compute.dtype, beside)
            forest = time.perf_counter() - begun
        # two small passes lie within opening: the model's own, and TransformerLens', of all threads at a time
        return _Opened(max(0.0, seconds - 2 * small), causal + 2 * small + forest)

    def _time_logits(self) -> float:
        """Return the seconds of the logits of all small passes, which read the unembedding once each."""
        unembedding = torch.ones(self._shape.vocab, self._shape.d_model, device=self._device)
        states = torch.ones(2 * _SMALL, self._shape.d_model, device=self._device)

        def unembed(_: int) -> None:
            states @ unembedding.T
            wait_for_device(self._device)

        passes = 3 + (1 + -(-4 // self._compute.passes_at_once) if self._longest else 0)
        return scale(time_items([1, 1], unembed, warm_up=True), float, passes)
