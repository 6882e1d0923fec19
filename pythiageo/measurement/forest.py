"""Prompts as a prefix forest: each different beginning is one node, and packs of nodes make the forward passes.

In a pack every node sees its ancestors and itself, and stands where it stands in its prompt; so its state is that of
the plain pass over any prompt that begins like that, and equal beginnings have equal states by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pythiageo.probes.prefixes import FILLER, number_nodes


class Pack(NamedTuple):
    """Nodes that go through the model together: some new ones, and before them those that the first ones follow.

    ``ids``, ``depths`` (1, node): the token, and where it stands. ``visible`` (node, node): whether the node of the
    row sees that of the column. ``start``, ``stop``: the new nodes by their number in the forest; ``before``: how many
    nodes of earlier packs stand in front of them. ``first``, ``end``: its first prompt, and the first that is not its.
    """

    ids: Int[Tensor, "one node"]
    depths: Int[Tensor, "one node"]
    visible: Bool[Tensor, "node node"]
    start: int
    stop: int
    before: int
    first: int
    end: int

    def among(self, nodes: Int[np.ndarray, " chosen"]) -> tuple[slice, Int[Tensor, " here"]]:
        """Return which of ascending ``nodes`` are new in this pack, and their places in it."""
        first, last = np.searchsorted(nodes, [self.start, self.stop])
        return slice(int(first), int(last)), torch.from_numpy(nodes[first:last] - self.start + self.before)

    def reorder(self, order: Int[Tensor, " node"]) -> Pack:
        """Return the same nodes in another order."""
        visible = self.visible[order][:, order]
        return self._replace(ids=self.ids[:, order], depths=self.depths[:, order], visible=visible)


class Forest:
    """The different beginnings of some prompts.

    Args:
        prompts: token ids of each, none empty; equal ones count once.

    Raises:
        ValueError: no prompt.
    """

    def __init__(self, prompts: Iterable[tuple[int, ...]]) -> None:
        rows = sorted(set(prompts))
        if not rows:
            raise ValueError("a forest needs a prompt")
        self._row = {ids: row for row, ids in enumerate(rows)}
        self._lengths = np.array([len(ids) for ids in rows])
        tokens = np.full((len(rows), self._lengths.max()), FILLER, dtype=np.int64)
        tokens[np.arange(tokens.shape[1]) < self._lengths[:, None]] = np.concatenate(rows)
        self._nodes, fresh = number_nodes(tokens)
        self._ids = tokens[fresh]
        _, self._depths = np.nonzero(fresh)
        self._below = _end_branches(self._depths)
        self._new = np.append(0, fresh.sum(axis=1).cumsum())

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def prompts(self) -> int:
        """Number of different prompts."""
        return len(self._lengths)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prompt."""
        return int(self._lengths.max())

    @property
    def tokens(self) -> Int[np.ndarray, " node"]:
        """The token of every node."""
        return self._ids

    def nodes(self, ids: tuple[int, ...]) -> Int[np.ndarray, " position"]:
        """Return the nodes of a prompt, from its first position to its last. Raises ``KeyError`` for a stranger."""
        row = self._row[ids]
        return self._nodes[row, : self._lengths[row]]

    def packs(self, most: int, scored: Int[np.ndarray, " scored"], most_scored: int) -> Iterator[Pack]:
        """Yield the packs of all prompts; see ``pack``."""
        first = 0
        while first < self.prompts:
            pack = self.pack(first, most, scored, most_scored)
            yield pack
            first = pack.end

    def pack(
        self, first: int, most: int, scored: Int[np.ndarray, " scored"], most_scored: int, until: int | None = None
    ) -> Pack:
        """Return the pack that begins with prompt ``first``: as many as fit, at least one.

        ``most``: nodes. ``most_scored``: nodes of ascending ``scored`` among the new ones. ``until``: the prompt before
        which it ends, if not the last.
        """
        start, length = int(self._new[first]), int(self._lengths[first])
        before = length - int(self._new[first + 1] - start)
        room = np.searchsorted(self._new, start - before + most, side="right") - 1
        room_scored = len(self._new) - 1
        to_score = np.searchsorted(scored, start) + most_scored
        if to_score < len(scored):
            room_scored = np.searchsorted(self._new, scored[to_score], side="right") - 1
        end = max(first + 1, min(int(room), int(room_scored), self.prompts if until is None else until))
        stop = int(self._new[end])
        numbers = np.concatenate([self._nodes[first, :before], np.arange(start, stop)])
        visible = (numbers <= numbers[:, None]) & (numbers[:, None] < self._below[numbers])
        return Pack(
            ids=torch.from_numpy(self._ids[numbers])[None],
            depths=torch.from_numpy(self._depths[numbers])[None],
            visible=torch.from_numpy(visible),
            start=start,
            stop=stop,
            before=before,
            first=first,
            end=end,
        )


def _end_branches(depths: Int[np.ndarray, " node"]) -> Int[np.ndarray, " node"]:
    """Return, for each node in preorder, the first one behind it that does not stand below it."""
    ends = [len(depths)] * len(depths)
    path: list[int] = []
    for node, depth in enumerate(depths.tolist()):
        for above in path[depth:]:
            ends[above] = node
        path[depth:] = [node]
    return np.array(ends)


def join(nodes: Sequence[Int[np.ndarray, " some"]]) -> Int[np.ndarray, " different"]:
    """Return the different ones among lists of nodes, ascending."""
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *nodes]))
