"""Rows of the linear probe: what is read from the states at each site, and what it must be compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from pythiageo.config.tables import LinearProbeConfig
from pythiageo.linear_probe.fit import (
    ProbeSettings,
    Rate,
    Split,
    fit_probe,
    make_split,
)
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.probe_sets import Prepared
from pythiageo.measurement.result import Origin
from pythiageo.no_value import NoValue, NoValueError
from pythiageo.observations import Observation
from pythiageo.probes.scoring import NonfiniteLogitsError

PROBE, CONTROL, SELECTIVITY = "linear_probe", "linear_probe_control", "linear_probe_selectivity"
MODEL, MAJORITY = "linear_probe_model", "linear_probe_majority"
ANSWER, ANSWER_MODEL = "linear_probe_answer", "linear_probe_answer_model"
"""Shares of whole answers, for the split by example alone: the other one holds no answer out whole."""
SUFFIX = {"example": "", "position": "_by_position"}
"""What a split adds to the names: numbers of different splits are never in one column."""
LEAKS = (
    "positions of one example are on both sides of the split, so a state can be told by its example: that alone can "
    "give accuracy above the control"
)
"""What whoever quotes a number of the split by position must know; the control's labels are in no relation to examples,
so that it does not show it."""


@dataclass(frozen=True)
class LinearProbe:
    """The linear probe of one probe set at one checkpoint: the same split at every site and every step.

    ``unread``: why nothing can be read, if so.
    """

    config: LinearProbeConfig
    reading: Reading
    prepared: Prepared
    origin: Origin
    columns: dict[str, Any]
    unread: NoValue | None

    def names(self, baselines: bool = False) -> list[str]:
        """Return the names of the measures of a site, or of the baselines."""
        found = []
        for by in self.config.splits:
            of_site = (PROBE, CONTROL, SELECTIVITY, *_for_whole_answers(by, ANSWER))
            names = (MODEL, MAJORITY, *_for_whole_answers(by, ANSWER_MODEL)) if baselines else of_site
            found += [name + SUFFIX[by] for name in names]
        return found

    def baselines(self) -> Iterator[Observation]:
        """Yield, once a split, the model's own next-token accuracy and the majority class's at the held-out rows."""
        hits: np.ndarray | None = None
        no_value = self.unread
        if no_value is None:
            try:
                hits = self.reading.answers(self.prepared).hit.numpy().astype(float)
            except NonfiniteLogitsError as error:
                no_value = NoValue("nonfinite", str(error))
        for by in self.config.splits:
            split = self._split(by)
            if isinstance(split, NoValue):
                for name in (MODEL, MAJORITY, *_for_whole_answers(by, ANSWER_MODEL)):
                    yield self._failed(name, by, split)
                continue
            yield self._row(MAJORITY, by, split.majority())
            if hits is None:
                assert no_value is not None
                for name in (MODEL, *_for_whole_answers(by, ANSWER_MODEL)):
                    yield self._failed(name, by, no_value)
                continue
            yield self._row(MODEL, by, split.rate(hits[split.held_out]))
            for name in _for_whole_answers(by, ANSWER_MODEL):
                yield self._row(name, by, split.answer_rate(hits[split.held_out]))

    def rows(self, states: Tensor | None, **columns: Any) -> Iterator[Observation]:
        """Yield the probe, its control and its selectivity at a site, for each split; ``states`` (token, width)."""
        for by in self.config.splits:
            yield from self._rows(states, by, columns)

    def _rows(self, states: Tensor | None, by: str, columns: dict[str, Any]) -> Iterator[Observation]:
        names = (PROBE, CONTROL, SELECTIVITY, *_for_whole_answers(by, ANSWER))
        split = self._split(by)
        if states is None:
            assert self.unread is not None
            no_value = self.unread
        elif isinstance(split, NoValue):
            no_value = split
        else:
            matrix = states[self.prepared.layout.answer].float().cpu().numpy()
            try:
                result = fit_probe(matrix, split, self.settings)
                # a row with a value has a reason where something about it must be known
                notes = [LEAKS] if by == "position" else []
                if split.unseen:
                    notes.append(f"{split.unseen} held-out positions of tokens that were never fitted count as wrong")
                note = "; ".join(notes) or None
                rates = (result.accuracy, result.control, result.selectivity, result.answer)
                for name, rate in zip(names, rates, strict=False):
                    yield self._row(name, by, rate, reason=note if name != CONTROL else None, **columns)
                return
            except NoValueError as error:
                no_value = error.no_value
            except ValueError as error:
                no_value = NoValue("nonfinite", str(error))
        for name in names:
            yield self._failed(name, by, no_value, **columns)

    @property
    def settings(self) -> ProbeSettings:
        """The config's values."""
        return ProbeSettings(**self.config.model_dump(exclude={"splits"}))

    def _split(self, by: str) -> Split | NoValue:
        """Return the split, or why there is none."""
        targets = [example.targets for example in self.prepared.encoded]
        if not targets:
            return NoValue("undefined", "no item of the probe set can be measured")
        labels = np.array([token for tokens in targets for token in tokens])
        texts = np.arange(len(targets)) if self.prepared.owner is None else np.array(self.prepared.owner)
        owner = np.repeat(texts, [len(tokens) for tokens in targets])
        try:
            return make_split(labels, owner, by, self.settings)
        except NoValueError as error:
            return error.no_value

    def _row(self, name: str, by: str, rate: Rate, **columns: Any) -> Observation:
        found = {"value": rate.value, "stderr": rate.stderr, "n": rate.n, **columns}
        return self.origin.row(measure=name + SUFFIX[by], **self.columns, **found)

    def _failed(self, name: str, by: str, no_value: NoValue, **columns: Any) -> Observation:
        return self.origin.failed(name + SUFFIX[by], no_value.status, no_value.reason, **self.columns, **columns)


def _for_whole_answers(by: str, *names: str) -> tuple[str, ...]:
    """Return the names of measures of whole answers, none for a split that holds no answer out whole."""
    return names if by == "example" else ()
