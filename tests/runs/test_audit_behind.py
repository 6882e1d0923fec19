"""The first number comes before all of a series is listed, and what the rest tells is never lost."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onhub import using
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_manifest, read_observations
from pythiageo.series.hub.loopback import Fault, LoopbackHub, Request

STEPS = (0, 10, 20, 30, 40, 50, 60)
FEW = ["--tasks", "COPY", "--set", "probes.score_examples=2", "--set", "probes.geometry_examples=3", "-q"]
CHOSEN = ["--steps", "10,30"]
FIRST = (10, 30, 60)
"""Steps whose listings the two chosen ones need: theirs, and that of the last one."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("behind"), STEPS)


class Gate:
    """A Hub whose listings of steps that are not needed first wait until something is asked for; ``fault``: what they
    answer then."""

    def __init__(self, hub: LoopbackHub, opens: Callable[[Request], bool], fault: Fault | None = None) -> None:
        first = {hub.repositories["me/series"][f"step{step}"].commit for step in FIRST}
        self._later = {one.commit for one in hub.repositories["me/series"].values()} - first
        self._opens = opens
        self._fault = fault
        self._open = threading.Event()
        self.opened: list[bool] = []

    def __call__(self, request: Request) -> Fault | None:
        if self._opens(request):
            self._open.set()
        if "/tree/" not in request.path or request.path.rpartition("/")[2] not in self._later:
            return None
        self.opened.append(self._open.wait(9))  # less than the client waits
        return self._fault


def weights_of(hub: LoopbackHub, step: int) -> Callable[[Request], bool]:
    """Return whether a request is for the weights of a step."""
    return lambda request: (
        hub.repositories["me/series"][f"step{step}"].commit in request.path
        and request.path.endswith("model.safetensors")
    )


@pytest.fixture
def hub(root: Path, tmp_path: Path) -> Iterator[LoopbackHub]:
    folders = {}
    for step in STEPS:
        shutil.copytree(root / f"step{step}", tmp_path / "served" / f"step{step}")
        folders[f"step{step}"] = tmp_path / "served" / f"step{step}"
    with LoopbackHub({"me/series": folders}) as hub, using(hub, tmp_path / "hub"):
        yield hub


def repeat(hub: LoopbackHub, step: int, of: int) -> None:
    """Let a step serve the weights of another; call it before the Hub is asked for anything."""
    folders = [hub.repositories["me/series"][f"step{one}"].folder for one in (step, of)]
    shutil.copy(folders[1] / "model.safetensors", folders[0] / "model.safetensors")


def analyze(out: Path, *more: str) -> int:
    return cli(["analyze", "me/series", *CHOSEN, *FEW, "--out", str(out), *more])


def test_weights_are_asked_for_before_all_is_listed(hub: LoopbackHub, tmp_path: Path) -> None:
    gate = hub.fault = Gate(hub, weights_of(hub, 10))
    assert analyze(tmp_path / "soon") == 0
    assert len(gate.opened) == len(STEPS) - len(FIRST)
    assert all(gate.opened)  # none was answered before weights were asked for
    manifest = read_manifest(tmp_path / "soon")
    assert (manifest.status, manifest.unlisted, manifest.remarks) == ("complete", None, [])
    audit = json.loads((tmp_path / "soon" / "audit.json").read_text())
    assert [step["step"] for step in audit["steps"]] == list(STEPS)
    before = len(gate.opened)
    assert analyze(tmp_path / "again") == 0
    assert len(gate.opened) == before  # what was listed is kept
    assert read_observations(tmp_path / "again").drop("run").equals(read_observations(tmp_path / "soon").drop("run"))


@pytest.mark.parametrize(("step", "of"), [(20, 10), (40, 30)])
def test_what_the_rest_tells_takes_back_what_was_measured(step: int, of: int, hub: LoopbackHub, tmp_path: Path) -> None:
    """A step that was not chosen serves the weights of one that was: found when all are listed, and said as ever."""
    repeat(hub, step, of)
    hub.fault = Gate(hub, weights_of(hub, 30))
    assert analyze(tmp_path / "soon") == 1
    assert any(weights_of(hub, of)(request) for request in hub.requests)  # it was measured
    hub.fault = lambda _: None
    assert analyze(tmp_path / "whole") == 1  # every listing is kept by now
    soon, whole = (read_observations(tmp_path / name).drop("run") for name in ("soon", "whole"))
    assert soon.equals(whole)
    [row] = soon.filter(soon["step"] == of).rows(named=True)
    assert (row["measure"], row["status"]) == ("checkpoint", "suspect")
    assert f"left out by the audit: serves the weights of step {step}" in row["reason"]
    assert read_manifest(tmp_path / "soon").checkpoints == read_manifest(tmp_path / "whole").checkpoints


def test_a_run_that_ends_before_says_what_was_not_listed(
    hub: LoopbackHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repeat(hub, 20, 10)
    hub.fault = Gate(hub, weights_of(hub, 30), Fault(401))
    out = tmp_path / "run"
    sentence = "4 of 7 steps of me/series were not compared"
    assert analyze(out) == 2
    assert sentence in caplog.text
    manifest = read_manifest(out)
    assert manifest.status == "interrupted"
    assert sentence in str(manifest.unlisted)
    assert sentence in str(manifest.remarks)
    notes = json.loads((out / "audit.json").read_text())["notes"]
    assert any(sentence in note for note in notes)
    # gone on with, all is listed first: what is doubted now is no change of what was measured
    hub.fault = lambda _: None
    assert analyze(out, "--resume") == 1
    assert analyze(tmp_path / "fresh") == 1
    assert read_observations(out).drop("run").equals(read_observations(tmp_path / "fresh").drop("run"))
    assert read_manifest(out).unlisted is None
    assert read_manifest(out).remarks == []
