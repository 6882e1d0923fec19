"""What training has met of the evaluation, held against the batches drawn again; prompts that are kept from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors import safe_open
from safetensors.torch import save_file

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_observations
from pythiageo.probes.probeset import count_domain, draw, make_probe_set
from pythiageo.probes.task import GeneratorTask, load_tasks
from pythiageo.synthetic.batches import TaskMix, task_batches
from pythiageo.synthetic.exposure import is_held_out
from pythiageo.synthetic.trainer import Trainer

TASKS = {name: task for name, task in load_tasks().items() if isinstance(task, GeneratorTask)}
TINY = [
    "demo/tasks.toml",
    "--set", "model.layers=1", "--set", "model.d_model=8", "--set", "model.heads=1", "--set", "model.d_ff=16",
    "--set", "training.batch_size=16", "--set", "probes.score_examples=30", "--set", "probes.geometry_examples=6",
    "--set", 'data.tasks=["PAR","MUL"]', "--set", 'probes.tasks=["PAR","MUL"]', "--set", 'probes.levels=["L1","L3"]',
    "--set", 'measures.readouts=["answer/centred"]', "--quiet",
]  # fmt: skip
KEY = ["step", "task", "level", "site", "readout", "measure"]


def train(out: Path, stop: int, *arguments: str) -> pl.DataFrame:
    steps = [f"training.stop={stop}", f'training.checkpoints="0-{stop}:4"']
    assert cli(["train", *TINY, "--out", str(out), *(w for s in steps for w in ("--set", s)), *arguments]) == 0
    return read_observations(out).drop("run").sort(KEY)


@pytest.mark.parametrize("name", ["COPY", "REV", "CMP", "PAR", "ADD", "MOD", "SORT", "MUL"])
def test_the_size_of_a_domain_is_that_of_what_is_drawn(name: str) -> None:
    size = count_domain(TASKS[name], "L1")
    assert size is not None
    rng, seen = np.random.default_rng(0), set()
    for _ in range(12 * size):  # a question is missed by exp(-12), or by exp(-6) where modulo favours small ones
        seen.add(draw(TASKS[name], "L1", rng).prompt)
    assert 0.995 * size <= len(seen) <= size
    assert count_domain(load_tasks()["facts"], "L1") is None


def test_a_run_records_what_it_met_and_a_resumed_one_the_same(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 12)
    train(tmp_path / "parts", 4)
    assert_frame_equal(train(tmp_path / "parts", 12, "--resume"), whole, check_exact=True)
    batches = task_batches(TaskMix((TASKS["PAR"], TASKS["MUL"]), ("L1", "L2", "L3")), 16, 42)
    for row in whole.filter(measure="prompts_seen").iter_rows(named=True):
        met = {prompt for step in range(row["step"]) for prompt in batches(step).prompts}
        examples = make_probe_set(TASKS[row["task"]], row["level"], 30, 0).examples
        unseen = sum(example.prompt not in met for example in examples)
        assert (row["value"], row["n"]) == (pytest.approx(1 - unseen / 30), 30)
        same = {"step": row["step"], "task": row["task"], "level": row["level"]}
        beside = whole.filter(measure="accuracy_unseen", **same)
        assert beside["n"].to_list() == ([unseen] if unseen else [])
        assert (row["reason"] is None) == (unseen > 0)
        if unseen == 30:
            assert beside["value"].item() == whole.filter(measure="accuracy", **same)["value"].item()
    assert 0 < whole.filter(measure="prompts_seen", step=12)["value"].mean() < 1  # type: ignore[operator]


def test_a_state_that_does_not_say_what_was_met_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", 8)
    save = Trainer.save

    def save_as_before(trainer: Trainer, path: Path) -> None:
        save(trainer, path)
        with safe_open(path, framework="pt") as file:
            meta = {key: value for key, value in file.metadata().items() if key != "sha256"}
            tensors = {key: file.get_tensor(key) for key in file.keys() if not key.startswith("exposure")}  # noqa: SIM118
        save_file(tensors, path, metadata=meta)

    with monkeypatch.context() as earlier:
        earlier.setattr(Trainer, "save", save_as_before)
        train(tmp_path / "parts", 4)
    assert_frame_equal(train(tmp_path / "parts", 8, "--resume"), whole, check_exact=True)


def test_prompts_that_are_held_out_are_never_drawn_and_nothing_else_changes() -> None:
    tasks = (TASKS["MUL"], TASKS["MOD"])
    free, kept = (task_batches(TaskMix(tasks, ("L1", "L3"), frozenset(), share), 200, 3) for share in (0.0, 0.3))
    drawn = Counter(prompt for step in range(20) for prompt in free(step).prompts)
    out = {prompt for prompt in drawn if is_held_out(prompt, 0.3)}
    assert len(out) / len(drawn) == pytest.approx(0.3, abs=0.04)  # three standard errors of some 1,700 prompts
    assert {prompt for prompt in drawn if is_held_out(prompt, 0.1)} < out
    again = {prompt for step in range(20) for prompt in kept(step).prompts}
    assert not {prompt for prompt in again if is_held_out(prompt, 0.3)}
    assert len(again) > 1000


def test_a_run_with_a_holdout_never_meets_it(tmp_path: Path) -> None:
    rows = train(tmp_path / "run", 40, "--set", "data.holdout=0.4", "--set", "training.batch_size=64")
    parity = rows.filter(task="PAR", level="L1", measure="prompts_seen", step=40)["value"].item()
    examples = make_probe_set(TASKS["PAR"], "L1", 30, 0).examples
    assert parity == pytest.approx(1 - sum(is_held_out(example.prompt, 0.4) for example in examples) / 30)
    assert rows.filter(task="PAR", level="L1", measure="accuracy_unseen", step=40)["n"].item() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.holdout=1.5"], "data.holdout"),
        (["data.holdout=0.95", 'data.tasks=["PAR"]'], "leaves no prompt of task PAR, level L1"),
        (["data.holdout=0.2", 'data.tasks=["SHOWN"]'], "prompts of SHOWN show solved examples"),
    ],
)
def test_a_holdout_that_cannot_be_is_one_sentence(
    settings: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tasks").mkdir()
    shown = 'name="SHOWN"\nversion=1\nkind="generator"\ngenerator="add"\nprompt="ADD {input} = "\nanswer="{output}"\n'
    more = 'description="d"\nsource="s"\nshots=1\nseparator=" "\n'
    levels = "".join(f"[levels.L{i}]\ndigits=[1,1]\nchance=0.1\n" for i in (1, 2, 3))
    (tmp_path / "tasks" / "SHOWN.toml").write_text(shown + more + levels, encoding="utf-8")
    settings = [*settings, f'probes.tasks_folder="{tmp_path / "tasks"}"']
    words = [word for setting in settings for word in ("--set", setting)]
    assert cli(["train", *TINY, *words, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
