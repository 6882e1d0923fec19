"""Claims on the page: what is shown is what was claimed, and a specification curve has every specification once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import planted
import polars as pl
import pytest
from planted import Plant
from test_report import ATTACK, Page

from pythiageo.claims import ClaimResult, Specification, result
from pythiageo.claims.every import all_claims
from pythiageo.claims.of_runs import ask, question_of
from pythiageo.claims.result import describe_verdict
from pythiageo.cli.app import run as run_command
from pythiageo.events.run import open_runs
from pythiageo.figures.spec import EASY, HARD
from pythiageo.report import build_report
from pythiageo.report.claims import specification_curve
from pythiageo.report.words import format_cell, format_estimate, format_interval


def claimed(name: str = "collapse first", claim: str = "collapse comes first", **changed: Any) -> ClaimResult:
    """A claim as an analysis hands it over."""
    table = pl.DataFrame({"task": ["MOD", "ADD"], "lead": [300.0, None]})
    given: dict[str, Any] = {
        "table": table, "verdict": "supported", "rule": "the interval lies above the null", "estimate": 0.875,
        "interval": (0.7, 0.95), "null": 0.5, "p": 0.012, "n": 24, "reason": None, "specification": Specification(),
    }  # fmt: skip
    return ClaimResult(name, claim, **(given | changed))


def curve(count: int = 6) -> pl.DataFrame:
    """Estimates 0.1, 0.2 .. in mixed order; the upper half is supported."""
    rows = [
        {
            "name": "collapse first",
            "claim": "collapse comes first",
            "protocol": ("billa-v1", "billa-v4")[i % 2],
            "readout": "answer/centred",
            "k": i % 3,
            "verdict": "supported" if i >= count / 2 else "not decidable",
            "estimate": (i + 1) / 10,
            "low": i / 10,
            "high": (i + 2) / 10,
        }
        for i in range(count)
    ]
    return pl.DataFrame(rows[1::2] + rows[::2])


def test_the_page_shows_estimate_interval_null_and_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = planted.write_run(tmp_path / "run", planted.rows(steps=[0, 100, 200]))
    nothing: dict[str, Any] = {"estimate": None, "interval": None, "null": None, "p": None, "n": 0}
    undecided = claimed("swap", "swaps", verdict="not decidable", reason="one size only", **nothing)
    monkeypatch.setattr(
        "pythiageo.report.report.ask", lambda runs: {"task-aligned": [claimed(), undecided, claimed(ATTACK, ATTACK)]}
    )
    monkeypatch.setattr("pythiageo.report.report.ask_under_every_specification", lambda runs, progress: curve())
    page = Page(build_report([run], tmp_path / "r.html", everywhere=True))
    rule = "the interval lies above the null"
    assert ["collapse comes first", "supported", "0.88", "0.70 to 0.95", "0.50", "0.012", "24", ""] in page.rows
    assert ["swaps", "not decidable", "–", "–", "–", "–", "0", "one size only"] in page.rows
    assert page.text.count(f"{rule}.") == 3
    assert ["MOD", "300"] in page.rows
    assert ["ADD", "–"] in page.rows
    assert [each["id"] for each in page.data["paper"]][-1] == "specifications"
    # a stranger's words stay words
    assert len([tag for tag in page.script_tags if "type" not in tag[1]]) == 1
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_claims_are_those_of_the_analysis(tmp_path: Path) -> None:
    plants = {name: Plant(500 + 100 * i, 200, low=2.0 + i) for i, name in enumerate(("COPY", "REV", "MOD", "ADD"))}
    run = planted.write_run(tmp_path / "run", planted.rows(plants))
    runs = open_runs([run])
    asked = {each.name: each for each in ask(runs)["task-aligned"]}
    direct = {each.name: each for each in all_claims(runs[0].distinct, question_of(runs).specification)}
    assert asked.keys() == direct.keys()
    for name, each in asked.items():
        same = (each.verdict, each.estimate, each.interval, each.n) == (
            direct[name].verdict, direct[name].estimate, direct[name].interval, direct[name].n,
        )  # fmt: skip
        assert same, name
    # planted: a lower floor is earlier, in every pair
    assert asked["prediction-across"].estimate == 1.0
    page = Page(build_report([run], tmp_path / "r.html"))
    row = next(row for row in page.rows if row[0] == asked["prediction-across"].claim)
    assert row[1:3] == [asked["prediction-across"].verdict, "1.00"]
    assert "Specification curves were not asked for" in page.text


def test_the_page_shows_the_claims_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every claim of every regime: two seeds of two sizes on tasks, and a run on text that is not pooled with them."""
    plants = {
        name: Plant(500 + 100 * i, 200, low=2.0 + i) for i, name in enumerate(("COPY", "REV", "MOD", "ADD", "SORT"))
    }
    other = {
        name: Plant(500 + 100 * i, 200, low=9.0 - i) for i, name in enumerate(("COPY", "REV", "MOD", "ADD", "SORT"))
    }
    config = {"data": {"source": "tasks", "tasks": list(plants)}}
    steps, paths = range(0, 1301, 100), []
    for size, seed in (("nano", 1), ("nano", 2), ("micro", 1), ("micro", 2)):
        who = {"run": f"{size}-{seed}", "series": size, "size": size, "seed": seed}
        rows = planted.rows(plants, steps, layers=4, **who)
        paths.append(planted.write_run(tmp_path / f"{size}-{seed}", rows, config=config))
    text = {"run": "text", "series": "text", "regime": "naturalistic", "size": "small", "seed": 1}
    paths.append(planted.write_run(tmp_path / "text", planted.rows(other, steps, layers=4, **text)))
    assert run_command(["claims", *map(str, paths), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert list(answers) == ["task-aligned", "naturalistic"]
    page = Page(build_report(paths, tmp_path / "r.html"))
    shown = [row for row in page.rows if len(row) == 9 and row[1] in answers]
    told = [
        [
            each["claim"], regime, describe_verdict(each["verdict"], each["rests_on"]),
            format_estimate(each["estimate"]), format_interval(each["low"], each["high"]),
            format_estimate(each["null"]), format_estimate(each["p"]), str(each["n"]), each["reason"] or "",
        ]
        for regime, answer in answers.items()
        for each in answer["claims"]
    ]  # fmt: skip
    assert len(told) == 30
    assert shown == sorted(told, key=lambda row: row[2] == "not decidable")  # of five runs these come last, folded
    # planted: floors in one order at both sizes, and the other way round in the run on text
    verdicts = {(row[0], row[1]): row[2] for row in shown}
    order = "tasks have the same order of floors at every size"
    assert verdicts[order, "task-aligned"] == "supported"
    assert verdicts[order, "naturalistic"] == "not decidable"


@pytest.mark.parametrize("case", ["one checkpoint", "no geometry", "no scores", "no value", "other measures"])
def test_what_cannot_be_asked_is_not_decidable_and_says_why(tmp_path: Path, case: str) -> None:
    rows = planted.rows(steps=[0] if case == "one checkpoint" else [0, 100, 200], geometry=case != "no geometry")
    if case == "no scores":
        rows = [row for row in rows if row.site]
    if case == "no value":
        rows = [row._replace(value=None, status="nonfinite", reason="weights hold NaN") for row in rows]
    if case == "other measures":
        rows = [row._replace(measure="curvature", site=None, layer=0, readout="all/raw") for row in rows[:1]]
    [found] = ask(open_runs([planted.write_run(tmp_path / "run", rows)])).values()
    assert len(found) >= 12
    for each in found:
        assert each.verdict == "not decidable", each
        assert each.reason, each.name


def test_the_classes_of_tasks_are_those_of_the_claims() -> None:
    assert set(EASY) == set(result.EASY["billa-v1"])
    assert set(HARD) == set(result.HARD["billa-v1"])


def test_a_specification_curve_is_in_order_and_names_its_share() -> None:
    estimates, choices = specification_curve(curve()).panels
    assert estimates.title == "collapse first: supported in 3 of 6 (50%)"
    points = {line.name: (list(line.x), list(line.y)) for line in estimates.lines}
    assert points == {"supported": ([3, 4, 5], [0.4, 0.5, 0.6]), "not decidable": ([0, 1, 2], [0.1, 0.2, 0.3])}
    assert estimates.lines[0].low == [0.3, 0.4, 0.5]
    # a choice that was never made differently (the readout) is no row
    assert choices.y.names == ("protocol billa-v1", "protocol billa-v4", "k 0", "k 1", "k 2")
    made = {line.name: list(line.x) for line in choices.lines}
    assert made["protocol billa-v1"] == [0, 2, 4]
    assert made["k 2"] == [2, 5]


def test_specifications_without_an_estimate_are_counted_and_not_drawn() -> None:
    rows = curve().with_columns(pl.when(pl.col("k") == 0).then(None).otherwise(pl.col("estimate")).alias("estimate"))
    panel = specification_curve(rows).panels[0]
    assert panel.title.endswith("supported in 3 of 6 (50%); 2 without an estimate")
    assert sum(len(line.x) for line in panel.lines) == 4
    none = specification_curve(rows.with_columns(pl.lit(None, dtype=pl.Float64).alias("estimate")))
    assert none.panels[0].lack == "no specification gave an estimate"
    assert specification_curve(curve().head(0)).panels[0].lack == "no claim was made under several definitions"


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="found \\['maybe'\\]"):
        specification_curve(curve().with_columns(pl.lit("maybe").alias("verdict")))


def test_many_specifications_are_thinned_and_said() -> None:
    panel = specification_curve(curve(1000)).panels[0]
    assert "400 of 1000 drawn" in panel.title
    assert "supported in 500 of 1000" in panel.title
    drawn = [value for line in panel.lines for value in line.y]
    assert (len(drawn), min(drawn), max(drawn)) == (400, 0.1, 100.0)


def test_cells_are_never_a_bare_none_or_infinity() -> None:
    assert [format_cell(each) for each in (None, float("nan"), 0.123456, (0.1, None), 3, "x")] == [
        "–", "–", "0.12", "0.10 to –", "3", "x",
    ]  # fmt: skip
