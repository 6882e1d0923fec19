"""What scheduling on Ray costs: CPU time of the same analysis by the local engine and by the workers of a cluster.

Each pair is a short and a long run by either engine, in turns, over one cluster of one node with room for one worker.
Counted are the command itself and all that the cluster's processes spend meanwhile: workers, raylet, control store and
agents, read from the kernel ten times a second, for Ray does not wait for its children. The difference of long and
short is the checkpoints' own cost; what remains of the short run is the fixed cost of an engine, start included. The
tables are asserted to be equal; times are printed, not asserted.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from polars.testing import assert_frame_equal

from pythiageo.observations import read_observations
from pythiageo.study.sizes import SIZES
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
pytest.importorskip("ray", reason="the extra pythiageo[ray]")
pytestmark = pytest.mark.bench

PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "9"))
SIZE = os.environ.get("PYTHIAGEO_BENCH_SIZE", "nano")
SHORT, LONG = 2, 12
SERIES = 154
_TICK = 0.1


class Clock:
    """CPU seconds of a process tree, of processes that ended between two looks up to the last one."""

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._spent: dict[tuple[int, float], float] = {}
        self._end = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def read(self, without: int = 0) -> float:
        """Return the seconds so far; of a process that is waited for elsewhere, none."""
        self._look()
        return sum(seconds for (pid, _), seconds in self._spent.items() if pid != without)

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_TICK):
            self._look()

    def _look(self) -> None:
        for process in self._root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self._spent[process.pid, process.create_time()] = times.user + times.system


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=node)
    yield nodes
    nodes.shutdown()


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    size, root = SIZES[SIZE], tmp_path_factory.mktemp("series")
    found = {}
    for count in (SHORT, LONG):
        found[count] = root / str(count)
        for step in range(count):
            shape = Shape(size.layers, size.d_model, size.heads, size.d_ff, 48, 41, True)
            write_checkpoint(found[count] / f"step{step}", ARCHITECTURES["gpt_neox"](shape, seed=step), step, step)
    return found


def workers(root: psutil.Process) -> int:
    """Return how many processes of jobs there are."""
    count = 0
    for process in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            count += "ray::Worker" in command or "ray::IDLE" in command or "default_worker" in command
    return count


def spent(target: Path, out: Path, *engine: str) -> float:
    """Analyze; return the CPU seconds of the command and of the cluster meanwhile."""
    root = psutil.Process()
    clock = Clock(root)
    before = clock.read()
    command = [sys.executable, "-m", "pythiageo", "analyze", str(target), "--name", "same", "--out", str(out), "-q"]
    done = subprocess.Popen([*command, "--no-audit", "--set", "compute.threads=1", *engine])
    _, status, usage = os.wait4(done.pid, 0)
    done.returncode = os.waitstatus_to_exitcode(status)
    assert done.returncode == 0
    until = time.monotonic() + 30
    while workers(root) and time.monotonic() < until:
        time.sleep(_TICK)
    after = clock.read(without=done.pid)
    clock.stop()
    return after - before + usage.ru_utime + usage.ru_stime


def test_scheduling_on_ray_against_the_local_engine(cluster: Any, series: dict[int, Path], tmp_path: Path) -> None:
    marginal, fixed, whole = [], [], []
    for pair in range(PAIRS):
        seconds: dict[tuple[str, int], float] = {}
        for count in (SHORT, LONG):
            engines = {"local": [], "ray": ["--engine", "ray", "--address", cluster.address]}
            for name in sorted(engines, reverse=bool(pair % 2)):
                seconds[name, count] = spent(series[count], tmp_path / f"{name}{count}", *engines[name])
            tables = [read_observations(tmp_path / f"{name}{count}") for name in engines]
            assert_frame_equal(*tables, check_exact=True)
            for name in engines:
                shutil.rmtree(tmp_path / f"{name}{count}")
        each = {name: (seconds[name, LONG] - seconds[name, SHORT]) / (LONG - SHORT) for name in ("local", "ray")}
        start = {name: seconds[name, SHORT] - SHORT * each[name] for name in each}
        marginal.append(each["ray"] / each["local"] - 1)
        fixed.append(start["ray"] - start["local"])
        whole.append((start["ray"] + SERIES * each["ray"]) / (start["local"] + SERIES * each["local"]) - 1)
        print(f"\n{SIZE}: a checkpoint {each['local']:.2f} s of CPU time local, {each['ray']:.2f} s on Ray; start "
              f"{start['local']:.1f} and {start['ray']:.1f} s", flush=True)  # fmt: skip
    for what, found, form in (
        ("more a checkpoint", marginal, "{:.1%}"),
        ("more at the start, seconds", fixed, "{:.1f}"),
        (f"more for a series of {SERIES}", whole, "{:.1%}"),
    ):
        low, middle, high = (form.format(one) for one in statistics.quantiles(found, n=4))
        print(f"{SIZE}, {what}, {PAIRS} pairs: {middle}, quartiles [{low}, {high}]")
