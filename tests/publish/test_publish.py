"""Publishing a run: what leaves the machine, that it is whole, and what is never overwritten."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml
from datasethub import TOKEN, DataSet, DataSetHub
from polars.testing import assert_frame_equal

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.errors import UserError
from pythiageo.observations import read_manifest, read_observations
from pythiageo.observations.excerpt import excerpt
from pythiageo.observations.store import write_whole
from pythiageo.publish import write_bundle

FILES = {"README.md", "manifest.json", "observations.parquet", "report.html", "tables/per_layer.csv"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with weights, a state and a log, whose manifest names folders of this machine."""
    out = tmp_path_factory.mktemp("private-place") / "tiny"
    sets = ["model.layers=2", "model.d_model=16", "model.heads=2", "model.d_ff=32", "training.stop=4", "name=tiny",
            'training.checkpoints="0,2,4"', "probes.score_examples=4", "probes.geometry_examples=6"]  # fmt: skip
    arguments = [part for one in sets for part in ("--set", one)]
    assert cli(["train", "demo/tasks.toml", *arguments, "--quiet", "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["config"]["data"]["corpus"] = [str(out / "mine.txt")]
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[DataSetHub]:
    with DataSetHub() as found:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", found.endpoint)
        template = found.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield found


def test_a_run_is_published_read_back_and_not_twice(
    trained: Path, hub: DataSetHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["push", str(trained), "--repo", "me/tiny"]) == 0
    assert "/datasets/me/tiny (private), commit" in capsys.readouterr().out
    there = hub.sets["me/tiny"]
    assert set(there.files) == {".gitattributes", *FILES}
    assert (there.private, len(there.commits)) == (True, 1)
    rows = read_observations(trained)
    assert there.commits == [f"tiny: {rows.height:,} observations"]
    for name, content in there.files.items():
        (tmp_path / "back" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "back" / name).write_bytes(content)
    back = pythiageo.open_run(tmp_path / "back")
    assert_frame_equal(back.observations, rows)
    assert_frame_equal(pl.read_parquet(tmp_path / "back/observations.parquet").select(rows.columns), rows)
    assert cli(["report", str(tmp_path / "back"), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == there.files["report.html"]
    capsys.readouterr()
    assert cli(["push", str(trained), "--repo", "me/tiny"]) == 0
    assert "has all of it already: nothing to do" in capsys.readouterr().out
    assert len(there.commits) == 1
    # fewer rows: one more commit, and what else is there stays
    there.files["notes.md"] = b"mine"
    assert cli(["push", str(trained), "--repo", "me/tiny", "--measures", "accuracy", "--message", "less"]) == 0
    assert there.commits[1:] == ["less"]
    assert set(there.files) == {".gitattributes", "notes.md", *FILES} - {"tables/per_layer.csv"}


def test_the_card_is_what_the_hub_reads(trained: Path, tmp_path: Path) -> None:
    bundle = write_bundle(trained, tmp_path / "out", "me/tiny")
    _, head, body = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["configs"] == [{"config_name": "default", "data_files": "observations.parquet"}]
    assert facts["size_categories"] == ["1K<n<10K" if bundle.rows >= 1000 else "n<1K"]
    named = set(re.findall(r"^\| `([\w./]+\.\w+)` \|", body, re.MULTILINE))
    assert named == FILES - {"README.md"}
    measures = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", body, re.MULTILINE))
    counts = read_observations(trained).group_by("measure").len().rows()
    assert {name: int(number.replace(",", "")) for name, number in measures.items()} == dict(counts)


def test_nothing_of_this_machine_leaves(trained: Path, tmp_path: Path) -> None:
    bundle = write_bundle(trained, tmp_path / "out", "me/tiny")
    assert set(bundle.files) == FILES
    for name in bundle.files:
        assert b"private-place" not in (bundle.folder / name).read_bytes(), name
    assert read_manifest(bundle.folder)["config"]["data"]["corpus"] == ["mine.txt"]


def test_folders_inside_a_reason_are_left_out(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    excerpt(trained, run)
    reasons = [
        "/secret/place/step4/model.safetensors: cut",
        "opened 'C:\\\\secret\\\\place\\\\x.bin' and/or 1/n",
        "at 3/4 of it",
    ]
    table = pl.read_parquet(run / "observations.parquet").with_row_index()
    for number, reason in enumerate(reasons):
        table = table.with_columns(
            pl.when(pl.col("index") == number).then(pl.lit(reason)).otherwise("reason").alias("reason"),
            pl.when(pl.col("index") == number).then(pl.lit("unreadable")).otherwise("status").alias("status"),
            pl.when(pl.col("index") == number).then(None).otherwise("value").alias("value"),
        )
    write_whole(run, table.drop("index"))
    excerpt(run, tmp_path / "again")
    again = pl.read_parquet(tmp_path / "again/observations.parquet")
    told = again.filter(pl.col("status") == "unreadable")["reason"].to_list()
    assert sorted(told) == ["at 3/4 of it", "model.safetensors: cut", "opened 'x.bin' and/or 1/n"]
    # what no rule foresees is refused
    write_whole(run, table.drop("index").with_columns(run=pl.lit(f"see:{Path.home()}/x")))
    with pytest.raises(UserError, match=r"would name .*, a folder of this machine; nothing was published"):
        write_bundle(run, tmp_path / "never", "me/tiny")


def test_a_dry_run_asks_the_hub_nothing(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["push", str(trained), "--repo", "me/tiny", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (set(found["files"]), found["published"]) == (FILES, False)


@pytest.mark.parametrize(
    ("repo", "token", "status", "code", "message"),
    [
        ("me/tiny", "", None, 2, "the Hub asks who you are: set HF_TOKEN to a write token"),
        ("you/tiny", TOKEN, None, 2, "this token may not write there"),
        ("tiny/of/me", TOKEN, None, 2, "'tiny/of/me' is not a data set's name"),
        ("me/tiny", TOKEN, 500, 3, "the Hub cannot be reached, nothing was published"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    repo: str, token: str, status: int | None, code: int, message: str, trained: Path, hub: DataSetHub,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", token)
    hub.status = status
    assert cli(["push", str(trained), "--repo", repo]) == code
    assert message in capsys.readouterr().err
    assert not hub.sets


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"README.md": b"my own"}, "holds README.md and is no published run"),
        ({"manifest.json": b'{"name": "other"}'}, "holds the run 'other', not 'tiny'"),
        ({"manifest.json": b"[]"}, "holds the run None, not 'tiny'"),
    ],
)
def test_what_somebody_else_put_there_stays(
    there: dict[str, bytes], message: str, trained: Path, hub: DataSetHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.sets["me/tiny"] = DataSet(False, dict(there))
    assert cli(["push", str(trained), "--repo", "me/tiny"]) == 2
    assert message in capsys.readouterr().err
    assert hub.sets["me/tiny"].files == there
    assert cli(["push", str(trained), "--repo", "me/tiny", "--overwrite"]) == 0
    assert "(public), commit" in capsys.readouterr().out
    assert set(hub.sets["me/tiny"].files) == FILES


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["push", str(tmp_path), "--repo", "me/tiny", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
