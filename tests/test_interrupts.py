"""Ctrl-C and SIGTERM where a wait would not hear them, and where nobody lets go."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from pythiageo.interrupts import map_in_threads

DEAF = """
import threading, time
from pythiageo.interrupts import answer_signals
answer_signals()
import polars as pl
pl.DataFrame({"a": [1]}).filter(pl.col("a") > 0)  # from here on a wait without an end is deaf
thread = threading.Thread(target=time.sleep, args=(600,), daemon=True)
thread.start()
try:
    print("ready", flush=True)
    thread.join()
except KeyboardInterrupt:
    raise SystemExit(7)
"""
STUBBORN = """
import time
from pythiageo.interrupts import answer_signals
answer_signals()
def stay(said):
    try:
        print(said, flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        pass
while True:
    try:
        stay("ready")
        while True:
            stay("heard")
    except KeyboardInterrupt:  # between two of them
        pass
"""


def ready(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_that_polars_made_deaf_ends(kind: signal.Signals) -> None:
    process = ready(DEAF)
    process.send_signal(kind)
    assert process.wait(20) == 7


def test_the_second_ctrl_c_ends_the_process_whatever_it_does() -> None:
    process = ready(STUBBORN)
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "heard\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130


def test_results_come_in_order_and_an_error_waits_for_nobody() -> None:
    assert list(map_in_threads(lambda number: number**2, range(20), 4)) == [number**2 for number in range(20)]
    held = threading.Event()

    def work(number: int) -> int:
        if number:
            held.wait(600)
        raise TimeoutError("its own")

    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="its own"):
        list(map_in_threads(work, range(4), 2))
    held.set()
    assert time.monotonic() - begun < 60
