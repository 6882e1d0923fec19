"""docs/first-figure.md: its commands and blocks run in its order, and print what it quotes.

Numbers to 5%: 400 steps of training carry differences in the last digit between machines further than one pass does.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from printed import assert_alike, run_blocks

from pythiageo.cli.app import run as cli

PAGE = (Path(__file__).parents[2] / "docs" / "first-figure.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_first_run_and_figure_are_as_the_page_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^pythiageo (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert cli(shlex.split(command)) == 0
    summary = next(line for line in PAGE.splitlines() if line.startswith("outputs/first: complete"))
    assert summary in "".join(capfd.readouterr())
    assert (tmp_path / "outputs" / "first.png").exists()
    assert (tmp_path / "outputs" / "first.txt").exists()
    for lines, quoted in run_blocks(PAGE, 2):
        assert_alike(lines, quoted, rel=5e-2)
