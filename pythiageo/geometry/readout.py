"""Readouts: which rows of the states at a site make the matrix that is measured, and whether its mean is taken off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.errors import UserError, nearest
from pythiageo.names import BUT_SINKS

POSITIONS = {
    "answer": "every answer position: those whose logits predict an answer token, the end token included",
    "equals": "one position an example: the prompt's last token that is not white space (`=` in the algorithmic tasks)",
    "all": "every position fed",
    "mean": "one row an example: the mean over its positions",
    "last": "the last position fed of each example",
}
SPARED = tuple(name + BUT_SINKS for name in ("answer", "all", "mean"))
PER_EXAMPLE = ("equals", "last", "mean")
"""Positions that give one row an example, so that rows of two tokenizers stand for the same."""
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

    @property
    def of_prompts(self) -> bool:
        """Whether it gives an example several rows, so that each is a matrix of its own."""
        return self.positions.removesuffix(BUT_SINKS) not in PER_EXAMPLE

    @property
    def spares_sinks(self) -> bool:
        """Whether sinks are left out."""
        return self.positions in SPARED


READOUTS: dict[str, Readout] = {
    readout.name: readout for readout in (Readout(p, c) for p in (*POSITIONS, *SPARED) for c in (True, False))
}


def get_readouts(names: list[str]) -> list[Readout]:
    """Return the readouts of these names; ``all`` alone means every one but those that leave sinks out.

    Raises:
        UserError: an unknown name; the nearest one is given.
    """
    if names == ["all"]:
        return [readout for readout in READOUTS.values() if not readout.spares_sinks]
    for name in names:
        if name not in READOUTS:
            raise UserError(f"no readout {name!r}{nearest(name, READOUTS)}; there are {', '.join(READOUTS)}")
    return [READOUTS[name] for name in names]


def check_positions(names: Sequence[str]) -> None:
    """Check names of positions. Raises ``UserError`` for an unknown one; the nearest one is given."""
    known = (*POSITIONS, *SPARED)
    for name in names:
        if name not in known:
            raise UserError(f"no positions {name!r}{nearest(name, known)}; there are {', '.join(known)}")


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

    def thin_out(self, with_answers: bool) -> tuple[Int[Tensor, " kept"], Layout]:
        """Return the flat rows, ascending, of the positions ``equals`` and ``last``, and the layout of them alone.

        ``with_answers``: of the answer positions, too; without them the layout has none.

        >>> places, layout = Layout.of([3, 2], [(1, 2), (1,)], [1, 0]).thin_out(with_answers=False)
        >>> places.tolist(), layout.lengths.tolist(), layout.equals.tolist()
        ([1, 2, 3, 4], [2, 2], [0, 2])
        """
        answer = self.answer if with_answers else self.answer[:0]
        places = torch.cat([answer, self.equals, self.lengths.cumsum(0) - 1]).unique()
        there = (torch.searchsorted(places, own) for own in (answer, self.equals))
        return places, Layout(_count_by_example(self, places), *there)


def find_places(
    layout: Layout, positions: str, sinks: Bool[Tensor, " token"] | None = None
) -> Int[Tensor, " place"] | None:
    """Return the flat rows that ``positions`` takes, for ``mean`` those that it is the mean of; ``None`` for every one.

    ``sinks``: which are left out where the name ends in ``-but-sinks``.
    """
    name = positions.removesuffix(BUT_SINKS)
    found = {
        "answer": lambda: layout.answer,
        "equals": lambda: layout.equals,
        "last": lambda: layout.lengths.cumsum(0) - 1,
        "all": lambda: None,
        "mean": lambda: None,
    }
    if name not in found:
        raise ValueError(f"no positions {positions!r}")
    places = found[name]()
    if name == positions:
        return places
    if sinks is None:
        raise ValueError(f"positions {positions!r} need to know the sinks")
    sinks = sinks.to(layout.answer.device)
    return (~sinks).nonzero().flatten() if places is None else places[~sinks[places]]


def select(
    states: Float[Tensor, "token d_model"],
    layout: Layout,
    positions: str,
    sinks: Bool[Tensor, " token"] | None = None,
) -> Float[Tensor, "row d_model"]:
    """Return the rows that ``positions`` names (see ``POSITIONS``), sinks left out where it says so.

    Means are taken in float64, over the positions that are left; an example of which none is left has no row. Row order
    is that of the examples; no measure depends on it.
    """
    places = find_places(layout, positions, sinks)
    rows = states if places is None else states[places]
    if positions.removesuffix(BUT_SINKS) != "mean":
        return rows
    lengths = layout.lengths if places is None else _count_by_example(layout, places)
    return torch.segment_reduce(rows.double(), "mean", lengths=lengths[lengths > 0].to(states.device), axis=0)


def examples_of(layout: Layout, positions: str, sinks: Bool[Tensor, " token"] | None = None) -> Int[Tensor, " row"]:
    """Return which example each row of ``select`` comes from."""
    places = find_places(layout, positions, sinks)
    examples = torch.arange(len(layout.lengths))
    if positions.removesuffix(BUT_SINKS) == "mean":
        return examples if places is None else examples[_count_by_example(layout, places) > 0]
    return torch.repeat_interleave(examples, layout.lengths) if places is None else owners(layout, places)


def owners(layout: Layout, places: Int[Tensor, " place"]) -> Int[Tensor, " place"]:
    """Return the example that each flat row belongs to."""
    return torch.searchsorted(layout.lengths.cumsum(0), places, right=True)


def _count_by_example(layout: Layout, places: Int[Tensor, " place"]) -> Int[Tensor, " example"]:
    return torch.bincount(owners(layout, places), minlength=len(layout.lengths))
