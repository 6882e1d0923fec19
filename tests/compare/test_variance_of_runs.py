"""What ranks vary with between runs: planted settings and accuracies are told apart, and mistakes are sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from planted import manifest, observation, opened, table, write_run

from pythiageo.cli.app import run as command
from pythiageo.compare import Variances, divide_variance
from pythiageo.errors import UserError
from pythiageo.events import Run
from pythiageo.observations import Observation

CHOICES = list(product((16, 64), (1e-3, 3e-3), (1, 2, 3, 4, 5)))
"""Batch size, learning rate and seed of twenty runs."""
Rank = Callable[[int, float, int, str, np.random.Generator], float]


def observed(name: str, seed: int, ranks: dict[str, float], accuracies: dict[str, float]) -> list[Observation]:
    """Rows of a run whose rank falls from 20 to its floor at step 100, and is twice that at its last checkpoint."""
    found = []
    place = {"site": "blocks.1.hook_resid_post", "layer": 1, "readout": "answer/centred", "level": "mixed"}
    shared: dict[str, Any] = {"run": name, "series": name, "seed": seed}
    for step, of in ((0, 0.0), (100, 1.0), (200, 2.0)):
        for task, rank in ranks.items():
            value = of * rank if of else 20.0
            known = {"step": step, "weight_sha": f"{name}-{step}", "task": task, **shared}
            found.append(observation(measure="covariance_effective_rank", value=value, **known, **place))
            found.append(observation(measure="accuracy", level="L1", value=accuracies[task] * of / 2, **known))
    return found


def trained(rank: Rank, choices: list[tuple[int, float, int]] = CHOICES, **changed: Any) -> list[list[Any]]:
    """Return name, rows and manifest of a run for each of the choices."""
    rng = np.random.default_rng(0)
    found = []
    for batch, rate, seed in choices:
        accuracies = {task: float(rng.uniform(0.2, 0.9)) for task in ("ADD", "MOD")}
        ranks = {task: rank(batch, accuracies[task], seed, task, rng) for task in accuracies}
        name = f"b{batch}-l{rate}-s{seed}"
        rows = observed(name, seed, ranks, accuracies)
        config = {"training": {"batch_size": batch, "peak_lr": rate, "steps": 200, "stop": seed}}
        found.append([name, rows, manifest(rows, config=config, seed=seed, **changed)])
    return found


def runs(rank: Rank, **given: Any) -> list[Run]:
    return [opened(table(rows), said) for _, rows, said in trained(rank, **given)]


def shares(found: Variances, quantity: str = "floor") -> dict[str, dict[str, Any]]:
    return {row["goes_with"]: row for row in found.table.filter(quantity=quantity).rows(named=True)}


def test_ranks_that_go_with_a_setting_alone() -> None:
    """log rank = that of the batch size, 1% noise: share 1, the learning rate's and accuracy's about 0."""
    found = divide_variance(runs(lambda batch, accuracy, seed, task, rng: batch / 10 * np.exp(rng.normal(0, 0.01))))
    assert found.settings == {"training.batch_size": ["16", "64"], "training.peak_lr": ["0.001", "0.003"]}
    assert (found.runs, found.tasks, found.notes) == (20, ["ADD", "MOD"], [])
    assert found.table["quantity"].unique(maintain_order=True).to_list() == ["floor", "final rank"]
    by = shares(found)
    assert by["training.batch_size"]["share"] == pytest.approx(1, abs=0.001)
    assert by["training.batch_size"]["beyond"] > 0.8
    assert by["all settings"]["low"] > 0.99
    for name in ("training.peak_lr", "final accuracy"):
        assert by[name]["low"] < 0 < by[name]["high"]
        assert abs(by[name]["beyond"]) < 0.001
    assert by["run, whatever the task"]["share"] == pytest.approx(1, abs=0.001)
    assert by["combinations of settings"]["share"] + by["seed"]["share"] == pytest.approx(1)
    final = shares(found, "final rank")
    assert final["training.batch_size"]["share"] == pytest.approx(by["training.batch_size"]["share"])  # twice the floor


def test_ranks_that_go_with_what_was_acquired_alone() -> None:
    """log rank = 1 + accuracy in one task and 3 - accuracy in the other: a line in each task, and none beyond it."""
    rank: Rank = lambda batch, accuracy, seed, task, rng: np.exp(1 + accuracy if task == "ADD" else 3 - accuracy)  # noqa: E731
    by = shares(divide_variance(runs(rank)))
    assert by["final accuracy"]["share"] == pytest.approx(1)
    assert by["all settings"]["beyond"] == pytest.approx(0, abs=1e-9)
    assert by["task"]["share"] > 0.8  # 1.55 and 2.45, with accuracies that spread by 0.2


def test_a_run_that_is_not_finished_and_a_task_that_is_not_everywhere_are_named() -> None:
    found = runs(lambda batch, accuracy, seed, task, rng: 2 + rng.random())
    found[3] = Run(None, found[3].observations, found[3].manifest.changed(status="running"))
    found[4] = Run(None, found[4].observations.filter(task="MOD"), found[4].manifest)
    said = divide_variance(found)
    assert said.notes == [
        "b16-l0.001-s4 is left out: its training is not complete",
        "ADD is left out: not every run has its ranks and accuracies",
    ]
    assert (said.runs, said.tasks) == (19, ["MOD"])
    assert "task" not in shares(said)


def test_settings_that_vary_together_are_told() -> None:
    same = [(batch, 1e-3 if batch == 16 else 3e-3, seed) for batch in (16, 64) for seed in range(8)]
    said = divide_variance(runs(lambda batch, accuracy, seed, task, rng: batch + rng.random(), choices=same))
    assert said.notes == ["some settings vary together, so that what goes with each of them cannot be told apart"]
    assert shares(said)["training.batch_size"]["beyond"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        (CHOICES[:5], "differ in no setting"),
        ([*CHOICES, CHOICES[0]], "b16-l0.001-s1 and b16-l0.001-s1 are one training"),
        (CHOICES[::3], r"7 finished runs that differ in training.batch_size, training.peak_lr; 9 are needed"),
    ],
)
def test_mistakes(choices: list[tuple[int, float, int]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        divide_variance(runs(lambda batch, accuracy, seed, task, rng: 2 + rng.random(), choices=choices))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for name, rows, said in trained(lambda batch, accuracy, seed, task, rng: batch / 10 + rng.random()):
        folders.append(str(write_run(tmp_path / name, rows, **{key: said[key] for key in ("config", "seed")})))
    out = tmp_path / "tables"
    assert command(["variance", *folders, "--resamples", "99", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["runs"] == 20
    assert printed["place"]["site"] == "last-block"
    assert len(printed["table"]) == pl.read_csv(out / "variance.csv").height == 2 * (3 + 2 + 5)
    values = pl.read_csv(out / "values.csv")
    assert values.to_dicts() == printed["values"]
    assert values.columns[2:] == [
        "training.batch_size", "training.peak_lr", "task", "floor", "final_rank", "accuracy_L1",
    ]  # fmt: skip
    assert values["final_rank"].to_list() == pytest.approx((2 * values["floor"]).to_list())
    assert command(["variance", *folders]) == 0
    assert "training.batch_size: 16, 64" in capsys.readouterr().out
    assert command(["variance", *folders[:5]]) == 2
    assert capsys.readouterr().err == (
        "pythiageo: these runs differ in no setting of their training, so that none can be asked about\n"
    )
