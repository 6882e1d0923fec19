"""The paper's figures and tables for planted runs: planted numbers are in them, and what is lacking is said."""

from __future__ import annotations

import json
import math
from pathlib import Path

import planted
import polars as pl
import pyarrow.parquet as pq
import pytest
from planted import Plant
from test_report import ATTACK, hostile
from test_report_claims import claimed

from pythiageo.cli.app import run as cli
from pythiageo.errors import UserError
from pythiageo.events.run import Run, open_runs
from pythiageo.figures import PaperFigure, PaperTable, paper_figures, paper_tables
from pythiageo.figures.axes import short_step
from pythiageo.figures.draw import draw
from pythiageo.figures.write import write_paper
from pythiageo.observations.latex import latex_text
from pythiageo.observations.store import SCHEMA_KEY

STEPS = [0, 100, 200, 300, 400, 500, 700, 900, 1000, 1200, 12_000]
PLANTS = {"COPY": Plant(700, 200, low=3.0), "MOD": Plant(900, 300), "ADD": Plant(None, 400, low=4.0)}


def loaded(folder: Path, **changed: object) -> list[Run]:
    ours = planted.rows(PLANTS, steps=STEPS)
    text = planted.rows(
        {"MOD": Plant(None, low=4.0)}, steps=STEPS, run="text", series="text", regime="naturalistic", size="pythia-160m"
    )
    place = {"task": "MOD", "level": "mixed", "layer": 1, "site": "blocks.1.hook_resid_post", "measure": "linear_probe"}
    probe = [planted.observation(step=step, value=0.1 + step / 1e4, **place) for step in STEPS]
    sets = [{"task": "MOD", "level": "L1", "purpose": "score", "hash": "abc", "examples": 200, "chance": 0.31}]
    config = {"training": {"steps": 100_000, "betas": [0.9, 0.95]}, "data": {"source": "tasks"}}
    run = planted.write_run(folder / "ours", [*ours, *probe], probe_sets=sets, config=config)
    (run / "log.jsonl").write_text('{"seconds": {"load": 1.0}}\n{"seconds": {"load": 3.0}}\nnot json\n[1]\n')
    return open_runs([run, planted.write_run(folder / "text", text)])


def figure(runs: list[Run], name: str) -> PaperFigure:
    return next(each for each in paper_figures(runs) if each.id == name)


def table(runs: list[Run], name: str) -> PaperTable:
    return next(each for each in paper_tables(runs) if each.id == name)


def test_figure_1_has_the_planted_steps_and_never_a_step_for_what_was_not_reached(tmp_path: Path) -> None:
    emergence = figure(loaded(tmp_path), "fig-1")
    panel = next(panel for panel in emergence.panels if panel.title.startswith("billa-v4"))
    assert panel.cells is not None
    # rows from below: hard tasks first, so that easy ones stand on top
    assert panel.cells.y[-1] == "COPY L1"
    cells = dict(zip(panel.cells.y, zip(panel.cells.z, panel.cells.text, strict=True), strict=True))
    assert cells["COPY L1"] == ([pytest.approx(math.log10(700))], ["700"])
    assert cells["MOD L2"] == ([pytest.approx(math.log10(900))], ["900"])
    assert cells["ADD L3"] == ([None], ["n.r."])
    # six rows of hard tasks lie below the line
    assert panel.level == 5.5
    assert "no run of size micro, small, medium, large" in emergence.lacks
    assert "seeds: 42; the paper has 3" in emergence.lacks


def test_figure_2_is_the_last_block_under_both_spectra(tmp_path: Path) -> None:
    floors = figure(loaded(tmp_path), "fig-2")
    panels = {panel.title: panel for panel in floors.panels}
    squared, sigma = panels["MOD, Covariance effective rank (σ²)"], panels["MOD, RankMe (σ)"]
    assert list(squared.lines[0].y)[:4] == [20.0, 14.0, 8.0, 2.0]
    assert list(sigma.lines[0].y)[:4] == [50.0, 35.0, 20.0, 5.0]
    assert squared.shade == (0, 200)
    assert [line.name for line in squared.lines] == ["nano-42"]  # the naturalistic run is not among them
    assert panels["SORT, RankMe (σ)"].lack == "no rank of SORT was measured"
    assert any("nano-42 ends at step 12,000" in text for text in floors.lacks)


def test_figure_3_takes_the_floor_and_ten_thousand_steps_after_emergence(tmp_path: Path) -> None:
    first, second = figure(loaded(tmp_path), "fig-3").panels[:2]
    assert (first.lines[0].name, list(first.lines[0].x), list(first.lines[0].y)) == (
        "nano-42, step 300", [0.0, 1.0], [5.0, 2.0],
    )  # fmt: skip
    # acquired at 900: the first checkpoint from 10,900 on
    assert (second.lines[0].name, list(second.lines[0].y)) == ("nano-42, step 12,000", [17.0, 14.0])


def test_figures_4_and_5_scale_and_pair_what_was_planted(tmp_path: Path) -> None:
    runs = loaded(tmp_path)
    hierarchy = figure(runs, "fig-4")
    lines = {line.name: line for line in hierarchy.panels[0].lines}
    assert list(lines["covariance_effective_rank"].y)[:4] == pytest.approx([1.0, 12 / 18, 6 / 18, 0.0])
    assert lines["covariance_effective_rank"].right
    assert list(lines["accuracy (left)"].y)[-1] == 0.96
    assert any(text.startswith("llc of MOD has 0 values") for text in hierarchy.lacks)
    limits = figure(runs, "fig-5")
    points = {line.name: list(zip(line.x, line.y, strict=True)) for line in limits.panels[0].lines}
    assert points == {"easy": [(3.0, 700)] * 3, "hard": [(2.0, 900)] * 3}
    assert "3 tasks and levels are not drawn: not acquired under billa-v4, so they have no step" in limits.lacks


def test_figures_6_and_8_are_the_naturalistic_runs(tmp_path: Path) -> None:
    runs = loaded(tmp_path)
    curve, last = figure(runs, "fig-6").panels
    assert curve.title == "(a) text, Covariance effective rank (σ²)"
    assert list(curve.lines[0].y)[3] == 4.0
    assert (last.x.names, list(last.lines[0].y)) == (("MOD",), [14.0])
    assert len(figure(runs, "fig-8").panels) == 2
    alone = figure(runs[:1], "fig-6")
    assert [panel.lack for panel in alone.panels] == ["none of the runs is naturalistic"]


def test_tables_hold_the_planted_numbers(tmp_path: Path) -> None:
    runs = loaded(tmp_path)
    assert table(runs, "table-1").frame.rows() == [("MOD", "L1", "hard", "200", "0.31", "abc", "nano-42")]
    assert table(runs, "table-7").frame.filter(pl.col("Setting") == "betas").rows() == [("betas", "0.9, 0.95")]
    five = table(runs, "table-5").frame.filter(pl.col("Task") == "COPY").rows()
    # the five checkpoints that billa-v1 needs are 700, 900, 1000, 1200 and 12000
    assert five == [("COPY", "L2", "700", "700", "700")]
    eight = {row[:2]: row[2:] for row in table(runs, "table-8").frame.rows()}
    assert eight[("ADD", "L1")] == ("not-reached",) * 3
    probe = table(runs, "table-v4-6").frame.filter(pl.col("Task") == "MOD").rows()
    assert probe[0] == ("nano-42", "MOD", "L1", "700", "linear_probe", "0.100", "0.170")
    assert table(runs, "table-10").frame.rows() == [("nano-42", "load", "2", "2", "4")]
    assert "text has no log of what its checkpoints took" in table(runs, "table-10").lacks
    assert not table(runs, "table-v4-13").frame.height
    assert table(runs, "table-v4-13").lacks


def test_freezing_stands_beside_runs_without(tmp_path: Path) -> None:
    plain = planted.write_run(tmp_path / "plain", planted.rows(steps=STEPS, levels=("L1",)))
    held = planted.rows({"MOD": Plant(1000)}, steps=STEPS, levels=("L1",), run="held")
    config = {"training": {"freeze_block": 0, "freeze_until": 1000}}
    frozen = planted.write_run(tmp_path / "held", held, config=config)
    thirteen = table(open_runs([plain, frozen]), "table-v4-13")
    assert [row[0:1] + row[3:] for row in thirteen.frame.rows()] == [
        ("nano-42", "none", "MOD", "L1", "900"),
        ("held", "block 0 to step 1000", "MOD", "L1", "1,000"),
    ]
    assert thirteen.lacks == ()
    assert table(open_runs([frozen]), "table-v4-13").lacks == ("no run of the same size without freezing",)


def test_claims_fill_the_rates_and_the_concordance(tmp_path: Path) -> None:
    runs = loaded(tmp_path)
    rates = pl.DataFrame(
        {
            "measure": ["llc", "rankme", "rankme", "rankme"],
            "class": ["all", "all", "hard", "all"],
            "size": ["all", "all", "all", "nano"],
            "n": [24, 24, 12, 24],
            "rate": [None, 0.875, 1.0, 0.5],
            "low": [None, 0.7, None, 0.1],
            "high": [None, 0.95, None, 0.9],
            "null_rate": [None, 0.8, None, 0.5],
        }
    )
    claims = [
        claimed("hierarchy", table=rates),
        claimed("prediction-hard", estimate=0.78, interval=(0.6, 0.9)),
        claimed("prediction-easy", estimate=None, interval=None, reason="no pair to be ordered"),
    ]
    found = {each.id: each for each in paper_figures(runs, claims)}
    panel = found["fig-4"].panels[1]
    points = {line.name: (list(line.y), line.low, line.high) for line in panel.lines}
    assert points["all"] == ([0.875], [0.7], [0.95])
    assert points["hard"] == ([1.0], [None], [None])
    assert points["null: other tasks' acquisitions"][0] == [0.8]
    concordance = found["fig-5"].panels[-1]
    assert concordance.x.names == ("across", "hard", "easy", "swap")
    assert (list(concordance.lines[0].x), list(concordance.lines[0].y)) == ([1], [0.78])
    assert concordance.level == 0.5
    six = next(each for each in paper_tables(runs, claims) if each.id == "table-6")
    assert six.frame.rows()[1] == ("rankme", "all", "all", "24", "0.875", "0.7", "0.95", "0.8")
    assert six.frame.rows()[0][4] == "–"
    # without claims: said, in figures and table
    assert figure(runs, "fig-4").panels[1].lack == "the claim was not asked for"
    assert figure(runs, "fig-5").panels[-1].lack == "the claims were not asked for"
    assert table(runs, "table-6").lacks == ("the claim was not asked for",)
    empty = [claimed("hierarchy", estimate=None, reason="nothing was acquired", table=pl.DataFrame())]
    assert (
        next(each for each in paper_figures(runs, empty) if each.id == "fig-4").panels[1].lack == "nothing was acquired"
    )
    draw(found["fig-4"], ("png",))


def test_the_page_gets_plain_numbers(tmp_path: Path) -> None:
    for each in paper_figures(loaded(tmp_path)):
        text = json.dumps(each.as_json(), allow_nan=False)
        assert '"panels"' in text


@pytest.mark.parametrize("case", ["one checkpoint", "no geometry", "no scores", "no value"])
def test_partial_runs_lack_and_never_fail(tmp_path: Path, case: str) -> None:
    rows = planted.rows(steps=[0] if case == "one checkpoint" else [0, 100, 200], geometry=case != "no geometry")
    if case == "no scores":
        rows = [row for row in rows if row.site]
    if case == "no value":
        rows = [row._replace(value=None, status="nonfinite", reason="weights hold NaN") for row in rows]
    runs = open_runs([planted.write_run(tmp_path / "run", rows)])
    for each in paper_figures(runs):
        assert each.panels
        assert all(panel.lack or panel.lines or panel.cells for panel in each.panels)
    assert all(each.frame.height or each.lacks for each in paper_tables(runs))


@pytest.mark.slow
def test_files_are_written_escaped_and_the_same_twice(tmp_path: Path) -> None:
    run = hostile(tmp_path / "run")
    written = write_paper([run], tmp_path / "out", ["svg"])
    assert len(written) == len({each.title for each in written})
    names = {path.name for each in written for path in each.files}
    assert {"fig-6.svg", "fig-6.txt", "fig-7.svg", "fig-8.svg", "table-2.tex", "table-3.csv"} <= names
    left_out = {each.title: each.lacks for each in written if not each.files}
    assert left_out["Figure 1. Emergence map"] == ("none of the runs is task-aligned",)
    assert "Table 9. Gradient rank and LLC under denoising" in left_out
    for path in (tmp_path / "out").glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert "<script" not in text
        assert "<img" not in text
    tex = (tmp_path / "out" / "table-2.tex").read_text(encoding="utf-8")
    assert r"\begin{table}" in tex
    assert latex_text(ATTACK) in tex
    assert ATTACK not in tex
    again = write_paper([run], tmp_path / "again", ["svg"])
    for first, second in zip(written, again, strict=True):
        assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in second.files]


def test_an_unknown_format_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = planted.write_run(tmp_path / "run", planted.rows(steps=[0]))
    with pytest.raises(UserError, match=r"no format 'pgn'.*did you mean 'png'"):
        write_paper([run], tmp_path / "out", ["pgn"])
    assert cli(["figures", str(run), "--format", "gif", "--out", str(tmp_path / "out")]) == 2
    assert "there are png, svg, pdf" in capsys.readouterr().err
    assert cli(["figures", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["report", "figures"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("column", "has no column 'task'"),
        ("schema", "has schema version 99, and this pythiageo reads 1: update pythiageo"),
        ("nonfinite", "a finite value and status 'ok' go together"),
        ("twice", "is there twice"),
    ],
)
def test_a_damaged_table_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, damage: str, said: str
) -> None:
    run = planted.write_run(tmp_path / "run", planted.rows(steps=[0, 100]))
    path = run / "observations.parquet"
    table = pl.read_parquet(path)
    changed = {
        "column": table.drop("task"),
        "schema": table,
        "nonfinite": table.with_columns(pl.lit(float("inf")).alias("value")),
        "twice": pl.concat([table, table]),
    }[damage]
    version = "99" if damage == "schema" else "1"
    pq.write_table(changed.to_arrow().replace_schema_metadata({SCHEMA_KEY: version.encode()}), path)
    out = tmp_path / "out"
    assert cli([command, str(run), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not out.exists()


@pytest.mark.slow
def test_the_command_says_what_each_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = planted.write_run(tmp_path / "run", planted.rows(steps=[0, 100, 200]))
    arguments = ["figures", str(run), "--format", "png", "--out", str(tmp_path / "out"), "--json"]
    assert cli(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["title"].split(".")[0] for each in said[:8]] == [f"Figure {number}" for number in range(1, 9)]
    assert (said[7]["files"], said[7]["lacks"]) == ([], ["none of the runs is naturalistic"])
    # what is drawn has its caption beside it, and what it lacks there, not in the picture
    assert "Lacks: no run of size micro" in (tmp_path / "out" / "fig-2.txt").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "fig-2.png").read_bytes().startswith(b"\x89PNG")
    first = figure(open_runs([run]), "fig-4")
    pdf = draw(first, ("pdf",))["pdf"]
    assert pdf.startswith(b"%PDF")
    assert draw(first, ("pdf",))["pdf"] == pdf


def test_ticks_are_short() -> None:
    assert [short_step(step) for step in (0, 100, 1000, 143_000, 1_500_000)] == ["0", "100", "1K", "143K", "1.5M"]
