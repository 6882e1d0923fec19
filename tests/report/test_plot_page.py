"""The page of one plot, panels as files, addresses that keep a choice: in a browser, as test_report_browser says."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import planted
from planted import Plant
from test_report import ATTACK
from test_report_browser import browser, opened, pytestmark, twins  # noqa: F401 - fixtures and the mark

import pythiageo


def save(report: Any, panels: str, format: str, folder: Path) -> Path:
    """Press a panel's button and return the file that comes."""
    panel = report.page.locator(f"#panels-{panels} .panel").first
    panel.scroll_into_view_if_needed()
    with report.page.expect_download() as download:
        panel.get_by_text(format, exact=True).click()
    download.value.save_as(folder / download.value.suggested_filename)
    return folder / download.value.suggested_filename


def test_a_panel_becomes_a_picture_with_its_legend_or_its_numbers(browser: Any, twins: Path, tmp_path: Path) -> None:  # noqa: F811
    report = opened(browser, twins)
    table = list(csv.DictReader(save(report, "curves", "CSV", tmp_path).read_text().splitlines()))
    drawn = {line["name"]: line["y"] for line in report.drawn("curves")}
    assert {row["line"] for row in table} == set(drawn)
    assert [float(row["covariance effective rank (dimensions)"]) for row in table if row["line"] == "block 1"] == drawn[
        "block 1"
    ]
    assert [int(row["step"]) for row in table if row["line"] == "block 1"][:3] == [0, 100, 200]
    assert save(report, "curves", "PNG", tmp_path).read_bytes().startswith(b"\x89PNG")
    svg = save(report, "curves", "SVG", tmp_path).read_text()
    assert "final LayerNorm" in svg
    assert "training step" in svg
    assert report.said == []
    # a picture is made from the page's own bytes
    assert [url for url in report.asked if not url.startswith("blob:null/")] == [twins.as_uri()]
    report.page.close()


def test_an_address_keeps_the_choice_and_a_section_stays_a_section(browser: Any, twins: Path, tmp_path: Path) -> None:  # noqa: F811
    report = opened(browser, twins)
    report.choose("task", "1")
    report.choose("measure", "rankme")
    report.choose("at", "last")
    address = report.page.get_attribute("#link", "href")
    assert address == "#task=SORT&measure=rankme&at=the+last+checkpoint"
    assert report.page.evaluate("location.hash") == address
    report.page.goto(twins.as_uri() + address)
    report.page.reload()
    report.page.wait_for_selector("html[data-drawn]")
    assert report.page.locator("#panels-curves h4").all_inner_texts() == ["SORT · nano-42", "SORT · text-42"]
    assert [report.page.input_value(f"#{name}") for name in ("measure", "at")] == ["rankme", "last"]
    report.page.click("nav a[href='#claims']")
    report.page.wait_for_timeout(150)
    assert report.page.input_value("#measure") == "rankme"
    # names that this page does not have, or that want to be obeyed, are passed over
    report.page.goto(twins.as_uri() + "#task=%3Cimg src=x onerror=alert(1)%3E&measure=none")
    report.page.wait_for_timeout(150)
    assert report.page.input_value("#measure") == "covariance_effective_rank"
    assert report.said == []
    report.page.close()


def test_the_page_of_a_plot_has_its_numbers_band_and_caption(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    runs = [
        planted.write_run(
            tmp_path / str(seed),
            planted.rows({"MOD": Plant(start=20.0 + seed)}, [0, 100, 300], run=f"{ATTACK}{seed}", seed=seed),
        )
        for seed in (1, 2)
    ]
    out = tmp_path / "plot.html"
    plot = pythiageo.plot(runs, "rankme", task="MOD", layers="last", seeds="band", out=out)
    report = opened(browser, out)
    band, line = report.drawn("plot")
    assert line["y"] == list(plot.panels[0].lines[0].y)
    assert len(band["y"]) == 6
    assert plot.caption in report.page.inner_text("figcaption")
    report.page.set_viewport_size({"width": 390, "height": 800})
    report.page.wait_for_timeout(600)  # plots follow the window a moment later
    assert report.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (report.said, report.asked) == ([], [out.as_uri()])
    report.page.close()
