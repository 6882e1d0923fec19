"""The observation table: what may be written, what survives a crash, what a reader refuses, what an export keeps."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import planted
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pythiageo
from pythiageo.errors import MachineError, UserError
from pythiageo.observations import (
    COLUMNS,
    ObservationStore,
    read_manifest,
    read_observations,
    wide,
    write_table,
)
from pythiageo.observations.excerpt import excerpt, sha256


def test_parts_become_one_sorted_table(tmp_path: Path) -> None:
    rows = planted.rows(steps=[0, 100])
    store = ObservationStore(tmp_path)
    store.write(100, [row for row in reversed(rows) if row.step == 100])
    store.write(0, [row for row in rows if row.step == 0])
    assert store.steps() == [0, 100]
    unfinished = read_observations(tmp_path)
    assert store.consolidate() == tmp_path / "observations.parquet"
    table = read_observations(tmp_path)
    assert table.schema == COLUMNS
    assert table.equals(unfinished)
    assert table.height == len(rows)
    assert table["step"].is_sorted()
    # nulls first: the scores, which have no layer, come before the geometry within a task and level
    assert set(table.rows()) == {tuple(row) for row in rows}
    assert table.sort("step", "task", "level", "layer", "site", "readout", "measure", nulls_last=False).equals(table)
    assert pythiageo.open_run(tmp_path).observations.equals(table)


def test_equal_rows_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    rows = planted.rows(steps=[0, 100])
    contents = []
    for name, order in (("a", [0, 100]), ("b", [100, 0])):
        store = ObservationStore(tmp_path / name)
        for step in order:
            at_step = [row for row in rows if row.step == step]
            store.write(step, at_step if name == "a" else at_step[::-1])
        store.consolidate()
        contents.append([path.read_bytes() for path in (store.part_path(0), store.part_path(100), store.table_path)])
    assert contents[0] == contents[1]
    assert pq.read_metadata(tmp_path / "a" / "observations.parquet").metadata[b"pythiageo.schema"] == b"1"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"status": "fine"}, "unknown status 'fine'"),
        ({"value": math.nan}, "needs a finite value, got nan"),
        ({"value": math.inf}, "needs a finite value, got inf"),
        ({"value": None}, "needs a finite value, got None"),
        ({"status": "undefined", "reason": "rank 0"}, "status undefined allows no value, got 0.5"),
        ({"status": "nonfinite", "value": None, "reason": ""}, "status nonfinite needs a reason"),
        ({"stderr": math.nan}, "standard error is not finite"),
        ({"step": 7}, "its step is not the part's step 0"),
    ],
)
def test_a_row_against_the_rules_is_our_bug(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    store = ObservationStore(tmp_path)
    with pytest.raises(ValueError, match=message):
        store.write(0, [planted.observation(**changed)])
    assert store.steps() == []


def test_a_row_twice_or_none_at_all_is_our_bug(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path)
    with pytest.raises(ValueError, match="written twice"):
        store.write(0, [planted.observation(), planted.observation(value=0.7)])
    with pytest.raises(ValueError, match="no observation for step 0"):
        store.write(0, [])
    with pytest.raises(ValueError, match="no observations to consolidate"):
        store.consolidate()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES])
def test_a_failed_replace_leaves_the_old_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store = ObservationStore(tmp_path)
    store.write(0, [planted.observation(value=0.25)])
    before = store.part_path(0).read_bytes()

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(MachineError, match="nothing that was finished before is lost, and the run can be resumed"):
            store.write(0, [planted.observation(value=0.75)])
    assert store.part_path(0).read_bytes() == before
    assert [path.name for path in store.parts_folder.iterdir()] == ["step-00000000.parquet"]
    store.write(0, [planted.observation(value=0.75)])
    assert read_observations(tmp_path)["value"].to_list() == [0.75]


def test_content_is_on_the_disk_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a)))
    ObservationStore(tmp_path).write(0, [planted.observation()])
    assert calls == ["fsync", "replace", "fsync"]


def test_leftovers_of_a_killed_write_are_ignored_and_removed(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path)
    store.write(0, [planted.observation()])
    leftover = store.parts_folder / ".step-00000100.parquet.abc.tmp"
    leftover.write_bytes(b"PAR1 half a file")
    assert read_observations(tmp_path).height == 1
    assert store.steps() == [0]
    assert not leftover.exists()


def test_a_new_part_retires_the_consolidated_table(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path)
    store.write(0, [planted.observation()])
    store.consolidate()
    store.write(100, [planted.observation(step=100)])
    assert not store.table_path.exists()
    assert read_observations(tmp_path)["step"].to_list() == [0, 100]
    store.consolidate()
    store.part_path(0).unlink()
    with pytest.raises(ValueError, match=r"holds steps \[0\] whose parts are gone"):
        store.write(200, [planted.observation(step=200)])
    assert read_observations(tmp_path)["step"].to_list() == [0, 100]


def _rewrite(path: Path, change: Any, version: bytes | None = b"1") -> None:
    """Write the table at ``path`` anew, as a stranger might."""
    table = change(pl.read_parquet(path)).to_arrow()
    pq.write_table(table.replace_schema_metadata({b"pythiageo.schema": version} if version else None), path)


@pytest.mark.parametrize(
    ("change", "version", "message"),
    [
        (lambda f: f.drop("weight_sha"), b"1", "has no column 'weight_sha'"),
        (lambda f: f.rename({"measure": "measures"}), b"1", r"no column 'measure' \(did you mean 'measures'\?\)"),
        (lambda f: f.with_columns(pl.lit(1).alias("extra")), b"1", "unknown column 'extra'"),
        (lambda f: f.with_columns(pl.col("step").cast(pl.Float64)), b"1", "'step' has type Float64, expected Int64"),
        (lambda f: f, b"2", "has schema version 2, and this pythiageo reads 1: update pythiageo"),
        (lambda f: f, b"one", "has schema version 'one', expected 1"),
        (lambda f: f, None, "does not name its schema version"),
        (lambda f: f.with_columns(pl.lit(None, pl.Float64).alias("value")), b"1", "value and status 'ok' go together"),
        (lambda f: f.with_columns(pl.lit(math.nan).alias("value")), b"1", "value and status 'ok' go together"),
        (lambda f: f.with_columns(pl.lit("undefined").alias("status")), b"1", "value and status 'ok' go together"),
        (lambda f: f.with_columns(pl.lit("good").alias("status")), b"1", "unknown status 'good'"),
        (lambda f: f.with_columns(pl.lit(None, pl.String).alias("run")), b"1", "column 'run' has empty cells"),
        (lambda f: pl.concat([f, f]), b"1", "accuracy at step 0 of task 'MOD' is there twice"),
    ],
)  # fmt: skip
def test_a_strangers_table_is_checked(tmp_path: Path, change: Any, version: bytes | None, message: str) -> None:
    store = ObservationStore(tmp_path)
    store.write(0, [planted.observation()])
    _rewrite(store.consolidate(), change, version)
    with pytest.raises(UserError, match=message):
        read_observations(tmp_path)


def test_a_truncated_or_renamed_part_is_named(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path)
    store.write(0, [planted.observation()])
    path = store.part_path(0)
    path.rename(store.part_path(100))
    with pytest.raises(UserError, match=r"step-00000100\.parquet holds steps other than 100"):
        read_observations(tmp_path)
    content = store.part_path(100).read_bytes()
    store.part_path(100).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"step-00000100.parquet is not a whole Parquet file \(.*\); remove it"):
        read_observations(tmp_path)


def test_no_run_folder_no_checkpoint_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "nano-42").mkdir()
    with pytest.raises(UserError, match=r"there is no run folder .*nano-24 \(did you mean 'nano-42'\?\)"):
        read_observations(tmp_path / "nano-24")
    with pytest.raises(UserError, match=r"nano-42 is not a run folder: it has neither observations\.parquet nor parts"):
        read_observations(tmp_path / "nano-42")
    (tmp_path / "nano-42" / "manifest.json").write_text('{"schema_version": "1"}')
    with pytest.raises(UserError, match="has no finished checkpoint yet"):
        read_observations(tmp_path / "nano-42")
    outside = ObservationStore(tmp_path / "other")
    outside.write(0, [planted.observation()])
    (tmp_path / "nano-42" / "observations.parquet").symlink_to(outside.consolidate())
    with pytest.raises(UserError, match="leads outside the run folder"):
        read_observations(tmp_path / "nano-42")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a run folder: it has no manifest.json"),
        ("{", "manifest.json is not readable JSON"),
        ("[1]", "must hold a JSON object, found list"),
        ("[" * 100_000, "manifest.json is not readable JSON"),
        ('{"schema_version": "9"}', "schema version 9, and this pythiageo reads 1"),
        ("{}", "does not name its schema version"),
    ],
)
def test_a_strangers_manifest_is_checked(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)


def test_wide_has_layers_as_columns() -> None:
    rows = planted.rows(steps=[0, 300], layers=3)
    rows = [
        row._replace(value=None, status="nonfinite", reason="x")
        if row.step == 300 and row.site == "blocks.1.hook_resid_post" and row.measure == "rankme"
        else row
        for row in rows
        if not (row.step == 0 and row.site == "ln_final.hook_out")
    ]
    frame = wide(planted.table(rows), ["rankme"])
    assert frame.columns[-6:] == ["measure", "layer_0", "layer_1", "layer_2", "final_ln", "status"]
    assert [row[-5:] for row in frame.rows()] == [
        (65.0, 57.5, 50.0, None, "ok"),
        (20.0, None, 5.0, 6.25, "1 of 4 not ok"),
    ]
    assert set(wide(planted.table(rows))["measure"]) == {"rankme", "covariance_effective_rank", "participation_ratio"}
    with pytest.raises(UserError, match=r"no measure 'rankmee' by layer here \(did you mean 'rankme'\?\)"):
        wide(planted.table(rows), ["rankmee"])
    with pytest.raises(UserError, match="no measure by layer, so there is no per-layer table"):
        wide(planted.table(planted.rows(geometry=False)))


def test_landscape_measures_of_each_block_are_by_layer_too() -> None:
    rows = planted.rows(steps=[0])
    block = next(row for row in rows if row.site is not None)
    landscape = [
        block._replace(
            site=None,
            layer=layer,
            measure="hessian_top",
            value=10.0 + layer,
            readout=f"parameters=gpt_neox.layers.{layer}.*;count=7",
        )
        for layer in range(2)
    ]
    whole = block._replace(site=None, layer=None, measure="llc", readout="parameters=*;count=20")
    frame = wide(planted.table([*rows, *landscape, whole]))
    (row,) = frame.filter(pl.col("site_kind") == "parameters").to_dicts()
    assert (row["readout"], row["measure"]) == ("parameters=gpt_neox.layers.N.*;count=7", "hessian_top")
    assert (row["layer_0"], row["layer_1"], row["final_ln"], row["status"]) == (10.0, 11.0, None, "ok")
    assert frame.filter(pl.col("site_kind") != "parameters").equals(wide(planted.table(rows)))


def test_wide_keeps_other_sites_apart() -> None:
    attention = planted.observation(site="blocks.0.hook_attn_out", layer=0, readout="all/centred", measure="rankme")
    frame = wide(planted.table([*planted.rows(steps=[0], layers=1), attention]), ["rankme"])
    assert sorted(frame.select("site_kind", "layer_0", "final_ln").rows()) == [
        ("hook_attn_out", 0.5, None),
        ("residual", 50.0, 51.25),
    ]


floats = st.floats(allow_nan=False, allow_infinity=False)
# a carriage return alone or a NUL cannot be told from a line's end by every CSV reader
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=20)


@given(st.lists(st.tuples(texts, st.one_of(st.none(), floats)), min_size=1, max_size=6))
def test_csv_json_and_parquet_keep_every_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float]]
) -> None:
    folder = tmp_path_factory.mktemp("export")
    frame = pl.DataFrame(rows, schema={"task": pl.String, "value": pl.Float64}, orient="row")
    assert pl.read_parquet(write_table(frame, folder / "t.parquet", "parquet")).equals(frame)
    loaded = json.loads(write_table(frame, folder / "t.json", "json").read_text(encoding="utf-8"))
    assert [(row["task"], row["value"]) for row in loaded] == rows
    with write_table(frame, folder / "t.csv", "csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.reader(file))[1:]
    for (text, value), (cell, number) in zip(rows, read, strict=True):
        guarded = "'" + text if text[:1] in {"=", "+", "-", "@", "\t"} else text
        assert cell == guarded
        assert (float(number) if number else None) == value


def test_a_spreadsheet_sees_no_formula_and_numbers_stay_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"task": ['=HYPERLINK("x")', "+1", "-1", "@a", "plain"], "value": [-1.5, 2.0, 0.1, 1e-300, None]}
    )
    read = list(csv.reader(io.StringIO(write_table(frame, tmp_path / "t.csv", "csv").read_text())))
    assert [row[0] for row in read[1:]] == ['\'=HYPERLINK("x")', "'+1", "'-1", "'@a", "plain"]
    assert [row[1] for row in read[1:]] == ["-1.5", "2.0", "0.1", "1e-300", ""]


def test_markdown_and_latex_escape_markup(tmp_path: Path) -> None:
    frame = pl.DataFrame({"task": ["a|b_c", "<img src=x>", "50% & $x$ {y} \\z ~ ^ #"], "value": [1 / 3, None, 2.0]})
    markdown = write_table(frame, tmp_path / "t.md", "md").read_text()
    assert markdown.splitlines() == [
        "| task | value |",
        "| --- | ---: |",
        "| a\\|b\\_c | 0.333333 |",
        "| &lt;img src=x&gt; |  |",
        "| 50% &amp; \\$x\\$ {y} \\\\z \\~ ^ \\# | 2 |",
    ]
    latex = write_table(frame, tmp_path / "t.tex", "latex").read_text().splitlines()
    assert latex[3].startswith("\\begin{tabular}{@{}>{\\raggedright\\arraybackslash}p{")
    assert latex[7:10] == [
        "a\\textbar{}b\\_\\allowbreak{}c & 0.333333 \\\\",
        "\\textless{}img src=x\\textgreater{} &  \\\\",
        "50\\% \\& \\$x\\$ \\{y\\} \\textbackslash{}z \\textasciitilde{} \\textasciicircum{} \\# & 2 \\\\",
    ]


def test_an_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown format 'jsn' \(did you mean 'json'\?\)"):
        write_table(pl.DataFrame(), tmp_path / "t", "jsn")
    assert list(tmp_path.iterdir()) == []


def test_an_excerpt_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    config = {"target": "/home/somebody/outputs/nano", "data": {"corpus": ["C:\\texts\\mine.txt", "here/mine.txt"]}}
    whole = planted.write_run(tmp_path / "whole", planted.rows(steps=[0, 100]), config=config)
    path = excerpt(whole, tmp_path / "part")
    assert read_manifest(path)["config"] == {"target": "nano", "data": {"corpus": ["mine.txt", "here/mine.txt"]}}
    text = (path / "manifest.json").read_text()
    assert "somebody" not in text
    assert "texts" not in text


def test_an_excerpt_is_a_run_of_its_own(tmp_path: Path) -> None:
    whole = planted.write_run(
        tmp_path / "whole", planted.rows(steps=[0, 100, 200], readouts=("answer/centred", "last/centred"))
    )
    manifest = read_manifest(whole)
    path = excerpt(whole, tmp_path / "part", ["rankme", "accuracy"], ["last/centred"], last_step=100)
    kept = read_observations(path)
    wanted = read_observations(whole).filter(
        pl.col("measure").is_in(["rankme", "accuracy"]),
        pl.col("readout").is_null() | (pl.col("readout") == "last/centred"),
        pl.col("step") <= 100,
    )
    assert kept.equals(wanted)
    assert set(kept["measure"]) == {"rankme", "accuracy"}
    said = read_manifest(path)
    assert said["excerpt"] == {
        "of_rows": read_observations(whole).height,
        "of_sha256": sha256(read_observations(whole)),
        "measures": ["rankme", "accuracy"],
        "readouts": ["last/centred"],
        "last_step": 100,
    }
    assert said.config == manifest.config
    assert "command" not in said["provenance"]
    assert {file.name for file in path.iterdir()} == {"observations.parquet", "manifest.json"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"measures": ["rankmee"]}, r"no measure 'rankmee' \(did you mean 'rankme'\?\)"),
        ({"readouts": ["first/centred"]}, "no readout 'first/centred'"),
        ({"last_step": -1}, "no observation is left"),
        ({"out": "whole"}, "is there already"),
    ],
)
def test_an_excerpt_that_cannot_be_made_is_told(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    whole = planted.write_run(tmp_path / "whole", planted.rows(steps=[0, 100]))
    out = tmp_path / asked.pop("out", "part")
    with pytest.raises(UserError, match=message):
        excerpt(whole, out, **asked)
    assert not (tmp_path / "part").exists()
