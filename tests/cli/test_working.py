"""Nobody looks at an empty screen: what is being done is said where it takes long."""

from __future__ import annotations

import re
import sys
import time

import pytest

from pythiageo.cli import working as module
from pythiageo.cli.working import working


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)


def test_a_log_a_quick_piece_of_work_and_a_quiet_command_get_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with working("drawing"):
        time.sleep(0.2)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with working("drawing"):
        pass
    with working("drawing", quiet=True):
        time.sleep(0.2)
    with pytest.raises(ValueError, match="mine"), working("drawing"):
        raise ValueError("mine")
    assert capsys.readouterr().err == ""


def test_a_terminal_is_left_clean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"COLUMNS": "80", "TTY_COMPATIBLE": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with working("drawing [bold]"):
        time.sleep(0.4)
    shown = capsys.readouterr().err
    assert "drawing [bold]" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "\x1b[?25h" in shown  # the cursor is there again
