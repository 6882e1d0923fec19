"""What is asked of a model that is read, and the bounds of memory that its forward passes keep to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.config.tables import ComputeConfig

NODES = 512
"""Nodes of a prefix forest in one forward pass. Each attends over all others: with 1,024 a 160m shape takes 1.4 times
as long, and 256 gain nothing; at a width of 88 512 take 1.6 times as long as 128 or 256."""


ON_GPU = 8, 4
"""How many times as many tokens, and nodes of a forest, make a pass on a GPU, which small ones leave idle."""


class Readable(Protocol):
    """What prompts can be sent through."""

    def read(
        self,
        ids: Int[Tensor, "example position"],
        sites: list[str],
        logit_positions: Int[Tensor, " scored"] | None,
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, "example position width"]], Float[Tensor, "example scored vocab"] | None]:
        """Run one forward pass over examples of equal length.

        With ``depths`` and ``visible`` the positions are nodes of a prefix forest: each stands at its depth, and sees
        the nodes of its row. A model that honours neither gives other states, and may raise whatever it likes.
        """


class Reader(Readable, Protocol):
    """A model that gives states at named sites and logits: through TransformerLens, or live while it trains.

    Whether it may be asked by several threads at a time is for whoever opens it to say (``OpenModel.passes_at_once``).
    """

    def sites(self) -> dict[str, int]:
        """Return the default sites by hook name, in order of depth, with their layers."""

    def hooks(self) -> dict[str, str]:
        """Return every name of a place that has one state a position, with the hook that it stands for."""

    def attention_to_first(
        self, ids: Int[Tensor, "example position"], layers: list[int]
    ) -> dict[int, Float[Tensor, "example head"]]:
        """Return, for each layer, every head's attention to the first position, a mean over all positions.

        Raises:
            NoValueError: it gives no attention patterns.
        """


class SiteReading(NamedTuple):
    """What is read of a site: the ``states`` that are kept, the examples one after another.

    ``norms`` (token): those of the states at every position, in float64, where not all states are kept.
    """

    states: Float[Tensor, "kept width"]
    norms: Float[Tensor, " token"] | None = None


@dataclass
class Bounds:
    """How much goes through the model at a time, and how much is kept of it.

    ``tokens``: of one forward pass; halved where memory runs out all the same. ``state_bytes``: of the states that are
    kept at one time. ``most_nodes``: of a prefix forest in one forward pass.
    """

    tokens: int
    state_bytes: int
    most_nodes: int = NODES

    @classmethod
    def of(cls, compute: ComputeConfig) -> Bounds:
        """Return those of a config, ``ON_GPU`` times as large on a GPU."""
        tokens, nodes = (1, 1) if compute.on_cpu else ON_GPU
        return cls(tokens * compute.batch_tokens, compute.state_bytes, nodes * NODES)

    def nodes(self, width: int) -> int:
        """Return how many nodes of a prefix forest make a forward pass at most; halved with ``tokens``.

        ``width``: of the states. Attention over the pack weighs more in a narrow model.
        """
        if self.most_nodes > NODES:
            return max(1, min(self.most_nodes, self.tokens // 8))
        return max(1, min(NODES, max(NODES // 4, 2 * width // 3), self.tokens // 4))
