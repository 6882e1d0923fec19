"""Work on several threads has the bits of work on one, comes back in order, and keeps to its bounds."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import pytest
import torch
from activations import plant_states
from threadpoolctl import threadpool_info

from pythiageo.compute.side_by_side import SideBySide
from pythiageo.compute.threads import one_thread
from pythiageo.geometry.spectrum import Spectra
from pythiageo.lazy import lazy_property


def set_of(api: str) -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["internal_api"] == api}


def test_any_number_of_threads_gives_the_same_bits() -> None:
    matrices = [plant_states(150 + 40 * k, 160, massive=1000 * (k % 2), seed=k) for k in range(6)]

    def take(states: torch.Tensor) -> list[float]:
        spectra = Spectra(states)
        return [value for centred in (True, False) for value in spectra.of(centred).sigma.tolist()]

    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        try:
            with SideBySide(threads, 10**6) as side_by_side:
                futures = [side_by_side.submit(lambda states=states: take(states), 10**5) for states in matrices]
                found.append([future.result() for future in futures])
            found.append([take(states) for states in matrices])
        finally:
            torch.set_num_threads(1)
    assert all(each == found[0] for each in found)


def test_one_thread_is_given_back() -> None:
    torch.set_num_threads(2)
    before = set_of("openblas")
    inside: list[int] = []

    def work() -> None:
        with one_thread():
            inside.append(torch.get_num_threads())
            time.sleep(0.05)

    try:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert torch.get_num_threads() == 2  # of this thread
        with one_thread(), one_thread():
            assert (torch.get_num_threads(), set_of("openblas")) == (1, {1})
        for thread in threads:
            thread.join(10)
        assert (torch.get_num_threads(), set_of("openblas")) == (2, before)
        assert inside == [1, 1, 1]
    finally:
        torch.set_num_threads(1)


def test_no_more_is_handed_in_than_memory_allows() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    with SideBySide(4, 100) as side_by_side:
        for future in [side_by_side.submit(work, 40) for _ in range(8)]:
            future.result(10)
        assert most <= 2
        side_by_side.submit(work, 1000).result(10)  # more than there is: alone


def test_an_error_comes_with_its_result_and_drops_what_has_not_begun() -> None:
    gate = threading.Event()

    def fail() -> None:
        raise ArithmeticError("no convergence")

    with SideBySide(2, 10**6) as side_by_side:
        failed = side_by_side.submit(fail, 1)
        with pytest.raises(ArithmeticError, match="no convergence"):
            failed.result(10)
        waiting = [side_by_side.submit(lambda: gate.wait(5), 1) for _ in range(4)]
        threading.Timer(0.1, gate.set).start()
    with pytest.raises(CancelledError):
        waiting[-1].result(0)
    with SideBySide(1, 1) as alone, pytest.raises(ArithmeticError):
        alone.submit(fail, 1).result()


def test_lazy_properties_of_two_objects_are_computed_at_a_time() -> None:
    both = threading.Barrier(2, timeout=5)

    class Slow:
        @lazy_property
        def value(self) -> int:
            return both.wait()

    threads = [threading.Thread(target=lambda: Slow().value) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not both.broken
