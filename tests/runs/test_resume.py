"""A run goes on only with what its rows came from; what moved is named, and measured anew if that is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.engines.local import LocalPool
from pythiageo.observations import read_manifest, read_observations
from pythiageo.runs import check_sources as moved
from pythiageo.runs import provenance
from pythiageo.series.files import hash_cache as hashes
from pythiageo.series.files import tensor_files as stored
from pythiageo.series.files.weight_files import WeightFile
from pythiageo.series.hub import download as fetching
from pythiageo.series.hub.address import Address
from pythiageo.series.origin import Source
from pythiageo.series.sources.hub import HubSeries, _Known

STEPS = (0, 10, 20)
ITEMS = {"a": ("ADD 1 1 = ", "2"), "b": ("ADD 2 1 = ", "3")}


def write_tasks(folder: Path, items: dict[str, tuple[str, str]] = ITEMS, chance: float = 0.1) -> Path:
    """Two tasks of fixed items, ``a`` and ``b``."""
    folder.mkdir(exist_ok=True)
    for name, (prompt, answer) in items.items():
        item = f'{{ prompt = "{prompt}", answer = "{answer}" }}, {{ prompt = "ADD 0 3 = ", answer = "3" }}'
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\nversion = 1\nkind = "items"\ndescription = "x"\nsource = "own"\n'
            f"[levels.L1]\nchance = {chance}\nitems = [{item}]\n"
        )
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series, tasks, and a complete run of them."""
    root = tmp_path_factory.mktemp("kept")
    write_series(root / "series", STEPS)
    write_tasks(root / "tasks")
    assert analyze(root, "run") == 0
    return root


@pytest.fixture
def place(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a folder of this test's own, under the same names; hashes are remembered at once."""
    monkeypatch.setattr(hashes, "_SETTLED", -1)
    shutil.copytree(kept, tmp_path / "place")
    for path in (tmp_path / "place" / "run").rglob("manifest.json"):  # the target is part of the config
        path.write_text(path.read_text().replace(str(kept), str(tmp_path / "place")))
    return tmp_path / "place"


def analyze(root: Path, out: str, *arguments: str) -> int:
    return cli(["analyze", str(root / "series"), "--name", "run", "--out", str(root / out), "--tasks", "a,b",
                "--tasks-folder", str(root / "tasks"), "--readouts", "answer/centred", "--quiet", "--spectra",
                "--sketch", "5", "--set",
                "probes.score_examples=2", "--set", "probes.geometry_examples=2", *arguments])  # fmt: skip


def retrain(root: Path, *steps: int) -> None:
    """Put other weights into the folders of these steps."""
    for step in steps:
        shutil.rmtree(root / "series" / f"step{step}")
        write_series(root / "again", [step + 1])
        (root / "again" / f"step{step + 1}").rename(root / "series" / f"step{step}")
        told = root / "series" / f"step{step}" / "training.json"
        told.write_text(told.read_text().replace(str(step + 1), str(step)))


def files_of(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "hashes.json"}


def parts(run: Path) -> dict[int, int]:
    return {int(path.stem[5:]): path.stat().st_mtime_ns for path in (run / "observations").iterdir()}


def same_as_fresh(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze(root, "fresh") == 0, capsys.readouterr().err
    assert read_observations(root / "run").equals(read_observations(root / "fresh"))
    of = [read_manifest(root / name) for name in ("run", "fresh")]
    assert of[0]["checkpoints"] == of[1]["checkpoints"]
    assert of[0]["status"] == "complete"
    assert not of[0].pending


def refused(root: Path, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(root / "run")
    assert analyze(root, "run", "--resume") == 2
    assert f"is not what is there now: {named}: --refresh measures anew what moved" in capsys.readouterr().err
    assert files_of(root / "run") == before


def test_weights_trained_anew_are_named_and_measured_if_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retrain(place, 0, 20)
    refused(place, "other weights at steps 0, 20", capsys)
    before = parts(place / "run")
    assert analyze(place, "run", "--refresh") == 0
    assert {step for step, time in parts(place / "run").items() if time != before[step]} == {0, 20}
    same_as_fresh(place, capsys)


def test_an_unfinished_run_is_no_less_guarded(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "run" / "observations" / "step-00000010.parquet").unlink()
    (place / "run" / "observations.parquet").unlink()
    retrain(place, 0)
    refused(place, "other weights at step 0", capsys)
    assert analyze(place, "run", "--resume", "--refresh") == 0
    same_as_fresh(place, capsys)


def test_what_is_kept_beside_the_table_is_made_again_where_it_is_not_as_it_was(
    place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    kept = sorted(path for kind in ("spectra", "sketches") for path in (place / "run" / kind).iterdir())
    before = {path: path.read_bytes() for path in kept}
    assert len(kept) == 2 * len(STEPS)
    kept[0].unlink()
    kept[-1].write_bytes(before[kept[-1]][:-1])
    assert analyze(place, "run", "--resume") == 0
    assert "steps 0, 20 measured, but the observations, or the spectra and sketches beside them" in caplog.text
    assert {path: path.read_bytes() for path in kept} == before
    same_as_fresh(place, capsys)


def test_what_is_unchanged_goes_on_and_is_not_read_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied, its weights are read once; then their files' state tells. Saved in another format they are the same."""
    reads: list[str] = []
    real = stored.stored_tensors
    monkeypatch.setattr(
        hashes, "stored_tensors", lambda folder, *more: reads.append(folder.name) or real(folder, *more)
    )
    before = (place / "run" / "observations.parquet").read_bytes()
    for expected in (["step0", "step10", "step20"], []):
        assert analyze(place, "run", "--resume") == 0
        assert reads == expected
        reads.clear()
    folder = place / "series" / "step10"
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert analyze(place, "run", "--resume") == 0
    assert reads == ["step10"]
    assert (place / "run" / "observations.parquet").read_bytes() == before


def test_files_beside_the_weights_are_compared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = place / "series" / "step10" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rotary_pct": 0.5}))
    (place / "series" / "step20" / "model.safetensors").write_bytes(b"cut")
    named = "another config.json at step 10; weights that cannot be read any more at step 20"
    refused(place, named, capsys)


@pytest.mark.parametrize("kill", [False, True])
def test_items_edited_are_named_and_theirs_alone_measured(
    kill: bool, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tasks(place / "tasks", {"b": ("ADD 2 2 = ", "4")})
    refused(place, "other questions in b L1, b mixed", capsys)
    asked: list[Any] = []
    real: Callable[..., Any] = LocalPool.results

    def counted(pool: LocalPool, checkpoints: list[Any]) -> Any:
        for number, result in enumerate(real(pool, checkpoints)):
            asked.append((result.step, {row.task for row in result.rows}))
            if kill and number == 1:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(LocalPool, "results", counted)
    assert analyze(place, "run", "--refresh") == (130 if kill else 0)
    assert all(tasks == {"b"} for _, tasks in asked)
    if kill:
        assert read_manifest(place / "run")["pending"]["steps"] == [10, 20]
        kill = False
        assert analyze(place, "run", "--resume") == 0
        assert [step for step, _ in asked] == [0, 10, 10, 20]
    same_as_fresh(place, capsys)


def test_a_chance_that_was_edited_is_other_questions_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tasks(place / "tasks", chance=0.2)
    refused(place, "other questions in a L1, a mixed, b L1 and 1 more", capsys)


def test_code_with_other_numbers_is_told(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (moved, provenance):
        monkeypatch.setattr(room, "NUMBERS", provenance.NUMBERS + 1)
    number = provenance.NUMBERS
    named = f"pythiageo 0.1.0 measured it, whose numbers are of version {number - 1}, this one's of {number}"
    refused(place, named, capsys)
    assert analyze(place, "run", "--refresh") == 0
    assert read_manifest(place / "run")["provenance"]["numbers"] == number
    same_as_fresh(place, capsys)


def test_checkpoints_that_are_gone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trainer that keeps its last ones alone is vouched for by them; where the end is gone nothing vouches."""
    before = (place / "run" / "observations.parquet").read_bytes()
    shutil.rmtree(place / "series" / "step0")
    assert analyze(place, "run", "--resume") == 0
    assert (place / "run" / "observations.parquet").read_bytes() == before
    shutil.rmtree(place / "series" / "step20")
    assert analyze(place, "run", "--resume") == 2
    said = (
        "no checkpoint any more at step 20: --refresh measures anew what moved, drops what is gone; --overwrite starts"
    )
    assert said in capsys.readouterr().err
    assert analyze(place, "run", "--refresh") == 0
    assert sorted(parts(place / "run")) == [0, 10]


def test_rows_of_a_checkpoint_that_is_gone_are_not_asked_anew_in_silence(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(place / "series" / "step0")
    write_tasks(place / "tasks", {"b": ("ADD 2 2 = ", "4")})
    assert analyze(place, "run", "--refresh") == 1
    first = read_observations(place / "run").filter(step=0)
    assert set(first.drop_nulls("task")["task"]) == {"a"}
    assert first.filter(measure="checkpoint").select("status", "reason").rows() == [
        ("missing", "the checkpoint is not there any more, so that what was asked anew could not be measured")
    ]


def test_a_part_that_the_manifest_does_not_know_is_measured_anew(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a kill between the two leaves it: nothing says which weights its rows are of."""
    path = place / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["checkpoints"] = [one for one in manifest["checkpoints"] if one["step"] != 10]
    path.write_text(json.dumps(manifest))
    retrain(place, 10)
    assert analyze(place, "run", "--resume") == 0
    same_as_fresh(place, capsys)


def test_what_the_audit_said_is_said_anew(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps of the same weights are left out; once they differ they are measured, and the other way round."""
    source = place / "series"
    shutil.copy(source / "step10" / "model.safetensors", source / "step20" / "model.safetensors")
    refused(place, "suspect weights, as the audit says, at step 10; other weights at step 20", capsys)
    assert analyze(place, "run", "--refresh") == 1
    assert analyze(place, "fresh") == 1
    assert read_observations(place / "run").equals(read_observations(place / "fresh"))
    retrain(place, 20)
    assert analyze(place, "run", "--refresh") == 0
    shutil.rmtree(place / "fresh")
    same_as_fresh(place, capsys)


def test_a_revision_that_moved_is_told_by_its_commit_and_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    files = {"model.safetensors": "s1", "config.json": "c1", "README.md": "r1"}

    def list_files(address: Address) -> list[WeightFile]:
        listed.append(address.at)
        return [WeightFile(name, sha, 5) for name, sha in files.items()]

    monkeypatch.setattr(fetching, "list_files", list_files)

    def moved_at(commit: str, source: Source | None) -> list[str]:
        series = HubSeries("me/series")
        series._known = _Known("me/series", {"step0": commit})
        return series.moved(0, "fingerprint", source)

    known = Source("one", {"model.safetensors": "s1", "config.json": "c1"})
    assert moved_at("one", known) == []
    assert listed == []
    files["README.md"] = "r2"
    assert moved_at("two", known) == []
    assert listed == ["two"]
    files |= {"config.json": "c2"}
    assert moved_at("two", known) == ["another config.json"]
    files |= {"model.safetensors": "s2", "optimizer.bin": "o"}
    assert moved_at("two", known) == ["other weights", "another config.json"]
    assert moved_at("two", Source("one", None)) == ["another commit"]
    assert moved_at("two", None)


def test_a_training_does_not_go_on_with_other_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    text = (Path(__file__).parents[2] / "tasks" / "COPY.toml").read_text().replace('"COPY"', '"MINE"')
    (tasks / "mine.toml").write_text(text)
    command = ["train", "demo/tasks.toml", "--out", str(tmp_path / "run"), "--quiet", "--set", "training.stop=2",
               "--set", 'training.checkpoints="0,2"', "--set", "training.batch_size=2", "--set",
               "probes.score_examples=2", "--set", "probes.geometry_examples=4", "--set", 'probes.tasks=["ADD"]',
               "--set", 'data.tasks=["MINE"]', "--set", f'probes.tasks_folder="{tasks}"']  # fmt: skip
    assert cli(command) == 0
    assert cli([*command, "--resume"]) == 0
    before = files_of(tmp_path / "run")
    (tasks / "mine.toml").write_text(text.replace("version = 1", "version = 2"))
    assert cli([*command, "--resume"]) == 2
    assert "is not what is there now: other tasks to train on: start anew, or take another" in capsys.readouterr().err
    assert files_of(tmp_path / "run") == before
    (tasks / "mine.toml").write_text(text)
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["corpus"] = {"sha256": "0"}
    manifest["probe_sets"][0]["hash"] = "0"
    path.write_text(json.dumps(manifest))
    assert cli([*command, "--resume"]) == 2
    assert "another corpus; other questions in ADD L1" in capsys.readouterr().err


def test_refreshing_and_overwriting_exclude_each_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze(place, "run", "--refresh", "--overwrite") == 2
    assert "--refresh and --overwrite exclude each other" in capsys.readouterr().err
    assert pl.read_parquet(place / "run" / "observations.parquet").height
