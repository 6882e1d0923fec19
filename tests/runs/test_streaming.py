"""An analysis streamed from a Hub: within its disk budget, nothing left behind, nothing of the user's touched."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from onhub import command
from tinyseries import write_series

from pythiageo.observations import read_manifest, read_observations
from pythiageo.series.hub.loopback import LoopbackHub, serve_folder

PROBES = ["--tasks", "ADD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=9", "--quiet"]
STEPS = (0, 10, 20, 30, 40)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("series"), STEPS)


def bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # dropped while we looked
                entry = os.lstat(os.path.join(parent, name))
                total += entry.st_size if stat.S_ISREG(entry.st_mode) else 0
    return total


def analyze(hub: LoopbackHub, cache: Path, out: Path, *arguments: str) -> tuple[int, str, int]:
    """Return exit code, errors, and the most bytes seen in the run's downloads."""
    peak, looks, stop = [0], [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], bytes_in(out / "downloads"))
            looks[0] += 1
            time.sleep(0.005)
        looks.append(0)  # it came to its end, not to an error

    watcher = threading.Thread(target=watch)
    watcher.start()
    done = command(hub, cache, "analyze", "test/a", "--out", str(out), *PROBES, *arguments)
    stop.set()
    watcher.join()
    assert len(looks) == 2
    assert looks[0] > 10
    return done.returncode, done.stderr, peak[0]


def weights_fetched(hub: LoopbackHub) -> int:
    return len([r for r in hub.requests if r.method == "GET" and r.path.endswith("model.safetensors")])


def test_checkpoints_come_within_the_budget_and_go(series: Path, tmp_path: Path) -> None:
    one = bytes_in(series / "step0")
    budget = int(2.5 * one)
    with LoopbackHub(serve_folder(series, "test/a")) as hub:
        code, errors, peak = analyze(hub, tmp_path / "cache", tmp_path / "run", "--disk-budget", f"{budget}B")
    assert code == 0, errors
    assert one / 2 < peak <= budget
    assert read_observations(tmp_path / "run")["step"].unique().sort().to_list() == list(STEPS)
    assert not (tmp_path / "run" / "downloads").exists()
    assert bytes_in(tmp_path / "cache") < one / 10
    assert weights_fetched(hub) == len(STEPS)


def test_a_budget_too_small_for_one_checkpoint_is_told(series: Path, tmp_path: Path) -> None:
    with LoopbackHub(serve_folder(series, "test/a")) as hub:
        code, errors, _ = analyze(hub, tmp_path / "cache", tmp_path / "run", "--disk-budget", "1KB")
        assert weights_fetched(hub) == 0
    assert code == 1, errors
    entries = read_manifest(tmp_path / "run")["checkpoints"]
    assert {entry["status"] for entry in entries} == {"too-large"}
    assert "more than the disk budget of 1,000" in entries[0]["reason"]


def test_what_the_user_has_is_used_and_left(series: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with LoopbackHub(serve_folder(series, "test/a")) as hub:
        code, errors, _ = analyze(hub, cache, tmp_path / "first", "--keep", "--steps", "10,20")
        assert code == 0, errors
        kept = {p: p.stat().st_mtime_ns for p in cache.rglob("blobs/*")}
        assert weights_fetched(hub) == 2
        code, errors, _ = analyze(hub, cache, tmp_path / "second", "--steps", "10,20,30", "--disk-budget", "100MB")
        assert code == 0, errors
        assert weights_fetched(hub) == 3  # step 30 alone
    assert kept
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def test_resumed_after_a_kill_only_the_rest_is_fetched(series: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LoopbackHub(serve_folder(series, "test/a")) as hub:
        words = [sys.executable, "-m", "pythiageo", "analyze", "test/a", "--out", str(out), *PROBES]
        process = subprocess.Popen(words, env={**os.environ, **hub.environment(tmp_path / "cache")})
        part = out / "observations" / "step-00000010.parquet"
        deadline = time.monotonic() + 120
        while not part.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.wait()
        done = list((out / "observations").glob("step-*.parquet"))
        before = weights_fetched(hub)
        code, errors, _ = analyze(hub, tmp_path / "cache", out, "--resume")
        assert code == 0, errors
        assert len(done) >= 2
        assert weights_fetched(hub) - before <= len(STEPS) - len(done)
        code, errors, _ = analyze(hub, tmp_path / "cache", tmp_path / "whole", "--name", read_manifest(out)["name"])
        assert code == 0, errors
    assert (out / "observations.parquet").read_bytes() == (tmp_path / "whole" / "observations.parquet").read_bytes()
    assert not (out / "downloads").exists()
