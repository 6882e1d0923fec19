"""Runs side by side: what is aligned, what is refused, and the published figures beside ours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import planted
import polars as pl
import pytest
from planted import Plant

from pythiageo.claims import Specification, ask_each
from pythiageo.cli.app import run as command
from pythiageo.compare import Comparison, beside_published, compare, published_sizes, write_comparison
from pythiageo.compare.alignment import check_align
from pythiageo.compare.claims import side_by_side
from pythiageo.compare.dose import dose_of, dose_response
from pythiageo.errors import UserError
from pythiageo.observations import Observation

TEXT: dict[str, Any] = {"run": "text-42", "series": "text-42", "regime": "naturalistic"}


def two(layers: int = 2, **other: Any) -> tuple[list[Observation], list[Observation]]:
    steps = range(0, 1001, 100)
    return planted.rows(steps=steps), planted.rows(
        {"MOD": Plant(None, low=4.0)}, steps=steps, layers=layers, **TEXT, **other
    )


def compared(
    tables: Sequence[pl.DataFrame], *given: Any, manifests: Sequence[dict[str, Any]] = (), **asked: Any
) -> Comparison:
    runs = [planted.opened(*each) for each in zip_longest(tables, manifests)]
    return compare(runs, *given, **asked)


def test_aligned_is_what_both_have() -> None:
    ours, text = two()
    text = [
        row._replace(value=None, status="undefined", reason="one row") if row.step == 200 and row.site else row
        for row in text
        if row.step != 700
    ]
    result = compared([planted.table(text), planted.table(ours)])
    assert set(result.aligned.select("run_a", "regime_a", "run_b", "regime_b").rows()) == {
        ("nano-42", "task-aligned", "text-42", "naturalistic")
    }
    at_floor = result.aligned.filter(
        (pl.col("step") == 300)
        & (pl.col("place") == "blocks.1.hook_resid_post")
        & (pl.col("measure") == "covariance_effective_rank")
    ).row(0, named=True)
    assert (at_floor["value_a"], at_floor["value_b"]) == (2.0, 4.0)
    assert (at_floor["difference"], at_floor["ratio"], at_floor["tokens_a"]) == (2.0, 2.0, 192_000)
    # scores at 10 steps (700 is gone): 3 levels x 4; ranks at 9 (200 is undefined too): 3 sites x 3
    assert result.aligned.height == 10 * 12 + 9 * 9
    missing = result.missing.group_by("run", "not_in", "why").agg(pl.col("count").sum()).sort("why").rows()
    assert missing == [("nano-42", "text-42", "not measured", 12 + 9), ("nano-42", "text-42", "undefined", 9)]
    log_prob = result.aligned.filter(pl.col("measure") == "log_prob")
    assert log_prob["ratio"].null_count() == log_prob.height
    assert set(result.events["protocol"]) == {"billa-v1", "billa-v4", "pythiageo"}
    assert set(result.events["run"]) == {"nano-42", "text-42"}


def test_other_probe_sets_are_not_aligned() -> None:
    ours, text = two()
    text = [row._replace(probe_set="ffffffffffff") if row.level == "L2" else row for row in text]
    result = compared([planted.table(ours), planted.table(text)])
    assert result.warnings == [
        "MOD L2 is not aligned: MOD L2's is a1b2c3d4e5f6 in nano-42 and ffffffffffff in text-42."
    ]
    assert set(result.aligned["level"]) == {"L1", "L3", "mixed"}
    nameless = [row._replace(probe_set=None) for row in text]
    assert compared([planted.table(ours), planted.table(nameless)]).aligned.is_empty()


def test_other_depths_meet_at_the_last_block_and_the_norm() -> None:
    ours, text = two(layers=4)
    result = compared([planted.table(ours), planted.table(text)])
    places = result.aligned.drop_nulls("place")
    assert set(places.select("place", "layer_a", "layer_b").rows()) == {("last-block", 1, 3), ("final-ln", 1, 3)}
    assert result.warnings == [
        "nano-42 has 2 blocks and text-42 4: only the last block and the final LayerNorm are aligned."
    ]
    floor = places.filter((pl.col("measure") == "rankme") & (pl.col("step") == 300)).sort("place")
    assert floor.select("place", "value_a", "value_b").rows() == [("final-ln", 6.25, 11.25), ("last-block", 5.0, 10.0)]


def test_cadence_and_settings_are_warned_of() -> None:
    ours = planted.rows(steps=range(0, 1001, 100))
    text = planted.rows(steps=range(0, 1001, 200), **TEXT)
    manifests = [planted.manifest(ours), planted.manifest(text)]
    manifests[1]["provenance"]["dtype"] = "bfloat16"
    result = compared([planted.table(ours), planted.table(text)], ["billa-v4"], manifests=manifests)
    assert result.warnings == [
        "nano-42 has a checkpoint every 100 steps and text-42 every 200 steps (median): "
        "compare floors and event steps only at matched cadence.",
        "dtype is float32 in nano-42 and bfloat16 in text-42.",
    ]
    assert set(result.events["protocol"]) == {"billa-v4"}


def test_a_run_without_the_readout_keeps_its_scores() -> None:
    ours, text = two(readouts=("all/centred",))
    result = compared([planted.table(ours), planted.table(text)])
    assert result.warnings == [
        "run text-42 has no covariance_effective_rank under answer/centred, so it has no floors here."
    ]
    assert set(result.events.filter(pl.col("event") == "floor")["run"]) == {"nano-42"}
    assert set(result.events.filter(pl.col("event") == "acquisition")["run"]) == {"nano-42", "text-42"}


def test_runs_of_one_regime_are_aligned_and_said_to_be() -> None:
    seeds = [planted.table(planted.rows(steps=[0, 100], run=f"nano-{seed}", seed=seed)) for seed in (7, 42, 123)]
    result = compared(seeds)
    assert set(result.aligned.select("run_a", "run_b").rows()) == {
        ("nano-7", "nano-42"),
        ("nano-7", "nano-123"),
        ("nano-42", "nano-123"),
    }
    assert result.warnings == ["all runs are task-aligned; every two of them are aligned, and no regimes are compared."]


def test_what_cannot_be_compared_is_refused() -> None:
    table = planted.table(planted.rows(steps=[0]))
    with pytest.raises(UserError, match="at least two runs, got 1"):
        compared([table])
    with pytest.raises(UserError, match="two runs are called 'nano-42'"):
        compared([table, table])
    other = table.with_columns(pl.lit("b").alias("run"))
    with pytest.raises(UserError, match=r"a table holds 2 runs \(b, nano-42\), expected one"):
        compared([pl.concat([table, other]), table])
    with pytest.raises(UserError, match=r"unknown protocol 'billa' \(did you mean 'billa-v\d'\?\)"):
        compared([table, other], ["billa"])


def test_write_comparison(tmp_path: Path) -> None:
    ours, text = two(layers=4)
    result = compared([planted.table(ours), planted.table(text)])
    paths = write_comparison(result, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["events.csv", "aligned.csv", "missing.csv", "claims.csv", "warnings.json"]
    assert json.loads(paths[-1].read_text()) == result.warnings
    assert pl.read_csv(paths[1], schema=result.aligned.schema).equals(result.aligned)


def test_published_figures_stand_beside_ours() -> None:
    rows = planted.rows({"MOD": Plant(900, 300, low=2.0), "MUL": Plant(None, 300)}, steps=range(0, 3001, 100))
    result = compared([planted.table(rows), planted.table([row._replace(**TEXT) for row in rows])])
    beside = beside_published(result.events.filter(pl.col("run") == "nano-42"), "nano")
    v4 = beside.filter((pl.col("protocol") == "billa-v4") & (pl.col("event") == "acquisition"))
    columns = ["task", "level", "ours", "published", "published_status", "ratio"]
    assert v4.select(columns).rows() == [
        ("MOD", "L1", 900.0, 3200.0, "found", 900 / 3200),
        ("MOD", "L2", 900.0, 6500.0, "found", 900 / 6500),
        ("MOD", "L3", 900.0, 16000.0, "found", 900 / 16000),
        ("MUL", "L1", None, 1600.0, "found", None),
        ("MUL", "L2", None, 6900.0, "found", None),
        ("MUL", "L3", None, None, "not-reached", None),
    ]
    floor = beside.filter((pl.col("event") == "floor") & (pl.col("task") == "MOD")).row(0, named=True)
    assert (floor["ours"], floor["published"], floor["measure"]) == (2.0, 2.07, "covariance_effective_rank")
    # v1's figure for MUL at this size was never read off for large, and is for nano
    early = beside.filter((pl.col("protocol") == "billa-v1") & (pl.col("event") == "acquisition"))
    assert early.select("task", "level", "published").rows() == [("MOD", "L2", 16000.0), ("MUL", "L2", 44500.0)]


@pytest.mark.slow
def test_published_table_is_whole() -> None:
    tasks = ("COPY", "REV", "CMP", "PAR", "ADD", "MOD", "SORT", "MUL")
    rows = planted.rows({task: Plant() for task in tasks}, steps=range(0, 1001, 100))
    for size in published_sizes():
        events = compared(
            [planted.table([row._replace(size=size, run=name) for row in rows]) for name in ("a", "b")]
        ).events.filter(pl.col("run") == "a")
        beside = beside_published(events, size)
        counts = dict(
            beside.group_by("protocol", "event").len().select(pl.concat_str("protocol", "event"), "len").rows()
        )
        large = size == "large"
        expected = {"billa-v4acquisition": 24}
        if size != "xlarge":
            expected |= {"billa-v1acquisition": 7 if large else 8, "billa-v4floor": 4}
        assert counts == expected
    with pytest.raises(UserError, match=r"no published figures for size 'nanno' \(did you mean 'nano'\?\)"):
        beside_published(events, "nanno")


def twins() -> list[pl.DataFrame]:
    """The second run sees half as many tokens a step, and is planned to be twice as long."""
    text = planted.rows(
        {"MOD": Plant()}, range(0, 4001, 100), tokens_per_step=320, run="text-42", regime="naturalistic"
    )
    return [planted.table(planted.rows({"MOD": Plant()})), planted.table(text)]


PLANNED = [{"config": {"training": {"steps": steps}}} for steps in (2000, 4000)]


@pytest.mark.parametrize("align", ["tokens", "fraction"])
def test_checkpoints_are_paired_by_what_was_seen_or_planned(align: str) -> None:
    runs = twins()
    result = compared(runs, manifests=PLANNED, align=check_align(align))
    assert (result.aligned["step_b"] == 2 * result.aligned["step"]).all()
    assert set(result.aligned["step"]) == set(range(0, 2001, 100))
    assert (result.aligned["apart"] == 0).all()
    if align == "tokens":
        assert result.aligned["tokens_a"].equals(result.aligned["tokens_b"].rename("tokens_a"))
    assert (
        f"by {align}, 21 checkpoints of nano-42 (21) and text-42 (41) are pairs, 0.00% apart at most."
        in result.warnings
    )
    lone = result.missing.filter(run="text-42")
    assert set(lone["count"]) == {20}  # every second checkpoint has no counterpart
    by_steps = compared(runs, manifests=PLANNED)
    assert (by_steps.aligned["step_b"] == by_steps.aligned["step"]).all()


def test_checkpoints_too_far_apart_are_no_pair() -> None:
    near = planted.rows({"MOD": Plant()}, [0, 104, 220], run="text-42", regime="naturalistic")
    runs = [planted.table(planted.rows({"MOD": Plant()}, [0, 100, 200])), planted.table(near)]
    aligned = compared(runs, align="tokens").aligned
    assert set(aligned.select("step", "step_b").rows()) == {(0, 0), (100, 104)}
    assert aligned.filter(step=100)["apart"].to_list() == pytest.approx([4 / 104] * aligned.filter(step=100).height)


@pytest.mark.parametrize(
    ("align", "manifests", "message"),
    [
        ("fraction", [{}, {}], "the manifest of run nano-42 does not say how long its training is to be"),
        ("tokens", PLANNED, "run nano-42 does not say how many tokens"),
        ("token", PLANNED, r"no way 'token' \(did you mean 'tokens'\?\)"),
    ],
)
def test_what_cannot_be_paired_by_is_told(align: str, manifests: list[dict[str, object]], message: str) -> None:
    runs = [run.with_columns(pl.lit(None, dtype=pl.Int64).alias("tokens")) for run in twins()]
    with pytest.raises(UserError, match=message):
        compared(runs, manifests=manifests, align=check_align(align))


def test_doses_are_in_order_and_say_from_which_on_an_event_appears(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acquired = {"naturalistic": None, "mix:0.05": None, "mix:0.1": 1500, "task-aligned": 900}
    folders = []
    for number, (regime, step) in enumerate(acquired.items()):
        rows = planted.rows({"MOD": Plant(acquired=step)}, run=f"run-{number}", series=f"run-{number}", regime=regime)
        folders.append(str(planted.write_run(tmp_path / f"run-{number}", rows)))
    assert command(["compare", *reversed(folders), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"task +level +0 +0\.05 +0\.1 +1 +from", shown)
    assert re.search(r"MOD +L1 +not-reached +not-reached +1,500 +900 +0\.1", shown)
    table = pl.read_csv(tmp_path / "out" / "dose.csv")
    part = table.filter(
        (pl.col("protocol") == "billa-v4") & (pl.col("event") == "acquisition") & (pl.col("level") == "L1")
    )
    assert part["dose"].to_list() == [0.0, 0.05, 0.1, 1.0]
    assert set(part["appears_from"]) == {0.1}
    assert set(table.filter(event="floor")["appears_from"]) == {0.0}


def test_a_dose_that_fails_above_one_that_works_is_no_threshold() -> None:
    acquired = {"mix:0.1": 900, "mix:0.5": None, "task-aligned": 900}
    tables = [
        planted.table(planted.rows({"MOD": Plant(acquired=step)}, run=regime.replace(":", "-"), regime=regime))
        for regime, step in acquired.items()
    ]
    found = dose_response(compared(tables).events)
    assert set(found.filter(event="acquisition")["appears_from"]) == {1.0}
    again = tables[0].with_columns(pl.lit("b").alias("run"))
    assert dose_response(compared([tables[0], again]).events).is_empty()
    assert dose_of("mix:x") is None
    assert dose_of("pretraining") is None


def test_each_claim_is_asked_of_each_run_by_itself(tmp_path: Path) -> None:
    """The answers are those of the run alone, on the tasks that its own manifest names."""
    tasks = {name: Plant(at, low=2.0) for name, at in (("COPY", 300), ("REV", 400), ("MOD", 800), ("MUL", 900))}
    ours = planted.rows(tasks, steps=range(0, 1201, 100))
    text = planted.rows({"MOD": Plant(None, low=4.0)}, steps=range(0, 1201, 100), **TEXT)
    manifests: list[dict[str, Any]] = [{"config": {"data": {"source": "tasks", "tasks": [*tasks]}}}, {}]
    found = compared([planted.table(ours), planted.table(text)], manifests=manifests)
    for rows, run, trained in ((ours, "nano-42", tuple(tasks)), (text, "text-42", None)):
        alone = ask_each(planted.table(rows), Specification(trained=trained))
        here = found.claims.filter(pl.col("run") == run)
        assert here["name"].to_list() == [result.name for result in alone]
        assert here["verdict"].to_list() == [result.verdict for result in alone]
        assert here["estimate"].to_list() == [result.estimate for result in alone]
    runs, grid = side_by_side(found.claims)
    assert runs == ["nano-42", "text-42"]
    cells = {row[0]: row[1:] for row in grid}
    # two easy tasks and two hard ones in the right order: one of six orders, p = 0.17
    assert cells["emergence"][0].startswith("not decidable: 1.00 (")
    assert cells["emergence"][1] == "not decidable"
    assert all(found.claims.filter(pl.col("estimate").is_null())["reason"].is_not_null())
    assert "claims.csv" in {path.name for path in write_comparison(found, tmp_path)}
    # a table without any rank is asked too, and says why it has no answer
    bare = found.claims.filter(pl.col("run") == "text-42").height
    scores = planted.table([row for row in text if row.site is None])
    without = compared([planted.table(ours), scores], manifests=manifests).claims.filter(pl.col("run") == "text-42")
    assert without.height <= bare
    assert set(without.filter(pl.col("name") == "floors")["verdict"]) == {"not decidable"}
