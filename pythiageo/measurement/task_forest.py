"""The probe sets of one task as one prefix forest: which nodes are kept, which are scored, and for whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pythiageo.measurement.forest import Forest, Pack, join
from pythiageo.measurement.probe_sets import SCORE, Prepared
from pythiageo.probes.encoding import Encoded
from pythiageo.probes.scoring import Predictions

LOGITS = 2**25
"""Logits of a pack, at most: 134 MB of them."""


class TaskForest:
    """One task's probe sets, of all levels and both purposes, with all options of a choice.

    Between tasks hardly anything is shared, so each has a forest of its own, and is done with before the next begins.

    ``read``: nodes of the prompts of which states are asked, ascending; ``kept``: those of them at which states are
    kept, and not norms alone. ``thinned_out``: whether a probe set keeps the states of some positions only.
    ``scored``: nodes at which logits are taken, ascending.
    ``pair_rows``, ``pair_targets``: every (scored node, target) that somebody asks, each once.

    Args:
        probes: the task's probe sets, each with an item at least.
        linear_probe: whether the model's own predictions of the geometry's answers are asked, too.
    """

    def __init__(self, probes: Sequence[Prepared], linear_probe: bool) -> None:
        self.probes = probes
        self.forest = Forest(encoded.ids for one in probes for encoded in chain(one.encoded, one.options))
        self._places = {id(one): _Places(self.forest, one, linear_probe) for one in probes}
        found = self._places.values()
        self.thinned_out = any(one.places is not None for one in probes)
        self.read = join([places.read for places in found if places.read is not None])
        self.kept = join([places.kept for places in found if places.kept is not None])
        vocab = 1 + max((int(targets.max(initial=0)) for places in found for _, targets in places.answers), default=0)
        keys = [[nodes * vocab + targets for nodes, targets in places.answers] for places in found]
        pairs = join([key for of_probe in keys for key in of_probe])
        self.scored, pair_rows = np.unique(pairs // vocab, return_inverse=True)
        self.pair_rows, self.pair_targets = torch.from_numpy(pair_rows), torch.from_numpy(pairs % vocab)
        for places, of_probe in zip(found, keys, strict=True):
            places.pairs = [torch.from_numpy(np.searchsorted(pairs, key)) for key in of_probe]
            if places.read is not None and places.kept is not None:
                places.rows = torch.from_numpy(np.searchsorted(self.kept, places.kept))
                places.norms = torch.from_numpy(np.searchsorted(self.read, places.read))

    @property
    def geometries(self) -> int:
        """Number of probe sets of which states are asked."""
        return sum(places.read is not None for places in self._places.values())

    def packs(self, nodes: int, vocab: int) -> Iterator[Pack]:
        """Return the packs of all prompts, for bounds that do not change on the way; see ``pack``."""
        return self.forest.packs(nodes, self.scored, max(1, LOGITS // vocab))

    def pack(self, first: int, nodes: int, vocab: int, until: int | None = None) -> Pack:
        """Return the pack that begins with prompt ``first``: of ``nodes`` at most, and of ``LOGITS`` logits.

        ``until``: the prompt before which it ends, if not the last.
        """
        return self.forest.pack(first, nodes, self.scored, max(1, LOGITS // vocab), until)

    def pairs_of(self, scored: slice) -> slice:
        """Return which pairs ask the scored nodes of a slice."""
        first, last = torch.searchsorted(self.pair_rows, torch.tensor([scored.start, scored.stop])).tolist()
        return slice(first, last)

    def rows(self, prepared: Prepared) -> Int[Tensor, " kept"]:
        """Return the row among the kept nodes of each state that is kept, the examples one after another."""
        rows = self._places[id(prepared)].rows
        assert rows is not None
        return rows

    def norms(self, prepared: Prepared) -> Int[Tensor, " token"] | None:
        """Return the row among the nodes that are read of each position of each example.

        ``None`` where all states are kept, which say it themselves.
        """
        return None if prepared.places is None else self._places[id(prepared)].norms

    def predictions(self, prepared: Prepared, of_options: bool, log_prob: Tensor, hit: Tensor) -> Predictions:
        """Return the predictions of the right answers, or of all wrong options, from those of all pairs."""
        pairs = self._places[id(prepared)].pairs[of_options]
        encoded = prepared.options if of_options else prepared.encoded
        counts = torch.tensor([len(one.targets) for one in encoded])
        return Predictions(log_prob[pairs], hit[pairs], torch.repeat_interleave(torch.arange(len(encoded)), counts))


class _Places:
    """Where a probe set stands in its task's forest."""

    def __init__(self, forest: Forest, prepared: Prepared, linear_probe: bool) -> None:
        self.read: np.ndarray | None = None
        self.kept: np.ndarray | None = None
        self.rows: Tensor | None = None
        self.norms: Tensor | None = None
        self.answers: list[tuple[np.ndarray, np.ndarray]] = []
        self.pairs: list[Tensor] = []
        if prepared.probe.purpose != SCORE:
            self.read = np.concatenate([forest.nodes(one.ids) for one in prepared.encoded])
            self.kept = self.read if prepared.places is None else self.read[prepared.places.numpy()]
        if _is_scored(prepared, linear_probe):
            self.answers = [_answers(forest, encoded) for encoded in (prepared.encoded, prepared.options)]


def grow(probes: Sequence[Prepared], linear_probe: bool) -> list[TaskForest]:
    """Return the forests of all tasks that have an item, in the order of their probe sets."""
    kept = [one for one in probes if one.kept]
    tasks = groupby(kept, key=lambda one: one.probe.probe_set.task)
    return [TaskForest(list(of_task), linear_probe) for _, of_task in tasks]


def _is_scored(prepared: Prepared, linear_probe: bool) -> bool:
    return linear_probe or prepared.probe.purpose == SCORE


def _answers(forest: Forest, encoded: Sequence[Encoded]) -> tuple[np.ndarray, np.ndarray]:
    """Return the node and the target of every answer token."""
    nodes = [forest.nodes(one.ids)[list(one.answer_positions)] for one in encoded]
    targets = [np.array(one.targets) for one in encoded]
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *nodes]), np.concatenate([empty, *targets])
