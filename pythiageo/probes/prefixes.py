"""Sequences of tokens as a forest: what several of them begin with is one path.

In a causal model the state at a position depends on the tokens up to it alone, so sequences that begin alike share the
states of their beginning. Where they are sorted, the nodes of the forest, counted row by row, come in preorder: the
nodes below a node follow it, and then those of the next branch.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

FILLER = -1
"""Behind a sequence's end, in a matrix of sequences."""


def find_different(
    rows: Int[np.ndarray, "row column"],
) -> tuple[Int[np.ndarray, " different"], Int[np.ndarray, " row"]]:
    """Return the indices of the different rows in ascending order of content, and for each row which one it is."""
    order = np.lexsort(rows.T[::-1])
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    same = np.empty(len(rows), dtype=np.int64)
    same[order] = new.cumsum() - 1
    return order[new], same


def number_nodes(
    tokens: Int[np.ndarray, "row position"],
) -> tuple[Int[np.ndarray, "row position"], Bool[np.ndarray, "row position"]]:
    """Return the node of every cell of sorted rows, and which cells are the first of their node.

    Row-major numbers grow downwards, so the node of a cell that is not the first of its own is the largest above it.
    Cells behind a row's end (``FILLER``) have any number.
    """
    fresh = np.ones(tokens.shape, dtype=bool)
    fresh[1:] = np.logical_or.accumulate(tokens[1:] != tokens[:-1], axis=1)
    fresh &= tokens != FILLER
    numbers = np.where(fresh, fresh.ravel().cumsum().reshape(fresh.shape) - 1, 0)
    return np.maximum.accumulate(numbers, axis=0), fresh
