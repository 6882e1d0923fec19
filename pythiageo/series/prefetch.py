"""Fetching ahead: the next checkpoints come while this one is measured, within a disk budget, then go again."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from pythiageo.errors import CheckpointError
from pythiageo.series.checkpoint import Fetchable, Stoppable

AHEAD = 2
"""Checkpoints fetched and waiting, at most."""


class Arrival(NamedTuple):
    """A fetch under way: what, how many bytes of how many are here, for how many seconds none has come."""

    label: str
    bytes: int
    size: int
    silent: float = 0.0


_TICK = 0.5
"""Seconds between two looks while waiting."""
LEAVING = 1.5
"""Seconds that whoever leaves early waits for the fetch under way; one that hangs is left to end with the process."""

Item = TypeVar("Item", bound=Fetchable)


class Stream(Generic[Item]):
    """Iterates over ``items`` in their order, each fetched before it is given out and dropped after.

    ``items`` may be an iterator that waits for its next one: it is asked for no more than ``ahead`` further.

    One thread fetches, ``ahead`` items further than the one given out at most, and only while what lies here and what
    comes fit into ``budget`` bytes together (``None``: no bound). An item that cannot be fetched is given out all the
    same; ``failure`` holds why. An item larger than the budget is such a failure. Leaving the loop early ends the fetch
    under way, where that can be done (``Stoppable``), and drops everything; ``LEAVING`` seconds are waited for that.
    """

    def __init__(self, items: Iterable[Item], budget: int | None = None, ahead: int = AHEAD) -> None:
        self._source = iter(items)
        self._items: list[Item] = []
        self._budget = budget
        self._ahead = ahead
        self._state = threading.Condition()
        self._held: dict[int, int] = {}
        self._failures: dict[int, Exception] = {}
        self._seconds: dict[int, float] = {}
        self._under_way: tuple[int, int] | None = None
        self._seen = (-1, -1, 0.0)  # index, its bytes, and since when they are as many
        self._ready = 0
        self._given = 0
        self._stopped = False
        self._ended = False
        self._abandoned = False
        self.peak_bytes = 0
        """Most bytes that lay here or were under way at one time."""

    def failure(self, item: Item) -> Exception | None:
        """Return why ``item``, just given out, could not be fetched, or ``None``."""
        return self._failures.get(self._number(item))

    def seconds(self, item: Item) -> float | None:
        """Return how long fetching ``item``, just given out, took, or ``None`` if that failed."""
        return self._seconds.get(self._number(item))

    def arrival(self) -> Arrival | None:
        """Return what is being fetched at this moment, ``None`` if nothing is."""
        under_way = self._under_way
        if under_way is None:
            return None
        index, size = under_way
        item, now = self._items[index], time.monotonic()
        here = min(item.arrived(), size)
        if self._seen[:2] != (index, here):
            self._seen = (index, here, now)
        return Arrival(item.label, here, size, now - self._seen[2] if here < size else 0.0)

    def _number(self, item: Item) -> int:
        return next(i for i, known in enumerate(self._items) if known is item)

    def __iter__(self) -> Iterator[Item]:
        return self.while_waiting(lambda: None)

    def while_waiting(self, tick: Callable[[], None]) -> Generator[Item, None, None]:
        """Iterate, and call ``tick`` now and then while the next item is not there yet."""
        worker = threading.Thread(target=self._fetch_all, name="fetch", daemon=True)
        worker.start()
        try:
            for index in itertools.count():
                with self._state:
                    self._given = index
                    self._state.notify_all()
                while not self._await(index):
                    tick()
                if index >= self._ready:
                    return
                try:
                    yield self._items[index]
                finally:
                    self._release(index)
        finally:
            with self._state:
                self._stopped = True
                self._state.notify_all()
            if under_way := self._under_way:
                item = self._items[under_way[0]]
                if isinstance(item, Stoppable):
                    item.stop()
            until = time.monotonic() + LEAVING
            while worker.is_alive() and (self._ended or time.monotonic() < until):
                worker.join(_TICK)  # a wait without an end would not hear Ctrl-C once polars has run
            self._abandoned = worker.is_alive()
            for index in list(self._held):
                self._release(index)

    def _await(self, index: int) -> bool:
        with self._state:
            return self._state.wait_for(lambda: self._ready > index or self._ended, timeout=_TICK)

    def _release(self, index: int) -> None:
        if index in self._held:
            self._items[index].drop()
            with self._state:
                del self._held[index]
                self._state.notify_all()

    def _fetch_all(self) -> None:
        for index in itertools.count():
            if not self._wait_until_near(index):
                return
            item = next(self._source, None)
            if item is None:
                break
            self._items.append(item)
            try:
                size = item.size()
                if self._budget is not None and size > self._budget:
                    raise CheckpointError(
                        f"{item.label}: takes {size:,} bytes, more than the disk budget of {self._budget:,}",
                        "too-large",
                    )
                if not self._reserve(index, size):
                    return
                self._under_way = (index, size)
                begun = time.monotonic()
                item.fetch()
                if self._abandoned:
                    item.drop()
                self._seconds[index] = time.monotonic() - begun
            except Exception as error:  # told to whoever is given the item
                self._failures[index] = error
            self._under_way = None
            with self._state:
                self._ready = index + 1
                self._state.notify_all()
        with self._state:
            self._ended = True
            self._state.notify_all()

    def _wait_until_near(self, index: int) -> bool:
        """Wait until ``index`` is not too far ahead; return False if nobody wants it any more."""
        with self._state:
            self._state.wait_for(lambda: self._stopped or index <= self._given + self._ahead)
            return not self._stopped

    def _reserve(self, index: int, size: int) -> bool:
        """Wait until there is room, then count ``size`` as taken; return False if nobody wants it any more."""
        with self._state:
            self._state.wait_for(lambda: self._stopped or self._fits(size))
            if self._stopped:
                return False
            self._held[index] = size
            self.peak_bytes = max(self.peak_bytes, sum(self._held.values()))
            return True

    def _fits(self, size: int) -> bool:
        return self._budget is None or sum(self._held.values()) + size <= self._budget
