"""docs/geometry.md: its blocks run one after the other and print what it quotes.

Ranks of random states, to 5%: the smallest whole number, 23, may round over elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from printed import assert_alike, run_blocks

PAGE = (Path(__file__).parents[2] / "docs" / "geometry.md").read_text(encoding="utf-8")


def test_every_table_is_printed_by_its_block() -> None:
    for lines, quoted in run_blocks(PAGE, 3):
        assert_alike(lines, quoted, rel=5e-2)
