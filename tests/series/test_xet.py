"""Fetching by Xet, in every way in which it fails: told, fetched over plain HTTP or a row, and the run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hubfetch import SHORT, WEIGHTS, fetch, write_files

from pythiageo.observations import read_manifest
from pythiageo.series.hub import loopback_xet
from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request, serve_folder
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

CAS, BLOCK, TOKEN = "/v1/reconstructions/", "/xorb/", "/xet-read-token/"
MOODS = {
    "all well": ("", Fault()),
    "401": (CAS, Fault(401)),
    "403": (CAS, Fault(403)),
    "404": (CAS, Fault(404)),
    "500": (CAS, Fault(500)),
    "no answer": (CAS, Fault(cut_after=0, stall=600)),
    "block 403": (BLOCK, Fault(403)),
    "block 500": (BLOCK, Fault(500)),
    "block cut": (BLOCK, Fault(cut_after=1000)),
    "block stops": (BLOCK, Fault(cut_after=1000, stall=600)),
    "no token": (TOKEN, Fault(500)),
    "wrong bytes": (BLOCK, Fault(flip_bit=True)),
}


class PerStep:
    """Answers requests about the files of a step, its own or those of Xet, with the faults of that step."""

    def __init__(self, faults: dict[int, list[tuple[str, Fault]]]) -> None:
        self.faults = faults
        self.names: dict[str, int] = {}

    def know(self, hub: LoopbackHub) -> None:
        assert hub.xet is not None
        for step in self.faults:
            revision = hub.find("test/a", f"step{step}")
            assert revision is not None
            name = hub.xet.name(revision.files[WEIGHTS], revision.sha(WEIGHTS))
            blocks = [term["hash"] for term in hub.xet.rebuild(name, "", None)["terms"]]  # type: ignore[index]
            self.names |= dict.fromkeys([revision.commit, name, *blocks], step)

    def __call__(self, request: Request) -> Fault | None:
        step = next((step for name, step in self.names.items() if name in request.path), None)
        if step is None:
            return None
        return next((fault for part, fault in self.faults[step] if part and part in request.path), None)

    def count(self, hub: LoopbackHub, step: int, part: str) -> int:
        return sum(
            self.names.get(name) == step and part in request.path and request.method == "GET"
            for request in hub.requests
            for name in self.names
            if name in request.path
        )


def test_every_way_in_which_xet_fails_ends_in_the_file_over_plain_http(tmp_path: Path) -> None:
    root = write_files(tmp_path / "series", len(MOODS))
    faults = PerStep({step: [mood] for step, mood in enumerate(MOODS.values())})
    with LoopbackHub(serve_folder(root, "test/a"), faults, xet=True) as hub:
        faults.know(hub)
        told, errors = fetch(hub, tmp_path, threads=len(MOODS))
        by_http = {mood: faults.count(hub, step, f"/{WEIGHTS}") for step, mood in enumerate(MOODS)}
        tokens = faults.count(hub, list(MOODS).index("no token"), TOKEN)
    assert {mood: told[str(step)][0] for step, mood in enumerate(MOODS)} == dict.fromkeys(MOODS, "ok")
    assert by_http == {mood: int(mood != "all well") for mood in MOODS}
    assert tokens == 1  # not once more for half a minute
    assert "the Hub answers 500 where a token for Xet is asked for; once more by plain HTTP" in errors
    for step in range(len(MOODS)):
        assert (tmp_path / "store" / f"step{step}" / WEIGHTS).read_bytes() == (
            root / f"step{step}" / WEIGHTS
        ).read_bytes()
    # neither logs nor caches of Xet are left, in the run or in the user's
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == sorted(f"step{n}" for n in range(len(MOODS)))
    assert not list((tmp_path / "cache").rglob("*xet*"))


def test_plain_http_goes_on_from_what_came_by_xet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback_xet, "PER_BLOCK", 4)  # 256 KiB
    root = write_files(tmp_path / "series", 1, 4_000_000)
    blocks: list[str] = []

    def fault(request: Request) -> Fault | None:
        if BLOCK not in request.path:
            return None
        if request.path not in blocks:
            blocks.append(request.path)
        return Fault(cut_after=1000, stall=600) if blocks.index(request.path) >= 10 else None

    with LoopbackHub(serve_folder(root, "test/a"), fault, xet=True) as hub:
        told, _ = fetch(hub, tmp_path)
        (asked,) = [request.range for request in hub.requests if request.path.endswith(WEIGHTS) and request.range]
    assert told["0"][0] == "ok"
    assert asked is not None
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= 256 * 2**10
    assert (tmp_path / "store" / "step0" / WEIGHTS).read_bytes() == (root / "step0" / WEIGHTS).read_bytes()


def test_after_two_failures_in_a_row_xet_is_asked_no_more(tmp_path: Path) -> None:
    root = write_files(tmp_path / "series", 4)
    with LoopbackHub(
        serve_folder(root, "test/a"), lambda request: Fault(404) if CAS in request.path else None, xet=True
    ) as hub:
        told, errors = fetch(hub, tmp_path, failures=2, threads=1)
        tokens = sum(TOKEN in request.path for request in hub.requests)
    assert {text for text, _ in told.values()} == {"ok"}
    assert tokens == 2
    assert "test/a: Xet failed 2 times in a row: plain HTTP from here on" in errors


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("xet")
    for step in range(3):
        trainable = ARCHITECTURES["gpt_neox"](Shape(2, 64, 4, 256, 48, 41, True), seed=step)
        write_checkpoint(root / f"step{step}", trainable, step, tokens=step)
    return root


PROBES = ["--tasks", "ADD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=9"]


def start(hub: LoopbackHub, folder: Path, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pythiageo", "analyze", "test/a", "--out", str(folder / "run"), *PROBES]
    environment = {**os.environ, **hub.environment(folder / "cache"), **SHORT, **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_checkpoint_that_comes_neither_way_is_a_row_and_the_run_goes_on(series: Path, tmp_path: Path) -> None:
    faults = PerStep({1: [(BLOCK, Fault(cut_after=1000, stall=600)), (f"/{WEIGHTS}", Fault(cut_after=9, stall=600))]})
    with LoopbackHub(serve_folder(series, "test/a"), faults, xet=True) as hub:
        faults.know(hub)
        _, errors = (process := start(hub, tmp_path)).communicate(timeout=240)
        by_xet = sum(BLOCK in request.path for request in hub.requests)
    assert process.returncode == 1, errors
    rows = {row["step"]: row for row in read_manifest(tmp_path / "run")["checkpoints"]}
    assert {step: row["status"] for step, row in rows.items()} == {0: "ok", 1: "unreadable", 2: "ok"}
    assert rows[1]["reason"].startswith("test/a step1: could not be fetched: ")
    assert "; then, by plain HTTP, nothing came for 8 s" in rows[1]["reason"]
    assert by_xet >= 3
    assert not (tmp_path / "run" / "downloads").exists()


@pytest.mark.parametrize(
    ("xet", "kind"), [(True, signal.SIGINT), (False, signal.SIGINT), (True, signal.SIGTERM)], ids=str
)
def test_a_fetch_that_stalls_ends_with_ctrl_c(xet: bool, kind: signal.Signals, series: Path, tmp_path: Path) -> None:
    stalls: list[str] = []

    def fault(request: Request) -> Fault | None:
        if request.method == "GET" and (BLOCK in request.path or request.path.endswith(WEIGHTS)):
            stalls.append(request.path)
            return Fault(cut_after=1000, stall=600)
        return None

    patient = {"PYTHIAGEO_HUB_STALL": "600", "HF_HUB_DOWNLOAD_TIMEOUT": "600"}
    with LoopbackHub(serve_folder(series, "test/a"), fault, xet=xet) as hub:
        process = start(hub, tmp_path, **patient)
        until = time.monotonic() + 120
        while not stalls and time.monotonic() < until:
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(kind)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=30)
        waited = time.monotonic() - asked
    print(f"{kind.name} to the prompt, {'Xet' if xet else 'HTTP'}: {waited:.2f} s")
    assert process.returncode == 130, errors
    assert waited < 10  # 0.5 s where the machine has nothing else to do
    assert "interrupted; what was measured is kept" in errors
    assert read_manifest(tmp_path / "run")["status"] == "interrupted"
    assert children  # the one that fetched
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_a_listing_that_stalls_ends_with_ctrl_c(series: Path, tmp_path: Path) -> None:
    stalls: list[str] = []

    def fault(request: Request) -> Fault | None:
        if "/tree/" not in request.path:
            return None
        stalls.append(request.path)
        return Fault(cut_after=0, stall=600)

    with LoopbackHub(serve_folder(series, "test/a"), fault, xet=True) as hub:
        process = start(hub, tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="600")
        until = time.monotonic() + 120
        while not stalls and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert time.monotonic() - asked < 10
