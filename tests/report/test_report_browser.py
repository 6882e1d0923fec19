"""The report in headless Chromium: loads from a file, asks for nothing, switches work, numbers are the table's.

Debian's chromium is used (``apt-get install chromium``; ``.ci/run`` does that). Without one these tests are skipped,
except in CI.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import planted
import polars as pl
import pytest
from test_report import ATTACK, Page, hostile, two_runs

from pythiageo.report import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and not IN_CI, reason="no chromium on this machine (apt-get install chromium)"),
]


@dataclass
class Opened:
    """A page in the browser, with what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def cells(self, selector: str) -> list[list[str]]:
        return self.page.eval_on_selector_all(
            f"{selector} tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )

    def choose(self, name: str, value: str) -> None:
        self.page.select_option(f"#{name}", value)
        self.page.wait_for_timeout(150)

    def drawn(self, name: str) -> list[dict[str, Any]]:
        """What the library holds of the first panel of a figure: traces with names and numbers."""
        self.page.locator(f"#panels-{name} .panel").first.scroll_into_view_if_needed()
        self.page.wait_for_selector(f"#panels-{name} .panel:first-child .nsewdrag", state="attached")
        return self.page.evaluate(
            f"document.querySelector('#panels-{name} .panel .plot').data.map(t => ({{name: t.name, type: t.type, "
            "x: Array.from(t.x), y: Array.from(t.y), z: t.z, colour: t.line && t.line.color}))"
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "CI must have a chromium: .ci/run installs it"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


def opened(browser: Any, path: Path, **context: Any) -> Opened:
    page = browser.new_page(viewport={"width": 1200, "height": 900}, **context)
    result = Opened(page)
    page.on("console", lambda message: result.said.append(message.text))
    page.on("pageerror", lambda error: result.said.append(str(error)))
    page.on("request", lambda request: result.asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    return result


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    return build_report(two_runs(folder), folder / "report.html")


def test_it_loads_without_a_word_or_a_request_and_shows_the_tables_numbers(browser: Any, twins: Path) -> None:
    report = opened(browser, twins)
    table = pl.read_parquet(twins.parent / "ours" / "observations.parquet")
    rank = table.filter(
        (pl.col("task") == "MOD")
        & (pl.col("measure") == "covariance_effective_rank")
        & (pl.col("site") == "blocks.1.hook_resid_post")
    ).sort("step")
    lines = {line["name"]: line for line in report.drawn("curves")}
    assert set(lines) == {"block 0", "block 1", "final LayerNorm"}
    assert lines["block 1"]["y"] == rank["value"].to_list()
    # each run's own floor, as numbers
    report.page.click("#values summary")
    assert report.page.inner_text("#values-of") == "MOD, covariance effective rank, answer positions, centred"
    assert report.cells("#values-head") == [["layer", "nano-42, step 300", "text-42, step 300"]]
    assert report.cells("#values-body") == [
        ["block 0", "5", "7"],
        ["block 1", "2", "4"],
        ["final LayerNorm", "2.50", "4.50"],
    ]
    assert report.drawn("heat")[0]["z"][1] == rank["value"].to_list()
    accuracy = {line["name"]: line["y"] for line in report.drawn("scores")}
    assert accuracy["L2"] == [0.1] * 7 + [0.96] * 3
    assert accuracy["L2 chance"] == [0.1] * 10
    assert report.drawn("beside")[1]["name"] == "text-42"
    assert report.said == []
    assert report.asked == [twins.as_uri()]
    report.page.close()


def test_every_switch_changes_what_is_drawn(browser: Any, twins: Path) -> None:
    report = opened(browser, twins)
    assert report.page.locator("#panels-curves .panel").count() == 4
    report.choose("task", "1")
    assert report.page.locator("#panels-curves h4").all_inner_texts() == ["SORT · nano-42", "SORT · text-42"]
    report.choose("run", "1")
    assert report.page.locator("#panels-curves h4").all_inner_texts() == ["SORT · text-42"]
    report.choose("run", "0")
    before = report.drawn("curves")[0]["y"]
    report.choose("measure", "rankme")
    assert report.drawn("curves")[0]["y"] == [2.5 * value for value in before]
    assert report.page.inner_text("#definition").startswith("RankMe: exp(")
    report.choose("layers", "1")
    assert [line["name"] for line in report.drawn("curves")] == ["block 1"]
    report.choose("layers", "ln")
    assert [line["name"] for line in report.drawn("curves")] == ["final LayerNorm"]
    report.choose("layers", "few")
    logarithmic = report.drawn("curves")[0]["x"]
    report.choose("scale", "linear")
    assert report.drawn("curves")[0]["x"] == [0, 100, 200, 300, 400, 500, 700, 900, 1000, 1200] != logarithmic
    report.choose("score", report.page.evaluate("String(columnOf('log_prob', null))"))
    assert report.drawn("scores")[0]["y"][-1] == -0.1
    report.choose("at", "last")
    assert "step 1,200" in report.cells("#values-head")[0][1]
    # the keyboard moves the step, and the profile with it
    report.page.focus("#step")
    report.page.keyboard.press("Home")
    report.page.keyboard.press("ArrowRight")
    report.page.wait_for_timeout(150)
    assert "step 100" in report.cells("#values-head")[0][1]
    assert report.page.input_value("#at") == "step"
    assert report.said == []
    report.page.close()


def test_lines_are_toggled_and_panels_zoom_together(browser: Any, twins: Path) -> None:
    report = opened(browser, twins)
    report.choose("scale", "linear")
    first = report.page.locator("#legend-curves button").first
    first.focus()
    report.page.keyboard.press("Enter")
    report.page.wait_for_timeout(150)
    assert "block 0" not in [line["name"] for line in report.drawn("curves")]
    assert report.page.locator("#legend-curves button").first.get_attribute("aria-pressed") == "false"
    report.page.fill("#from", "200")
    report.page.fill("#to", "900")
    report.page.keyboard.press("Tab")
    report.page.wait_for_timeout(300)
    ranges = (
        "[...document.querySelectorAll('#figures .plot')]"
        ".filter(p => p.layout && p.layout.xaxis.title.text === 'training step')"
    )
    zoomed = report.page.evaluate(ranges + ".map(p => p.layout.xaxis.range)")
    assert zoomed
    assert all(pair == [200, 900] for pair in zoomed)
    report.page.click("#reset")
    report.page.wait_for_timeout(300)
    assert all(pair[1] > 1200 for pair in report.page.evaluate(ranges + ".map(p => p.layout.xaxis.range)"))
    # by the mouse: one panel is dragged, its neighbours follow, and the fields say where
    box = report.page.locator("#panels-curves .plot .nsewdrag").first.bounding_box()
    report.page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])
    report.page.mouse.down()
    report.page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"], steps=6)
    report.page.mouse.up()
    report.page.wait_for_timeout(400)
    dragged = report.page.evaluate(ranges + ".map(p => p.layout.xaxis.range.map(Math.round))")
    assert {tuple(pair) for pair in dragged} == {tuple(dragged[0])}
    assert 200 < dragged[0][0] < dragged[0][1] < 1000
    assert report.page.input_value("#from") == str(dragged[0][0])
    assert report.said == []
    report.page.close()


def test_light_and_dark_by_the_system_and_by_the_switch(browser: Any, twins: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    report = opened(browser, twins, color_scheme="dark")
    assert report.page.evaluate(ground) == "rgb(20, 24, 28)"
    dark = report.drawn("curves")[1]["colour"]
    report.choose("theme", "light")
    assert report.page.evaluate(ground) == "rgb(255, 255, 255)"
    assert report.drawn("curves")[1]["colour"] != dark
    report.choose("theme", "auto")
    assert report.drawn("curves")[1]["colour"] == dark
    # a definition appears for the keyboard, too
    report.page.get_by_text("Acquisition steps of nano-42").click()
    term = report.page.locator("details[open] .term").first
    term.focus()
    assert term.locator(".tip").is_visible()
    assert report.said == []
    report.page.close()


def test_no_strangers_script_runs(browser: Any, tmp_path: Path) -> None:
    out = build_report([hostile(tmp_path / "a"), *two_runs(tmp_path)], tmp_path / "report.html")
    report = opened(browser, out)
    report.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")  # draws every panel
    report.page.wait_for_timeout(500)
    report.page.locator("#panels-curves .nsewdrag").first.hover()
    assert report.page.title() != "owned"
    assert report.page.locator("img, iframe").count() == 0
    assert ATTACK.split("{{")[0].strip() in report.page.inner_text("#panels-curves")
    assert report.said == []
    assert report.asked == [out.as_uri()]
    report.page.close()


@pytest.mark.parametrize("case", ["one checkpoint", "one task, no scores", "scores alone", "no value"])
def test_partial_data_says_why(browser: Any, tmp_path: Path, case: str) -> None:
    rows = planted.rows(steps=[0] if case == "one checkpoint" else [0, 100, 200, 300])
    if case == "one task, no scores":
        rows = [row for row in rows if row.site]
    if case == "scores alone":
        rows = [row for row in rows if not row.site]
    if case == "no value":
        rows = [row._replace(value=None, status="nonfinite", reason="weights hold NaN") for row in rows]
    report = opened(browser, build_report([planted.write_run(tmp_path / "run", rows)], tmp_path / "report.html"))
    text = report.page.inner_text("body")
    wanted = {
        "one checkpoint": "A floor cannot be read from this run (Covariance effective rank (σ²)",
        "one task, no scores": "There are no scores: none was taken.",
        "scores alone": "There are no curves by layer: no measure was taken at a layer.",
        "no value": "nothing to draw: 12 observations are nonfinite (weights hold NaN)",
    }
    assert wanted[case] in text
    assert report.said == []
    report.page.close()


def test_measures_of_other_makers_are_drawn_by_layer_and_level(browser: Any, tmp_path: Path) -> None:
    """As an import may give them: layers without a hook's name, several levels, a measure that is not ours."""
    rows = [
        planted.observation(
            step=step, task="text", level=level, layer=layer, measure="prompt_entropy", value=step / 100 + layer + shift
        )
        for step in (0, 100, 200)
        for layer in (0, 1)
        for level, shift in (("short", 0.0), ("long", 0.5))
    ]
    report = opened(browser, build_report([planted.write_run(tmp_path / "run", rows)], tmp_path / "report.html"))
    lines = {line["name"]: line for line in report.drawn("curves")}
    assert set(lines) == {"block 0 long", "block 0 short", "block 1 long", "block 1 short"}
    assert lines["block 1 long"]["y"] == [1.5, 2.5, 3.5]
    assert lines["block 0 long"]["colour"] != lines["block 1 long"]["colour"]
    report.choose("at", "floor")
    assert "a floor is defined for rank measures; choose a step" in report.page.inner_text("#panels-profiles")
    assert report.said == []
    report.page.close()


def test_standard_errors_stand_beside_their_values(browser: Any, tmp_path: Path) -> None:
    rows = [row._replace(stderr=0.125 if row.step else None) for row in planted.rows(steps=[0, 100, 200])]
    report = opened(browser, build_report([planted.write_run(tmp_path / "run", rows)], tmp_path / "report.html"))
    report.drawn("curves")
    said = report.page.evaluate("document.querySelector('#panels-curves .plot').data[1].customdata")
    assert said == [[0, ""], [100, " ± 0.125"], [200, " ± 0.125"]]
    report.choose("at", "last")
    assert report.cells("#values-body")[1] == ["block 1", "8 ± 0.13"]
    assert report.said == []
    report.page.close()


def test_a_run_of_pythias_size_stays_small_and_is_drawn_at_once(browser: Any, tmp_path: Path) -> None:
    out = build_report([planted.write_large_run(tmp_path / "large")], tmp_path / "report.html")
    page = Page(out)
    sizes = [len(page.block(f"column-{index}")) for index in range(len(page.data["columns"]))]
    assert len(sizes) == 10
    # the three rank measures of a default run beside the page itself
    three = out.stat().st_size + 2 * sum(sizes)
    assert three < 12_000_000
    report = Opened(browser.new_page(viewport={"width": 1200, "height": 900}))
    session = report.page.context.new_cdp_session(report.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    report.page.goto(out.as_uri() + "#figures")
    report.page.wait_for_selector("html[data-drawn]", timeout=60_000)
    waited = int(report.page.get_attribute("html", "data-drawn")) / 1000
    # the page's own time on its thread: what a reader waits for on a machine that does nothing else
    spent = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}["TaskDuration"]
    assert report.page.locator("#panels-curves .nsewdrag").count() > 3
    whole = report.page.evaluate(
        "(() => { const begun = performance.now(); window.dispatchEvent(new Event('beforeprint'));"
        " return performance.now() - begun; })()"
    )
    switch = report.page.evaluate(
        "(async () => { const begun = performance.now(); document.getElementById('readout').value = 'mean/uncentred';"
        " await showGeometry(); return performance.now() - begun; })()"
    )
    report.page.close()
    print(
        f"154 checkpoints x 32 layers x 15 tasks x 10 readouts: {out.stat().st_size / 1e6:.1f} MB for one measure, "
        f"{three / 1e6:.1f} for three; drawn after {waited:.2f} s ({spent:.2f} of its own), "
        f"every panel {whole / 1000:.2f} s more, another readout {switch / 1000:.2f} s"
    )
    assert spent < 3


def test_runs_of_different_depth_say_of_how_many_blocks(browser: Any, tmp_path: Path) -> None:
    """One shade is the last block of each: block 1 of two, block 3 of four."""
    steps, model = range(0, 1001, 100), ("run", "series")
    deep = [
        row._replace(layer=layer, site=f"blocks.{layer}.hook_resid_post")
        for row in planted.rows({"MOD": planted.Plant()}, steps=steps, size="micro", **dict.fromkeys(model, "micro-42"))
        if row.site == "blocks.1.hook_resid_post"
        for layer in range(4)
    ]
    runs = [
        planted.write_run(tmp_path / "nano", planted.rows({"MOD": planted.Plant()}, steps=steps)),
        planted.write_run(tmp_path / "micro", deep),
    ]
    report = opened(browser, build_report(runs, tmp_path / "report.html"))
    report.drawn("curves")
    shown = report.page.eval_on_selector_all(
        "#legend-curves button",
        "all => Object.fromEntries(all.map(b => [b.textContent, b.querySelector('.mark').style.borderColor]))",
    )
    assert {"block 0 of 2", "block 1 of 2", "block 0 of 4", "block 3 of 4"} <= set(shown)
    assert shown["block 1 of 2"] == shown["block 3 of 4"] != shown["block 1 of 4"]
    report.page.close()
