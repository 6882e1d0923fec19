"""Whole runs: both worlds measured alike, nothing lost, nothing silently wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from onhub import Done, command
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.errors import MachineError, UserError
from pythiageo.events import events
from pythiageo.observations import read_manifest, read_observations
from pythiageo.series.hub.loopback import LoopbackHub, serve_folder

TINY = [
    "--set", "model.layers=2", "--set", "model.d_model=32", "--set", "model.heads=4", "--set", "model.d_ff=64",
    "--set", "training.batch_size=8", "--set", "training.warmup=5", "--set", "probes.score_examples=12",
    "--set", "probes.geometry_examples=30", "--quiet",
]  # fmt: skip
DEMO = ["demo/tasks.toml", *TINY]
NEOX = ["demo/pythia.toml", *TINY]
PROBES = ["--set", "probes.score_examples=12", "--set", "probes.geometry_examples=30", "--quiet"]
TWO_TASKS = [*TINY, "--set", "probes.tasks=['ADD', 'COPY']"]
"""Enough where the point is that nothing is lost."""
TWO = ["demo/tasks.toml", *TWO_TASKS]
STEPS = ["--set", "training.stop=25", "--set", 'training.checkpoints="0-25:5"']
IDENTITY = ["run", "series", "regime", "size", "seed", "weight_sha"]
"""Columns that say who measured; the weight sha is compared by itself."""


def train(out: Path, *arguments: str) -> int:
    return cli(["train", *arguments, "--out", str(out)])


def compare_worlds(live: pl.DataFrame, analyzed: pl.DataFrame) -> float:
    """Assert equal rows, statuses and reasons; return the largest relative difference of a value."""
    of_training = ["held_out_loss", "prompts_seen", "accuracy_unseen"]  # a saved checkpoint does not say what was met
    live = live.filter(~pl.col("measure").is_in(of_training))
    keys = ["step", "task", "level", "layer", "site", "readout", "measure"]
    both = live.join(analyzed, on=keys, how="full", nulls_equal=True, suffix="_analyzed", validate="1:1")
    assert both.height == live.height == analyzed.height
    for column in ("status", "reason", "n", "tokens", "probe_set", "weight_sha"):
        assert both[column].eq_missing(both[f"{column}_analyzed"]).all(), column
    found = both.filter(pl.col("status") == "ok")
    difference = (found["value"] - found["value_analyzed"]).abs() / found["value"].abs().clip(1e-3)
    worst = found.with_columns(difference=difference).sort("difference").tail(1)
    assert difference.len() == 0 or float(difference.max()) <= 1e-4, worst
    return float(difference.max() or 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tasks"
    assert train(folder, *DEMO, *STEPS) == 0
    return folder


@pytest.fixture(scope="module")
def trained_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "two"
    assert train(folder, *TWO, *STEPS) == 0
    return folder


@pytest.fixture(scope="module")
def trained_neox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "neox"
    assert train(folder, *NEOX, "--set", "training.stop=16") == 0
    return folder


def test_live_and_saved_checkpoints_are_measured_alike(trained: Path, tmp_path: Path) -> None:
    assert cli(["analyze", str(trained), "--out", str(tmp_path / "a"), *PROBES]) == 0
    live, analyzed = read_observations(trained), read_observations(tmp_path / "a")
    assert live["step"].unique().sort().to_list() == [0, 5, 10, 15, 20, 25]
    assert live["readout"].drop_nulls().n_unique() == 10
    assert live["site"].drop_nulls().n_unique() == 3
    worst = compare_worlds(live, analyzed)
    print(f"largest relative difference, gpt2: {worst:.2e}")
    assert read_manifest(tmp_path / "a")["regime"] == "task-aligned"


def analyze_served(series: Path, out: Path, *arguments: str) -> Done:
    with LoopbackHub(serve_folder(series, "test/neox")) as hub:
        return command(hub, out.parent / "cache", "analyze", "test/neox", "--out", str(out), *PROBES, *arguments)


def test_a_gpt_neox_series_from_the_hub_is_measured_alike(trained_neox: Path, tmp_path: Path) -> None:
    done = analyze_served(trained_neox, tmp_path / "a", "--no-audit")
    assert done.returncode == 0, done.stderr
    live, analyzed = read_observations(trained_neox), read_observations(tmp_path / "a")
    assert live["step"].unique().sort().to_list() == [0, 1, 2, 4, 8, 16]
    worst = compare_worlds(live, analyzed)
    print(f"largest relative difference, gpt_neox: {worst:.2e}")
    # the first update has learning rate 0, as in Pythia: two steps, one set of weights
    shas = live.group_by("step").agg(pl.col("weight_sha").first()).sort("step")["weight_sha"].to_list()
    assert shas[0] == shas[1]
    assert len(set(shas[1:])) == 5
    # parameters are counted on the plain module, not on TransformerLens' copies
    assert read_manifest(tmp_path / "a")["model"]["parameters"] == read_manifest(trained_neox)["model"]["parameters"]
    assert not (tmp_path / "a" / "audit.json").exists()


def test_step_1_is_step_0_and_is_not_measured_twice(trained_neox: Path, tmp_path: Path) -> None:
    done = analyze_served(trained_neox, tmp_path / "a")
    assert done.returncode == 0, done.stderr
    live, analyzed = read_observations(trained_neox), read_observations(tmp_path / "a")
    compare_worlds(live.filter(pl.col("step") != 1), analyzed.filter(pl.col("step") != 1))
    [row] = analyzed.filter(pl.col("step") == 1).rows(named=True)
    assert (row["measure"], row["status"], row["value"]) == ("checkpoint", "same-as-neighbour", None)
    assert row["reason"] == "holds the weights of step 0, where they are measured: one observation"
    assert row["weight_sha"] == analyzed.filter(pl.col("step") == 0)["weight_sha"][0]
    assert row["tokens"] is None  # this repository says them in a file of the revision, which is not fetched
    # what is read from the table is what is read where both were measured
    for protocol in ("billa-v4", "pythiageo"):
        same = [events(table, protocol) for table in (live.with_columns(run=pl.lit("a")), analyzed)]
        keep = ["task", "level", "event", "status", "step", "value"]
        assert_frame_equal(same[0].select(keep), same[1].select(keep), rel_tol=1e-4)
    audit = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert audit["summary"] == {"ok": 4, "same-as-neighbour": 2}


def test_a_neighbour_is_measured_where_the_first_cannot_be(trained_neox: Path, tmp_path: Path) -> None:
    series = tmp_path / "series"
    shutil.copytree(trained_neox / "checkpoints", series)
    (series / "step0" / "config.json").unlink()
    arguments = ["analyze", str(series), "--steps", "0,1,2", *PROBES]
    assert cli([*arguments, "--out", str(tmp_path / "a")]) == 1
    told = [checkpoint["status"] for checkpoint in read_manifest(tmp_path / "a")["checkpoints"]]
    assert told == ["unreadable", "ok", "ok"]
    compare_worlds(
        read_observations(trained_neox).filter(pl.col("step").is_in([1, 2])),
        read_observations(tmp_path / "a").filter(pl.col("step") > 0),
    )
    # step 1 alone is measured as itself
    assert cli(["analyze", str(series), "--steps", "1", *PROBES, "--out", str(tmp_path / "b")]) == 0


def test_values_do_not_depend_on_batching(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert cli(["analyze", str(trained), "--steps", "25", "--out", str(out), *PROBES,
                "--set", "compute.batch_tokens=1"]) == 0  # fmt: skip
    compare_worlds(read_observations(trained).filter(pl.col("step") == 25), read_observations(out))


def test_the_table_and_manifest_say_what_was_done(trained: Path) -> None:
    table = pythiageo.open_run(trained).observations
    manifest = read_manifest(trained)
    geometry = table.filter(pl.col("readout").is_not_null() & (pl.col("step") == 25))
    assert geometry.height == 8 * 3 * 10 * 3  # tasks, sites, readouts, measures
    assert set(geometry["level"]) == {"mixed"}
    scores = table.filter(pl.col("readout").is_null() & (pl.col("step") == 25))
    assert scores.height == 8 * 3 * 6  # tasks, levels, scores with their controls and what training has met
    assert manifest["status"] == "complete"
    assert manifest["config"]["training"]["steps"] == 100_000
    assert manifest["config"]["model"]["layers"] == 2
    assert manifest["provenance"]["packages"]["torch"].startswith("2.")
    assert {len(p["hash"]) for p in manifest["probe_sets"]} == {12}
    assert [c["status"] for c in manifest["checkpoints"]] == ["ok"] * 6
    tokens = table.group_by("step").agg(pl.col("tokens").first()).sort("step")["tokens"]
    assert tokens[0] == 0
    assert tokens.is_sorted()


def test_the_natural_twin_reports_its_corpus_and_held_out_loss(tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("\n\n".join(f"The {i}th paragraph of a small book, with words in it." for i in range(2000)))
    assert train(tmp_path / "twin", "demo/english.toml", *TWO_TASKS, *STEPS, "--corpus", str(text)) == 0
    manifest, table = read_manifest(tmp_path / "twin"), read_observations(tmp_path / "twin")
    assert manifest["corpus"]["source"] == "mine.txt"
    assert len(manifest["corpus"]["sha256"]) == 64
    assert manifest["training"]["epochs"] == pytest.approx(25 * 8 * 48 / manifest["corpus"]["train_tokens"])
    losses = table.filter(pl.col("measure") == "held_out_loss").sort("step")["value"]
    assert len(losses) == 6
    assert losses[-1] < losses[0]


# nothing is lost


LONG = ["--set", "training.stop=500", "--set", 'training.checkpoints="0,5,500"']
"""Long enough to be met while it trains."""


def start(out: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "pythiageo", "train", *TWO, *arguments, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_part(out: Path, step: int, process: subprocess.Popen) -> None:
    part = out / "observations" / f"step-{step:08d}.parquet"
    deadline = time.monotonic() + 120
    while not part.exists():
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_at_any_time_and_resumed_is_as_if_never_interrupted(trained_two: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for step, arguments in ((5, []), (10, ["--resume"])):
        process = start(out, *STEPS, *arguments)
        wait_for_part(out, step, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert read_manifest(out)["status"] == "running"
    assert train(out, *TWO, *STEPS, "--resume") == 0
    assert (out / "observations.parquet").read_bytes() == (trained_two / "observations.parquet").read_bytes()
    last = "checkpoints/step25/model.safetensors"
    assert (out / last).read_bytes() == (trained_two / last).read_bytes()
    assert read_manifest(out)["checkpoints"] == read_manifest(trained_two)["checkpoints"]


def test_an_analysis_goes_on_where_it_was_killed(trained_two: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = [str(trained_two), "--name", "again", "--tasks", "ADD,COPY", *PROBES]
    assert cli(["analyze", *arguments, "--out", str(whole)]) == 0
    assert cli(["analyze", *arguments, "--out", str(broken)]) == 0
    # as a kill leaves it: two parts missing, no whole table, a half-written part
    (broken / "observations.parquet").unlink()
    for step in (10, 25):
        (broken / "observations" / f"step-{step:08d}.parquet").unlink()
    kept = (broken / "observations" / "step-00000005.parquet").stat().st_mtime_ns
    assert cli(["analyze", *arguments, "--out", str(broken), "--resume"]) == 0
    assert (broken / "observations.parquet").read_bytes() == (whole / "observations.parquet").read_bytes()
    assert (broken / "observations" / "step-00000005.parquet").stat().st_mtime_ns == kept


def test_ctrl_c_leaves_a_resumable_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(out, *LONG)
    wait_for_part(out, 5, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what was measured is kept" in errors
    assert "Traceback" not in errors
    assert read_manifest(out)["status"] == "interrupted"
    assert train(out, *TWO, *LONG, "--resume") == 0


def test_two_processes_on_one_run_are_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    process = start(out, *LONG)
    wait_for_part(out, 0, process)
    try:
        assert train(out, *TWO, *LONG, "--resume") == 2
        assert "another process is working on this run" in capsys.readouterr().err
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_jobs_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    config = (Path(__file__).parents[2] / "configs" / "demo" / "tasks.toml").read_text()
    (tmp_path / "other.toml").write_text(config.replace('name = "demo-tasks"', 'name = "other"'))
    command = [sys.executable, "-m", "pythiageo", "train", "demo/tasks.toml", "other.toml", "--jobs", "2"]
    process = subprocess.Popen([*command, *TWO_TASKS, *LONG], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    runs = [tmp_path / "outputs" / name for name in ("demo-tasks", "other")]
    for run in runs:
        wait_for_part(run, 0, process)
    process.kill()
    deadline = time.monotonic() + 60
    while {read_manifest(run)["status"] for run in runs} != {"interrupted"} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [read_manifest(run)["status"] for run in runs] == ["interrupted"] * 2
    process.communicate()


def test_a_full_disk_stops_the_run_and_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    real = os.replace

    def full(source: str | Path, target: str | Path) -> None:
        if "step-00000015" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert train(out, *TWO, *STEPS) == MachineError.exit_code
    message = capsys.readouterr().err
    assert "full" in message or "No space left" in message
    assert "Traceback" not in message
    monkeypatch.undo()
    assert read_observations(out)["step"].unique().sort().to_list() == [0, 5, 10]
    assert train(out, *TWO, *STEPS, "--resume") == 0
    assert read_observations(out)["step"].n_unique() == 6


def test_a_run_that_is_there_is_not_touched_unasked(trained_two: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained_two, copy)
    before = (copy / "observations.parquet").read_bytes()
    assert train(copy, *TWO, *STEPS) == 2
    assert (
        "holds a run already (complete): --resume goes on with it, --overwrite starts anew" in capsys.readouterr().err
    )
    assert train(copy, *TWO, *STEPS, "--set", "seed=7", "--resume") == 2
    assert "holds a run of another config; seed differ" in capsys.readouterr().err
    assert (copy / "observations.parquet").read_bytes() == before
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("years of work")
    assert train(strange, *TWO, "--overwrite") == 2
    assert "not a run folder, and not empty" in capsys.readouterr().err
    assert (strange / "thesis.txt").exists()


def test_overwriting_starts_anew_and_leaves_other_files(trained_two: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained_two, copy)
    (copy / "notes.txt").write_text("mine")
    assert train(copy, *TWO, "--set", "training.stop=5", "--set", 'training.checkpoints="0,5"', "--overwrite") == 0
    assert read_observations(copy)["step"].unique().sort().to_list() == [0, 5]
    assert not (copy / "checkpoints" / "step25").exists()
    assert (copy / "notes.txt").read_text() == "mine"


def test_the_same_config_gives_the_same_bits(trained_two: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert train(again, *TWO, *STEPS) == 0
    assert_frame_equal(read_observations(again), read_observations(trained_two))
    other = tmp_path / "other"
    assert train(other, *TWO, *STEPS, "--set", "seed=7") == 0
    assert not read_observations(other)["value"].equals(read_observations(trained_two)["value"])


# what cannot be measured says why, and the rest goes on


def test_damaged_checkpoints_get_a_status_and_the_rest_go_on(trained: Path, tmp_path: Path) -> None:
    series = tmp_path / "series"
    shutil.copytree(trained / "checkpoints", series)
    weights = load_file(series / "step5" / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][0, 0] = float("nan")
    save_file(weights, series / "step5" / "model.safetensors", metadata={"format": "pt"})
    content = (series / "step10" / "model.safetensors").read_bytes()
    (series / "step10" / "model.safetensors").write_bytes(content[:-1000])
    (series / "step15" / "config.json").unlink()
    (series / "step20" / "tokenizer.json").unlink()
    out = tmp_path / "a"
    assert cli(["analyze", str(series), "--out", str(out), "--regime", "task-aligned", *PROBES]) == 1
    table = read_observations(out)
    by_step = {step[0]: rows for step, rows in table.group_by("step")}
    sound, nonfinite = by_step[25], by_step[5]
    assert set(sound["status"]) == {"ok"}
    # every observation that would have been, without a value; the controls need no weights
    keys = ["task", "level", "site", "readout", "measure"]
    assert_frame_equal(nonfinite.select(keys), sound.select(keys))
    lost = nonfinite.filter(~pl.col("measure").is_in(["chance_accuracy", "majority_rate"]))
    assert set(lost["status"]) == {"nonfinite"}
    assert lost["value"].is_null().all()
    assert "transformer.h.1.mlp.c_fc.weight" in lost["reason"][0]
    for step in (10, 15, 20):
        assert by_step[step]["status"].to_list() == ["unreadable"]
        assert by_step[step]["value"].is_null().all()
    statuses = {c["step"]: c["status"] for c in read_manifest(out)["checkpoints"]}
    assert statuses == {0: "ok", 5: "nonfinite", 10: "unreadable", 15: "unreadable", 20: "unreadable", 25: "ok"}


def test_a_diverging_run_is_told_live_as_it_is_from_its_checkpoints(tmp_path: Path) -> None:
    out = tmp_path / "run"
    diverging = [
        "--set",
        "training.peak_lr=1e60",
        "--set",
        "training.clip=1e30",
        "--set",
        "training.warmup=0",
    ]
    assert train(out, *DEMO, "--set", "training.stop=8", "--set", 'training.checkpoints="0-8:1"', *diverging) == 1
    live = read_observations(out)
    assert "nonfinite" in set(live["status"])
    assert live.filter(pl.col("status") != "ok")["value"].is_null().all()
    # training stops at the next loss, so the first checkpoint after the overflow is the last
    assert sorted(set(live["step"])) == [0, 1]
    assert cli(["analyze", str(out), "--out", str(tmp_path / "a"), "--no-audit", *PROBES]) == 1
    compare_worlds(
        live.filter(pl.col("status") != "ok"),
        read_observations(tmp_path / "a").filter(pl.col("status") != "ok"),
    )


@pytest.mark.parametrize(
    ("target", "steps", "message"),
    [
        ("no/such/folder/here", None, "no/such/folder/here"),
        ("{empty}", None, "checkpoint"),
        ("{trained}", "7", "7"),
        ("{trained}", "sometimes", "sometimes"),
    ],
)
def test_wrong_targets_and_steps_are_one_sentence(
    target: str,
    steps: str | None,
    message: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    target = target.format(empty=tmp_path / "empty", trained=trained)
    arguments = ["analyze", target, "--out", str(tmp_path / "a"), *PROBES]
    assert cli(arguments + (["--steps", steps] if steps else [])) == 2
    error = capsys.readouterr().err
    assert error.startswith("pythiageo: ")
    assert message in error
    assert "Traceback" not in error


def test_a_probe_set_longer_than_the_context_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", *DEMO, *STEPS, "--set", "model.context=24") == 2
    assert "but the model's context is 24" in capsys.readouterr().err


def test_runs_side_by_side_are_the_runs_alone(
    trained_two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.toml"
    config = (Path(__file__).parents[2] / "configs" / "demo" / "tasks.toml").read_text()
    other.write_text(config.replace('name = "demo-tasks"', 'name = "other"'))
    bad = tmp_path / "bad.toml"
    bad.write_text(config.replace('name = "demo-tasks"', 'name = "bad"'))
    (tmp_path / "outputs" / "bad").mkdir(parents=True)
    (tmp_path / "outputs" / "bad" / "something").write_text("else")
    code = cli(["train", "demo/tasks.toml", "other.toml", "bad.toml", "--jobs", "2", *TWO_TASKS, *STEPS])
    assert code == 2  # one could not start, the others were done
    for name in ("demo-tasks", "other"):
        table = read_observations(tmp_path / "outputs" / name).drop("run", "series")
        assert_frame_equal(table, read_observations(trained_two).drop("run", "series"))
    with pytest.raises(UserError, match="is not a run folder"):
        read_manifest(tmp_path / "outputs" / "bad")


def test_json_is_for_scripts(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["runs", "show", str(trained)],
        ["runs", "list", str(trained.parent)],
        ["tasks", "list"],
        ["tasks", "show", "MOD"],
        ["train", "demo/tasks.toml", "--dry-run"],
    ):
        assert cli([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)


def test_float32_is_what_is_computed(trained: Path) -> None:
    weights = load_file(trained / "checkpoints" / "step25" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
