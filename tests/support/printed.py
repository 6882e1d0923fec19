"""Blocks of Python in a page of the docs, and what the page says that they print."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

import pytest

NUMBER = r"\d+(?:\.\d+)?"


def run_blocks(page: str, count: int) -> Iterator[tuple[list[str], list[str]]]:
    """Run every block of a page in one namespace; yield the lines that it prints, and those that the page quotes.

    ``count``: how many blocks there are, each with its output behind it.
    """
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == page.count("```python") == count
    names: dict[str, object] = {}
    for code, quoted in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        yield [line.rstrip() for line in printed.getvalue().splitlines()], quoted.splitlines()


def assert_alike(lines: list[str], quoted: list[str], rel: float) -> None:
    """Hold printed lines against quoted ones: words are equal, numbers to ``rel`` of their size, widths may differ."""
    assert len(lines) == len(quoted)
    for line, expected in zip(lines, quoted, strict=True):
        assert re.sub(rf" *{NUMBER}", " ", line) == re.sub(rf" *{NUMBER}", " ", expected)
        values = [float(value) for value in re.findall(NUMBER, line)]
        assert values == pytest.approx([float(value) for value in re.findall(NUMBER, expected)], rel=rel)
