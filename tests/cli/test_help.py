"""What commands say of themselves: headings, metavars, an example that parses, and what a shell completes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from pythiageo.cli.app import app
from pythiageo.cli.app import run as cli
from pythiageo.cli.help import explain

COMMAND = explain(get_command(app))


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, below in getattr(command, "commands", {}).items():
        if hasattr(below, "commands"):
            yield from commands(below, (*path, name))
        else:
            yield (*path, name), below


ALL = dict(commands(COMMAND))


def example(command: Any) -> str:
    [line] = [line.strip() for line in command.help.splitlines() if line.strip().startswith("Example: ")]
    return line.removeprefix("Example: ")


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_an_example_that_parses(path: tuple[str, ...]) -> None:
    words = shlex.split(example(ALL[path]))
    assert tuple(words[: len(path) + 1]) == ("pythiageo", *path)
    # raises for an option that there is not, a missing argument, a value of another kind
    ALL[path].make_context(" ".join(path), words[len(path) + 1 :], parent=typer.Context(COMMAND))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_value_has_a_metavar_that_people_know(path: tuple[str, ...]) -> None:
    for parameter in ALL[path].params:
        flag = getattr(parameter, "is_flag", False)
        assert (parameter.metavar == "") == flag, parameter.name
        assert not str(parameter.metavar).startswith("<")
        assert parameter.help


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("path", [(), ("analyze",), ("claims",), ("runs", "excerpt")], ids=" ".join)
def test_help_fits_and_has_a_short_name(
    path: tuple[str, ...], columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = []
    for flag in ("-h", "--help"):
        assert cli([*path, flag]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert all(len(line) <= int(columns) for line in shown[0].splitlines())
    assert "<" not in shown[0].replace("(?P<step>", "").replace("<=", "")
    assert "Example: pythiageo" in shown[0]


def test_commands_and_options_stand_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["-h"]) == 0
    shown = capsys.readouterr().out
    for heading in ("Measure", "Look", "Ask", "Before you measure", "Share", "What there is"):
        assert f"╭─ {heading} ─" in shown
    assert "╭─ Commands" not in shown  # each stands under a heading
    assert cli(["claims", "-h"]) == 0
    assert "╭─ Output ─" in capsys.readouterr().out


def test_without_a_word_there_is_help_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([]) == 2
    shown = "".join(capsys.readouterr())
    assert "Usage: pythiageo" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(("typed", "found"), [("pythiageo pl", {"plan", "plot"}), ("pythiageo show nano", {"nano-7"})])
def test_a_shell_completes_commands_and_runs(typed: str, found: set[str], tmp_path: Path) -> None:
    (tmp_path / "outputs" / "nano-7").mkdir(parents=True)
    (tmp_path / "outputs" / "micro-7").mkdir()
    asked = {"_PYTHIAGEO_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "pythiageo"], env={**os.environ, **asked}, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert set(done.stdout.split()) == found, done.stderr
