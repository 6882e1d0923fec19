"""Fetching ahead: order, budget, look-ahead, failures and early ends, on items that only pretend to be files."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythiageo.errors import CheckpointError
from pythiageo.series.hub.address import Address
from pythiageo.series.hub.download import HubCheckpoint
from pythiageo.series.prefetch import Stream


class Shelf:
    """Counts what lies on a disk."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.here: dict[str, int] = {}
        self.peak = 0
        self.order: list[str] = []

    def put(self, label: str, size: int) -> None:
        with self.lock:
            self.here[label] = size
            self.peak = max(self.peak, sum(self.here.values()))
            self.order.append(label)


class File:
    def __init__(self, shelf: Shelf, label: str, size: int, broken: bool = False, seconds: float = 0) -> None:
        self.shelf, self.label, self.bytes, self.broken, self.seconds = shelf, label, size, broken, seconds

    def arrived(self) -> int:
        return self.shelf.here.get(self.label, 0)

    def size(self) -> int:
        return self.bytes

    def fetch(self) -> None:
        time.sleep(self.seconds)
        if self.broken:
            raise CheckpointError(f"{self.label} is broken")
        self.shelf.put(self.label, self.bytes)

    def drop(self) -> None:
        with self.shelf.lock:
            self.shelf.here.pop(self.label, None)


@given(st.lists(st.integers(0, 10), min_size=1, max_size=12), st.integers(1, 25), st.integers(0, 4))
def test_the_budget_is_never_exceeded_and_nothing_is_left(sizes: list[int], budget: int, ahead: int) -> None:
    shelf = Shelf()
    files = [File(shelf, f"f{i}", size) for i, size in enumerate(sizes)]
    stream = Stream(files, budget, ahead)
    seen = []
    for file in stream:
        failure = stream.failure(file)
        if file.bytes > budget:
            assert isinstance(failure, CheckpointError)
            assert "more than the disk budget" in str(failure)
        else:
            assert failure is None
            assert file.label in shelf.here
        seen.append(file.label)
    assert seen == [file.label for file in files]
    assert shelf.peak <= budget
    assert stream.peak_bytes <= budget
    assert shelf.here == {}


def test_the_look_ahead_is_bounded() -> None:
    shelf = Shelf()
    files = [File(shelf, f"f{i}", 1) for i in range(8)]
    stream = Stream(files, None, ahead=2)
    for index, _ in enumerate(stream):
        time.sleep(0.03)  # time enough for the thread to run ahead as far as it may
        assert len(shelf.order) <= index + 1 + 2
    assert shelf.peak <= 3


def test_fetching_goes_on_while_the_reader_works() -> None:
    shelf = Shelf()
    files = [File(shelf, f"f{i}", 1, seconds=0.05) for i in range(8)]
    begun = time.perf_counter()
    for _ in Stream(files, None, ahead=2):
        time.sleep(0.05)
    # one after the other it would be 0.8 s at least; side by side nine spans of 0.05 s
    assert time.perf_counter() - begun < 0.7


def test_one_failure_leaves_the_others() -> None:
    shelf = Shelf()
    files = [File(shelf, f"f{i}", 1, broken=i == 1) for i in range(3)]
    stream = Stream(files, 2)
    failures = [str(stream.failure(file)) for file in stream]
    assert failures == ["None", "f1 is broken", "None"]
    assert shelf.here == {}


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_leaving_early_drops_everything_and_ends_the_thread(stop: int) -> None:
    shelf = Shelf()
    files = [File(shelf, f"f{i}", 1, seconds=0.01) for i in range(6)]

    def read() -> None:
        for index, _ in enumerate(Stream(files, 3)):
            if index == stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert shelf.here == {}
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def test_a_fetch_that_hangs_is_left_behind_and_drops_what_came_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pythiageo.series.prefetch.LEAVING", 0.1)
    shelf, hangs, dropped = Shelf(), threading.Event(), threading.Event()

    class Hanging(File):
        def fetch(self) -> None:
            hangs.wait(60)
            super().fetch()

        def drop(self) -> None:
            super().drop()
            if hangs.is_set():
                dropped.set()

    def interrupt() -> None:
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(Stream([Hanging(shelf, "f", 1)]).while_waiting(interrupt))
    assert time.monotonic() - begun < 5
    hangs.set()
    assert dropped.wait(10)
    assert shelf.here == {}


def test_leaving_early_ends_the_fetch_under_way_where_that_can_be_done() -> None:
    shelf = Shelf()

    class Stalled(File):
        ended = threading.Event()

        def fetch(self) -> None:
            assert self.ended.wait(60)
            raise CheckpointError("given up")

        def stop(self) -> None:
            self.ended.set()

    item = Stalled(shelf, "f", 5)
    stream = Stream([item])
    silent = []

    def look() -> None:
        if arrival := stream.arrival():
            silent.append(arrival.silent)
        if len(silent) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stream.while_waiting(look))
    assert item.ended.is_set()
    assert "fetch" not in {thread.name for thread in threading.enumerate() if thread.is_alive()}
    # no byte has come since the first look
    assert silent[0] == 0
    assert silent == sorted(silent)
    assert silent[-1] > 0.5


def test_a_checkpoint_of_the_hub_goes_to_another_process(tmp_path: Path) -> None:
    made = HubCheckpoint(1, Address("a/b", "step1", "0" * 40), None, tmp_path)
    assert pickle.loads(pickle.dumps(made)).label == made.label
