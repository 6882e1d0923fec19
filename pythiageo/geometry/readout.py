"""Readouts: which rows of the states at a site make the matrix that is measured, and whether its mean is taken off."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.errors import UserError, nearest

POSITIONS = {
    "answer": "every answer position: those whose logits predict an answer token, the end token included",
    "equals": "one position an example: the prompt's last token that is not white space (`=` in the algorithmic tasks)",
    "all": "every position fed",
    "mean": "one row an example: the mean over its positions",
    "last": "the last position fed of each example",
}
CENTRINGS = ("centred", "uncentred")


@dataclass(frozen=True)
class Readout:
    """Positions (with pooling, for ``mean``) and centring; the spectrum is the measure's own."""

    positions: str
    centred: bool

    @property
    def name(self) -> str:
        """``positions/centring``, as observations name it."""
        return f"{self.positions}/{CENTRINGS[0] if self.centred else CENTRINGS[1]}"


READOUTS: dict[str, Readout] = {
    readout.name: readout for readout in (Readout(p, c) for p in POSITIONS for c in (True, False))
}


def get_readouts(names: list[str]) -> list[Readout]:
    """Return the readouts of these names; ``all`` alone means every one.

    Raises:
        UserError: an unknown name; the nearest one is given.
    """
    if names == ["all"]:
        return list(READOUTS.values())
    for name in names:
        if name not in READOUTS:
            raise UserError(f"no readout {name!r}{nearest(name, READOUTS)}; there are {', '.join(READOUTS)}")
    return [READOUTS[name] for name in names]


@dataclass(frozen=True)
class Layout:
    """Where the examples of a probe set lie in a (token, d_model) matrix that holds them one after another.

    ``lengths`` (example); ``answer`` flat rows of all answer positions; ``equals`` (example) flat rows.
    """

    lengths: Int[Tensor, " example"]
    answer: Int[Tensor, " answer_token"]
    equals: Int[Tensor, " example"]

    @classmethod
    def of(cls, lengths: list[int], answer: list[tuple[int, ...]], equals: list[int]) -> Layout:
        """Build it from each example's length, its answer positions (at least one) and its `=`."""
        starts = [0, *accumulate(lengths)][: len(lengths)]
        flat = [[start + p for p in positions] for start, positions in zip(starts, answer, strict=True)]
        return cls(
            lengths=torch.tensor(lengths, dtype=torch.long),
            answer=torch.tensor([row for rows in flat for row in rows], dtype=torch.long),
            equals=torch.tensor([start + p for start, p in zip(starts, equals, strict=True)], dtype=torch.long),
        )


def select(states: Float[Tensor, "token d_model"], layout: Layout, positions: str) -> Float[Tensor, "row d_model"]:
    """Return the rows that ``positions`` names (see ``POSITIONS``).

    Means are taken in float64. Row order is that of the examples; no measure depends on it.
    """
    if positions == "answer":
        return states[layout.answer]
    if positions == "equals":
        return states[layout.equals]
    if positions == "all":
        return states
    if positions == "last":
        return states[layout.lengths.cumsum(0) - 1]
    if positions == "mean":
        return torch.segment_reduce(states.double(), "mean", lengths=layout.lengths.to(states.device), axis=0)
    raise ValueError(f"no positions {positions!r}")


def examples_of(layout: Layout, positions: str) -> Int[Tensor, " row"]:
    """Return which example each row of ``select`` comes from."""
    if positions == "answer":
        return torch.searchsorted(layout.lengths.cumsum(0), layout.answer, right=True)
    examples = torch.arange(len(layout.lengths))
    return torch.repeat_interleave(examples, layout.lengths) if positions == "all" else examples
