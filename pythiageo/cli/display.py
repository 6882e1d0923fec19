"""What people see while a run works, and the small tables that commands print."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pythiageo.errors import count_noun
from pythiageo.untrusted_text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from pythiageo.estimate.plan import Plan
    from pythiageo.progress import Progress, Reporter

_GAP = 2
"""Cells between the columns of a table."""
PIPED = 200
"""Columns of output that goes to no terminal."""


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
        from rich.table import Column

        # names and notes give way, and the bar: the time left never does
        name = Column(no_wrap=True, overflow="ellipsis", max_width=24)
        note = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (
            rich_progress.TextColumn("[bold]{task.description}", table_column=name),
            rich_progress.BarColumn(bar_width=28 if console.width >= 110 else 10),
            rich_progress.TextColumn("{task.fields[count]}"),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("left"),
            rich_progress.TimeRemainingColumn(elapsed_when_finished=False),
            rich_progress.TextColumn("[dim]{task.fields[note]}", table_column=note),
        )
        with rich_progress.Progress(*columns, console=console, expand=True) as bars:
            ids = {name: bars.add_task(_escape(name), total=1, note="waiting", count="", start=False) for name in names}

            def report(event: Progress) -> None:
                task = ids[event.run]
                if not bars.tasks[task].started:
                    # a resumed run starts where it stood: the speed is that of this session
                    bars.update(task, completed=event.done, total=event.total)
                    bars.start_task(task)
                count = f"{int(event.done)}/{event.total}"
                bars.update(task, completed=event.done, total=event.total, note=_escape(event.note), count=count)

            yield report


_HEARTBEAT = 60.0
"""Seconds after which a run says where it is, though it has not come on by a tenth."""
_ALERT = 15.0
"""Seconds between two lines that say that something is not as it should be."""


class _Lines:
    """One line a run every tenth of the way, and every minute; every 15 s where something is not as it should be."""

    def __init__(self) -> None:
        self._tenth: dict[str, int] = {}
        self._begun: dict[str, tuple[float, float]] = {}
        self._said: dict[str, float] = {}

    def report(self, event: Progress) -> None:
        now = time.monotonic()
        begun, first = self._begun.setdefault(event.run, (now, event.done))
        silent = now - self._said.get(event.run, begun)
        due = silent >= _HEARTBEAT or (event.alert and silent >= _ALERT)
        tenth = int(10 * event.done / max(1, event.total))
        if tenth == self._tenth.get(event.run) and event.note != "done" and not due:
            return
        self._tenth[event.run], self._said[event.run] = tenth, now
        spent = now - begun
        left = spent / (event.done - first) * (event.total - event.done) if event.done > first else None
        when = "" if left is None or event.note == "done" else f", {left:.0f} s left"
        say(f"{event.run}: {int(event.done)}/{event.total} {event.note}{when}", err=True)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(visible(text))


def say(text: str = "", err: bool = False) -> None:
    """Print a text to stdout or stderr, and a newline. Names in it may be a stranger's: nothing in it is obeyed.

    With the tables and bars here the only way to the terminal.
    """
    typer.echo(visible(text), err=err)


def say_wrapped(text: str) -> None:
    """Print a sentence to stdout, folded between words where it is wider than the terminal."""
    from textwrap import fill

    say(fill(visible(text), width(), break_long_words=False, break_on_hyphens=False, subsequent_indent="  "))


def count_observations(total: int, without_value: int) -> str:
    """Return in words how many observations there are."""
    return f"{count_noun(total, 'observation')}, {without_value:,} of them without a value"


def say_next(*commands: str) -> None:
    """Say on stderr which commands are worth typing next."""
    for index, command in enumerate(commands):
        say(f"{'next:' if not index else '     '} pythiageo {command}", err=True)


def open_page(path: Path) -> None:
    """Open a page in the browser; where there is none, say so."""
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser was found here: open {path} in one", err=True)


def width() -> int:
    """Return the columns of the terminal; of output that goes elsewhere ``PIPED``, for there is nothing to fold for."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else PIPED


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout; cells are shown as they are, never as markup.

    Text of several words folds between them; a name or a number is never broken. Where the columns do not fit
    beside one another even so, each row is a list of its cells.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(visible(title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    body = [[_cell(cell) for cell in row] for row in rows]
    console = Console(width=width())
    columns = [[visible(name), *(row[index] for row in body)] for index, name in enumerate(header)]
    widths = _fit([_cells(column) for column in columns], [_words(column) for column in columns], console.width)
    if widths is None:
        _print_rows(console, title, header, body)
        return
    for index, name in enumerate(header):
        numeric = bool(body) and all(_is_number(row[index]) for row in body)
        justify: Any = "right" if numeric else "left"
        table.add_column(Text(visible(name)), justify=justify, overflow="fold", width=widths[index])
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _fit(natural: Sequence[int], least: Sequence[int], width: int) -> list[int] | None:
    """Return widths of columns side by side, the widest narrowed first but none below its least; ``None``: no way."""
    room = width - _GAP * len(natural)
    for widest in range(max(natural, default=1), 0, -1):
        widths = [min(wish, max(low, widest)) for wish, low in zip(natural, least, strict=True)]
        if sum(widths) <= room:
            return widths
    return None


def width_beside(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the columns of a terminal that a table takes whose cells do not fold."""
    return sum(_cells([name, *(row[index] for row in rows)]) + _GAP for index, name in enumerate(header))


def _cells(texts: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max((cell_len(line) for text in texts for line in text.split("\n")), default=1)


def _words(texts: Iterable[str]) -> int:
    """Return the cells of the longest word."""
    return _cells(word for text in texts for word in text.split())


def _print_rows(console: Console, title: str, header: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """Print each row as a list: its first cell, and under it the others with their heads."""
    from rich.padding import Padding
    from rich.text import Text

    say(title)
    for row in body:
        console.print(Text(f"{visible(header[0])} {row[0]}"), soft_wrap=True)
        for name, cell in zip(header[1:], row[1:], strict=True):
            text = Text(f"{visible(name)}: {cell}")
            fits = _words([text.plain]) + 4 <= console.width
            console.print(Padding(text, (0, 0, 0, 4)) if fits else Text("    ") + text, soft_wrap=not fits)


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """Return a plan as rows for people."""
    left_out = ", ".join(f"{count} {verdict}" for verdict, count in plan.left_out.items())
    parts = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in plan.seconds.items())
    each, together = (", a worker", f" on {plan.workers} workers") if plan.workers > 1 else ("", "")
    rows = [
        ("series", plan.series),
        ("model", f"{plan.architecture}, {plan.parameters:,} parameters"),
        (
            "checkpoints",
            f"{plan.to_measure} of {plan.checkpoints}" + (f" (not measured: {left_out})" if left_out else ""),
        ),
        ("probes", f"{plan.forward_tokens:,} tokens a checkpoint"),
        ("download", f"{_gb(plan.download_bytes)}, the largest checkpoint {_gb(plan.largest_bytes)}"),
        (f"peak disk{each}", f"{_gb(plan.disk_peak_bytes)} of {_gb(plan.disk_free_bytes)} free"),
        (f"peak memory{each}", f"about {_gb(plan.memory_peak_bytes)} of {_gb(plan.memory_free_bytes)} free"),
        ("a checkpoint", f"about {_duration(plan.checkpoint_seconds)}: {parts}"),
        ("all of them", f"about {_duration(plan.total_seconds)}{together}"),
    ]
    if plan.card is not None:
        rows.insert(-2, ("times", f"computed from rates of one {plan.card}, not timed here"))
    if kept := {kind: count for kind, count in plan.kept_bytes.items() if count}:
        sizes = " and ".join(f"{kind} of {_gb(count)}" for kind, count in kept.items())
        rows.insert(-2, ("kept beside the table", f"about {sizes}"))
    if plan.audit_bytes:
        rows.insert(4, ("audit by value", f"{_gb(plan.audit_bytes)} at most are read first"))
    if plan.landscape_checkpoints:
        took = f"about {_duration(plan.landscape_seconds)} each, roughly"
        rows.insert(-1, ("landscape", f"{count_noun(plan.landscape_checkpoints, 'checkpoint')}, {took}"))
    rows += [("note", remark) for remark in plan.remarks]
    if plan.download_bytes:
        rows.append(("downloads keep pace", f"from {plan.pace_bytes / 1e6:.1f} MB/s on"))
    return rows


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return visible(str(value))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return cell == "-"
    return True


def print_json(value: Any) -> None:
    """Print ``value`` as JSON to stdout, for scripts; every character that is not ASCII is escaped."""
    print(json.dumps(value, indent=2, default=str))
