"""A Hub that fails, and the real client: what is tried again, what is told of its checkpoint; the rest goes on."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from onhub import Done, command
from sharded import shard

from pythiageo.errors import UserError
from pythiageo.observations import read_manifest, read_observations
from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request, serve_folder
from pythiageo.series.hub.retry import seconds
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

PATIENCE = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "PYTHIAGEO_HUB_WAITS": "0.05,0.1", "PYTHIAGEO_HUB_LONGEST_WAIT": "2"}
WEIGHTS = "model.safetensors"
LARGE = 13

FETCH = """
import json, resource, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pythiageo.errors import PythiageoError
from pythiageo.series.checkpoint import checkpoints_of
from pythiageo.series.sources.hub import HubSeries
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def fetch(checkpoint):
    begun = time.monotonic()
    try:
        checkpoint.fetch()
        said = "ok"
    except PythiageoError as error:
        said = f"{type(error).__name__} {getattr(error, 'status', '')}: {error}"
    return [said, time.monotonic() - begun]
try:
    series = HubSeries("test/a")
    found = list(checkpoints_of(series, series.steps(), Path(sys.argv[1])))
    with ThreadPoolExecutor(16) as pool:
        told = dict(zip([str(one.step) for one in found], pool.map(fetch, found)))
except PythiageoError as error:
    told = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints whose weights take some hundred kilobytes each, but for the last, which takes 24 MB."""
    root = tmp_path_factory.mktemp("faults")
    for step in range(14):
        trainable = ARCHITECTURES["gpt_neox"](Shape(2, 64, 4, 256, 48, 41, True), seed=step)
        write_checkpoint(root / f"step{step}", trainable, step, tokens=step)
    # what has come is kept in pieces of 256 KiB
    (root / f"step{LARGE}" / WEIGHTS).write_bytes(random.Random(0).randbytes(24_000_000))
    return root


def fetch(hub: LoopbackHub, folder: Path, limit: int = 0) -> dict:
    environment = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"} | hub.environment(folder / "cache")
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(folder / "store"), str(limit)],
        env=environment | PATIENCE, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Faults:
    """Plans faults for one kind of request (method, end of its path) of a step, for the first few times or always."""

    def __init__(self) -> None:
        self.plans: dict[int, tuple[str, str, Callable[[int], Fault | None]]] = {}
        self.asked: Counter[int] = Counter()
        self.commits: dict[str, int] = {}

    def plan(self, step: int, kind: str, fault: Fault, times: int = 10**6) -> None:
        method, _, end = kind.partition(" ")
        self.plans[step] = (method, end, lambda number: fault if number < times else None)

    def know(self, hub: LoopbackHub) -> None:
        for step in self.plans:
            revision = hub.find("test/a", f"step{step}")
            assert revision is not None
            self.commits[revision.commit] = step

    def __call__(self, request: Request) -> Fault | None:
        step = next((step for commit, step in self.commits.items() if commit in request.path), None)
        if step is None:
            return None
        method, end, fault = self.plans[step]
        if request.method != method or not request.path.endswith(end):
            return None
        self.asked[step] += 1
        return fault(self.asked[step] - 1)


def test_every_fault_is_tried_again_or_told_of_its_checkpoint(series: Path, tmp_path: Path) -> None:
    faults = Faults()
    get, tree = f"GET {WEIGHTS}", "GET "
    faults.plan(1, get, Fault(429, {"Retry-After": "1"}), times=1)
    faults.plan(2, get, Fault(429, {"Retry-After": "3600"}))
    faults.plan(3, get, Fault(503), times=2)
    faults.plan(4, get, Fault(500))
    faults.plan(5, get, Fault(cut_after=100_000), times=1)
    faults.plan(6, get, Fault(cut_after=100_000, stall=60), times=1)
    faults.plan(7, get, Fault(cut_after=100_000, stall=60))
    faults.plan(8, get, Fault(flip_bit=True), times=1)
    faults.plan(9, get, Fault(flip_bit=True))
    faults.plan(10, get, Fault(403))
    faults.plan(11, tree, Fault(404, {"X-Error-Code": "RevisionNotFound"}))
    faults.plan(12, get, Fault(drop=True), times=2)
    faults.plan(LARGE, get, Fault(cut_after=15_000_000), times=1)
    with LoopbackHub(serve_folder(series, "test/a"), faults) as hub:
        faults.know(hub)
        begun = time.monotonic()
        told = fetch(hub, tmp_path)
        assert time.monotonic() - begun < 60
        ranges = [(request.path, request.range) for request in hub.requests if request.range is not None]
        commits = {step: commit for commit, step in faults.commits.items()}
    said = {int(step): text for step, (text, _) in told.items()}
    assert {step for step, text in said.items() if text == "ok"} == {0, 1, 3, 5, 6, 8, 12, 13}
    assert told["1"][1] >= 1  # the second that the Hub asked for
    assert faults.asked[1] == 2
    assert "asks to wait 3600 s, more than the 2 s that are waited" in said[2]
    assert faults.asked[2] == 1
    assert faults.asked[3] == 3
    assert faults.asked[4] == 3
    assert said[4].startswith("CheckpointError unreadable: test/a step4: could not be fetched: Server error '500")
    assert "timed out" in said[7]
    assert faults.asked[7] == 6  # once, and the client's five more
    assert said[9].startswith("CheckpointError corrupt: test/a step9: model.safetensors is not the file that the Hub")
    assert faults.asked[9] == 2
    assert "the Hub refuses access: set HF_TOKEN" in said[10]
    assert "test/a: there is no revision step11" in said[11]
    # what had come before the connection was cut is not fetched twice
    assert ranges == [(f"/test/a/resolve/{commits[LARGE]}/{WEIGHTS}", f"bytes={15_000_000 // 2**18 * 2**18}-")]
    for step in (0, 1, 3, 5, 6, 8, 12, 13):
        fetched = tmp_path / "store" / f"step{step}" / WEIGHTS
        assert fetched.read_bytes() == (series / f"step{step}" / WEIGHTS).read_bytes()


def test_a_full_disk_is_the_machines_and_not_the_checkpoints(series: Path, tmp_path: Path) -> None:
    with LoopbackHub(serve_folder(series, "test/a")) as hub:
        told = fetch(hub, tmp_path, limit=50_000)
    assert len(told) == 14
    for step, (text, _) in told.items():
        assert text.startswith(f"MachineError : test/a step{step}: could not be kept on the disk: "), text
        assert "File too large" in text


@pytest.mark.parametrize("kind", ["refs", "tree"])
def test_a_listing_that_never_comes_ends(kind: str, series: Path, tmp_path: Path) -> None:
    hanging: list[str] = []

    def fault(request: Request) -> Fault | None:
        if f"/{kind}" not in request.path or hanging:
            return None
        hanging.append(request.path)
        return Fault(cut_after=0, stall=60)

    with LoopbackHub(serve_folder(series, "test/a"), fault) as hub:
        told = fetch(hub, tmp_path)
    if kind == "refs":
        assert told["error"].startswith("MachineError: test/a: the Hub cannot be reached: ")
    else:
        assert {text for text, _ in told.values()} == {"ok"}


PROBES = ["--tasks", "ADD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=9", "--quiet"]


def analyze(hub: LoopbackHub, folder: Path, *arguments: str) -> Done:
    return command(hub, folder / "cache", "analyze", "test/a", "--out", str(folder / "run"), *PROBES, *arguments)


def analyze_within(limit: int, hub: LoopbackHub, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, with files of ``limit`` bytes at most."""
    words = [sys.executable, "-m", "pythiageo", "analyze", "test/a", "--out", str(folder / "run"), *PROBES]
    environment = {**os.environ, **hub.environment(folder / "cache"), **PATIENCE}
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=240, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def test_a_full_disk_ends_a_run_that_can_be_resumed(series: Path, tmp_path: Path) -> None:
    shutil.copytree(series / "step0", tmp_path / "series" / "step0")
    with LoopbackHub(serve_folder(tmp_path / "series", "test/a")) as hub:
        full = analyze_within(200_000, hub, tmp_path)
        assert full.returncode == 3, full.stderr
        (line,) = full.stderr.splitlines()
        assert line.startswith("pythiageo: test/a step0: could not be kept on the disk: ")
        assert not list((tmp_path / "run").rglob("*.safetensors*"))
        assert analyze(hub, tmp_path, "--resume").returncode == 0


def test_a_network_lost_for_a_while_costs_what_was_under_way(series: Path, tmp_path: Path) -> None:
    """It is back when the client has given up on step 2; step 1 lacks a shard on the Hub itself."""
    for step in range(4):
        shutil.copytree(series / f"step{step}", tmp_path / "series" / f"step{step}")
    shard(tmp_path / "series" / "step1")
    (tmp_path / "series" / "step1" / "model-00002-of-00002.safetensors").unlink()
    files: list[str] = []
    tries = [0]

    def fault(request: Request) -> Fault | None:
        wanted = request.method == "GET" and request.path.endswith(WEIGHTS)
        if wanted and tries[0] < 6 and len(files) == 1:
            tries[0] += 1
            return Fault(drop=True)
        if 0 < tries[0] < 6:
            return Fault(drop=True)
        if wanted:
            files.append(request.path)
        return None

    with LoopbackHub(serve_folder(tmp_path / "series", "test/a"), fault) as hub:
        first = analyze(hub, tmp_path)
        assert first.returncode == 1, first.stderr
        statuses = {row["step"]: row["status"] for row in read_manifest(tmp_path / "run")["checkpoints"]}
        assert statuses == {0: "ok", 1: "incomplete", 2: "unreadable", 3: "ok"}
        assert len(files) == 2
        second = analyze(hub, tmp_path, "--resume")
        assert second.returncode == 1, second.stderr
        lost = hub.find("test/a", "step2")
    assert lost is not None
    assert files[2:] == [f"/test/a/resolve/{lost.commit}/{WEIGHTS}"]
    table = read_observations(tmp_path / "run")
    assert set(table.filter(table["step"] != 1)["status"]) == {"ok"}
    assert table.filter(table["step"] == 1)["status"].to_list() == ["incomplete"]


@pytest.mark.parametrize("value", ["soon", "", "1,-2", "nan", "inf"])
def test_waits_that_are_no_seconds_are_one_sentence(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIAGEO_HUB_WAITS", value)
    with pytest.raises(UserError, match=r"PYTHIAGEO_HUB_WAITS=.*: expected seconds such as 1,3"):
        seconds("PYTHIAGEO_HUB_WAITS", "1,3")
    monkeypatch.setenv("PYTHIAGEO_HUB_WAITS", "0.5,2")
    assert seconds("PYTHIAGEO_HUB_WAITS", "1,3") == (0.5, 2.0)
