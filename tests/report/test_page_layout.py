"""How long a page is, what is on paper, what stands side by side: in a browser, as test_report_browser says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import planted
from planted import Plant
from test_report_browser import Opened, browser, opened, pytestmark, twins  # noqa: F401 - fixtures and the mark

from pythiageo.report import build_report

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference"
HEIGHT = "document.documentElement.scrollHeight"


def test_the_readmes_report_is_read_from_top_to_bottom(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    out = build_report([REFERENCE / "nano-s42", REFERENCE / "micro-s42"], tmp_path / "reference.html")
    report = opened(browser, out)
    for width in (1300, 390):
        report.page.set_viewport_size({"width": width, "height": 900})
        report.page.reload()
        report.page.wait_for_selector("html[data-drawn]")
        assert report.page.evaluate(HEIGHT) < 9000
        assert report.page.evaluate("document.documentElement.scrollWidth") <= width
        if width == 1300:
            # what was found, with its charts, is on the first screen
            bottoms = "[...document.querySelectorAll('.finding')].map(each => each.getBoundingClientRect().bottom)"
            assert max(report.page.evaluate(bottoms)) < 900
            assert report.page.locator(".finding .plot .nsewdrag").count() == 2
    assert report.said == []
    report.page.close()


def test_every_panel_is_on_paper_and_says_what_was_chosen(browser: Any, twins: Path) -> None:  # noqa: F811
    """Nothing was scrolled to, the page is dark, and the paper's figures are folded."""
    report = opened(browser, twins, color_scheme="dark")
    report.choose("measure", "rankme")
    report.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    report.page.emulate_media(media="print")
    panels = report.page.evaluate(
        "[...document.querySelectorAll('.fold:not([hidden]) .panel, .finding .panel, #panels-curves .panel')]"
        ".map(panel => "
        "({ title: panel.querySelector('h4').textContent, drawn: !!panel.querySelector('.main-svg, .lack'), "
        "inside: panel.querySelector('.plot').scrollWidth <= panel.clientWidth + 1, wide: panel.clientWidth }))"
    )
    assert len(panels) > 25
    assert [panel for panel in panels if not (panel["drawn"] and panel["inside"] and panel["wide"])] == []
    said = report.page.inner_text("#choice")
    assert "measure RankMe; readout answer positions, centred" in said
    assert "task all" in said
    assert report.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # and afterwards all is as before
    report.page.emulate_media(media="screen")
    report.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert report.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"
    assert report.page.locator("#paper details[open]").count() == 0
    assert report.page.evaluate("document.querySelector('#panels-curves .plot').layout.width") is None
    assert report.said == []
    report.page.close()


def test_ranks_with_sinks_and_without_stand_side_by_side(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    rows = planted.rows({"MOD": Plant()}, steps=[0, 100, 200, 300])
    spared = [row._replace(readout="answer-but-sinks/centred", value=row.value + 7) for row in rows if row.site]
    alone = [row._replace(readout="equals/centred") for row in rows if row.site]
    run = planted.write_run(tmp_path / "run", [*rows, *spared, *alone])
    report = opened(browser, build_report([run], tmp_path / "report.html"))
    for readout in ("answer/centred", "answer-but-sinks/centred"):
        report.choose("readout", readout)
        assert report.page.locator("#panels-sinks h4").all_inner_texts() == ["MOD, with sinks", "MOD, without sinks"]
        report.drawn("sinks")
        whole, without = report.page.evaluate(
            "[...document.querySelectorAll('#panels-sinks .plot')]"
            ".map(p => [Array.from(p.data[1].y), p.layout.yaxis.range])"
        )
        assert whole[0] == [20.0, 14.0, 8.0, 2.0]
        assert without[0] == [27.0, 21.0, 15.0, 9.0]
        assert whole[1] == without[1]
    report.choose("readout", "equals/centred")
    assert not report.page.locator(".fold.sinks").is_visible()
    assert report.said == []
    report.page.close()


def test_a_page_of_many_runs_opens_with_one_task_and_has_the_others(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    runs = [REFERENCE / f"{name}-s{seed}" for name in ("nano", "micro") for seed in (42, 123, 7)]
    report = opened(browser, build_report(runs, tmp_path / "reference.html"))
    report.page.set_viewport_size({"width": 1300, "height": 900})
    assert report.page.evaluate(HEIGHT) < 9000
    titles = report.page.locator("#panels-curves h4").all_inner_texts()
    assert len(titles) == len(runs)
    assert {title.split(" · ")[0] for title in titles} == {"ADD"}
    report.choose("task", "-1")
    assert len(report.page.locator("#panels-curves h4").all_inner_texts()) > 4 * len(runs)
    # charts and what is not decided are folded, not gone
    assert report.page.locator(".finding details.fold").count() == len(runs)
    claims = report.page.locator("#claims > .claims tbody tr").count()
    undecided = report.page.locator("#claims > details .claims tbody tr").count()
    assert (claims > 0, undecided > 0) == (True, True)
    assert report.said == []
    report.page.close()
