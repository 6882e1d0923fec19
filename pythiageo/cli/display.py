"""What people see while a run works, and the small tables that commands print."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pythiageo.runs.progress import Progress, Reporter


@contextmanager
def shown_progress(names: list[str], quiet: bool) -> Iterator[Reporter]:
    """Give a reporter that draws a bar a run, with the time left; plain lines where the output is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
    elif not console.is_terminal:
        yield _Lines().report
    else:
        from rich import progress as rich_progress

        columns = (
            rich_progress.TextColumn("[bold]{task.description}"),
            rich_progress.BarColumn(bar_width=28),
            rich_progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("left"),
            rich_progress.TimeRemainingColumn(elapsed_when_finished=False),
            rich_progress.TextColumn("[dim]{task.fields[note]}"),
        )
        with rich_progress.Progress(*columns, console=console) as bars:
            ids = {name: bars.add_task(name, total=1, note="waiting", start=False) for name in names}

            def report(event: Progress) -> None:
                task = ids[event.run]
                if not bars.tasks[task].started:
                    # a resumed run starts where it stood: the speed is that of this session
                    bars.update(task, completed=event.done, total=event.total)
                    bars.start_task(task)
                bars.update(task, completed=event.done, total=event.total, note=_escape(event.note))

            yield report


class _Lines:
    """One line a run every tenth of the way."""

    def __init__(self) -> None:
        self._tenth: dict[str, int] = {}
        self._begun: dict[str, tuple[float, float]] = {}

    def report(self, event: Progress) -> None:
        begun, first = self._begun.setdefault(event.run, (time.monotonic(), event.done))
        tenth = int(10 * event.done / max(1, event.total))
        if tenth == self._tenth.get(event.run) and event.note != "done":
            return
        self._tenth[event.run] = tenth
        spent = time.monotonic() - begun
        left = spent / (event.done - first) * (event.total - event.done) if event.done > first else None
        when = "" if left is None or event.note == "done" else f", {left:.0f} s left"
        print(f"{event.run}: {event.done:.0f}/{event.total} {event.note}{when}", file=sys.stderr, flush=True)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout; cells are shown as they are, never as markup. Long cells wrap."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    body = [[_cell(cell) for cell in row] for row in rows]
    for index, name in enumerate(header):
        numeric = bool(body) and all(_is_number(row[index]) for row in body)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    # piped output keeps whole rows: there is no terminal to fold them for
    Console(width=None if console.is_terminal else 200).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True


def print_json(value: Any) -> None:
    """Print ``value`` as JSON to stdout, for scripts."""
    print(json.dumps(value, indent=2, default=str))
