"""Fetching ahead: the next checkpoints come while this one is measured, within a disk budget, then go again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from pythiageo.errors import CheckpointError

AHEAD = 2
"""Checkpoints fetched and waiting, at most."""


class Fetchable(Protocol):
    """A checkpoint whose files can be brought here and dropped again."""

    @property
    def label(self) -> str:
        """Where it is, for people."""

    def size(self) -> int:
        """Return the bytes that fetching will add to the disk; 0 where they are here already."""

    def fetch(self) -> None:
        """Bring its files here. Raises ``CheckpointError`` when they cannot be had."""

    def drop(self) -> None:
        """Remove what ``fetch`` brought, and only that."""


Item = TypeVar("Item", bound=Fetchable)


class Stream(Generic[Item]):
    """Iterates over ``items`` in their order, each fetched before it is given out and dropped after.

    One thread fetches, ``ahead`` items further than the one given out at most, and only while what lies here and what
    comes fit into ``budget`` bytes together (``None``: no bound). An item that cannot be fetched is given out all the
    same; ``failure`` holds why. An item larger than the budget is such a failure. Leaving the loop early stops the
    thread after the fetch under way and drops everything.
    """

    def __init__(self, items: Sequence[Item], budget: int | None = None, ahead: int = AHEAD) -> None:
        self._items = list(items)
        self._budget = budget
        self._ahead = ahead
        self._state = threading.Condition()
        self._held: dict[int, int] = {}
        self._failures: dict[int, Exception] = {}
        self._ready = 0
        self._given = 0
        self._stopped = False
        self.peak_bytes = 0
        """Most bytes that lay here or were under way at one time."""

    def failure(self, item: Item) -> Exception | None:
        """Return why ``item``, just given out, could not be fetched, or ``None``."""
        return next((self._failures.get(i) for i, known in enumerate(self._items) if known is item), None)

    def __iter__(self) -> Iterator[Item]:
        worker = threading.Thread(target=self._fetch_all, name="fetch", daemon=True)
        worker.start()
        try:
            for index, item in enumerate(self._items):
                with self._state:
                    self._given = index
                    self._state.notify_all()
                    self._state.wait_for(lambda index=index: self._ready > index)  # type: ignore[misc]
                try:
                    yield item
                finally:
                    self._release(index)
        finally:
            with self._state:
                self._stopped = True
                self._state.notify_all()
            worker.join()
            for index in list(self._held):
                self._release(index)

    def _release(self, index: int) -> None:
        if index in self._held:
            self._items[index].drop()
            with self._state:
                del self._held[index]
                self._state.notify_all()

    def _fetch_all(self) -> None:
        for index, item in enumerate(self._items):
            try:
                size = item.size()
                if self._budget is not None and size > self._budget:
                    raise CheckpointError(
                        f"{item.label}: takes {size:,} bytes, more than the disk budget of {self._budget:,}",
                        "too-large",
                    )
                if not self._reserve(index, size):
                    return
                item.fetch()
            except Exception as error:  # told to whoever is given the item
                self._failures[index] = error
            with self._state:
                self._ready = index + 1
                self._state.notify_all()

    def _reserve(self, index: int, size: int) -> bool:
        """Wait until there is room, then count ``size`` as taken; return False if nobody wants it any more."""
        with self._state:
            self._state.wait_for(lambda: self._stopped or (self._near(index) and self._fits(size)))
            if self._stopped:
                return False
            self._held[index] = size
            self.peak_bytes = max(self.peak_bytes, sum(self._held.values()))
            return True

    def _near(self, index: int) -> bool:
        return index <= self._given + self._ahead

    def _fits(self, size: int) -> bool:
        return self._budget is None or sum(self._held.values()) + size <= self._budget
