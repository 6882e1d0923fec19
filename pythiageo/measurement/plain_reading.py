"""Probe sets through a model in plain forward passes: every example by itself, those of one length together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.sinks import measure_norms
from pythiageo.measurement.passes import Passes
from pythiageo.measurement.probe_sets import SCORE, Prepared
from pythiageo.measurement.reader import Reader, SiteReading
from pythiageo.probes.encoding import Encoded
from pythiageo.probes.scoring import Predictions, predict

SCORED = 4096
"""Greatest number of positions in one forward pass at which logits are taken: 50,304 columns of them take 0.8 GB."""
COPIED = 2**21
"""Greatest number of logits that are copied at one time, out of those of a pass: 8 MB of them."""


class PlainReading:
    """States and predictions of probe sets, for models that a prefix forest cannot go through.

    Examples of equal length make a forward pass, so nothing is padded. States of several sites that take more than the
    bound together are read in several passes.

    Raises:
        MachineError: memory runs out over a single example.
    """

    def __init__(self, reader: Reader, passes: Passes) -> None:
        self._reader = reader
        self._passes = passes

    def states(self, prepared: Prepared, sites: Sequence[str]) -> Iterator[tuple[str, SiteReading]]:
        """Yield each site with what is read of it."""
        waiting = list(sites)
        while waiting:
            states = self._read_first(prepared, waiting)
            waiting = waiting[len(states) :]
            while states:
                site = next(iter(states))
                yield site, states.pop(site)

    def _read_first(self, prepared: Prepared, sites: list[str]) -> dict[str, SiteReading]:
        """Read the first of ``sites``, as many as fit into the bound, at least one."""
        lengths, tokens, places = prepared.lengths, prepared.tokens, prepared.places
        starts = lengths.cumsum(0) - lengths
        count, normed = (tokens, 0) if places is None else (len(places), tokens)
        kept_rows = torch.full((tokens,), -1)
        kept_rows[slice(None) if places is None else places] = torch.arange(count)
        taken: dict[str, SiteReading] = {}
        chosen = Lock()

        def read(indices: list[int]) -> None:
            ids = torch.tensor([prepared.encoded[i].ids for i in indices])
            with chosen:
                asked = list(taken) or sites
            found, _ = self._reader.read(ids, asked, None)
            with chosen:
                if not taken:  # only now is it known how wide each site is
                    widths = [found[site].shape[-1] for site in sites]
                    fitting = count_fitting(widths, count, normed, self._passes.bounds.state_bytes)
                    taken.update({site: make_room(found[site], count, normed) for site in sites[:fitting]})
            rows = (starts[indices][:, None] + torch.arange(ids.shape[1])).flatten()
            kept = None if places is None else (kept_rows[rows] >= 0).nonzero().flatten()
            into = kept_rows[rows if kept is None else rows[kept]]
            for site, (states, norms) in taken.items():
                flat = found[site].flatten(0, 1)
                states[into.to(flat.device)] = flat if kept is None else flat[kept.to(flat.device)]
                if norms is not None:
                    norms[rows.to(flat.device)] = measure_norms(flat)

        self._passes.make(self._batches(prepared.encoded), read, _halve)
        return taken

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
                logits = values[rows[part].to(values.device), columns[part].to(values.device)]
                log_prob[places[part]], hit[places[part]] = predict(logits, targets[part])

        scored = (indices for batch in self._batches(encoded) for indices in _few_scored(batch, encoded))
        self._passes.make(scored, read, _halve)
        return Predictions(log_prob, hit, torch.repeat_interleave(torch.arange(len(encoded)), counts))

    def attention_to_first(self, encoded: list[Encoded], layers: list[int]) -> list[dict[int, Float[Tensor, " head"]]]:
        """Return, for each example and layer, every head's attention to the first position, a mean over all positions.

        Raises:
            NoValueError: the model gives no attention patterns.
        """
        found: list[dict[int, Tensor]] = [{} for _ in encoded]

        def read(indices: list[int]) -> None:
            ids = torch.tensor([encoded[i].ids for i in indices])
            for layer, means in self._reader.attention_to_first(ids, layers).items():
                for index, mean in zip(indices, means, strict=True):
                    found[index][layer] = mean

        self._passes.make(self._batches(encoded), read, _halve)
        return found

    def _batches(self, encoded: list[Encoded]) -> Iterator[list[int]]:
        yield from batches(encoded, lambda: self._passes.bounds.tokens)


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


def plain_passes(prepared: list[Prepared], tokens: int, linear_probe: bool = False) -> Iterator[tuple[int, int, int]]:
    """Yield every forward pass that ``prepared`` takes: examples, positions, positions at which logits are taken.

    ``linear_probe``: whether linear probes stand beside the model's own predictions of the same answers.
    """
    for probe in prepared:
        if probe.probe.purpose != SCORE:
            for indices in batches(probe.encoded, lambda: tokens):
                yield len(indices), len(probe.encoded[indices[0]].ids), 0
            if not linear_probe:
                continue
        for encoded in (probe.encoded, probe.options):
            for batch in batches(encoded, lambda: tokens):
                for indices in _few_scored(batch, encoded):
                    scored = len({p for i in indices for p in encoded[i].answer_positions})
                    yield len(indices), len(encoded[indices[0]].ids), scored


def count_fitting(widths: Sequence[int], rows: int, norms: int, most: int) -> int:
    """Return how many of the first sites fit into ``most`` bytes, at least one.

    Of each there are ``rows`` float32 states and ``norms`` float64 norms.
    """
    needed = (4 * rows * torch.tensor(widths) + 8 * norms).cumsum(0)
    return max(1, int((needed <= most).sum()))


def make_room(like: Tensor, rows: int, norms: int) -> SiteReading:
    """Return empty tensors for as many states like some, and for norms where there are any."""
    return SiteReading(
        like.new_empty(rows, like.shape[-1]), like.new_empty(norms, dtype=torch.float64) if norms else None
    )


def _halve(indices: list[int]) -> list[list[int]]:
    half = len(indices) // 2
    return [indices[:half], indices[half:]] if half else []


def _few_scored(indices: list[int], encoded: list[Encoded]) -> Iterator[list[int]]:
    """Cut a batch so that at most ``SCORED`` logits are taken at once."""
    scored = len({p for i in indices for p in encoded[i].answer_positions})
    size = max(1, SCORED // scored)
    yield from (indices[start : start + size] for start in range(0, len(indices), size))
