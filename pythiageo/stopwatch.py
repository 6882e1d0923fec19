"""How long the phases of the checkpoint under way take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Times phases by name, until they are read."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    def note_fetch(self, seconds: float | None) -> None:
        """Note how long fetching the checkpoint took, where that is known."""
        if seconds is not None:
            self._spent["fetch"] = seconds

    @contextmanager
    def phase(self, name: str, doing: str) -> Iterator[None]:
        """Time a phase; ``doing`` is for people, and nobody looks at a stopwatch."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._spent[name] = time.monotonic() - begun

    def report_share(self, share: float) -> None:
        """Nobody is told which share of the checkpoint is measured."""

    def read(self) -> dict[str, float]:
        """Return seconds a phase, and begin anew."""
        spent, self._spent = self._spent, {}
        return spent
