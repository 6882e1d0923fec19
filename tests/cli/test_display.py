"""What a terminal of 80 columns shows, unbroken; and what a run says where the output is no terminal."""

from __future__ import annotations

import re

import pytest

from pythiageo.cli import display
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


def test_a_run_that_stands_still_is_heard_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    said: dict[int, str] = {}
    with display.shown_progress(["r"], quiet=False) as report:
        for second in range(200):
            now[0] = 1000.0 + second
            stalls = 100 <= second < 150
            report(Progress("r", 0, 4, "waiting", f"nothing has come for {second - 85} s" if stalls else ""))
            if text := capsys.readouterr().err:
                said[second] = text
    assert list(said) == [0, 60, 100, 115, 130, 145]
    assert said[60] == "r: 0/4 waiting\n"
