"""Examples as a prefix tree: what several of them begin with is computed once, and padding not at all.

``[BOS] ADD `` is one path for all additions of a batch; a probe set of 1,000 comparisons of digits has 100 different
paths (``probes.prefixes``). Only attention looks across positions: for it the tree is laid out as examples again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.probes.prefixes import FILLER, find_different, number_nodes

PIECES = 4
"""Grids of examples of similar length that attention is cut into, at most."""


class Grid(NamedTuple):
    """Different examples of similar length, as attention sees them.

    ``nodes`` (example, position): the tree's node in each cell; beyond an example's end any node, which no causal query
    of the example sees. ``queries`` (example, query): rows of ``Packed.scored``; shorter rows repeat their last.
    ``mask`` (example, 1, query, position): 0 where a query may look, -inf where it may not. ``picked``: cells of
    ``queries`` that are no repetition, in row-major order.
    """

    nodes: Int[Tensor, "example position"]
    queries: Int[Tensor, "example query"]
    mask: Float[Tensor, "example one query position"]
    picked: Int[Tensor, " scored"]


class Packed(NamedTuple):
    """A batch as a prefix tree.

    ``ids``, ``positions`` (node): the token, and where it stands. ``grids``: the examples again, each once. ``cells``
    (node): a cell of the grids, counted through, where the node stands. ``scored``: the nodes that are scored, grid by
    grid. ``answers`` (answer): for every scored position of the batch, example by example, its row in ``scored``.
    """

    ids: Int[Tensor, " node"]
    positions: Int[Tensor, " node"]
    grids: list[Grid]
    cells: Int[Tensor, " node"]
    scored: Int[Tensor, " scored"]
    answers: Int[Tensor, " answer"]

    def to(self, device: torch.device) -> Packed:
        """Return it on a device."""
        grids = [Grid(*(tensor.to(device) for tensor in grid)) for grid in self.grids]
        ids, positions, _, cells, scored, answers = self
        return Packed(
            ids.to(device), positions.to(device), grids, cells.to(device), scored.to(device), answers.to(device)
        )


def pack(ids: Int[Tensor, "example position"], scored: Bool[Tensor, "example position"]) -> Packed:
    """Return a batch as a prefix tree.

    ``ids`` are padded at the end; an example ends at its last scored position, for what stands behind is not asked for.
    Both are on the CPU, where the tree is made.

    Raises:
        ValueError: an example without a scored position.
    """
    tokens, asked = ids.numpy(), scored.numpy()
    if not asked.any(axis=1).all():
        raise ValueError("every example needs a scored position")
    width = tokens.shape[1]
    lengths = width - asked[:, ::-1].argmax(axis=1)
    tokens = np.where(np.arange(width) < lengths[:, None], tokens, FILLER)
    rows, same = find_different(np.concatenate([tokens, asked], axis=1))
    tokens, asked, lengths = tokens[rows], asked[rows], lengths[rows]
    nodes, fresh = number_nodes(tokens)
    by_length = np.argsort(lengths, kind="stable")
    cells = np.zeros(int(fresh.sum()), dtype=np.int64)
    first_answer = np.zeros(len(rows), dtype=np.int64)
    grids, scored_nodes = [], []
    before = answers = 0
    for part in _cut_pieces(by_length, lengths):
        span = lengths[part[-1]]
        grid, inside = nodes[part, :span], tokens[part, :span] != FILLER
        cells[grid[inside]] = before + np.flatnonzero(inside)
        before += grid.size
        counts = asked[part].sum(axis=1)
        first_answer[part] = answers + counts.cumsum() - counts
        scored_nodes.append(grid[asked[part, :span]])
        grids.append(_make_grid(grid, asked[part, :span], answers))
        answers += len(scored_nodes[-1])
    counts = asked.sum(axis=1)[same]
    offsets = np.arange(int(counts.sum())) - np.repeat(counts.cumsum() - counts, counts)
    return Packed(
        ids=torch.from_numpy(tokens[fresh].astype(np.int64)),
        positions=torch.from_numpy(np.nonzero(fresh)[1]),
        grids=grids,
        cells=torch.from_numpy(cells),
        scored=torch.from_numpy(np.concatenate(scored_nodes)),
        answers=torch.from_numpy(np.repeat(first_answer[same], counts) + offsets),
    )


def _cut_pieces(by_length: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Cut the examples, shortest first, into pieces of like size; examples of one length are not divided for it."""
    size = -(-len(by_length) // PIECES)
    pieces = [by_length[start : start + size] for start in range(0, len(by_length), size)]
    joined = [pieces[0]]
    for piece in pieces[1:]:
        if lengths[joined[-1][0]] == lengths[piece[-1]]:
            joined[-1] = np.concatenate([joined[-1], piece])
        else:
            joined.append(piece)
    return joined


def _make_grid(nodes: np.ndarray, asked: np.ndarray, before: int) -> Grid:
    """Return a grid with its queries, ``asked`` (example, position), behind the ``before`` ones of earlier grids."""
    counts = asked.sum(axis=1)
    most = int(counts.max())
    place = np.minimum(np.arange(most), counts[:, None] - 1)
    columns = np.argsort(~asked, axis=1, kind="stable")[:, :most]  # the scored positions first, ascending
    columns = np.take_along_axis(columns, place, axis=1)
    seen = np.arange(nodes.shape[1]) <= columns[:, :, None]
    return Grid(
        nodes=torch.from_numpy(nodes),
        queries=torch.from_numpy(before + (counts.cumsum() - counts)[:, None] + place),
        mask=torch.from_numpy(np.where(seen, np.float32(0), np.float32(-np.inf)))[:, None],
        picked=torch.from_numpy(np.flatnonzero(np.arange(most) < counts[:, None])),
    )
