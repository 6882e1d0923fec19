"""An analysis on several threads: the rows of one thread to the last bit, whatever runs side by side or runs out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from pythiageo.cli.app import run as cli
from pythiageo.compute.device import count_cores
from pythiageo.compute.side_by_side import SideBySide
from pythiageo.config.tables import MOST_PASSES, ComputeConfig
from pythiageo.errors import MachineError
from pythiageo.lens import BridgeReader
from pythiageo.measurement.passes import Passes
from pythiageo.measurement.reader import Bounds
from pythiageo.observations import read_manifest, read_observations
from pythiageo.series.files.load import open_folder
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

FEW = ["--tasks", "ADD,CMP", "--set", "probes.score_examples=30", "--set", "probes.geometry_examples=30", "--quiet"]


@pytest.fixture(scope="module", params=["gpt_neox", "gpt2"])
def series(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    trainable = ARCHITECTURES[request.param](Shape(3, 64, 4, 256, 48, 41, True), seed=1)
    write_checkpoint(root / "step10", trainable, 10, tokens=10)
    return root


def test_any_number_of_threads_gives_the_same_rows(series: Path, tmp_path: Path) -> None:
    rows: list[pl.DataFrame] = []
    for threads in (1, 2, 3):
        # passes small enough that there are several
        more = ["--threads", str(threads), "--name", "same", "--set", "compute.batch_tokens=200"]
        assert cli(["analyze", str(series), "--out", str(tmp_path / str(threads)), *FEW, *more]) == 0
        manifest = read_manifest(tmp_path / str(threads))
        assert manifest["checkpoints"][0]["passes"] == "prefix forest"
        assert manifest["provenance"]["threads"] == threads
        rows.append(read_observations(tmp_path / str(threads)))
    assert len(rows[0]) > 100
    assert rows[1].equals(rows[0])
    assert rows[2].equals(rows[0])


def test_threads_read_through_modules_of_their_own_and_the_same_weights(series: Path) -> None:
    folder = series / "step10"
    ids = torch.arange(40).reshape(4, 10) % 41

    def read(reader: BridgeReader, row: int) -> list[Tensor]:
        states, logits = reader.read(ids[row : row + 1], list(reader.sites()), torch.tensor([3, 9]))
        assert logits is not None
        return [*states.values(), logits]

    with BridgeReader(open_folder(folder, "t").model, folder) as alone:
        expected = [read(alone, row) for row in range(4)]
    with BridgeReader(open_folder(folder, "t").model, folder, at_once=3) as reader, SideBySide(3, 0) as threads:
        bridges = reader._bridges
        memory = [[p.data_ptr() for p in bridge.parameters() if p.numel()] for bridge in bridges]
        assert len({id(module) for bridge in bridges for module in bridge.modules()}) == sum(
            len(list(bridge.modules())) for bridge in bridges
        )
        for _ in range(5):
            found = [threads.submit_first(lambda row=row: read(reader, row)) for row in (0, 1, 2, 3)]
            for row, one in enumerate(found):
                assert all(torch.equal(a, b) for a, b in zip(one.result(30), expected[row], strict=True))
    assert memory[1] == memory[0]
    assert memory[2] == memory[0]


def test_threads_are_the_cores_unless_a_number_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pythiageo.config.tables.count_cores", lambda: 12)
    assert ComputeConfig(device="cpu").thread_count == 12
    assert ComputeConfig(device="cpu").passes_at_once == MOST_PASSES
    assert ComputeConfig(device="cpu", threads=3).thread_count == 3
    assert ComputeConfig(device="cpu", threads=3).passes_at_once == 3
    # a GPU does one thing at a time
    assert ComputeConfig(device="cuda").thread_count == 1
    assert ComputeConfig(device="cuda", threads=3).passes_at_once == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_cores_are_those_of_this_process() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + (
        "from pythiageo.compute.device import count_cores; print(count_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
    assert 1 <= count_cores() <= len(os.sched_getaffinity(0))


class Machine:
    """Adds up numbers; has memory for ``room`` of them together, and fails as torch does where they are more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = 0
        self.done: list[int] = []
        self.lock = threading.Lock()
        self.both = threading.Event()

    def read(self, numbers: list[int]) -> None:
        with self.lock:
            self.taken += len(numbers)
            fits = self.taken <= self.room
        if not fits:
            self.both.set()
        else:
            self.both.wait(0.02)  # long enough for another to begin
        with self.lock:
            self.taken -= len(numbers)
            if fits:
                self.done += numbers
        if not fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")


def halve(numbers: list[int]) -> list[list[int]]:
    half = len(numbers) // 2
    return [numbers[:half], numbers[half:]] if half else []


@pytest.mark.parametrize(("room", "tokens"), [(100, 64), (8, 64), (3, 16)])
@pytest.mark.parametrize("at_once", [1, 4])
def test_every_pass_is_made_where_memory_runs_out(room: int, tokens: int, at_once: int) -> None:
    machine, bounds = Machine(room), Bounds(64, 2**30)

    def cut() -> Iterator[list[int]]:
        yield from ([k, k + 1, k + 2, k + 3, k + 4, k + 5, k + 6, k + 7] for k in range(0, 80, 8))

    with SideBySide(at_once, 0) as threads:
        Passes(bounds, threads, at_once).make(cut(), machine.read, halve)
    assert set(machine.done) == set(range(80))
    # together they do not fit into 8, but each alone does: nothing is divided
    assert (bounds.tokens == 64) == (room >= 8)
    assert bounds.tokens <= tokens


def test_what_fits_in_no_way_and_other_errors_are_told() -> None:
    with SideBySide(3, 0) as threads, pytest.raises(MachineError, match="over one single example"):
        Passes(Bounds(64, 2**30), threads, 3).make(iter([[1, 2], [3]]), Machine(0).read, halve)

    def fail(numbers: list[int]) -> None:
        if 3 in numbers:
            raise ArithmeticError("a fault in a pass")

    with SideBySide(3, 0) as threads, pytest.raises(ArithmeticError, match="a fault in a pass"):
        Passes(Bounds(64, 2**30), threads, 3).make(iter([[1, 2], [3], [4]]), fail, halve)
