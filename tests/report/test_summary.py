"""What a report says first: verdicts as the command gives them, one chart a run, whichever rank there is."""

from __future__ import annotations

import json
from pathlib import Path

import planted
import pytest
from planted import Plant
from test_report import Page

from pythiageo.claims.result import NOT_DECIDABLE, describe_verdict
from pythiageo.cli.app import run as run_command
from pythiageo.report import build_report
from pythiageo.report.findings import findings
from pythiageo.report.summary import summary_figure
from pythiageo.report.words import measure_title, readout_title

STEPS = range(0, 1301, 100)


def test_the_chart_has_the_planted_shares() -> None:
    rows = planted.rows({"MOD": Plant(), "SORT": Plant(700, 200, low=3.0, start=10.0)}, steps=STEPS)
    [panel] = summary_figure(planted.opened(planted.table(rows)), 0).panels
    rank, acquired = panel.lines
    # MOD falls from 20 to 2 at step 300, SORT from 10 to 3 at step 200
    assert list(rank.x) == list(STEPS)
    at = dict(zip(rank.x, zip(rank.low or (), rank.y, rank.high or (), strict=True), strict=True))
    assert at[0] == (1.0, 1.0, 1.0)
    assert at[200] == pytest.approx((0.3, 0.35, 0.4), rel=1e-12)  # one division and one mean of doubles
    assert at[300] == pytest.approx((0.1, 0.375, 0.65), rel=1e-12)
    # three levels of SORT from step 700 on, three of MOD from step 900
    assert dict(zip(acquired.x, acquired.y, strict=True)) == {
        step: 1.0 if step >= 900 else 0.5 if step >= 700 else 0.0 for step in STEPS
    }


def test_a_checkpoint_at_which_a_task_has_no_rank_is_left_out() -> None:
    rows = planted.rows({"MOD": Plant(), "SORT": Plant(700, 200)}, steps=STEPS)
    rows = [
        row._replace(value=None, status="nonfinite", reason="x") if row.step == 300 and row.task == "SORT" else row
        for row in rows
    ]
    [panel] = summary_figure(planted.opened(planted.table(rows)), 0).panels
    assert list(panel.lines[0].x) == [step for step in STEPS if step != 300]


def test_there_is_a_reason_where_there_is_nothing_to_draw() -> None:
    rows = [row._replace(value=None, status="nonfinite", reason="x") for row in planted.rows(steps=[0, 100])]
    [panel] = summary_figure(planted.opened(planted.table(rows)), 0).panels
    assert panel.lack == "no rank has a value at the first checkpoint, and no acquisition can be asked"


def test_one_checkpoint_alone_has_nothing_to_draw() -> None:
    [panel] = summary_figure(planted.opened(planted.table(planted.rows(steps=[100]))), 0).panels
    assert panel.lack == "one checkpoint alone: nothing can have moved"


def test_the_rank_there_is_is_named_and_not_missed(tmp_path: Path) -> None:
    run = planted.opened(
        planted.table([row for row in planted.rows() if row.site is None or row.measure == "participation_ratio"])
    )
    said = " ".join(findings(run))
    assert (
        "Participation ratio after the last block (answer positions, centred) falls furthest for MOD: to 1.60" in said
    )
    assert "No rank measure" not in said
    [panel] = summary_figure(run, 0).panels
    assert panel.lines[0].name.startswith("participation ratio, share of its first value")
    page = Page(build_report([planted.write_run(tmp_path / "run", [*planted.rows(steps=STEPS)])], tmp_path / "r.html"))
    assert "Covariance effective rank (σ²) after the last block" in page.text


def test_the_verdicts_of_a_run_are_those_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run asked alone, on a page of one run and on a page of two."""
    plants = {name: Plant(500 + 100 * i, 200, low=2.0 + i) for i, name in enumerate(("COPY", "REV", "CMP"))}
    plants |= {name: Plant(1000, 200, low=6.0 + i) for i, name in enumerate(("MOD", "ADD", "SORT", "MUL"))}
    config = {"data": {"source": "tasks", "tasks": list(plants)}}
    paths = []
    for seed in (1, 2):
        rows = planted.rows(plants, STEPS, layers=4, run=f"nano-{seed}", series=f"nano-{seed}", seed=seed)
        paths.append(planted.write_run(tmp_path / str(seed), rows, config=config))
    assert run_command(["claims", str(paths[0]), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["task-aligned"]["claims"]
    decided = [each for each in answers if each["verdict"] != NOT_DECIDABLE]
    assert decided
    for runs in (paths[:1], paths):
        text = " ".join(Page(build_report(runs, tmp_path / "r.html")).text.split())
        first = text.split("nano-1 task-aligned")[1].split("nano-2 task-aligned")[0].split("Curves and maps")[0]
        for each in decided:
            assert f"{describe_verdict(each['verdict'], each['rests_on'])} {each['claim']}" in first
        assert f"{len(answers) - len(decided)} other claims" in first


def test_names_for_people_keep_the_name_in_the_table_on_hover(tmp_path: Path) -> None:
    assert measure_title("mine_alone") == "mine alone"
    assert readout_title("parameters=*;count=3") == "parameters=*;count=3"
    assert readout_title("mean-but-sinks/uncentred") == "mean over positions without sinks, uncentred"
    runs = [planted.write_run(tmp_path / name, planted.rows(run=name, series=name)) for name in ("a", "b")]
    page = Page(build_report(runs, tmp_path / "r.html"))
    titles = {attributes.get("title") for tag, attributes in page.tags if tag == "span"}
    assert {"covariance_effective_rank", "answer/centred", "emergence"} <= titles
    assert page.data["names"]["answer/centred"] == "answer positions, centred"
    assert page.data["titles"]["rankme"] == "RankMe (dimensions)"
