"""The forward passes that a run will make, and how long they take through one block of the model's shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pythiageo.compute.device import find_device_here, wait_for_device
from pythiageo.config.tables import ComputeConfig
from pythiageo.errors import CheckpointError
from pythiageo.estimate.timer import finish, scale, time_items
from pythiageo.lens import BridgeReader
from pythiageo.measurement.check_forest import try_forest
from pythiageo.measurement.forest import Pack
from pythiageo.measurement.plain_reading import plain_passes
from pythiageo.measurement.probe_sets import Prepared
from pythiageo.measurement.reader import Bounds
from pythiageo.measurement.task_forest import TaskForest, grow
from pythiageo.series.model_shape import FEW, ModelShape


class Pass(NamedTuple):
    """A forward pass: examples, positions of each, positions at which logits are taken; ``pack``: nodes of a forest."""

    examples: int
    positions: int
    scored: int
    pack: Pack | None = None

    @property
    def tokens(self) -> int:
        """How many it feeds."""
        return self.examples * self.positions


class TrialPasses:
    """The passes of a run, as prefix forests where one block of the model takes them.

    ``forests``: none where it does not, or where TransformerLens cannot open it.
    """

    def __init__(
        self, shape: ModelShape, folder: Path, prepared: Sequence[Prepared], compute: ComputeConfig, linear_probe: bool
    ) -> None:
        self._shape = shape
        self._folder = folder
        self._device = find_device_here(compute.device)
        self._at_once = compute.passes_at_once
        self.forests = grow(prepared, linear_probe)
        if not self._take_forests():
            self.forests = []
        nodes = Bounds.of(compute).nodes(shape.d_model)
        self._tasks = [list(_list_packs(task, nodes, shape.vocab)) for task in self.forests]
        if not self.forests:
            plain = plain_passes(list(prepared), Bounds.of(compute).tokens, linear_probe)
            self._tasks = [[Pass(*one) for one in plain]]
        self.all = [one for task in self._tasks for one in task]

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prompt of a forest, 0 where there are none."""
        return max((task.forest.longest for task in self.forests), default=0)

    @property
    def idle(self) -> tuple[float, float]:
        """How long threads wait for the last passes of a task, as a share of the time that all passes take together.

        In all, and in tasks behind the first, when they are at sites of earlier ones meanwhile.
        """
        waits = [
            finish([one.tokens for one in task], self._at_once) - sum(one.tokens for one in task) / self._at_once
            for task in self._tasks
        ]
        evenly = sum(one.tokens for one in self.all) / self._at_once
        return (sum(waits) / evenly, sum(waits[1:]) / evenly) if evenly else (0.0, 0.0)

    def _take_forests(self) -> bool:
        if not self.forests:
            return False
        with suppress(CheckpointError), BridgeReader(self._shape.one_block(), self._folder) as reader:
            return try_forest(reader, list(reader.sites()), np.arange(FEW), self.longest, "float32").obstacle is None
        return False

    def time(self) -> float:
        """Return the seconds of all passes up to the logits, from as many through one block as there is time for.

        Raises:
            CheckpointError: TransformerLens cannot open the model.
        """
        block, at_once = self._shape.one_block(), self._at_once
        with BridgeReader(block, self._folder, self._device, at_once=at_once) as reader:
            sites = list(reader.sites())[:1]

            def run(one: Pass) -> None:
                if one.pack is None:
                    reader.read(torch.randint(0, FEW, (one.examples, one.positions)), sites, None)
                else:
                    reader.read(one.pack.ids % FEW, sites, None, one.pack.depths, one.pack.visible)
                wait_for_device(self._device)

            timed = time_items(self.all, run, warm_up=True, at_once=at_once)
        return scale(timed, lambda one: one.tokens, sum(one.tokens for one in self.all)) * self._shape.layers


def _list_packs(task: TaskForest, nodes: int, vocab: int) -> Iterator[Pass]:
    for pack in task.packs(nodes, vocab):
        _, scored = pack.among(task.scored)
        yield Pass(1, pack.ids.shape[1], len(scored), pack)
