"""Which answer positions a probe is fitted on, and which it is judged by."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

SPLITS = ("example", "position")
"""``example``: all positions of an example fall on one side. ``position``: positions fall singly, classes in equal
shares (the study's protocol billa-v4), so that a state can be recognised by what its example's other states share."""


def split_by_example(
    owner: Int[np.ndarray, " row"], test_share: float, rng: np.random.Generator
) -> Bool[np.ndarray, " row"]:
    """Return which rows are held out: those of a random ``test_share`` of the examples, at least one of them.

    ``owner`` (row): the example that each row belongs to.
    """
    examples = np.unique(owner)
    held_out = rng.permutation(examples)[: max(1, round(test_share * len(examples)))]
    return np.isin(owner, held_out)


def split_by_position(
    labels: Int[np.ndarray, " row"], test_share: float, rng: np.random.Generator
) -> Bool[np.ndarray, " row"]:
    """Return which rows are held out: ``test_share`` of each class, to within one row, whatever example they are of.

    Rows are laid out class by class, shuffled within each, and taken at equal steps from a random start: a class too
    small for its share gets a row held out with the right probability, instead of an error.
    """
    order = np.lexsort((rng.random(len(labels)), labels))
    taken = np.floor(np.arange(len(labels) + 1) * test_share + rng.random())
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[order] = np.diff(taken) > 0
    return held_out
