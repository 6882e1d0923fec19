"""Passages: how running texts become what is fed, where a run asks for it: cut short, packed, or strided over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Way = Literal["truncate", "pack", "stride"]
TOKENS = 512
"""Tokens of a passage, where a run names no number."""


@dataclass(frozen=True)
class Passages:
    """A way of making passages of running texts, of ``tokens`` tokens at most.

    Every passage is fed whole, its last token too, and is one example to whatever is measured of states.

    Attributes:
        way: ``truncate``: the first tokens of each text, one passage a text; a token that the tokenizer puts behind a
            text goes with what is cut off. ``pack``: the texts of a level one after
            another, cut into passages of one length; what is left at the end is dropped. ``stride``: passages of each
            text that begin ``stride`` tokens apart, up to its end.
        tokens: the greatest length, two at least; that of all passages for ``pack``.
        stride: for ``stride`` alone; less than ``tokens``.
    """

    way: Way
    tokens: int = TOKENS
    stride: int | None = None

    @property
    def name(self) -> str:
        """It in words."""
        apart = f", {self.stride} apart" if self.way == "stride" else ""
        return f"{self.way} at {self.tokens} tokens{apart}"

    def as_json(self) -> dict[str, Any]:
        """Return it as manifests say it."""
        return {"way": self.way, "tokens": self.tokens, "stride": self.stride}
