"""docs/findings.md: its commands and blocks run, and print what it quotes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shlex
from pathlib import Path

import pytest

from pythiageo.cli.app import run as cli

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not DATA.is_dir(), reason="the tables measured by others are not here")
def test_every_figure_is_printed_by_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = re.findall(r"^\| (\S+\.parquet) \| ([0-9a-f]{64}) \|$", PAGE, re.MULTILINE)
    assert len(hashes) == 3
    for name, sha in hashes:
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == sha
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^pythiageo (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 9
    for command in commands:
        assert cli(shlex.split(command.replace("../shared/data", str(DATA)))) == 0
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```python") == 5
    names: dict[str, object] = {}
    for code, quoted in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert [line.rstrip() for line in printed.getvalue().splitlines()] == quoted.splitlines()
