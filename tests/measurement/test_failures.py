"""An error over one checkpoint or one measure: its row has the whole reason, the log the traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.errors import LONGEST, CheckpointError, MachineError, UserError, quote_error
from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.measures import participation_ratio
from pythiageo.lens.bridge import BridgeReader
from pythiageo.measurement import landscape
from pythiageo.measurement import scores as scoring
from pythiageo.measurement.failures import Failures, describe_error
from pythiageo.measurement.landscape import Landscape
from pythiageo.observations import read_manifest, read_observations
from pythiageo.series.sources.folder import FolderCheckpoint

FEW = ["--tasks", "ADD", "--set", "probes.score_examples=3", "--set", "probes.geometry_examples=6",
       "--readouts", "answer/centred", "--quiet"]  # fmt: skip
STEPS = (0, 10, 20)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("failures") / "series", STEPS)


@pytest.fixture(scope="module")
def sound(series: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    out = tmp_path_factory.mktemp("failures") / "sound"
    assert cli(["analyze", str(series), "--name", "a", "--out", str(out), *FEW]) == 0
    return read_observations(out)


def analyze(series: Path, out: Path, *arguments: str) -> int:
    return cli(["analyze", str(series), "--name", "a", "--out", str(out), *FEW, *arguments])


def log(out: Path) -> dict[int, dict[str, Any]]:
    lines = (out / "log.jsonl").read_text().split("\n")
    return {one["step"]: one for one in map(json.loads, filter(None, lines))}


class SurpriseError(Exception):
    """One that nobody foresaw."""


SURPRISE = SurpriseError("could not do it:\n  because of\n\n  this")
PLACES = ("open", "boot", "pass")
ERRORS = [
    ("open", SURPRISE),
    ("boot", SURPRISE),
    ("pass", SURPRISE),
    ("boot", AssertionError()),
    ("open", KeyError("model.layers.0")),
    ("open", OSError(errno.EIO, "no such device")),
]


@pytest.mark.parametrize(
    ("place", "error"), ERRORS, ids=lambda one: one if isinstance(one, str) else type(one).__name__
)
def test_any_error_over_one_checkpoint_is_a_row_and_the_rest_go_on(
    place: str, error: Exception, series: Path, sound: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at: list[int] = []
    opened, booted, read = FolderCheckpoint.open_on, BridgeReader.__init__, BridgeReader.read

    def open_(self: FolderCheckpoint, device: str) -> Any:
        at.append(self.step)
        if place == "open" and self.step == 10:
            raise error
        return opened(self, device)

    def boot(self: BridgeReader, *arguments: Any, **named: Any) -> None:
        if place == "boot" and at[-1] == 10:
            raise error
        booted(self, *arguments, **named)

    def passed(self: BridgeReader, *arguments: Any) -> Any:
        if place == "pass" and at[-1] == 10:
            raise error
        return read(self, *arguments)

    monkeypatch.setattr(FolderCheckpoint, "open_on", open_)
    monkeypatch.setattr(BridgeReader, "__init__", boot)
    monkeypatch.setattr(BridgeReader, "read", passed)
    out = tmp_path / "run"
    assert analyze(series, out) == 1
    table = read_observations(out)
    assert_frame_equal(table.filter(pl.col("step") != 10), sound.filter(pl.col("step") != 10))
    row = table.filter(step=10)
    assert row.select("measure", "status").rows() == [("checkpoint", "unreadable")]
    reason = row["reason"][0]
    assert type(error).__name__ in reason
    assert " ".join(str(error).split()) in reason
    assert "\n" not in reason
    entry = {one["step"]: one for one in read_manifest(out)["checkpoints"]}[10]
    assert (entry["status"], entry["reason"]) == ("unreadable", reason)
    traceback = log(out)[10]["tracebacks"][0]
    assert traceback.startswith("Traceback (most recent call last):")
    assert "test_failures.py" in traceback
    assert "tracebacks" not in log(out)[0]
    # it is tried again, and the table is whole
    monkeypatch.undo()
    assert analyze(series, out, "--resume") == 0
    assert_frame_equal(read_observations(out), sound)


def test_one_measure_that_fails_keeps_the_others(
    series: Path, sound: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = participation_ratio.MEASURE.take

    def fail(self: Any, view: Any) -> Any:
        if self.name == "participation_ratio":
            raise SurpriseError("two\nlines")
        return take.__func__(self, view)

    monkeypatch.setattr(type(participation_ratio.MEASURE), "take", fail)
    out = tmp_path / "run"
    assert analyze(series, out) == 1
    table = read_observations(out)
    broken = pl.col("measure") == "participation_ratio"
    assert_frame_equal(table.filter(~broken), sound.filter(~broken))
    assert set(table.filter(broken).select("status", "reason").rows()) == {("failed", "SurpriseError: two lines")}
    assert table.filter(broken).height == sound.filter(broken).height
    assert {one["status"] for one in read_manifest(out)["checkpoints"]} == {"failed"}
    assert read_manifest(out)["checkpoints"][0]["reason"] == "participation_ratio: SurpriseError: two lines"
    assert all(len(line["tracebacks"]) == 1 for line in log(out).values())
    # a measure that fails at every step is not tried at every step again
    monkeypatch.setattr(FolderCheckpoint, "open_on", lambda self, device: pytest.fail("opened again"))
    assert analyze(series, out, "--resume") == 1


def test_scores_that_fail_keep_the_geometry(
    series: Path, sound: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise SurpriseError("no score")

    monkeypatch.setattr(scoring, "score", fail)
    assert analyze(series, tmp_path / "run") == 1
    table = read_observations(tmp_path / "run")
    scores = pl.col("measure").is_in(["accuracy", "log_prob"])
    assert_frame_equal(table.filter(~scores), sound.filter(~scores))
    assert set(table.filter(scores)["status"]) == {"failed"}


def test_a_standard_error_that_fails_keeps_its_value(
    series: Path, sound: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise SurpriseError("no resample")

    monkeypatch.setattr(Bootstrap, "stderrs", fail)
    assert analyze(series, tmp_path / "run", "--set", "measures.bootstrap=10") == 1
    table = read_observations(tmp_path / "run")
    assert_frame_equal(table.drop("reason"), sound.drop("reason"))
    of_site = table.filter(pl.col("site").is_not_null())
    assert set(of_site["reason"]) == {"no standard error: SurpriseError: no resample"}


LANDSCAPE = ["--measures", "rankme,gradient_rank,hessian_top,hessian_trace,llc", "--set", "measures.landscape.steps=10",
             "--set", "measures.landscape.examples=6", "--set", "measures.landscape.hessian.k=2",
             "--set", "measures.landscape.llc.draws=2", "--set", "measures.landscape.llc.burn_in=0"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("gradient_gram", {"gradient_rank"}),
        ("top_eigenvalues", {"hessian_top", "hessian_trace"}),
        ("trace", {"hessian_trace"}),
        ("measure_llc", {"llc"}),
        ("problem_of", {"gradient_rank", "hessian_top", "hessian_trace", "llc"}),
    ],
)
def test_a_landscape_measure_that_fails_keeps_the_others(
    name: str, cost: set[str], series: Path, sound: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory") if name == "trace" else SurpriseError("not for this model")

    monkeypatch.setattr(landscape, name, fail)
    out = tmp_path / "run"
    assert analyze(series, out, *LANDSCAPE, "--steps", "10") == 1
    table = read_observations(out)
    assert set(table.filter(status="failed")["measure"]) == cost
    assert_frame_equal(table.filter(measure="rankme"), sound.filter(measure="rankme", step=10))
    assert {"gradient_rank", "hessian_top", "llc"} <= set(table["measure"])
    assert read_manifest(out)["checkpoints"][0]["status"] == "failed"


def test_blocks_that_are_not_found_cost_the_landscape_alone(
    series: Path, sound: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise CheckpointError("expected one list of 2 blocks")

    monkeypatch.setattr(landscape, "block_prefix", fail)
    settings = [*LANDSCAPE[2:], "--measures", "rankme,gradient_rank", "--set", "measures.landscape.per_layer=true"]
    assert analyze(series, tmp_path / "run", *settings, "--steps", "10") == 1
    table = read_observations(tmp_path / "run")
    assert table.filter(status="failed").select("measure", "reason").rows() == [
        ("gradient_rank", "expected one list of 2 blocks")
    ]
    assert_frame_equal(table.filter(measure="rankme"), sound.filter(measure="rankme", step=10))


def test_bloom_keeps_its_rank_whatever_its_gradients_do(tmp_path: Path) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    from pythiageo.probes import tokenizer

    torch.manual_seed(0)
    folder = tmp_path / "series" / "step0"
    BloomForCausalLM(BloomConfig(vocab_size=41, hidden_size=32, n_layer=2, n_head=4)).save_pretrained(folder)
    tokenizer.save(folder)
    code = analyze(tmp_path / "series", tmp_path / "run", "--measures", "rankme,gradient_rank")
    table = read_observations(tmp_path / "run")
    assert set(table.filter(measure="rankme")["status"]) == {"ok"}
    told = table.filter(measure="gradient_rank")
    assert told.height == 1
    assert code == (told["status"][0] == "failed")


def test_a_probe_set_whose_passes_fail_keeps_the_others(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pythiageo.probes.tokenizer import VOCABULARY

    tasks = ["--tasks", "PAR,CMP", "--set", 'probes.levels=["L1"]', "--measures", "rankme,linear_probe"]
    assert analyze(series, tmp_path / "whole", *tasks, "--steps", "0") == 0
    whole = read_observations(tmp_path / "whole")
    read = BridgeReader.read

    def fail(self: BridgeReader, ids: torch.Tensor, *given: Any) -> Any:
        if int(ids[0, 1]) == VOCABULARY["P"]:
            raise SurpriseError("not this one")
        return read(self, ids, *given)

    monkeypatch.setattr(BridgeReader, "read", fail)
    assert analyze(series, tmp_path / "run", *tasks, "--steps", "0") == 1
    table = read_observations(tmp_path / "run")
    lost = pl.col("status") == "failed"
    assert set(table.filter(lost)["task"]) == {"PAR"}
    keys = ["task", "level", "site", "readout", "measure"]
    assert_frame_equal(table.select(keys), whole.select(keys))
    assert_frame_equal(table.filter(~lost), whole.join(table.filter(~lost).select(keys), on=keys, nulls_equal=True))
    assert {"rankme", "accuracy", "linear_probe"} <= set(table.filter(lost)["measure"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no such thing"), 2),
        (MachineError("the disk is full"), 3),
        (OSError(errno.ENOSPC, "No space left on device"), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=["request", "machine", "disk", "interrupted"],
)
def test_what_concerns_more_than_one_checkpoint_ends_the_run(
    error: BaseException, code: int, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FolderCheckpoint, device: str) -> Any:
        raise error

    monkeypatch.setattr(FolderCheckpoint, "open_on", fail)
    assert analyze(series, tmp_path / "run") == code
    if code == 2:  # nothing is left of what cannot be done
        assert not (tmp_path / "run").exists()
    else:
        assert read_manifest(tmp_path / "run")["checkpoints"] == []


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("CUDA error: assert")],
)
def test_memory_and_a_lost_device_are_not_the_checkpoints(error: Exception) -> None:
    with pytest.raises(type(error)):
        Failures().reason(error)


def test_reasons_are_whole_in_one_line_and_bounded() -> None:
    assert quote_error(ValueError("first:\n\n  second\r\n third")) == "first: second third"
    assert quote_error(ValueError()) == "ValueError"
    long = quote_error(ValueError("a" * 5000 + "z"))
    assert len(long) <= LONGEST
    assert long.startswith("aaa")
    assert long.endswith("az")
    assert describe_error(KeyError("x")) == "KeyError: 'x'"
    with pytest.raises(SurpriseError) as caught:
        raise SurpriseError
    assert describe_error(caught.value).startswith("SurpriseError in measurement/test_failures.py, line ")


def test_a_training_goes_on_over_a_checkpoint_that_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["model.layers=2", "model.d_model=16", "model.heads=2", "model.d_ff=32", "training.stop=4",
            'training.checkpoints="0,2,4"', "probes.score_examples=3", "probes.geometry_examples=6",
            'probes.tasks=["ADD"]']  # fmt: skip
    arguments = ["demo/tasks.toml", "--quiet", *[part for one in sets for part in ("--set", one)]]
    assert cli(["train", *arguments, "--out", str(tmp_path / "whole")]) == 0
    whole = read_observations(tmp_path / "whole")
    taken = Landscape.rows

    def fail(self: Landscape, *given: Any) -> Any:
        if given[4].step == 2:
            raise SurpriseError("not now")
        return taken(self, *given)

    monkeypatch.setattr(Landscape, "rows", fail)
    out = tmp_path / "run"
    assert cli(["train", *arguments, "--out", str(out)]) == 1
    table = read_observations(out)
    told = table.filter(step=2)
    assert told.select("status", "reason").rows() == [("unreadable", "step2: SurpriseError: not now")]
    assert_frame_equal(table.filter(pl.col("step") != 2), whole.filter(pl.col("step") != 2))
    assert told["weight_sha"].to_list() == whole.filter(step=2)["weight_sha"].unique().to_list()
    assert "SurpriseError" in log(out)[2]["tracebacks"][0]


def test_files_of_one_folder_that_cannot_be_read_are_its_own(
    series: Path, sound: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pythiageo.series.files.hash_cache import HashMemory

    sha256 = HashMemory.sha256

    def fail(self: HashMemory, path: Path) -> str:
        if path.parent.name == "step10":
            raise PermissionError(errno.EACCES, "Permission denied")
        return sha256(self, path)

    monkeypatch.setattr(HashMemory, "sha256", fail)
    assert analyze(series, tmp_path / "run") == 1
    table = read_observations(tmp_path / "run")
    assert_frame_equal(table.filter(pl.col("step") != 10), sound.filter(pl.col("step") != 10))
    assert "Permission denied" in table.filter(step=10)["reason"][0]


def test_a_traceback_is_not_the_exit_code_of_a_finished_run() -> None:
    code = "import pythiageo.cli.app as a, pythiageo.__main__ as m; a.get_command = lambda *_: 1 / 0; m.main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr
