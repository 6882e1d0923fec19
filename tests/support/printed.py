"""Blocks of Python in a page of the docs, and what the page says that they print."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator


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
