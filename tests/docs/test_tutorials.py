"""The tutorials: their files are written and their commands and blocks run, in their order, and print what is quoted.

Numbers to 5%: hundreds of steps of training carry differences in the last digit between machines further than one pass
does. Accuracies of a task of one's own are of 100 items, in the steps in which they change: to 0.1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from printed import run_page

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "parts", "made", "absolute"),
    [
        ("first-figure", 5, ["first.png", "first.txt", "first.html"], 0.0),
        ("own-trainer", 6, ["mine.html", "mine/observations.parquet", "loop/observations.parquet"], 0.0),
        ("own-task", 6, ["which-digit/observations.parquet"], 0.1),
        ("own-series", 9, ["walk-analysis/observations.parquet"], 0.0),
        ("reading-a-report", 4, ["reading.html"], 0.0),
    ],
)
def test_a_tutorial_prints_what_it_quotes(
    page: str,
    parts: int,
    made: list[str],
    absolute: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "reference").symlink_to(ROOT / "outputs" / "reference")
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert run_page(text, capfd, rel=5e-2, absolute=absolute) == parts
    assert [name for name in made if not (tmp_path / "outputs" / name).exists()] == []
