"""Logits for the mean loss of a saved model, with gradient, on prefix forests: what examples share is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pythiageo.config.tables import ComputeConfig
from pythiageo.measurement.check_forest import try_forest
from pythiageo.measurement.forest import Forest, Pack, join
from pythiageo.measurement.probe_loss import logits_of
from pythiageo.measurement.reader import Bounds
from pythiageo.probes.encoding import Encoded
from pythiageo.synthetic.model import additive_mask


class ForestLogits:
    """A transformers model's logits at scored positions (``probe_loss.ScoredLogits``), each beginning computed once.

    Between the blocks a node's state is that of a plain pass, so every derivative of a sum of the logits is that of
    plain passes, too. What is lost is which example a gradient comes from, where several share a node.

    Examples end at their last scored position: what stands behind it is not asked for.
    """

    def __init__(self, model: nn.Module) -> None:
        self._logits = logits_of(model)
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        settings: Any = model.config
        self._nodes = Bounds.of(ComputeConfig(device=self._device.type)).nodes(settings.hidden_size)

    def __call__(
        self, ids: Int[Tensor, "example position"], scored: Bool[Tensor, "example position"]
    ) -> Float[Tensor, "answer vocab"]:
        """Return the logits at the scored positions, example by example; both come from the CPU."""
        prompts = list(_trim(ids, scored))
        forest = Forest(prompts)
        asked = [forest.nodes(prompt)[row[: len(prompt)].numpy()] for prompt, row in zip(prompts, scored, strict=True)]
        wanted = join(asked)
        found = [self._pass(pack, pack.among(wanted)[1]) for pack in self._packs(forest)]
        rows = torch.from_numpy(np.searchsorted(wanted, np.concatenate(asked)))
        return torch.cat(found).index_select(0, rows.to(found[0].device))

    def cut(
        self, ids: Int[Tensor, "example position"], scored: Bool[Tensor, "example position"]
    ) -> list[Int[Tensor, " _"]]:
        """Return the examples of each pass, by number: those of neighbouring beginnings stand together."""
        prompts = list(_trim(ids, scored))
        forest = Forest(prompts)
        ends = torch.tensor([int(forest.nodes(prompt)[-1]) for prompt in prompts])
        passes = [((ends >= pack.start) & (ends < pack.stop)).nonzero().flatten() for pack in self._packs(forest)]
        return [numbers[ends[numbers].argsort(stable=True)] for numbers in passes]

    def read(
        self,
        ids: Int[Tensor, "example position"],
        sites: list[str],
        logit_positions: Int[Tensor, " scored"] | None,
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, "example position width"]], Float[Tensor, "example scored vocab"] | None]:
        """Return no states, and the logits, as ``Reader.read`` does."""
        assert not sites
        assert logit_positions is not None
        with torch.no_grad():
            return {}, self._ask(ids, logit_positions, depths, visible)

    def _packs(self, forest: Forest) -> Iterator[Pack]:
        nothing = np.empty(0, dtype=np.int64)  # no more nodes are scored than there are
        return forest.packs(self._nodes, nothing, self._nodes)

    def _pass(self, pack: Pack, positions: Int[Tensor, " scored"]) -> Float[Tensor, "scored vocab"]:
        return self._ask(pack.ids, positions, pack.depths, pack.visible)[0]

    def _ask(
        self, ids: Tensor, positions: Tensor, depths: Tensor | None, visible: Tensor | None
    ) -> Float[Tensor, "example scored vocab"]:
        tree = {}
        if depths is not None and visible is not None:
            mask = additive_mask(visible.to(self._device)).to(self._dtype)[None, None]
            tree = {"position_ids": depths.to(self._device), "attention_mask": mask}
        return self._logits(ids.to(self._device), positions.to(self._device), **tree)


def find_forest_logits(model: nn.Module, encoded: Iterable[Encoded]) -> ForestLogits | None:
    """Return how to ask a model for logits on prefix forests of these examples; none where it does not honour them."""
    prompts = [example.ids for example in encoded]
    logits = ForestLogits(model)
    tokens = np.unique(list(chain.from_iterable(prompts)))
    fit = try_forest(logits, [], tokens, max(map(len, prompts)), "float32")
    return None if fit.obstacle else logits


def _trim(ids: Int[Tensor, "example position"], scored: Bool[Tensor, "example position"]) -> Iterator[tuple[int, ...]]:
    ends = ids.shape[1] - scored.flip(1).long().argmax(1)
    rows: Sequence[list[int]] = ids.tolist()
    return (tuple(row[:end]) for row, end in zip(rows, ends.tolist(), strict=True))
