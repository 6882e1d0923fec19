"""The pages of reference are what the code says, and the page of what to do has an answer to everything it can say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from pythiageo import errors
from pythiageo.claims import VERDICTS
from pythiageo.names import DOMINATED
from pythiageo.observations.dominated import MAKERS
from pythiageo.observations.measures import declared_measures
from pythiageo.observations.schema import COLUMNS, STATUSES
from pythiageo.series.audit.values import FINDINGS
from pythiageo.study.protocols import EVENT_STATUSES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = runpy.run_path(str(DOCS / "make_reference.py"))["PAGES"]
RUNS = ("complete", "running", "interrupted", "diverged")
CODES = sorted(value for name, value in vars(errors).items() if name.startswith("EXIT_"))


def rows(page: str) -> list[list[str]]:
    """The rows of a page's tables, without their heads."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [row for row, after in zip(cells, [*cells[1:], [""]], strict=True) if row[0][:1] != "-" != after[0][:1]]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_made_of_the_code(name: str) -> None:
    made = PAGES[name]()
    assert made == (DOCS / name).read_text(encoding="utf-8"), "python docs/make_reference.py writes it anew"
    meant = [(row[0], row[-1] if name == "config.md" else row[1]) for row in rows(made)]
    assert [key for key, meaning in meant if not meaning] == []  # a key, a column, a status that nobody explains


def test_none_is_missing() -> None:
    table = {row[0].strip("`") for row in rows(PAGES["table.md"]())}
    assert {*COLUMNS, *STATUSES, *EVENT_STATUSES, *map(str, CODES)} <= table
    assert {row[0].strip("`") for row in rows(PAGES["measures.md"]())} >= set(declared_measures())


def test_there_is_something_to_do_about_all_that_can_be_printed() -> None:
    page = (DOCS / "faq.md").read_text(encoding="utf-8")
    said = [name for row in rows(page) for name in re.findall(r"`([^`]+)`|^(\d+)$", row[0])]
    remarks = {f"{DOMINATED} {maker}" for maker in MAKERS}
    expected = [*STATUSES, *EVENT_STATUSES, *FINDINGS, *VERDICTS, *RUNS, *remarks, *map(str, CODES)]
    # "_by_position" and "items_left_out" name what a remark stands at
    assert sorted(code or number for code, number in said) == sorted([*expected, "_by_position", "items_left_out"])
