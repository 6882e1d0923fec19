"""What a page of the docs shows as run: files, commands, blocks of Python, and what the page says that they print."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pythiageo.cli.app import run as cli

NUMBER = r"\d+(?:\.\d+)?"
FENCE = re.compile(r"```(python|sh|toml)\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


def run_blocks(page: str, count: int) -> Iterator[tuple[list[str], list[str]]]:
    """Run every block of a page in one namespace; yield the lines that it prints, and those that the page quotes.

    ``count``: how many blocks there are, each with its output behind it.
    """
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == page.count("```python") == count
    names: dict[str, object] = {}
    for code, quoted in blocks:
        yield _execute(code, names), quoted.splitlines()


def run_page(page: str, capfd: pytest.CaptureFixture[str], rel: float, absolute: float) -> int:
    """Do all that a page says, in its order, in the current folder; hold what is printed against what the page quotes.

    A block of TOML is a file, named in its first line. A command ends with code 0, or with what ``# exit code N``
    behind it says, and prints the quoted lines in their order, others between them; a quoted line that ends in
    `` …`` is a line's beginning. A block of Python prints exactly what is quoted; where ``...`` is quoted, others
    between, too. Returns how many commands and blocks of Python there were.
    """
    fences = FENCE.findall(page)
    assert sum(page.count(f"```{language}") for language in ("python", "sh", "toml")) == len(fences)
    names: dict[str, object] = {}
    done = 0
    for language, code, quoted in fences:
        if language == "toml":
            path = Path(code.splitlines()[0].removeprefix("# "))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
        elif language == "python":
            hold = _assert_holds if "...\n" in quoted else assert_alike
            hold(_execute(code, names), quoted.splitlines(), rel, absolute)
            done += 1
        else:
            printed = ""
            for line in filter(None, code.replace("\\\n", " ").splitlines()):
                command, _, said = line.partition("  # exit code ")
                program, *arguments = shlex.split(command)
                assert program == "pythiageo"
                capfd.readouterr()
                assert cli(arguments) == int(said or 0), f"{command}\n{capfd.readouterr().err}"
                printed += "".join(capfd.readouterr())
                done += 1
            _assert_holds(printed.splitlines(), quoted.splitlines(), rel, absolute)
    return done


def assert_alike(lines: list[str], quoted: list[str], rel: float, absolute: float = 0.0) -> None:
    """Hold printed lines against quoted ones: words are equal, numbers to ``rel`` of their size, widths may differ."""
    assert len(lines) == len(quoted), "\n".join(lines)
    for line, expected in zip(lines, quoted, strict=True):
        assert re.sub(rf" *{NUMBER}", " ", line) == re.sub(rf" *{NUMBER}", " ", expected)
        assert _numbers(line) == pytest.approx(_numbers(expected), rel=rel, abs=absolute), f"{line}\n{expected}"


def _assert_holds(lines: list[str], quoted: list[str], rel: float, absolute: float) -> None:
    """Find every quoted line among the printed ones, in their order."""
    rest = iter(lines)
    for expected in quoted:
        if expected.strip() in {"", "..."}:
            continue
        words, numbers = _words(expected.removesuffix(" …")), _numbers(expected)
        close = pytest.approx(numbers, rel=rel, abs=absolute)
        begins = expected.endswith(" …")
        assert any(
            (_words(line).startswith(words) if begins else _words(line) == words)
            and (_numbers(line)[: len(numbers)] if begins else _numbers(line)) == close
            for line in rest
        ), f"{expected}\n is not printed there, in\n" + "\n".join(lines)


def _execute(code: str, names: dict[str, object]) -> list[str]:
    """Run a block in a namespace; return the lines that it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return [line.rstrip() for line in printed.getvalue().splitlines()]


def _words(line: str) -> str:
    """Return a line without its numbers, words one space apart: columns of a table are as wide as their numbers."""
    return " ".join(re.sub(NUMBER, " ", line).split())


def _numbers(line: str) -> list[float]:
    return [float(value) for value in re.findall(NUMBER, line)]
