"""One task's probe sets through a model as a prefix forest: states at kept nodes, predictions at scored ones."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from pythiageo.geometry.sinks import measure_norms
from pythiageo.geometry.spectrum import is_finite
from pythiageo.measurement.check_forest import Fit
from pythiageo.measurement.forest import Pack
from pythiageo.measurement.passes import Passes
from pythiageo.measurement.plain_reading import count_fitting, make_room
from pythiageo.measurement.probe_sets import Prepared
from pythiageo.measurement.reader import Reader, SiteReading
from pythiageo.measurement.task_forest import TaskForest
from pythiageo.probes.scoring import NonfiniteLogitsError, Predictions, predict


class UnfitError(Exception):
    """What a prefix forest gives is not what plain passes would give."""


class ForestReading:
    """States and predictions of a task's probe sets, each different beginning computed once.

    The first that is asked for sends the forest through the model. States of several sites that take more than the
    bound together are read in several rounds, without logits from the second on.

    Raises:
        MachineError: memory runs out over a single example.
        UnfitError: states or logits are not finite. One node's NaN reaches all others of a pack, though they give it
            no weight: 0 times NaN.
    """

    def __init__(self, reader: Reader, passes: Passes, task: TaskForest, fit: Fit) -> None:
        self._reader = reader
        self._passes = passes
        self.task = task
        self._fit = fit
        self._read: dict[str, SiteReading] = {}
        self._takers: dict[str, int] = {}
        self._predictions: tuple[Tensor, Tensor] | None = None

    def states(self, prepared: Prepared, site: str, sites: list[str]) -> SiteReading:
        """Return what is read of a site; ``sites`` will be asked for in this order.

        A site's states are let go of when as many have asked for them as the task has probe sets of geometry.
        """
        if site not in self._read:
            self._go(sites[sites.index(site) :])
        kept, norms = self._read[site]
        wanted = self.task.norms(prepared)
        found = SiteReading(
            kept[self.task.rows(prepared).to(kept.device)],
            None if wanted is None or norms is None else norms[wanted.to(norms.device)],
        )
        self._takers[site] -= 1
        if not self._takers[site]:
            del self._read[site]
        return found

    def predictions(self, prepared: Prepared, of_options: bool, sites: list[str]) -> Predictions:
        """Return what the logits say of every token of the right answers, or of all wrong options."""
        if self._predictions is None:
            self._go(sites)
        assert self._predictions is not None
        return self.task.predictions(prepared, of_options, *self._predictions)

    def _go(self, sites: list[str]) -> None:
        """Send the forest through the model for the first of ``sites``, as many as fit, and for what is not scored."""
        task, scored = self.task, self.task.scored if self._predictions is None else np.empty(0, dtype=np.int64)
        sites = sites if len(task.read) else []
        taken: dict[str, SiteReading] = {}
        log_prob = torch.empty(len(task.pair_targets), dtype=torch.float64)
        hit = torch.empty(len(log_prob), dtype=torch.bool)
        chosen = Lock()

        def read_pack(pack: Pack) -> None:
            read, places = pack.among(task.read)
            keep, kept_places = pack.among(task.kept)
            score, positions = pack.among(scored)
            if not len(places) and not len(positions):
                return
            with chosen:
                known = list(taken)
            asked = (known or sites) if len(places) or not known else []
            found, logits = self._reader.read(
                pack.ids, asked, positions if len(positions) else None, pack.depths, pack.visible
            )
            with chosen:
                if sites and not taken:  # only now is it known how wide each site is
                    taken.update(self._make_room({site: found[site] for site in sites}))
            for site, (states, norms) in taken.items():
                if not len(places):
                    break
                if not is_finite(found[site]):
                    raise UnfitError(f"states at {site} are not finite")
                states[keep] = found[site][0, kept_places.to(states.device)]
                if norms is not None:
                    norms[read] = measure_norms(found[site][0, places.to(norms.device)])
            if logits is not None:
                pairs = task.pairs_of(score)
                rows, targets = task.pair_rows[pairs] - score.start, task.pair_targets[pairs]
                try:
                    log_prob[pairs], hit[pairs] = predict(logits[0], targets, rows)
                except NonfiniteLogitsError as error:
                    raise UnfitError(str(error)) from None

        self._passes.make(self._cut(0, task.forest.prompts), read_pack, self._divide)
        self._read.update(taken)
        self._takers.update(dict.fromkeys(taken, task.geometries))
        if self._predictions is None:
            self._predictions = log_prob, hit

    def _make_room(self, found: dict[str, Tensor]) -> dict[str, SiteReading]:
        """Return empty tensors for the first of the sites of a pass, as many as fit."""
        kept, norms = len(self.task.kept), len(self.task.read) if self.task.thinned_out else 0
        widths = [states.shape[-1] for states in found.values()]
        fitting = count_fitting(widths, kept, norms, self._passes.bounds.state_bytes)
        return {site: make_room(states, kept, norms) for site, states in list(found.items())[:fitting]}

    def _cut(self, first: int, end: int) -> Iterator[Pack]:
        while first < end:
            pack = self.task.pack(first, self._passes.bounds.nodes(self._fit.width), self._fit.vocab, end)
            yield pack
            first = pack.end

    def _divide(self, pack: Pack) -> list[Pack]:
        return list(self._cut(pack.first, pack.end)) if pack.end > pack.first + 1 else []
