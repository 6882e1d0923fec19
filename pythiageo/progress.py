"""What a run tells while it works; who shows it (terminal, another process, nobody) is not its concern."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """``done`` of ``total`` steps or checkpoints of ``run``, the share of the one under way included.

    ``note`` says what it is at, for people; ``alert`` what is not as it should be, while that is so.
    """

    run: str
    done: float
    total: int
    note: str
    alert: str = ""


Reporter = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody."""
