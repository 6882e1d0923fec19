"""What a run says where the output is no terminal: a line a tenth, a minute, and sooner where nothing comes."""

from __future__ import annotations

import pytest

from pythiageo.cli import display
from pythiageo.progress import Progress


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
