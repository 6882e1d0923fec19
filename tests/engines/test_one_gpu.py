"""Trainings side by side in one process, as on one GPU: each has the bits that it has alone."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from pythiageo.config.runs import TrainConfig, load_config
from pythiageo.engines.jobs import Failure, Job, outcome
from pythiageo.engines.one_gpu import work_side_by_side
from pythiageo.observations import read_manifest, read_observations
from pythiageo.progress import Progress, silent
from pythiageo.runs.build_training import resolve

SETS = [
    "model.layers=1", "model.d_model=16", "model.heads=2", "model.d_ff=32", "probes.score_examples=4",
    'probes.tasks=["ADD"]', "probes.geometry_examples=6", "training.stop=8", 'training.checkpoints="0,8"',
    "compute.device=cpu",
]  # fmt: skip


def job(folder: Path, seed: int, architecture: str, *sets: str) -> Job:
    own = [f"seed={seed}", f"model.architecture={architecture}", f"name=tiny-{seed}"]
    config = load_config(Path("demo/tasks.toml"), [*SETS, *own, *sets], "train")
    assert isinstance(config, TrainConfig)
    return Job(resolve(config), folder / f"tiny-{seed}")


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_each_has_the_table_that_it_has_alone(tmp_path: Path, architecture: str) -> None:
    seeds = (42, 123, 7)
    beside = [job(tmp_path / "beside", seed, architecture) for seed in seeds]
    assert work_side_by_side(beside, 3, "cpu", outcome, silent) == [0, 0, 0]
    for one, seed in zip(beside, seeds, strict=True):
        alone = job(tmp_path / "alone", seed, architecture)
        assert outcome(alone, silent) == 0
        assert read_observations(one.path).equals(read_observations(alone.path))


def test_one_failure_stops_no_other(tmp_path: Path) -> None:
    jobs = [job(tmp_path, seed, "gpt2", "training.stop=2", 'training.checkpoints="0,2"') for seed in (1, 2, 2)]
    found = work_side_by_side(jobs[:2], 2, "cpu", outcome, silent)
    assert found == [0, 0]
    again = [job(tmp_path, 1, "gpt2"), job(tmp_path, 3, "gpt2", "training.stop=2", 'training.checkpoints="0,2"')]
    failed, fine = work_side_by_side(again, 2, "cpu", outcome, silent)
    assert isinstance(failed, Failure)
    assert "holds a run already" in failed.message
    assert fine == 0


def test_ctrl_c_leaves_each_run_to_be_gone_on_with(tmp_path: Path) -> None:
    endless = ["training.stop=1000000", "training.steps=1000000", 'training.checkpoints="0,1000000"']
    jobs = [job(tmp_path, seed, "gpt2", *endless) for seed in (1, 2)]
    stepped = set[str]()

    def press(progress: Progress) -> None:
        if progress.done > 3:
            stepped.add(progress.run)
        if len(stepped) == len(jobs) and not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

    pressed = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        work_side_by_side(jobs, 2, "cpu", outcome, press)
    assert [read_manifest(one.path)["status"] for one in jobs] == ["interrupted", "interrupted"]
