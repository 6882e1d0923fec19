"""docs/geometry.md: its blocks run one after the other and print what it quotes.

Ranks of random states, to 5%: the smallest whole number, 23, may round over elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from printed import run_blocks

PAGE = (Path(__file__).parents[2] / "docs" / "geometry.md").read_text(encoding="utf-8")


def test_every_table_is_printed_by_its_block() -> None:
    for lines, quoted in run_blocks(PAGE, 2):
        assert len(lines) == len(quoted)
        for line, expected in zip(lines, quoted, strict=True):
            number = r"\d+(?:\.\d+)?"
            assert re.sub(rf" *{number}", " ", line) == re.sub(rf" *{number}", " ", expected)
            values = [float(value) for value in re.findall(number, line)]
            assert values == pytest.approx([float(value) for value in re.findall(number, expected)], rel=5e-2)
