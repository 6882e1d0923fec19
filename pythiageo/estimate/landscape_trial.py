"""What the landscape measures of a checkpoint take: gradients through one block, logits and vectors, tried here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch.nn import functional

from pythiageo.compute.device import wait_for_device
from pythiageo.compute.threads import torch_threads
from pythiageo.estimate.timer import scale, time_items
from pythiageo.landscape.measures import PER_EXAMPLE_GRADIENTS, get_landscape_measure
from pythiageo.landscape.problem import Problem
from pythiageo.measurement.forest import Forest, join
from pythiageo.measurement.forest_loss import find_forest_logits
from pythiageo.measurement.landscape import Landscape, llc_settings
from pythiageo.measurement.probe_loss import logits_of, problem_of
from pythiageo.measurement.probe_sets import Prepared
from pythiageo.probes.encoding import Encoded
from pythiageo.series.model_shape import FEW, ModelShape

_TRIED = 32
"""Examples whose gradient is tried."""
_VECTOR = 1 << 24
"""Entries of a vector that stands for one of all parameters: too many for a processor's cache."""
_READS = {"hessian_top": 60 * 60}
"""Vectors of parameters that are read beside the gradients: Lanczos' basis, four times at each product."""
_READS_A_DRAW = 10
"""The same of a draw of the LLC, beside its noise."""
_READS_A_GRADIENT = 12
"""What it takes to lay out a gradient of all parameters, to add it up and to look through it, in such reads."""


class _Work(NamedTuple):
    """Positions that go through the blocks, and positions at which logits are taken."""

    tokens: float
    scored: float


class LandscapeTrial:
    """Small pieces of the landscape measures of one checkpoint, on the device where they will be taken."""

    def __init__(self, landscape: Landscape, shape: ModelShape, device: str, threads: int) -> None:
        self._landscape = landscape
        self._shape = shape
        self._device = device
        self._threads = threads
        self._block = shape.one_block().to(device)

    def time(self, prepared: Sequence[Prepared]) -> float:
        """Return the seconds of all measures, of these probe sets of the landscape's tasks.

        Each measure says how many gradients of all examples it takes; a draw of the LLC takes that of its batch. What
        examples share counts once where the measure needs no single examples and the model takes prefix forests.
        """
        config = self._landscape.config
        measures = [get_landscape_measure(name) for name in self._landscape.measures]
        with torch_threads(self._threads):
            scored, (read, noise) = self._time_scored(), self._time_vector()
            total = 0.0
            for one in prepared:
                encoded = one.encoded[: config.examples]
                few = [_shrink(example) for example in encoded[:_TRIED]]
                token = self._time_token(few)
                takes_forests = find_forest_logits(self._block, few) is not None
                plain = _count_plain(problem_of(self._block, logits_of(self._block), encoded))
                whole = _count_shared(encoded) if takes_forests else plain
                for measure in measures:
                    work = plain if measure.needs == PER_EXAMPLE_GRADIENTS else whole
                    gradients = measure.gradients + measure.gradients_a_probe * config.hessian.probes
                    total += gradients * (work.tokens * token + work.scored * scored + _READS_A_GRADIENT * read)
                    total += _READS.get(measure.name, 0) * read
                if "llc" in self._landscape.measures:
                    settings = llc_settings(config, len(encoded))
                    batch = min(settings.batch or len(encoded), len(encoded))
                    some = torch.randperm(len(encoded), generator=torch.Generator().manual_seed(0))[:batch].tolist()
                    share = batch / len(encoded)
                    drawn = _Work(share * plain.tokens, share * plain.scored)
                    if takes_forests:
                        drawn = _count_shared([encoded[number] for number in some])
                    reads = _READS_A_GRADIENT + _READS_A_DRAW
                    draw = drawn.tokens * token + drawn.scored * scored + reads * read + noise
                    total += settings.chains * (settings.burn_in + settings.draws) * draw
        return total * (self._shape.layers if config.per_layer else 1)

    def _time_token(self, few: list[Encoded]) -> float:
        """Return the seconds of a gradient that each position adds, in all blocks."""
        problem = problem_of(self._block, logits_of(self._block), few)

        def differentiate(problem: Problem) -> None:
            problem.gradient()
            wait_for_device(self._device)

        timed = time_items([problem], differentiate, warm_up=True)
        return scale(timed, lambda one: _count_plain(one).tokens, 1) * self._shape.layers

    def _time_scored(self) -> float:
        """Return the seconds of a gradient that each position with logits adds."""
        unembedding = torch.randn(self._shape.vocab, self._shape.d_model, device=self._device)
        unembedding.mul_(self._shape.d_model**-0.5).requires_grad_(True)

        def differentiate(rows: int) -> None:
            states = torch.ones(rows, self._shape.d_model, device=self._device, requires_grad=True)
            targets = torch.zeros(rows, dtype=torch.long, device=self._device)
            loss = functional.cross_entropy(functional.linear(states, unembedding), targets)
            torch.autograd.grad(loss, [states, unembedding])
            wait_for_device(self._device)

        return scale(time_items([128], differentiate, warm_up=True), float, 1)

    def _time_vector(self) -> tuple[float, float]:
        """Return the seconds to read as many numbers as there are parameters, and to draw them."""
        size = min(_VECTOR, self._parameters)
        vector = torch.ones(size, device=self._device)

        def seconds(work: str) -> float:
            def do(_: int) -> None:
                float(vector.normal_()[0] if work == "draw" else vector @ vector)

            return scale(time_items([size], do, warm_up=True), float, self._parameters)

        return seconds("read"), seconds("draw")

    @property
    def _parameters(self) -> int:
        config, shape = self._landscape.config, self._shape
        return max(1, shape.parameters // shape.layers if config.per_layer else shape.parameters)


def _count_plain(problem: Problem) -> _Work:
    return _Work(*(sum(piece[place].numel() for piece in problem.pieces) for place in (0, 1)))


def _count_shared(encoded: Sequence[Encoded]) -> _Work:
    prompts = [one.ids[: max(one.answer_positions) + 1] for one in encoded]
    forest = Forest(prompts)
    scored = join([forest.nodes(ids)[list(one.answer_positions)] for ids, one in zip(prompts, encoded, strict=True)])
    return _Work(len(forest), len(scored))


def _shrink(example: Encoded) -> Encoded:
    """Return an example in the few tokens of the trial block's vocabulary."""
    ids, targets = (tuple(token % FEW for token in tokens) for tokens in (example.ids, example.targets))
    return replace(example, ids=ids, targets=targets)
