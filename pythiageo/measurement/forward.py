"""Reading prepared probe sets from a model: states site by site, and what the logits say of every answer token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.compute.side_by_side import SideBySide
from pythiageo.config.tables import ComputeConfig, MeasureConfig
from pythiageo.measurement.check_forest import Fit, try_forest
from pythiageo.measurement.failures import concerns_all, describe_error
from pythiageo.measurement.forest_reading import ForestReading, UnfitError
from pythiageo.measurement.passes import Passes
from pythiageo.measurement.plain_reading import PlainReading
from pythiageo.measurement.probe_sets import Prepared
from pythiageo.measurement.reader import NODES, Bounds, Reader, SiteReading
from pythiageo.measurement.sites import choose_sites
from pythiageo.measurement.task_forest import TaskForest
from pythiageo.probes.encoding import Encoded
from pythiageo.probes.scoring import Options, Predictions

FOREST = "prefix forest"
PLAIN = "plain"
"""How prompts went through a model, as a manifest says it."""
T = TypeVar("T")


class Reading:
    """A model's answers to probe sets, within bounds of memory.

    ``forests``: their tasks as prefix forests. Where the model gives on them what it gives in plain passes
    (``check_forest``), they are what goes through it. All else goes in plain passes, and so does a task of which
    passes over its forest end in an error, or give what is not finite: then it shows whose fault it is.

    ``batch_tokens`` tokens make a forward pass at most, ``most_nodes`` nodes of a forest. When memory runs out all the
    same, a pass is divided, and the bound is halved from there on. States of several sites that take more than
    ``state_bytes`` together are read in several rounds.

    ``side_by_side``: the threads of this checkpoint's work, one by default. ``at_once``: how many passes the reader
    takes at a time, each on one of them.

    Raises:
        MachineError: memory runs out over a single example.
    """

    def __init__(
        self,
        reader: Reader,
        sites: dict[str, int | None],
        batch_tokens: int,
        state_bytes: int,
        forests: Sequence[TaskForest] = (),
        dtype: str = "float32",
        most_nodes: int = NODES,
        side_by_side: SideBySide | None = None,
        at_once: int = 1,
    ) -> None:
        self.sites = sites
        self.side_by_side = side_by_side or SideBySide(1, state_bytes)
        self._reader = reader
        self._passes = Passes(Bounds(batch_tokens, state_bytes, most_nodes), self.side_by_side, at_once)
        self._plain = PlainReading(reader, self._passes)
        self._fit = Fit(None)
        self._set_aside: dict[str, str] = {}
        if forests:
            tokens = np.unique(np.concatenate([task.forest.tokens for task in forests]))
            longest = max(task.forest.longest for task in forests)
            beside = self.side_by_side if at_once > 1 else None
            self._fit = try_forest(reader, list(sites), tokens, longest, dtype, beside)
        self._tasks = {} if self._fit.obstacle else {id(probe): task for task in forests for probe in task.probes}
        self._current: ForestReading | None = None

    @classmethod
    def of(
        cls,
        reader: Reader,
        measures: MeasureConfig,
        compute: ComputeConfig,
        forests: Sequence[TaskForest] = (),
        side_by_side: SideBySide | None = None,
        at_once: int = 1,
    ) -> Reading:
        """Choose the sites that a config names. Raises ``UserError`` where the model has none of that name."""
        sites = choose_sites(reader, measures.sites, measures.layers)
        tokens, state_bytes, nodes = astuple(Bounds.of(compute))
        return cls(reader, sites, tokens, state_bytes, forests, compute.dtype, nodes, side_by_side, at_once)

    @property
    def passes(self) -> str:
        """How prompts went through the model so far, and why not as a prefix forest where they did not."""
        if self._fit.obstacle is not None:
            return f"{PLAIN}: {self._fit.obstacle}"
        if not self._tasks:
            return PLAIN
        return "; ".join([FOREST, *(f"{PLAIN} for {task}: {why}" for task, why in self._set_aside.items())])

    def states(self, prepared: Prepared) -> Iterator[tuple[str, SiteReading]]:
        """Yield each site with what is read of it: its states where any are asked for (``Prepared.places``)."""
        sites = list(self.sites)
        for number, site in enumerate(sites):
            found = self._ask_forest(prepared, partial(ForestReading.states, prepared=prepared, site=site, sites=sites))
            if found is None:
                yield from self._plain.states(prepared, sites[number:])
                return
            yield site, found
            del found

    def predictions(self, encoded: list[Encoded]) -> Predictions:
        """Return what the logits at every answer position say of its token, in plain passes; see ``PlainReading``."""
        return self._plain.predictions(encoded)

    def answers(self, prepared: Prepared) -> Predictions:
        """Return the predictions of the right answers, those of the windows of a long text together.

        Raises:
            NonfiniteLogitsError: logits that are not finite.
        """
        found = self._predict(prepared, of_options=False)
        if prepared.owner is None:
            return found
        return replace(found, owner=torch.tensor(prepared.owner)[found.owner])

    def options(self, prepared: Prepared) -> Options | None:
        """Return what the logits say of the wrong continuations, ``None`` where there are none.

        Raises:
            NonfiniteLogitsError: logits that are not finite.
        """
        if not prepared.wrong:
            return None
        examples = prepared.examples
        return Options(
            predictions=self._predict(prepared, of_options=True),
            example=torch.tensor([i for i, options in enumerate(prepared.wrong) for _ in options]),
            characters=_count_characters([text for example in examples for text in example.wrong]),
            right_characters=_count_characters([example.answer for example in examples]),
        )

    def attention_to_first(self, encoded: list[Encoded], layers: list[int]) -> list[dict[int, Float[Tensor, " head"]]]:
        """Return each example's mean attention to its first position, in plain passes; see ``PlainReading``."""
        return self._plain.attention_to_first(encoded, layers)

    def _predict(self, prepared: Prepared, of_options: bool) -> Predictions:
        sites = list(self.sites)
        found = self._ask_forest(prepared, lambda forest: forest.predictions(prepared, of_options, sites))
        if found is not None:
            return found
        return self._plain.predictions(prepared.options if of_options else prepared.encoded)

    def _ask_forest(self, prepared: Prepared, ask: Callable[[ForestReading], T]) -> T | None:
        """Return what the forest of a probe set's task answers, ``None`` where it is read in plain passes."""
        task = self._tasks.get(id(prepared))
        name = prepared.probe.probe_set.task
        if task is None or name in self._set_aside:
            return None
        if self._current is None or self._current.task is not task:
            self._current = None  # the earlier task's states are free before others are made
            self._current = ForestReading(self._reader, self._passes, task, self._fit)
        try:
            return ask(self._current)
        except Exception as error:
            if concerns_all(error):
                raise
            self._set_aside[name] = str(error) if isinstance(error, UnfitError) else describe_error(error)
            self._current = None
            return None


def _count_characters(texts: list[str]) -> Float[Tensor, " text"]:
    return torch.tensor([len(text.strip()) for text in texts], dtype=torch.float64)
