"""Ten seeds of one size, named as PolyPythias are: from the Hub to a claim on seeds."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from onhub import using
from tinyseries import write_series

from pythiageo.claims import Evidence, Specification
from pythiageo.claims.seeds import seeds
from pythiageo.cli.app import run as cli
from pythiageo.events import open_run
from pythiageo.observations import read_manifest
from pythiageo.runs import analyze as analysis
from pythiageo.series.hub.loopback import LoopbackHub

STEPS = (0, 1, 2)
NAMES = ["pythia-14m", *(f"pythia-14m-seed{seed}" for seed in range(1, 10))]
FEW = ["--tasks", "COPY", "--layers", "last", "--readouts", "answer/centred", "--measures", "rankme", "-q",
       "--no-audit", "--set", "probes.score_examples=2", "--set", "probes.geometry_examples=3"]  # fmt: skip


def test_ten_seeds_are_seeds_of_one_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served = {}
    for seed, name in enumerate([*NAMES, "pythia-14m-weight-seed1"]):
        root = write_series(tmp_path / "served" / name, STEPS, seed)
        served[f"EleutherAI/{name}"] = {f"step{step}": root / f"step{step}" for step in STEPS}
    with LoopbackHub(served) as hub, using(hub, tmp_path / "hub"):
        for repository in served:
            out = tmp_path / repository.rpartition("/")[2]
            assert cli(["analyze", repository, *FEW, "--out", str(out)]) == 0
    runs = [open_run(tmp_path / name) for name in NAMES]
    table = pl.concat([run.observations for run in runs])
    assert table["size"].unique().to_list() == ["pythia-14m"]
    assert table["seed"].unique().sort().to_list() == [None, *range(1, 10)]  # the name of the first one says none
    result = seeds(Evidence(table), Specification(measure="rankme"))
    floors = result.cases if result.cases is not None else pl.DataFrame()
    assert not floors.height  # no random model acquires anything
    of_seeds = result.table.filter(quantity="floor")
    assert of_seeds.select("size", "task", "runs").rows() == [("pythia-14m", "COPY", 10)]
    capsys.readouterr()
    assert cli(["claims", *(str(tmp_path / name) for name in NAMES), "--only", "seeds,floors"]) == 0
    assert "1 size" in capsys.readouterr().out
    # what seeds of the initial weights share is said by the run and by the claim
    alone = tmp_path / "pythia-14m-weight-seed1"
    said = "seeds of pythia-14m-weight-seed share the order of the data: they differ in the initial weights alone"
    manifest = read_manifest(alone)
    assert (manifest.size, manifest.seed) == ("pythia-14m-weight-seed", 1)
    assert said in (manifest.remarks or [])
    assert said in (seeds(Evidence(open_run(alone).observations), Specification(measure="rankme")).reason or "")


def test_a_run_that_was_begun_under_another_size_goes_on_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before names were read for seeds, the size of ``walk-seed3`` was ``walk-seed3``: one table is of one run."""
    target, out = str(write_series(tmp_path / "walk-seed3", STEPS)), tmp_path / "run"
    with monkeypatch.context() as before:
        before.setattr(analysis, "split_seed", lambda name: (name, None))
        assert cli(["analyze", target, *FEW, "--out", str(out)]) == 0
    assert cli(["analyze", target, *FEW, "--out", str(out), "--resume"]) == 0
    manifest = read_manifest(out)
    assert (manifest.size, manifest.seed) == ("walk-seed3", None)
