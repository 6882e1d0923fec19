"""Reading prepared probe sets from a model: states site by site, and what the logits say of every answer token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.config.tables import ComputeConfig, MeasureConfig
from pythiageo.errors import MEMORY, MachineError, machine_trouble
from pythiageo.measurement.probe_sets import SCORE, Prepared
from pythiageo.measurement.sites import choose_sites
from pythiageo.probes.encoding import Encoded
from pythiageo.probes.scoring import Options, Predictions, predict

SCORED = 4096
"""Greatest number of positions in one forward pass at which logits are taken: 50,304 columns of them take 0.8 GB."""


COPIED = 2**21
"""Greatest number of logits that are copied at one time, out of those of a pass: 8 MB of them."""


class Reader(Protocol):
    """A model that gives states at named sites and logits: through TransformerLens, or live while it trains."""

    def sites(self) -> dict[str, int]:
        """Return the default sites by hook name, in order of depth, with their layers."""

    def hooks(self) -> dict[str, str]:
        """Return every name of a place that has one state a position, with the hook that it stands for."""

    def read(
        self,
        ids: Int[Tensor, "example position"],
        sites: list[str],
        logit_positions: Int[Tensor, " scored"] | None,
    ) -> tuple[dict[str, Float[Tensor, "example position width"]], Float[Tensor, "example scored vocab"] | None]:
        """Run one forward pass over examples of equal length."""


class Reading:
    """A model's answers to probe sets, within bounds of memory.

    Examples of equal length make a forward pass, so nothing is padded, ``batch_tokens`` tokens at most together. When
    memory runs out all the same, a pass is cut in two, and the bound is halved from there on. States of several sites
    that take more than ``state_bytes`` together are read in several passes.

    Raises:
        MachineError: memory runs out over a single example.
    """

    def __init__(self, reader: Reader, sites: dict[str, int | None], batch_tokens: int, state_bytes: int) -> None:
        self.sites = sites
        self._reader = reader
        self._tokens = batch_tokens
        self._state_bytes = state_bytes

    @classmethod
    def of(cls, reader: Reader, measures: MeasureConfig, compute: ComputeConfig) -> Reading:
        """Choose the sites that a config names. Raises ``UserError`` where the model has none of that name."""
        sites = choose_sites(reader, measures.sites, measures.layers)
        return cls(reader, sites, compute.batch_tokens, compute.state_bytes)

    def states(self, prepared: Prepared) -> Iterator[tuple[str, Float[Tensor, "token width"]]]:
        """Yield each site with its states at every position of every example, the examples one after another."""
        waiting = list(self.sites)
        while waiting:
            states = self._read_first(prepared, waiting)
            waiting = waiting[len(states) :]
            while states:
                site = next(iter(states))
                yield site, states.pop(site)

    def _read_first(self, prepared: Prepared, sites: list[str]) -> dict[str, Float[Tensor, "token width"]]:
        """Read the first of ``sites``, as many as fit into the bound, at least one."""
        lengths = prepared.layout.lengths
        starts, tokens = lengths.cumsum(0) - lengths, int(lengths.sum())
        states: dict[str, Tensor] = {}

        def read(indices: list[int]) -> None:
            ids = torch.tensor([prepared.encoded[i].ids for i in indices])
            found, _ = self._reader.read(ids, list(states) or sites, None)
            if not states:  # only now is it known how wide each site is
                needed = torch.tensor([4 * tokens * found[site].shape[-1] for site in sites]).cumsum(0)
                fitting = max(1, int((needed <= self._state_bytes).sum()))
                states.update({site: torch.empty(tokens, found[site].shape[-1]) for site in sites[:fitting]})
            rows = (starts[indices][:, None] + torch.arange(ids.shape[1])).flatten()
            for site, kept in states.items():
                kept[rows] = found[site].flatten(0, 1)

        for batch in self._batches(prepared.encoded):
            self._within_memory(batch, read)
        return states

    def predictions(self, encoded: list[Encoded]) -> Predictions:
        """Return what the logits at every answer position say of its token, the examples one after another.

        Logits are used batch by batch and never kept: those of 200 paragraphs would take 3 GB.

        Raises:
            NonfiniteLogitsError: logits that are not finite.
        """
        counts = torch.tensor([len(example.targets) for example in encoded])
        first = counts.cumsum(0) - counts
        log_prob = torch.empty(int(counts.sum()), dtype=torch.float64)
        hit = torch.empty(len(log_prob), dtype=torch.bool)

        def read(indices: list[int]) -> None:
            ids = torch.tensor([encoded[i].ids for i in indices])
            wanted = sorted({p for i in indices for p in encoded[i].answer_positions})
            _, values = self._reader.read(ids, [], torch.tensor(wanted))
            assert values is not None
            positions = torch.tensor([p for i in indices for p in encoded[i].answer_positions])
            targets = torch.tensor([target for i in indices for target in encoded[i].targets])
            columns = torch.searchsorted(torch.tensor(wanted), positions)
            rows = torch.repeat_interleave(torch.arange(len(indices)), counts[indices])
            within = torch.arange(len(rows)) - (counts[indices].cumsum(0) - counts[indices])[rows]
            places = first[indices][rows] + within
            for part in torch.arange(len(rows)).split(max(1, COPIED // values.shape[-1])):
                logits = values[rows[part], columns[part]]
                log_prob[places[part]], hit[places[part]] = predict(logits, targets[part])

        for batch in self._batches(encoded):
            for indices in _few_scored(batch, encoded):
                self._within_memory(indices, read)
        return Predictions(log_prob, hit, torch.repeat_interleave(torch.arange(len(encoded)), counts))

    def answers(self, prepared: Prepared) -> Predictions:
        """Return ``predictions`` of the right answers, those of the windows of a long text together.

        Raises:
            NonfiniteLogitsError: logits that are not finite.
        """
        found = self.predictions(prepared.encoded)
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
            predictions=self.predictions([option for options in prepared.wrong for option in options]),
            example=torch.tensor([i for i, options in enumerate(prepared.wrong) for _ in options]),
            characters=_count_characters([text for example in examples for text in example.wrong]),
            right_characters=_count_characters([example.answer for example in examples]),
        )

    def _batches(self, encoded: list[Encoded]) -> Iterator[list[int]]:
        yield from batches(encoded, lambda: self._tokens)

    def _within_memory(self, indices: list[int], read: Callable[[list[int]], None]) -> None:
        waiting = [indices]
        while waiting:
            part = waiting.pop()
            try:
                read(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if machine_trouble(error) != MEMORY:
                    raise
            # out of the handler: what the error's frames hold is free again
            if len(part) == 1:
                raise MachineError(
                    "memory runs out over one single example: take a smaller model, another device or --dtype bfloat16"
                )
            self._tokens = max(1, self._tokens // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            waiting += [part[len(part) // 2 :], part[: len(part) // 2]]


def batches(encoded: list[Encoded], tokens: Callable[[], int]) -> Iterator[list[int]]:
    """Yield indices of examples of equal length, so that nothing is padded, ``tokens()`` tokens at most together.

    Examples that begin alike come together: a live model computes what they share once.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(encoded)), key=lambda i: encoded[i].ids):
        by_length[len(encoded[index].ids)].append(index)
    for length, indices in sorted(by_length.items()):
        start = 0
        while start < len(indices):
            size = max(1, tokens() // length)  # may have shrunk since the last one
            yield indices[start : start + size]
            start += size


def passes(prepared: list[Prepared], tokens: int, linear_probe: bool = False) -> Iterator[tuple[int, int, int]]:
    """Yield every forward pass that ``prepared`` takes: examples, positions, positions at which logits are taken.

    ``linear_probe``: whether linear probes stand beside the model's own predictions of the same answers.
    """
    for probe in prepared:
        if probe.probe.purpose != SCORE:
            for indices in batches(probe.encoded, lambda: tokens):
                yield len(indices), len(probe.encoded[indices[0]].ids), 0
            if not linear_probe:
                continue
        for encoded in (probe.encoded, [option for options in probe.wrong for option in options]):
            for batch in batches(encoded, lambda: tokens):
                for indices in _few_scored(batch, encoded):
                    scored = len({p for i in indices for p in encoded[i].answer_positions})
                    yield len(indices), len(encoded[indices[0]].ids), scored


def _few_scored(indices: list[int], encoded: list[Encoded]) -> Iterator[list[int]]:
    """Cut a batch so that at most ``SCORED`` logits are taken at once."""
    scored = len({p for i in indices for p in encoded[i].answer_positions})
    size = max(1, SCORED // scored)
    yield from (indices[start : start + size] for start in range(0, len(indices), size))


def _count_characters(texts: list[str]) -> Float[Tensor, " text"]:
    return torch.tensor([len(text.strip()) for text in texts], dtype=torch.float64)
