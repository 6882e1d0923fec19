"""docs/geometry.md: its blocks run one after the other and print what it quotes.

Ranks of random states, to 5%: the smallest whole number, 23, may round over elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "geometry.md").read_text(encoding="utf-8")


def test_every_table_is_printed_by_its_block() -> None:
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```python") == 2
    names: dict[str, object] = {}
    for code, quoted in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        assert len(lines) == len(quoted.splitlines())
        for line, expected in zip(lines, quoted.splitlines(), strict=True):
            number = r"\d+(?:\.\d+)?"
            assert re.sub(rf" *{number}", " ", line) == re.sub(rf" *{number}", " ", expected)
            values = [float(value) for value in re.findall(number, line)]
            assert values == pytest.approx([float(value) for value in re.findall(number, expected)], rel=5e-2)
