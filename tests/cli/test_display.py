"""What a terminal of 80 columns shows: names, numbers and the time left are never broken."""

from __future__ import annotations

import re

import pytest

from pythiageo.cli.display import print_table, shown_progress
from pythiageo.progress import Progress


@pytest.fixture(params=[80, 120])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "dumb")
    return int(request.param)


def test_only_text_of_several_words_folds(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    name, why = "EleutherAI/pythia-410m-deduped", "the prompt and its answer are longer than the context " * 3
    row = (name, "logical-deduction", 21753, 1234.5678, why)
    print_table("found", ("series", "task", "step", "value", "why"), [row, ("nano", "MOD", "1,900", 2.0, "")])
    shown = capsys.readouterr().out
    assert all(len(line) <= terminal for line in shown.splitlines())
    assert {name, "logical-deduction", "21753", "1,900", "1235"} <= set(shown.split())
    assert " ".join(shown.split()).count("context") == 3


def test_columns_that_do_not_fit_become_a_list(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    header = [f"a-long-name-of-a-column-{number}" for number in range(9)]
    print_table("wide", header, [[12345678901234 + number for number in range(9)]])
    shown = capsys.readouterr().out
    for number in range(1, 9):
        assert f"{header[number]}: {12345678901234 + number}" in shown


def test_the_time_left_is_never_cut(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-run-of-a-rather-long-name-with-a-seed-42"
    with shown_progress([name], quiet=False) as report:
        for done in (1, 2, 3):
            report(Progress(run=name, done=done, total=100_000, note="step 21753, rankme under answer/centred " * 3))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    last = shown.replace("\r", "\n").strip().splitlines()[-1]
    assert re.search(r"left +(\d+:\d\d:\d\d|-:--:--) ", last), shown
    assert "3/100000" in last
    assert len(last) <= terminal
